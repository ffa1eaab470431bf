import pytest

from shop_orders import placing

GOODS = [{"id": "mug", "name": "Mug", "priceCents": 1250}, {"id": "bell", "name": "Bell", "priceCents": 8500}]
ORDER = {"customer": " Ada ", "method": "card-pays", "items": [{"product": "mug", "quantity": 2}, {"product": "bell", "quantity": 1}]}


def test_an_order_takes_its_prices_from_the_catalogue():
    wanted = placing.parse({**ORDER, "items": [{**item, "priceCents": 1} for item in ORDER["items"]]})
    lines, total = placing.priced(wanted, GOODS)
    assert wanted.customer == "Ada"
    assert total == 2 * 1250 + 8500
    assert lines[0] == {"product": "mug", "name": "Mug", "quantity": 2, "priceCents": 1250}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"customer": ""}, "customer"),
        ({"customer": "x" * 81}, "customer"),
        ({"customer": "a\0b"}, "customer"),
        ({"method": "gold"}, "method"),
        ({"method": ["card-pays"]}, "method"),
        ({"items": []}, "items"),
        ({"items": [{"product": "mug", "quantity": 1}] * 21}, "items"),
        ({"items": [{"product": "mug", "quantity": 0}]}, "items[0].quantity"),
        ({"items": [{"product": "mug", "quantity": True}]}, "items[0].quantity"),
        ({"items": [{"product": "mug", "quantity": 1}, {"product": "mug", "quantity": 1}]}, "items[1].product"),
        ({"items": ["mug"]}, "items[0].product"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(change, field):
    with pytest.raises(placing.Invalid) as caught:
        placing.parse({**ORDER, **change})
    assert list(caught.value.fields) == [field]


@pytest.mark.parametrize("body", [None, [], "order", 7])
def test_what_is_no_object_is_no_order(body):
    with pytest.raises(placing.Invalid):
        placing.parse(body)


def test_a_product_that_does_not_exist_cannot_be_ordered():
    wanted = placing.parse({**ORDER, "items": [{"product": "whale", "quantity": 1}]})
    with pytest.raises(placing.Invalid, match="whale"):
        placing.priced(wanted, GOODS)
