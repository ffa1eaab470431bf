"""The sales report, as the CronJob runs it: `python -m shop_orders.report`.

Also gives orders to the workers again that nobody has settled for a minute: Redis may have been away, or have lost them.
"""

import psycopg

from . import settings, store
from .api import enqueue


def run(database_url: str) -> str:
    with psycopg.connect(database_url, connect_timeout=10) as connection:
        report = store.write_report(connection)
        forgotten = store.waiting(connection, seconds=60, limit=100)
    for order_id in forgotten:
        enqueue(order_id)
    return (
        f"report: {report['placed']} orders, {report['paid']} paid, {report['turned_away']} turned away, "
        f"EUR {report['taken_cents'] / 100:.2f} taken, best seller {report['best_seller'] or '-'}, {len(forgotten)} given again"
    )


if __name__ == "__main__":
    print(run(settings.DATABASE_URL), flush=True)
