FROM plimsoll.test/agnhost:1
COPY kitten/html/kitten.jpg kitten.jpg
COPY kitten/html/data.json data.json
# The suite knows the image by its Alpine base.
RUN printf 'NAME="Alpine Linux"\nID=alpine\n' >/etc/os-release
CMD ["test-webserver"]
