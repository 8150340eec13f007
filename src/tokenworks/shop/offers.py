"""Offers: what a customer can buy, as a package of one unit at a price including tax, with its terms.

A credit offer grants its amount as a limit for each period instead; its price is what the whole limit costs when it is
spent, and is owed in proportion.

An offer never changes; a changed one is a new offer, and an order keeps the price it was placed at. The tariff that
its bucket is drawn by is named, not copied, and may get new versions.
"""

import re
from typing import Literal

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.base import ids
from tokenworks.core.amounts import NANO, AmountFault, scale
from tokenworks.core.bucket import Bucket
from tokenworks.core.commands import conflict, invalid, not_found
from tokenworks.core.tiers import TIERS, Tier
from tokenworks.shop import parties, tariffs, validity
from tokenworks.shop.parties import LegalEntity

Connection = AsyncConnection[TupleRow]
Kind = Literal["prepaid", "credit"]
Payer = Literal["carrier", "customer"]

PRIORITY = 100
CREDIT_PRIORITY = 1_000
"""Of offers that name none: what was paid for is drawn before what will have to be paid."""

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TEXT_LENGTH_MAX = 200
_PRIORITY_MAX = 1_000_000
_SELECT = """SELECT id, legal_entity_id, name, seller, source, price, currency, granted, unit, validity, tariff_id,
    tier, models, priority, created_at_ns, kind, payer FROM offer """
_INSERT = """INSERT INTO offer (id, legal_entity_id, name, seller, source, price, currency, granted, unit, validity,
        tariff_id, tier, models, priority, created_at_ns, kind, payer)
    VALUES (%(id)s, %(legal_entity_id)s, %(name)s, %(seller)s, %(source)s, %(price)s, %(currency)s, %(granted)s,
        %(unit)s, %(validity)s, %(tariff_id)s, %(tier)s, %(models)s, %(priority)s, %(created_at_ns)s, %(kind)s,
        %(payer)s)
    ON CONFLICT DO NOTHING"""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """`price` includes tax; `granted` of `unit` is what the bucket gets. `models` empty means any.

    `seller` is whose offer it is; `source` says where price and terms come from and which of them are ours. `payer`:
    `carrier` puts what is owed on the phone bill, `customer` pays an invoice, which only a credit offer has.
    """

    id: str
    legal_entity_id: str
    name: str
    seller: str
    source: str
    price: int
    currency: str
    granted: int
    unit: str
    validity: str
    tariff_id: str
    tier: Tier
    models: tuple[str, ...]
    priority: int
    created_at_ns: int
    kind: Kind = "prepaid"
    payer: Payer = "carrier"


def bucket(offer: Offer, entity: LegalEntity, billing_account_id: str, now_ns: int) -> Bucket:
    """The terms of what a customer gets who buys the offer now."""
    valid_to_ns = validity.end_ns(now_ns, offer.validity, entity.timezone)
    return dated(offer, ids.new("bkt"), billing_account_id, now_ns, valid_to_ns)


def dated(offer: Offer, bucket_id: str, billing_account_id: str, valid_from_ns: int, valid_to_ns: int) -> Bucket:
    """The offer's terms as a bucket valid from one moment to another."""
    return Bucket(
        id=bucket_id,
        billing_account_id=billing_account_id,
        legal_entity_id=offer.legal_entity_id,
        unit=offer.unit,
        tariff_id=offer.tariff_id,
        valid_from_ns=valid_from_ns,
        valid_to_ns=valid_to_ns,
        priority=offer.priority,
        tier=offer.tier,
        models=offer.models,
    )


async def add(connection: Connection, offer: Offer) -> Offer:
    """Put an offer into the catalog."""
    await _check(connection, offer)
    cursor = await connection.execute(
        _INSERT,
        msgspec.structs.asdict(offer) | {"models": list(offer.models)},
    )
    if cursor.rowcount == 0:
        raise conflict(f"The offer {offer.id!r} exists already; a changed offer is a new one.", "id")
    return offer


async def get(connection: Connection, offer_id: str, field: str = "") -> Offer:
    """One offer; refused if there is none. `field` names the command's field that holds the id."""
    cursor = await connection.execute(_SELECT + "WHERE id = %s", (offer_id,))
    row = await cursor.fetchone()
    if row is None:
        raise not_found("offer", offer_id, field)
    return _offer(row)


async def listed(connection: Connection, limit: int, after: str) -> list[Offer]:
    """Offers by id. `after` is the last id already seen."""
    cursor = await connection.execute(_SELECT + "WHERE id > %s ORDER BY id LIMIT %s", (after, limit))
    return [_offer(row) for row in await cursor.fetchall()]


async def _check(connection: Connection, offer: Offer) -> None:
    if not _ID.fullmatch(offer.id):
        raise invalid("An offer's id has 1 to 64 lower-case letters, digits and . _ -", "id")
    for field, text in (("name", offer.name), ("seller", offer.seller), ("source", offer.source)):
        if len(text) > _TEXT_LENGTH_MAX or (field == "name" and not text):
            raise invalid(f"{field} has at most {_TEXT_LENGTH_MAX} characters.", field)
    if offer.price <= 0 or offer.granted <= 0:
        raise invalid("An offer has a price and grants an amount above zero.", "price" if offer.price <= 0 else "grant")
    _check_payment(offer)
    if offer.tier not in TIERS:
        raise invalid(f"{offer.tier!r} is not a tier: {', '.join(TIERS)}.", "tier")
    if not 0 <= offer.priority <= _PRIORITY_MAX:
        raise invalid(f"priority is between 0 and {_PRIORITY_MAX}.", "priority")
    validity.check(offer.validity)
    entity = await parties.legal_entity(connection, offer.legal_entity_id, "legal_entity_id")
    if offer.currency != entity.currency:
        raise invalid(f"The legal entity {entity.id!r} sells in {entity.currency}.", "price")
    unit = (await tariffs.get(connection, offer.tariff_id)).tariff.unit
    if offer.unit != unit:
        raise invalid(f"The tariff {offer.tariff_id!r} draws {unit}, the offer grants {offer.unit}.", "grant")


def _check_payment(offer: Offer) -> None:
    if offer.kind == "prepaid" and offer.payer != "carrier":
        raise invalid("A package is paid on the phone bill; only credit is paid by invoice.", "payer")
    try:
        in_money = scale(offer.unit) == NANO
    except AmountFault as fault:
        raise invalid(f"{fault}.", "grant") from fault
    if offer.kind == "credit" and in_money and (offer.price, offer.currency) != (offer.granted, offer.unit):
        raise invalid("A limit in money is its own price.", "price")


def _offer(row: TupleRow) -> Offer:
    return Offer(
        id=row[0],
        legal_entity_id=row[1],
        name=row[2],
        seller=row[3],
        source=row[4],
        price=int(row[5]),
        currency=row[6],
        granted=int(row[7]),
        unit=row[8],
        validity=row[9],
        tariff_id=row[10],
        tier=row[11],
        models=tuple(row[12]),
        priority=row[13],
        created_at_ns=row[14],
        kind=row[15],
        payer=row[16],
    )
