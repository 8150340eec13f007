"""The books of a measurement: the operator and its catalog, many customers with a package and a key, posted usage.

The catalog is made through the management API, as an operator makes it, so that the office publishes it. Customers are
too many for that: the rooms' own functions make them, many in one sealed transaction, in the order in which the office
would have called them.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import LiteralString

import msgspec

from tokenworks.access import keys
from tokenworks.access.keys import Holder
from tokenworks.app.client import OfficeClient, Record
from tokenworks.base import clock, ids
from tokenworks.base.database import Pool
from tokenworks.bench.endpoint import MODEL
from tokenworks.core.sales import net_of_tax
from tokenworks.ledger import buckets
from tokenworks.ledger.buckets import Priced
from tokenworks.shop import offers, order_rows, parties, sealed
from tokenworks.shop.offers import Offer
from tokenworks.shop.order_rows import Connection, Order, Payment
from tokenworks.shop.parties import Customer, LegalEntity

AT_ONCE = 250
KEYS_AT_ONCE = 20_000
OFFER = "bench"
_PAYER = "carrier/bench"
_GRANTED = 10_000_000_000
_LOOK_EVERY_S = 0.05
_PATIENCE_NS = 30 * clock.SECOND

_ENTITY: Record = {
    "id": "bench",
    "name": "Bench Telecom",
    "country": "CN",
    "currency": "CNY",
    "tax_basis_points": 600,
    "timezone": "Asia/Shanghai",
}
_TARIFF: Record = {"id": "bench", "unit": "token", "rates": {"*/*": {"input": "1000000", "output": "1000000"}}}
_PACKAGE: Record = {
    "id": OFFER,
    "name": "Bench",
    "price": {"amount": "1000", "unit": "CNY"},
    "grant": {"amount": _GRANTED, "unit": "token"},
    "validity": "P1M",
    "tariff": "bench",
}
_SUPPLIER: Record = {"id": "bench", "name": "Bench Models", "currency": "CNY"}
_MODEL: Record = {"id": MODEL, "context_window": 32_768, "output_max": 4_096}
_USED = """
    SELECT billing_account_id, count(*),
        sum(tokens_input + tokens_cached_input + tokens_cache_write + tokens_output + tokens_reasoning),
        sum((SELECT coalesce(sum(amount), 0) FROM unnest(charges) WHERE proven))
    FROM usage_record GROUP BY billing_account_id
