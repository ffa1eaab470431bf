"""Applies schema.sql: `python -m shop_orders.schema`. Several may run at once, and each again: the result is the same."""

from importlib.resources import files

import psycopg

from . import settings

LOCK = 0x73686F70
"""Of the advisory lock that lets one at a time create tables ("shop")."""


def apply(database_url: str) -> int:
    """Returns how many products there are then."""
    script = files(__package__).joinpath("schema.sql").read_text(encoding="utf-8")
    with psycopg.connect(database_url, connect_timeout=10) as connection:
        connection.execute("select pg_advisory_xact_lock(%s)", [LOCK])
        connection.execute(script)
        (products,) = connection.execute("select count(*) from catalogue.products").fetchone()
    return products


if __name__ == "__main__":
    print(f"schema: the tables are there, and {apply(settings.DATABASE_URL)} products", flush=True)
