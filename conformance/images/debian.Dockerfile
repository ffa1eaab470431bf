FROM plimsoll.test/debian:1
CMD ["bash"]
