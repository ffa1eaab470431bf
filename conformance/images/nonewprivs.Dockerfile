FROM plimsoll.test/debian:1
COPY nonewprivs /usr/local/bin/nnp
RUN chmod +s /usr/local/bin/nnp
CMD ["nnp"]