"""
_CATALOG = {
    "/legal-entities": _ENTITY,
    "/tariffs": _TARIFF,
    "/offers": _PACKAGE,
    "/suppliers": _SUPPLIER,
    "/models": _MODEL,
}


class Buyer(msgspec.Struct, frozen=True, kw_only=True):
    """A customer with the secret of a key."""

    customer: Customer
    secret: str


class _Sale(msgspec.Struct, frozen=True, kw_only=True):
    """What every customer buys: the same offer on the same terms."""

    entity: LegalEntity
    offer: Offer
    net: int
    tax: int


def catalog(office: OfficeClient, ports: list[int]) -> None:
    """Make the operator, its offer, and an endpoint on each port."""
    for path, body in _CATALOG.items():
        office.post(path, body, ids.new("bench"))
    endpoints(office, ports)


def endpoints(office: OfficeClient, ports: list[int]) -> None:
    """An endpoint of the model on each port."""
    for number, port in enumerate(ports, 1):
        endpoint = {"id": f"{MODEL}-{number}", "supplier": "bench", "model": MODEL}
        where = {"base_url": f"http://127.0.0.1:{port}/v1", "purchase": {"input": "0.3", "output": "0.6"}}
        office.post("/endpoints", endpoint | where, ids.new("bench"))


def package(office: OfficeClient, offer_id: str, granted: int) -> None:
    """Offer a package of another size, at the same price."""
    body = _PACKAGE | {"id": offer_id, "grant": {"amount": granted, "unit": "token"}}
    office.post("/offers", body, ids.new("bench"))


async def customers(pool: Pool, count: int, offer_id: str = OFFER) -> AsyncGenerator[list[Buyer]]:
    """Make so many customers, each with a paid package and a key, batch by batch."""
    sale = await _sale(pool, offer_id)
    for first in range(0, count, AT_ONCE):
        now_ns = clock.wall_ns()
        async with sealed.transaction(pool, now_ns) as connection:
            numbers = range(first, min(count, first + AT_ONCE))
            # Most of the time is waiting for the database; in a pipeline nobody waits for an answer without a use.
            async with connection.pipeline():
                buyers = [await _customer(connection, sale, number, now_ns) for number in numbers]
            await _packages(connection, sale, [buyer.customer for buyer in buyers], now_ns)
        yield buyers


async def keys_of(pool: Pool, owners: list[Customer], count: int) -> AsyncGenerator[list[str]]:
    """Make so many more keys, dealt out among these customers, and give their secrets, batch by batch."""
    holders = [
        Holder(legal_entity_id=each.legal_entity_id, customer_id=each.id, billing_account_id=each.billing_account_id)
        for each in owners
    ]
    for first in range(0, count, KEYS_AT_ONCE):
        now_ns, numbers = clock.wall_ns(), range(first, min(count, first + KEYS_AT_ONCE))
        async with sealed.transaction(pool, now_ns) as connection:
            dealt = [holders[number % len(holders)] for number in numbers]
            secrets = await keys.issue_all(connection, dealt, "bench", now_ns)
        yield secrets


async def sell(pool: Pool, offer_id: str, buyers: list[Customer]) -> None:
    """Sell each of them one more package, all in one transaction."""
    sale = await _sale(pool, offer_id)
    now_ns = clock.wall_ns()
    async with sealed.transaction(pool, now_ns) as connection:
        await _packages(connection, sale, buyers, now_ns)


async def _sale(pool: Pool, offer_id: str) -> _Sale:
    async with pool.connection() as connection:
        offer = await offers.get(connection, offer_id)
        entity = await parties.legal_entity(connection, offer.legal_entity_id)
    net, tax = net_of_tax(offer.price, entity.tax_basis_points)
    return _Sale(entity=entity, offer=offer, net=net, tax=tax)


async def _customer(connection: Connection, sale: _Sale, number: int, now_ns: int) -> Buyer:
    customer = await parties.add_customer(
        connection,
        sale.entity,
        name=f"Customer {number + 1}",
        phone=f"+8613{number:09}",
        kind="individual",
        at_ns=now_ns,
    )
    holder = Holder(
        legal_entity_id=customer.legal_entity_id,
        customer_id=customer.id,
        billing_account_id=customer.billing_account_id,
    )
    _, secret = await keys.issue(connection, holder, "bench", now_ns)
    return Buyer(customer=customer, secret=secret)


async def _packages(connection: Connection, sale: _Sale, buyers: list[Customer], now_ns: int) -> None:
    """The three steps of `shop.orders` for each: the order is accepted, its bucket sold, the order completed."""
    async with connection.pipeline():
        orders = [await order_rows.insert(connection, _order(sale, buyer, now_ns)) for buyer in buyers]
    sold = [_priced(sale, order, now_ns) for order in orders]
    await buckets.sell_all(connection, sold, now_ns)
    async with connection.pipeline():
        for order, priced in zip(orders, sold, strict=True):
            await order_rows.complete(connection, order.id, _payment(sale, order, now_ns), priced.bucket.id)


def _priced(sale: _Sale, order: Order, now_ns: int) -> Priced:
    return Priced(
        bucket=offers.bucket(sale.offer, sale.entity, order.billing_account_id, now_ns),
        granted=sale.offer.granted,
        net=sale.net,
        tax=sale.tax,
        currency=sale.offer.currency,
        payer=_PAYER,
        offer_id=sale.offer.id,
        order_id=order.id,
    )


def _payment(sale: _Sale, order: Order, now_ns: int) -> Payment:
    return Payment(
        method="carrier",
        payer=_PAYER,
        reference=order.id,
        amount=sale.offer.price,
        currency=sale.offer.currency,
        paid_at_ns=now_ns,
    )


def _order(sale: _Sale, customer: Customer, now_ns: int) -> Order:
    return Order(
        id=ids.new("ord"),
        customer_id=customer.id,
        billing_account_id=customer.billing_account_id,
        legal_entity_id=sale.entity.id,
        offer_id=sale.offer.id,
        phone=customer.phone,
        price=sale.offer.price,
        net=sale.net,
        tax=sale.tax,
        tax_basis_points=sale.entity.tax_basis_points,
        currency=sale.offer.currency,
        state="accepted",
        bucket_id=None,
        failure_code="",
        failure="",
        placed_at_ns=now_ns,
        charged_since_ns=now_ns,
        closed_at_ns=None,
        payment=None,
    )


async def posted(pool: Pool, answers: int) -> None:
    """Return when so many requests are posted, or when nothing more has come for a while."""
    closings, moved_ns = -1, clock.boot_ns()
    while closings < answers and clock.boot_ns() - moved_ns < _PATIENCE_NS:
        before, closings = closings, await _number(pool, "SELECT coalesce(sum(closings), 0) FROM journal")
        if closings != before:
            moved_ns = clock.boot_ns()
        await asyncio.sleep(_LOOK_EVERY_S)


async def records(pool: Pool) -> int:
    """Usage records of requests that were served to their end."""
    return await _number(pool, "SELECT count(*) FROM usage_record WHERE ending = 'finished'")


class Used(msgspec.Struct, frozen=True):
    """What the books have of a billing account: records of requests, their tokens, and what was charged for them."""

    records: int = 0
    tokens: int = 0
    charged: int = 0


async def used(pool: Pool) -> dict[str, Used]:
    """By billing account; one without a request is left out."""
    async with pool.connection() as connection:
        cursor = await connection.execute(_USED)
        return {str(row[0]): Used(*(int(number) for number in row[1:])) for row in await cursor.fetchall()}


async def _number(pool: Pool, query: LiteralString) -> int:
    async with pool.connection() as connection:
        row = await (await connection.execute(query)).fetchone()
    return int(row[0]) if row else 0
