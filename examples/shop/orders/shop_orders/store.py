"""Orders in PostgreSQL. Every function takes a connection and leaves the transaction to its caller."""

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from .identity import Identity

COLUMNS = "id, number, customer, method, items, total_cents, status, reason, placed_at"


def place(connection: psycopg.Connection, key: str, wanted, lines: list[dict], total: int, by: Identity) -> tuple[dict, bool]:
    """Writes an order, unless one with this key is there: the order, and whether it is new."""
    row = _one(
        connection,
        f"""insert into orders.orders (idempotency_key, customer, method, items, total_cents) values (%s, %s, %s, %s, %s)
            on conflict (idempotency_key) do nothing returning {COLUMNS}""",
        [key, wanted.customer, wanted.method, Jsonb(lines), total],
    )
    if row is None:
        return _one(connection, f"select {COLUMNS} from orders.orders where idempotency_key = %s", [key]), False
    step(connection, row["id"], "placed", by)
    return row, True


def find(connection: psycopg.Connection, order_id) -> dict | None:
    return _one(connection, f"select {COLUMNS} from orders.orders where id = %s", [order_id])


def newest(connection: psycopg.Connection, limit: int) -> list[dict]:
    return _all(connection, f"select {COLUMNS} from orders.orders order by placed_at desc limit %s", [limit])


def waiting(connection: psycopg.Connection, seconds: int, limit: int) -> list:
    """Ids of orders that have been waiting for longer than `seconds`."""
    rows = _all(
        connection,
        """select id from orders.orders where status = 'placed' and placed_at < now() - make_interval(secs => %s)
           order by placed_at limit %s""",
        [seconds, limit],
    )
    return [row["id"] for row in rows]


def step(connection: psycopg.Connection, order_id, name: str, by: Identity) -> None:
    connection.execute(
        """insert into orders.steps (order_id, step, service, host, runtime) values (%s, %s, %s, %s, %s)
           on conflict do nothing""",
        [order_id, name, by.service, by.host, by.runtime],
    )


def settle(connection: psycopg.Connection, order_id, status: str, reason: str | None = None) -> None:
    """Ends an order, once: one that is settled stays as it is."""
    connection.execute(
        "update orders.orders set status = %s, reason = %s, settled_at = now() where id = %s and status = 'placed'",
        [status, reason, order_id],
    )


def journey(connection: psycopg.Connection, order_id) -> list[dict]:
    return _all(connection, "select step, service, host, runtime, at from orders.steps where order_id = %s order by at", [order_id])


def write_report(connection: psycopg.Connection) -> dict:
    return _one(
        connection,
        """insert into orders.reports (placed, paid, turned_away, taken_cents, best_seller)
           select count(*), count(*) filter (where status = 'paid'), count(*) filter (where status in ('declined', 'refused')),
                  coalesce(sum(total_cents) filter (where status = 'paid'), 0),
                  (select item ->> 'name' from orders.orders, jsonb_array_elements(items) as item where status = 'paid'
                   group by 1 order by sum((item ->> 'quantity')::int) desc, 1 limit 1)
           from orders.orders
           returning *""",
        [],
    )


def last_report(connection: psycopg.Connection) -> dict | None:
    return _one(connection, "select * from orders.reports order by written_at desc limit 1", [])


def _one(connection, query, values):
    return connection.cursor(row_factory=dict_row).execute(query, values).fetchone()


def _all(connection, query, values):
    return connection.cursor(row_factory=dict_row).execute(query, values).fetchall()
