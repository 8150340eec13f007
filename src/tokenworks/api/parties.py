"""Routes of legal entities, customers and their keys."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from tokenworks.access import keys
from tokenworks.access.keys import Holder, KeyRecord
from tokenworks.api.commands import Command, once
from tokenworks.api.office import Connection, Office
from tokenworks.api.shapes import Body, Cursor, Limit, OfCustomer, Page, at, page
from tokenworks.core.wire import KeyChanged
from tokenworks.shop import parties, sealed
from tokenworks.shop.parties import Customer, LegalEntity

router = APIRouter(tags=["parties"])


class LegalEntityBody(Body):
    """A seller of record. 600 tax basis points are 6 %."""

    id: str
    name: str
    country: str
    currency: str
    tax_basis_points: int
    timezone: str


class LegalEntityShown(LegalEntityBody):
    """A seller of record."""

    created_at: str


class CustomerBody(Body):
    """A new customer; the legal entity may be left out while there is only one."""

    name: str
    phone: str
    kind: Literal["individual", "enterprise"] = "individual"
    legal_entity_id: str = ""


class CustomerState(Body):
    """Suspending a customer suspends all its keys at once."""

    state: Literal["active", "suspended"]


class CustomerShown(BaseModel):
    """A customer with the billing account."""

    id: str
    name: str
    kind: Literal["individual", "enterprise"]
    phone: str
    state: Literal["active", "suspended"]
    legal_entity_id: str
    billing_account_id: str
    created_at: str


class KeyBody(Body):
    """A new key of a customer."""

    customer: str
    name: str


class KeyShown(BaseModel):
    """A key without its secret; `hint` is how the secret ends."""

    id: str
    name: str
    hint: str
    customer_id: str
    state: Literal["active", "suspended", "revoked"]
    created_at: str
    revoked_at: str | None


class KeyMade(KeyShown):
    """A new key. `secret` is shown this once and kept nowhere."""

    secret: str | None = None


@router.get("/legal-entities")
async def list_legal_entities(office: Office, limit: Limit = 50, cursor: Cursor = "") -> Page[LegalEntityShown]:
    """Sellers of record."""
    async with office.pool.connection() as connection:
        return page(await parties.legal_entities(connection, limit, cursor), limit, _legal_entity)


@router.post("/legal-entities", status_code=201)
async def add_legal_entity(office: Office, command: Command, body: LegalEntityBody) -> LegalEntityShown:
    """Register a seller of record."""

    async def work(connection: Connection) -> LegalEntityShown:
        entity = LegalEntity(**body.model_dump(), created_at_ns=office.wall_ns())
        return _legal_entity(await parties.add_legal_entity(connection, entity))

    return await once(office, command, LegalEntityShown, work)


@router.get("/legal-entities/{entity_id}")
async def show_legal_entity(office: Office, entity_id: str) -> LegalEntityShown:
    """One seller of record."""
    async with office.pool.connection() as connection:
        return _legal_entity(await parties.legal_entity(connection, entity_id))


@router.get("/customers")
async def list_customers(office: Office, limit: Limit = 50, cursor: Cursor = "") -> Page[CustomerShown]:
    """Customers, newest first."""
    async with office.pool.connection() as connection:
        return page(await parties.customers(connection, limit, cursor), limit, _customer)


@router.post("/customers", status_code=201)
async def add_customer(office: Office, command: Command, body: CustomerBody) -> CustomerShown:
    """Register a customer and open the billing account."""

    async def work(connection: Connection) -> CustomerShown:
        entity = (
            await parties.legal_entity(connection, body.legal_entity_id, "legal_entity_id")
            if body.legal_entity_id
            else await parties.only_legal_entity(connection)
        )
        return _customer(
            await parties.add_customer(
                connection, entity, name=body.name, phone=body.phone, kind=body.kind, at_ns=office.wall_ns()
            )
        )

    return await once(office, command, CustomerShown, work)


@router.get("/customers/{customer_id}")
async def show_customer(office: Office, customer_id: str) -> CustomerShown:
    """One customer."""
    async with office.pool.connection() as connection:
        return _customer(await parties.customer(connection, customer_id))


@router.patch("/customers/{customer_id}")
async def change_customer(office: Office, customer_id: str, body: CustomerState) -> CustomerShown:
    """Suspend a customer or let it go on; gateways follow at once."""
    # The shop's lock: a key that is being made meanwhile gets the state of its account.
    async with sealed.transaction(office.pool, office.wall_ns()) as connection:
        customer = await parties.set_state(connection, customer_id, body.state)
        await keys.suspend(connection, customer.billing_account_id, suspended=body.state == "suspended")
    await office.key_changed(KeyChanged(billing_account_id=customer.billing_account_id))
    return _customer(customer)


@router.get("/keys")
async def list_keys(
    office: Office, customer: OfCustomer = "", limit: Limit = 50, cursor: Cursor = ""
) -> Page[KeyShown]:
    """Keys, newest first."""
    async with office.pool.connection() as connection:
        return page(await keys.listed(connection, customer, limit, cursor), limit, _key)


@router.post("/keys", status_code=201)
async def add_key(office: Office, command: Command, body: KeyBody) -> KeyMade:
    """Make a key. A repeated command gives the key without the secret."""

    async def work(connection: Connection) -> KeyMade:
        customer = await parties.customer(connection, body.customer, "customer")
        holder = Holder(
            legal_entity_id=customer.legal_entity_id,
            customer_id=customer.id,
            billing_account_id=customer.billing_account_id,
        )
        record, secret = await keys.issue(connection, holder, body.name, office.wall_ns())
        if customer.state == "suspended":
            await keys.suspend(connection, customer.billing_account_id, suspended=True)
            record = await keys.get(connection, record.id)
        return KeyMade(**_key(record).model_dump(), secret=secret)

    return await once(office, command, KeyMade, work, secrets=frozenset({"secret"}))


@router.get("/keys/{key_id}")
async def show_key(office: Office, key_id: str) -> KeyShown:
    """One key."""
    async with office.pool.connection() as connection:
        return _key(await keys.get(connection, key_id))


@router.delete("/keys/{key_id}")
async def revoke_key(office: Office, key_id: str) -> KeyShown:
    """Revoke a key; every gateway forgets it at once."""
    async with office.pool.connection() as connection:
        record = await keys.revoke(connection, key_id, office.wall_ns())
    await office.key_changed(KeyChanged(digest=record.digest))
    return _key(record)


def _legal_entity(entity: LegalEntity) -> LegalEntityShown:
    return LegalEntityShown(
        id=entity.id,
        name=entity.name,
        country=entity.country,
        currency=entity.currency,
        tax_basis_points=entity.tax_basis_points,
        timezone=entity.timezone,
        created_at=at(entity.created_at_ns),
    )


def _customer(customer: Customer) -> CustomerShown:
    return CustomerShown(
        id=customer.id,
        name=customer.name,
        kind=customer.kind,
        phone=customer.phone,
        state=customer.state,
        legal_entity_id=customer.legal_entity_id,
        billing_account_id=customer.billing_account_id,
        created_at=at(customer.created_at_ns),
    )


def _key(record: KeyRecord) -> KeyShown:
    return KeyShown(
        id=record.id,
        name=record.name,
        hint=record.hint,
        customer_id=record.customer_id,
        state=record.state,
        created_at=at(record.created_at_ns),
        revoked_at=at(record.revoked_at_ns) if record.revoked_at_ns is not None else None,
    )
