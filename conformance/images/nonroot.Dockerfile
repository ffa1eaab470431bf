FROM plimsoll.test/agnhost:1
USER 1234
