FROM plimsoll.test/debian:1
COPY regression-issue-74839 /regression-issue-74839
ENTRYPOINT ["/regression-issue-74839"]
