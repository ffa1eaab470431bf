import pytest

from shop_orders import api


@pytest.fixture
def client():
    # No database is asked in these tests; port 1 answers nobody.
    return api.create_app("postgresql://nobody@127.0.0.1:1/nothing").test_client()


def test_a_bad_order_is_answered_with_its_faults(client):
    answer = client.post("/api/orders", json={"customer": "Ada", "method": "card-pays", "items": []})
    assert answer.status_code == 400
    assert answer.json["fields"] == {"items": "at least one product is needed"}


def test_what_is_not_json_is_a_bad_order(client):
    assert client.post("/api/orders", data="{").status_code == 400


def test_a_body_that_is_too_large_is_refused(client):
    assert client.post("/api/orders", data="x" * 70_000, content_type="application/json").status_code in (400, 413)


def test_every_answer_says_who_gave_it(client):
    assert client.get("/healthz").headers["X-Served-By"].startswith("orders/")


def test_without_a_database_the_api_lives_but_is_not_ready(client):
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503
