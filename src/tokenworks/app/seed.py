"""The demonstration operator: a seller, price ladders, the embedded engine as a supplier, a customer with a key.

Put into an empty database once; at later starts only what may have moved is brought up to date: the engine's address
and its key, and the demonstration key where its file is missing. What an operator has changed since stays changed.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.access import keys
from tokenworks.access.keys import Holder
from tokenworks.app import ladders
from tokenworks.app.ladders import Step
from tokenworks.base import clock, log
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.base.vault import Vault
from tokenworks.core.amounts import parse
from tokenworks.core.commands import CommandCode, CommandRefused
from tokenworks.core.snapshot import Model
from tokenworks.core.tariff import Rate
from tokenworks.plant import models, registry
from tokenworks.plant.engine import CONTEXT_TOKENS, MODEL
from tokenworks.plant.registry import EndpointRecord
from tokenworks.shop import offers, order_rows, parties, tariffs
from tokenworks.shop import sealed as shop_sealed
from tokenworks.shop.offers import Offer
from tokenworks.shop.orders import OrderDesk
from tokenworks.shop.parties import Customer, LegalEntity
from tokenworks.supply import prices, suppliers
from tokenworks.supply import sealed as supply_sealed
from tokenworks.supply.suppliers import Supplier

LEGAL_ENTITY = "demo-telecom"
SUPPLIER = "embedded-engine-works"
ENDPOINT = "embedded-engine"
FIRST_ORDER = "ord_demonstration"
FIRST_OFFER = "ct-personal-10m"
CUSTOMER_NAME = "Li Na"
CUSTOMER_PHONE = "+8613800000123"
KEY_NAME = "demonstration"
CURRENCY = "CNY"

_log = log.get(__name__)

Connection = AsyncConnection[TupleRow]

_Record = TypeVar("_Record")


class Demonstration(msgspec.Struct, frozen=True, kw_only=True):
    """Who can be used to try the product. `key` is the customer's secret."""

    customer_id: str
    billing_account_id: str
    key: str
    model: str


async def seed(pool: Pool, settings: Settings, orders: OrderDesk, wall_ns: Callable[[], int]) -> Demonstration | None:
    """Make the demonstration operator, or bring it up to date; None where another operator's data is."""
    now_ns = wall_ns()
    async with shop_sealed.transaction(pool, now_ns, supply_sealed.SEALED) as connection:
        if not await _is_ours(connection):
            return None
        customer = await parties.customer_of_phone(connection, LEGAL_ENTITY, CUSTOMER_PHONE)
        if customer is None:
            customer = await _found(connection, now_ns)
            _log.info("made the demonstration operator", extra={"customer": customer.id})
        if settings.embedded_engine:
            await _engine(connection, settings, now_ns)
    await _first_order(pool, orders, customer)
    return Demonstration(
        customer_id=customer.id,
        billing_account_id=customer.billing_account_id,
        key=await _key(pool, settings.data, customer, now_ns),
        model=MODEL,
    )


async def _is_ours(connection: Connection) -> bool:
    """Nothing is there yet, or the demonstration operator is."""
    if not await parties.legal_entities(connection, limit=1, after=""):
        return True
    return await _known(parties.legal_entity(connection, LEGAL_ENTITY)) is not None


async def _known(asked: Awaitable[_Record]) -> _Record | None:
    try:
        return await asked
    except CommandRefused as refusal:
        if refusal.code is not CommandCode.NOT_FOUND:
            raise
        return None


async def _found(connection: Connection, now_ns: int) -> Customer:
    entity = await parties.add_legal_entity(
        connection,
        LegalEntity(
            id=LEGAL_ENTITY,
            name="Tokenworks Demo Telecom",
            country="CN",
            currency=CURRENCY,
            tax_basis_points=600,
            timezone="Asia/Shanghai",
            created_at_ns=now_ns,
        ),
    )
    for tariff in ladders.TARIFFS:
        await tariffs.publish(connection, tariff.id, ladders.TOKEN, tariff.rates, now_ns)
    for step in ladders.OFFERS:
        await offers.add(connection, _offer(step, entity, now_ns))
    credit = ladders.CREDIT
    await tariffs.publish(connection, credit.tariff, entity.currency, ladders.metered(entity.currency), now_ns)
    await offers.add(connection, _credit(credit, entity, now_ns))
    return await parties.add_customer(
        connection, entity, name=CUSTOMER_NAME, phone=CUSTOMER_PHONE, kind="individual", at_ns=now_ns
    )


