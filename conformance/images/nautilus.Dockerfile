FROM plimsoll.test/agnhost:1
COPY nautilus/html/nautilus.jpg nautilus.jpg
COPY nautilus/html/data.json data.json
CMD ["test-webserver"]
