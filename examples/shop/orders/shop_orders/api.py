"""The HTTP API: place an order, look at one, list the newest, read the last report."""

import logging
import uuid

import psycopg
import requests
from flask import Flask, jsonify, request
from kombu.exceptions import OperationalError as BrokerError
from psycopg_pool import ConnectionPool, PoolTimeout
from werkzeug.exceptions import HTTPException

from . import identity, neighbours, placing, settings, store, tasks

log = logging.getLogger(__name__)


def create_app(database_url: str = settings.DATABASE_URL) -> Flask:
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 64 * 1024
    me = identity.own("orders")
    # Opened here, filled in the background: the API starts before the database does.
    pool = ConnectionPool(
        database_url, min_size=1, max_size=4, timeout=5, open=True, check=ConnectionPool.check_connection,
        kwargs={"connect_timeout": 3}, reconnect_timeout=60,
    )

    @app.post("/api/orders")
    def place():
        wanted = placing.parse(request.get_json(silent=True))
        key = request.headers.get("Idempotency-Key", "") or uuid.uuid4().hex
        if len(key) > 100:
            raise placing.Invalid({"Idempotency-Key": "at most 100 characters"})
        lines, total = placing.priced(wanted, neighbours.products())
        with pool.connection() as connection:
            order, new = store.place(connection, key, wanted, lines, total, me)
            steps = store.journey(connection, order["id"])
        if new:
            enqueue(order["id"])
        return jsonify(shown(order, steps)), 201 if new else 200

    @app.get("/api/orders/<uuid:order_id>")
    def one(order_id):
        with pool.connection() as connection:
            order = store.find(connection, order_id)
            if order is None:
                return jsonify(error="there is no such order"), 404
            return jsonify(shown(order, store.journey(connection, order_id)))

    @app.get("/api/orders")
    def newest():
        with pool.connection() as connection:
            return jsonify(orders=[shown(order) for order in store.newest(connection, 8)])

    @app.get("/api/orders/report")
    def report():
        with pool.connection() as connection:
            last = store.last_report(connection)
        if last is None:
            return jsonify({})
        return jsonify(
            writtenAt=last["written_at"].isoformat(), placed=last["placed"], paid=last["paid"],
            turnedAway=last["turned_away"], takenCents=last["taken_cents"], bestSeller=last["best_seller"],
        )

    @app.get("/healthz")
    def healthy():
        return jsonify(status="ok")

    @app.get("/readyz")
    def ready():
        with pool.connection(timeout=2) as connection:
            connection.execute("select 1 from orders.orders limit 1")
        return jsonify(status="ok")

    @app.after_request
    def say_who(response):
        response.headers["X-Served-By"] = me.header()
        response.headers["Cache-Control"] = "no-store"
        return response

    @app.errorhandler(placing.Invalid)
    def invalid(error):
        return jsonify(error="the order cannot be placed", fields=error.fields), 400

    @app.errorhandler(requests.RequestException)
    def no_catalogue(error):
        log.warning("catalogue: %s", error)
        return jsonify(error="the catalogue does not answer; please try again"), 503

    @app.errorhandler(psycopg.Error)
    @app.errorhandler(PoolTimeout)
    def no_database(error):
        log.warning("database: %s", error)
        return jsonify(error="the order book cannot be reached; please try again"), 503

    @app.errorhandler(HTTPException)
    def other(error):
        return jsonify(error=error.description), error.code

    return app


def enqueue(order_id) -> None:
    """Gives an order to the workers. It is written already: if Redis is away, the report's run gives it again."""
    try:
        tasks.settle.apply_async([str(order_id)], retry=True, retry_policy={"max_retries": 2, "interval_start": 0.1})
    except BrokerError as error:
        log.warning("order %s waits for Redis: %s", order_id, error)


def shown(order: dict, steps: list[dict] | None = None) -> dict:
    """An order as the API shows it. The customer's name stays inside."""
    out = {
        "id": str(order["id"]), "number": order["number"], "items": order["items"], "totalCents": order["total_cents"],
        "status": order["status"], "reason": order["reason"], "placedAt": order["placed_at"].isoformat(),
    }
    if steps is not None:
        out["journey"] = [{**step, "at": step["at"].isoformat(timespec="milliseconds")} for step in steps]
    return out
