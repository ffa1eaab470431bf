FROM plimsoll.test/debian:1
RUN sed -i 's/listen \[::\]:80.*//' /etc/nginx/sites-enabled/default && rm -f /var/www/html/* && mkdir -p /usr/share/nginx/html \
    && printf '<!DOCTYPE html><html><head><title>Welcome to nginx!</title></head><body><h1>Welcome to nginx!</h1></body></html>\n' >/usr/share/nginx/html/index.html \
    && sed -i 's#root /var/www/html;#root /usr/share/nginx/html;#' /etc/nginx/sites-enabled/default
EXPOSE 80
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
