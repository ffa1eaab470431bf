"""The services next door, over HTTP. What fails here may be tried again: each request bears the order's id."""

import requests

from . import identity, settings
from .identity import Identity

TIMEOUT = (3, 10)
"""Seconds to connect and to answer."""


class Refused(Exception):
    """The service understood and said no; asking again will not help."""

    def __init__(self, reason: str, by: Identity):
        super().__init__(reason)
        self.by = by


def products() -> list[dict]:
    answer = requests.get(f"{settings.CATALOGUE_URL}/api/catalogue/products", timeout=TIMEOUT)
    answer.raise_for_status()
    return answer.json()["products"]


def reserve(order_id, items: list[dict]) -> Identity:
    """Takes the goods out of stock, once an order. Raises Refused when there are too few."""
    answer = requests.put(
        f"{settings.CATALOGUE_URL}/internal/reservations/{order_id}",
        json={"items": [{"product": item["product"], "quantity": item["quantity"]} for item in items]},
        timeout=TIMEOUT,
    )
    by = identity.of(answer, "catalogue")
    if answer.status_code == 409:
        raise Refused(answer.json().get("error", "out of stock"), by)
    answer.raise_for_status()
    return by


def release(order_id) -> Identity:
    """Puts the goods back."""
    answer = requests.delete(f"{settings.CATALOGUE_URL}/internal/reservations/{order_id}", timeout=TIMEOUT)
    answer.raise_for_status()
    return identity.of(answer, "catalogue")


def charge(order_id, cents: int, method: str) -> Identity:
    """Takes the money, once an order. Raises Refused when the payment is declined."""
    answer = requests.post(
        f"{settings.PAYMENT_URL}/charges",
        json={"order": str(order_id), "amountCents": cents, "currency": "EUR", "method": method},
        headers={"Idempotency-Key": str(order_id)},
        timeout=TIMEOUT,
    )
    by = identity.of(answer, "payment")
    if answer.status_code == 402:
        raise Refused(answer.json().get("reason", "declined"), by)
    answer.raise_for_status()
    return by