def _offer(step: Step, entity: LegalEntity, now_ns: int) -> Offer:
    return Offer(
        id=step.id,
        legal_entity_id=entity.id,
        name=f"{step.seller}: {step.name}",
        seller=step.seller,
        source=step.source,
        price=parse(step.price, entity.currency),
        currency=entity.currency,
        granted=step.granted,
        unit=step.unit,
        validity="P1M",
        tariff_id=step.tariff,
        tier="medium",
        models=(),
        priority=100,
        created_at_ns=now_ns,
    )


def _credit(credit: ladders.Credit, entity: LegalEntity, now_ns: int) -> Offer:
    limit = parse(credit.limit, entity.currency)
    return Offer(
        id=credit.id,
        legal_entity_id=entity.id,
        name=f"{entity.name}: {credit.name}",
        seller=entity.name,
        source=credit.source,
        price=limit,
        currency=entity.currency,
        granted=limit,
        unit=entity.currency,
        validity="P1M",
        tariff_id=credit.tariff,
        tier="medium",
        models=(),
        priority=offers.CREDIT_PRIORITY,
        created_at_ns=now_ns,
        kind="credit",
        payer="carrier",
    )


async def _engine(connection: Connection, settings: Settings, now_ns: int) -> None:
    """The embedded engine as an endpoint of its supplier, at the address it has this time."""
    vault = Vault(settings.master_keys)
    vault.ready()
    address = f"http://127.0.0.1:{settings.engine_port}/v1"
    if await _known(registry.get(connection, ENDPOINT)) is not None:
        await registry.move(connection, vault, ENDPOINT, address, settings.engine_api_key)
        return
    supplier = await _known(suppliers.get(connection, SUPPLIER)) or await suppliers.add(
        connection, Supplier(id=SUPPLIER, name="Embedded Engine Works", currency=CURRENCY, created_at_ns=now_ns)
    )
    price = await prices.publish(connection, ENDPOINT, supplier, _purchase_rate(), now_ns)
    if await _known(models.get(connection, MODEL)) is None:
        await models.add(connection, _model(now_ns))
    await registry.add(
        connection,
        vault,
        EndpointRecord(
            id=ENDPOINT,
            site="main",
            supplier_id=supplier.id,
            model_id=MODEL,
            base_url=address,
            upstream_model=MODEL,
            sealed_key="",
            purchase_tariff_id=price.id,
            disconnect="stop",
            state="in_service",
            created_at_ns=now_ns,
        ),
        settings.engine_api_key,
    )


def _model(now_ns: int) -> Model:
    return Model(
        id=MODEL,
        context_window=CONTEXT_TOKENS,
        output_max=CONTEXT_TOKENS,
        owned_by="HuggingFaceTB",
        apis=("chat", "completions"),
        created_s=now_ns // clock.SECOND,
    )


def _purchase_rate() -> Rate:
    """RMB 0.30 in, 0.60 out per million, a tenth for cached input: our assumption, not a published price."""
    read, written, cached = (parse(price, CURRENCY) for price in ("0.30", "0.60", "0.03"))
    return Rate(input=read, cached_input=cached, cache_write=read, output=written, reasoning=written)


async def _first_order(pool: Pool, orders: OrderDesk, customer: Customer) -> None:
    """One package, so that the key that is printed can be used at once."""
    async with pool.connection() as connection:
        order = await order_rows.find(connection, FIRST_ORDER)
    if order is not None and order.state != "accepted":
        return
    try:
        await orders.place(customer.id, FIRST_OFFER, FIRST_ORDER)
    except CommandRefused as refusal:
        _log.warning("the demonstration customer has no package yet", extra={"reason": refusal.message})


async def _key(pool: Pool, data: Path, customer: Customer, now_ns: int) -> str:
    """The key in the data folder if it is still good, else a new one, put there."""
    file = data / "secrets" / "demo-key"
    async with shop_sealed.transaction(pool, now_ns) as connection:
        secret = file.read_text().strip() if file.exists() else ""
        known = await keys.find(connection, keys.digest(secret)) if secret else None
        if known is not None and not known.refused and known.customer_id == customer.id:
            return secret
        holder = Holder(
            legal_entity_id=customer.legal_entity_id,
            customer_id=customer.id,
            billing_account_id=customer.billing_account_id,
        )
        _, secret = await keys.issue(connection, holder, KEY_NAME, now_ns)
        # Before the commit: a key nobody can read is worse than a file whose key does not exist, which is replaced.
        _write(file, secret)
    return secret


def _write(file: Path, secret: str) -> None:
    """Only the user may read it, from its first moment on."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_text(secret + "\n")
    fresh.replace(file)
