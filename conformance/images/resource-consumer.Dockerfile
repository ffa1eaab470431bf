FROM plimsoll.test/debian:1
COPY consumer /consumer
COPY consume-cpu /consume-cpu
EXPOSE 8080
ENTRYPOINT ["/consumer"]
