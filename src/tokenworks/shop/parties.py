"""Parties: the legal entities that sell, and the customers who buy, each with a billing account.

A phone number is where the carrier bills; it is kept in E.164 form. Keys are `access`, balances are the ledger's.
"""

import re
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row

from tokenworks.base import ids
from tokenworks.core.amounts import NANO, AmountFault, scale
from tokenworks.core.commands import conflict, invalid, not_found

Connection = AsyncConnection[TupleRow]
Kind = Literal["individual", "enterprise"]
State = Literal["active", "suspended"]

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PHONE = re.compile(r"\+[1-9][0-9]{4,14}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_NAME_LENGTH_MAX = 200
_ENTITY = "SELECT id, name, country, currency, tax_basis_points, timezone, created_at_ns FROM legal_entity "
_CUSTOMER = """SELECT c.id, c.legal_entity_id, c.kind, c.name, c.phone, c.created_at_ns, b.id AS billing_account_id,
        b.state
    FROM customer c JOIN billing_account b ON b.customer_id = c.id """


class LegalEntity(msgspec.Struct, frozen=True, kw_only=True):
    """The seller of record: currency of its prices, tax on them, and the time zone its days and months are of."""

    id: str
    name: str
    country: str
    currency: str
    tax_basis_points: int
    timezone: str
    created_at_ns: int


class Customer(msgspec.Struct, frozen=True, kw_only=True):
    """Who buys, of which legal entity, on which phone bill, with which billing account."""

    id: str
    legal_entity_id: str
    kind: Kind
    name: str
    phone: str
    billing_account_id: str
    state: State
    created_at_ns: int


async def add_legal_entity(connection: Connection, entity: LegalEntity) -> LegalEntity:
    """Register a seller."""
    _check_legal_entity(entity)
    cursor = await connection.execute(
        """INSERT INTO legal_entity (id, name, country, currency, tax_basis_points, timezone, created_at_ns)
           VALUES (%(id)s, %(name)s, %(country)s, %(currency)s,
            %(tax_basis_points)s, %(timezone)s, %(created_at_ns)s) ON CONFLICT DO NOTHING""",
        msgspec.structs.asdict(entity),
    )
    if cursor.rowcount == 0:
        raise conflict(f"The legal entity {entity.id!r} exists already.", "id")
    return entity


async def legal_entity(connection: Connection, entity_id: str, field: str = "") -> LegalEntity:
    """One legal entity; refused if there is none. `field` names the command's field that holds the id."""
    async with connection.cursor(row_factory=class_row(LegalEntity)) as cursor:
        await cursor.execute(_ENTITY + "WHERE id = %s", (entity_id,))
        entity = await cursor.fetchone()
    if entity is None:
        raise not_found("legal entity", entity_id, field)
    return entity


async def legal_entities(connection: Connection, limit: int, after: str) -> list[LegalEntity]:
    """Legal entities by id. `after` is the last id already seen."""
    async with connection.cursor(row_factory=class_row(LegalEntity)) as cursor:
        await cursor.execute(_ENTITY + "WHERE id > %s ORDER BY id LIMIT %s", (after, limit))
        return await cursor.fetchall()


async def only_legal_entity(connection: Connection) -> LegalEntity:
    """The legal entity meant when a command names none: the only one there is."""
    found = await legal_entities(connection, limit=2, after="")
    if len(found) != 1:
        raise invalid("Name the legal entity: there is not exactly one.", "legal_entity_id")
    return found[0]


async def add_customer(
    connection: Connection, entity: LegalEntity, *, name: str, phone: str, kind: Kind, at_ns: int
) -> Customer:
    """Register a customer and open the billing account."""
    customer = Customer(
        id=ids.new("cus"),
        legal_entity_id=entity.id,
        kind=kind,
        name=name,
        phone=phone_number(phone),
        billing_account_id=ids.new("bac"),
        state="active",
        created_at_ns=at_ns,
    )
    if not 0 < len(name) <= _NAME_LENGTH_MAX:
        raise invalid(f"A customer's name has 1 to {_NAME_LENGTH_MAX} characters.", "name")
    values = msgspec.structs.asdict(customer)
    await connection.execute(
        """INSERT INTO customer (id, legal_entity_id, kind, name, phone, created_at_ns)
           VALUES (%(id)s, %(legal_entity_id)s, %(kind)s, %(name)s, %(phone)s, %(created_at_ns)s)""",
        values,
    )
    await connection.execute(
        """INSERT INTO billing_account (id, customer_id, state) VALUES (%(billing_account_id)s, %(id)s, %(state)s)""",
        values,
    )
    return customer


async def customer(connection: Connection, customer_id: str, field: str = "") -> Customer:
    """One customer; refused if there is none. `field` names the command's field that holds the id."""
    async with connection.cursor(row_factory=class_row(Customer)) as cursor:
        await cursor.execute(
            _CUSTOMER + "WHERE c.id = %s",
            (customer_id,),
        )
        found = await cursor.fetchone()
    if found is None:
        raise not_found("customer", customer_id, field)
    return found


async def customers(connection: Connection, limit: int, before: str) -> list[Customer]:
    """Customers, newest first. `before` is the last id already seen."""
    async with connection.cursor(row_factory=class_row(Customer)) as cursor:
        await cursor.execute(
            _CUSTOMER + """WHERE %(before)s = '' OR c.id < %(before)s ORDER BY c.id DESC LIMIT %(limit)s""",
            {"before": before, "limit": limit},
        )
        return await cursor.fetchall()


async def customer_of_phone(connection: Connection, legal_entity_id: str, phone: str) -> Customer | None:
    """The first customer that a legal entity has on this phone bill, if there is one."""
    async with connection.cursor(row_factory=class_row(Customer)) as cursor:
        await cursor.execute(
            _CUSTOMER + "WHERE c.legal_entity_id = %s AND c.phone = %s ORDER BY c.id LIMIT 1", (legal_entity_id, phone)
        )
        return await cursor.fetchone()


async def set_state(connection: Connection, customer_id: str, state: State) -> Customer:
    """Suspend a customer's billing account or let it go on. The keys follow through `access.keys.suspend`."""
    await connection.execute("UPDATE billing_account SET state = %s WHERE customer_id = %s", (state, customer_id))
    return await customer(connection, customer_id)


async def names(connection: Connection, billing_account_ids: list[str]) -> dict[str, str]:
    """Customer ids by billing account, for lists that know only the account."""
    cursor = await connection.execute(
        "SELECT id, customer_id FROM billing_account WHERE id = ANY(%s)", (billing_account_ids,)
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


def phone_number(text: str) -> str:
    """`+86 138 0000-0123` → `+8613800000123`; refuses what is not an E.164 number."""
    number = re.sub(r"[ ()-]", "", text)
    if not _PHONE.fullmatch(number):
        raise invalid(f"{text!r} is not a phone number in international form such as +8613800000123.", "phone")
    return number


def _check_legal_entity(entity: LegalEntity) -> None:
    if not _ID.fullmatch(entity.id):
        raise invalid("A legal entity's id has 1 to 64 lower-case letters, digits and . _ -", "id")
    if not 0 < len(entity.name) <= _NAME_LENGTH_MAX:
        raise invalid(f"A legal entity's name has 1 to {_NAME_LENGTH_MAX} characters.", "name")
    if not _COUNTRY.fullmatch(entity.country):
        raise invalid(f"{entity.country!r} is not a country code such as CN.", "country")
    if not _is_currency(entity.currency):
        raise invalid(f"{entity.currency!r} is not a currency code such as CNY.", "currency")
    if not 0 <= entity.tax_basis_points <= 10_000:
        raise invalid("tax_basis_points is between 0 and 10000; 6 % is 600.", "tax_basis_points")
    try:
        ZoneInfo(entity.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as fault:
        raise invalid(f"{entity.timezone!r} is not a time zone such as Asia/Shanghai.", "timezone") from fault


def _is_currency(unit: str) -> bool:
    try:
        return scale(unit) == NANO
    except AmountFault:
        return False
