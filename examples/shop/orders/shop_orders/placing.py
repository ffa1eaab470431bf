"""What an order must be to be placed. Pure: given what was sent and what the catalogue says, an order or the faults in it."""

from dataclasses import dataclass

METHODS = ("card-pays", "card-declined")
MAX_LINES = 20
MAX_QUANTITY = 20


class Invalid(Exception):
    """Faults by field."""

    def __init__(self, fields: dict[str, str]):
        super().__init__("; ".join(f"{name}: {fault}" for name, fault in fields.items()))
        self.fields = fields


@dataclass(frozen=True)
class Wanted:
    customer: str
    method: str
    quantities: dict[str, int]
    """By product id."""


def parse(body: object) -> Wanted:
    """Raises Invalid."""
    if not isinstance(body, dict):
        raise Invalid({"body": "must be a JSON object"})
    faults = {}
    customer = body.get("customer")
    if not isinstance(customer, str) or not customer.strip():
        faults["customer"] = "a name is needed"
    elif len(customer) > 80:
        faults["customer"] = "at most 80 characters"
    elif not customer.isprintable():
        faults["customer"] = "has characters that cannot be printed"
    method = body.get("method")
    if method not in METHODS:
        faults["method"] = "must be one of " + ", ".join(METHODS)
    items = body.get("items")
    quantities: dict[str, int] = {}
    if not isinstance(items, list) or not items:
        faults["items"] = "at least one product is needed"
    elif len(items) > MAX_LINES:
        faults["items"] = f"at most {MAX_LINES} lines"
    else:
        for index, item in enumerate(items):
            product = item.get("product") if isinstance(item, dict) else None
            quantity = item.get("quantity") if isinstance(item, dict) else None
            if not isinstance(product, str) or not 0 < len(product) <= 60 or "\0" in product:
                faults[f"items[{index}].product"] = "the id of a product is needed"
            elif type(quantity) is not int or not 0 < quantity <= MAX_QUANTITY:
                faults[f"items[{index}].quantity"] = f"must be from 1 to {MAX_QUANTITY}"
            elif product in quantities:
                faults[f"items[{index}].product"] = "stands there twice"
            else:
                quantities[product] = quantity
    if faults:
        raise Invalid(faults)
    return Wanted(customer.strip(), method, quantities)


def priced(wanted: Wanted, products: list[dict]) -> tuple[list[dict], int]:
    """The order's lines at today's prices, and their total in cents. Raises Invalid for a product that does not exist."""
    known = {product["id"]: product for product in products}
    unknown = [product for product in wanted.quantities if product not in known]
    if unknown:
        raise Invalid({"items": "there is no product " + ", ".join(unknown)})
    lines = [
        {"product": product, "name": known[product]["name"], "quantity": quantity, "priceCents": known[product]["priceCents"]}
        for product, quantity in wanted.quantities.items()
    ]
    return lines, sum(line["quantity"] * line["priceCents"] for line in lines)
