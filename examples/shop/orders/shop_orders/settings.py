"""Settings, from the environment."""

import os

DATABASE_URL = os.environ.get("DATABASE_URL", "postgresql://shop:shop@127.0.0.1:5432/shop")
REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
CATALOGUE_URL = os.environ.get("CATALOGUE_URL", "http://127.0.0.1:8081")
PAYMENT_URL = os.environ.get("PAYMENT_URL", "http://127.0.0.1:8083")
ALIVE_FILE = os.environ.get("ALIVE_FILE", "/tmp/worker-alive")
"""Touched by the worker every second while its loop turns."""
