FROM plimsoll.test/debian:1
COPY sample-apiserver /sample-apiserver
ENTRYPOINT ["/sample-apiserver"]
