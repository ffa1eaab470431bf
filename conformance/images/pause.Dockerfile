FROM scratch
COPY agnhost /agnhost
USER 65535:65535
ENTRYPOINT ["/agnhost", "pause"]
