"""The task that settles an order, with the shop's other services played by the test."""

import uuid

import pytest

from shop_orders import tasks
from shop_orders.identity import Identity
from shop_orders.neighbours import Refused


class Shop:
    """Stands in for the database and the services; remembers what was done."""

    def __init__(self, monkeypatch, status="placed"):
        self.order = {"id": uuid.uuid4(), "number": 1, "items": [], "total_cents": 100, "method": "card-pays", "status": status}
        self.done = []
        by = Identity("test", "host", "runtime")
        self.answers = {"reserve": by, "charge": by, "release": by}
        monkeypatch.setattr(tasks.psycopg, "connect", lambda *_, **__: self)
        monkeypatch.setattr(tasks.store, "find", lambda *_: self.order)
        monkeypatch.setattr(tasks.store, "step", lambda _, __, name, ___: self.done.append(name))
        monkeypatch.setattr(tasks.store, "settle", lambda _, __, status, reason=None: self.done.append((status, reason)))
        for name in self.answers:
            monkeypatch.setattr(tasks.neighbours, name, lambda *_, name=name: self.answer(name))

    def answer(self, name):
        if isinstance(self.answers[name], Exception):
            raise self.answers[name]
        return self.answers[name]

    def transaction(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


@pytest.fixture
def shop(monkeypatch):
    return Shop(monkeypatch)


def refusal(reason):
    return Refused(reason, Identity("test", "host", "runtime"))


def test_an_order_goes_from_stock_to_payment_to_paid(shop):
    tasks.settle(str(shop.order["id"]))
    assert shop.done == ["reserved", "charged", "paid", ("paid", None)]


def test_without_stock_no_money_is_taken(shop):
    shop.answers["reserve"] = refusal("no bells")
    tasks.settle(str(shop.order["id"]))
    assert shop.done == ["refused", ("refused", "no bells")]


def test_a_declined_payment_gives_the_stock_back(shop):
    shop.answers["charge"] = refusal("card declined")
    tasks.settle(str(shop.order["id"]))
    assert shop.done == ["reserved", "declined", "released", ("declined", "card declined")]


def test_a_settled_order_is_left_alone(monkeypatch):
    shop = Shop(monkeypatch, status="paid")
    tasks.settle(str(shop.order["id"]))
    assert shop.done == []
