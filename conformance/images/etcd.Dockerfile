FROM plimsoll.test/debian:1
COPY etcd /usr/local/bin/etcd
CMD ["etcd"]
