FROM plimsoll.test/debian:1
COPY agnhost /agnhost
COPY coredns /coredns
COPY porter/localhost.crt porter/localhost.key /
RUN ln -s agnhost /agnhost-2 && mkdir -m 0777 /uploads && ln -sf /usr/bin/iperf /usr/local/bin/iperf \
    && useradd --uid 1000 user-defined-in-image && groupadd --gid 50000 group-defined-in-image \
    && usermod --append --groups group-defined-in-image user-defined-in-image
EXPOSE 80 8080 8081 9376 5000
ENTRYPOINT ["/agnhost"]
CMD ["pause"]
