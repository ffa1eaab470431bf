FROM plimsoll.test/agnhost:1
COPY kitten/html/kitten.jpg kitten.jpg
COPY kitten/html/data.json data.json
CMD ["test-webserver"]
