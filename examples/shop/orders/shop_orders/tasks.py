"""What happens to an order after it is placed: Celery tasks, with Redis between the API and the workers.

A task is acknowledged when it is done, so a worker that dies gives it back; every step may therefore come twice, and is
written so that the second time changes nothing.
"""

import logging
import os
from pathlib import Path

import celery
import psycopg
import requests
from celery import bootsteps

from . import identity, neighbours, settings, store
from .neighbours import Refused

log = logging.getLogger(__name__)

app = celery.Celery("shop", broker=settings.REDIS_URL)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        # After this many seconds without an acknowledgement, another worker gets the task.
        "visibility_timeout": 120,
        "socket_connect_timeout": 3,
        "socket_timeout": 30,
    },
    task_time_limit=60,
    worker_hijack_root_logger=False,
)

FAILURES = (requests.RequestException, psycopg.OperationalError)
"""That pass: a service or the database does not answer just now."""


@app.task(name="settle", bind=True, autoretry_for=FAILURES, retry_backoff=1, retry_backoff_max=30, max_retries=20)
def settle(self, order_id: str) -> None:
    """Sets the goods aside, takes the money, and marks the order: paid, declined, or refused for want of stock."""
    me = identity.own("worker")
    with psycopg.connect(settings.DATABASE_URL, autocommit=True, connect_timeout=5) as connection:
        order = store.find(connection, order_id)
        if order is None or order["status"] != "placed":
            return
        try:
            store.step(connection, order_id, "reserved", neighbours.reserve(order_id, order["items"]))
        except Refused as refusal:
            store.step(connection, order_id, "refused", refusal.by)
            store.settle(connection, order_id, "refused", str(refusal))
            return
        try:
            store.step(connection, order_id, "charged", neighbours.charge(order_id, order["total_cents"], order["method"]))
        except Refused as refusal:
            store.step(connection, order_id, "declined", refusal.by)
            store.step(connection, order_id, "released", neighbours.release(order_id))
            store.settle(connection, order_id, "declined", str(refusal))
            return
        with connection.transaction():
            store.step(connection, order_id, "paid", me)
            store.settle(connection, order_id, "paid")
        log.info("order %s is paid", order["number"])


class Alive(bootsteps.StartStopStep):
    """Touches a file every second while the worker's loop turns: what its liveness probe looks at."""

    requires = {"celery.worker.components:Timer"}

    def start(self, worker):
        self.timer = worker.timer.call_repeatedly(1.0, Path(settings.ALIVE_FILE).touch)

    def stop(self, worker):
        Path(settings.ALIVE_FILE).unlink(missing_ok=True)


app.steps["worker"].add(Alive)

if os.environ.get("LOG_LEVEL", "info") == "info":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
