"""How gunicorn runs the API."""

import os

bind = os.environ.get("BIND", "0.0.0.0:8080")
wsgi_app = "shop_orders.api:create_app()"
workers = 1
threads = 8
timeout = 30
graceful_timeout = 20
keepalive = 30
# Not on the (read-only) disk: gunicorn touches a file there to see whether its workers live.
worker_tmp_dir = "/dev/shm"
control_socket_disable = True
