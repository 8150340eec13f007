"""Keys of the customers' API: issued, looked up, suspended, revoked.

Only the SHA-256 of a key is stored: the secret has 256 random bits, so a slow password hash would protect nothing more
and cost every cold lookup. What a key may spend is decided by the buckets of its billing account, not here. Telling the
gateways about a change is the caller's: it knows when the transaction has committed.
"""

import hashlib
from collections.abc import Collection, Iterable
from operator import attrgetter
from typing import Literal

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row

from tokenworks.access import limits
from tokenworks.base import ids
from tokenworks.core.commands import invalid, not_found
from tokenworks.core.refusals import Code
from tokenworks.core.snapshot import Key

SECRET_PREFIX = "sk-tw"  # noqa: S105 - what every secret begins with, not a secret
_NAME_LENGTH_MAX = 100

Connection = AsyncConnection[TupleRow]
State = Literal["active", "suspended", "revoked"]

_REFUSED: dict[State, str] = {
    "active": "",
    "suspended": Code.ACCOUNT_SUSPENDED.value,
    "revoked": Code.KEY_REVOKED.value,
}
_SELECT = """SELECT id, name, hint, legal_entity_id, customer_id, billing_account_id, state, digest, created_at_ns,
    revoked_at_ns FROM access_key """
_INSERT = """INSERT INTO access_key (id, name, hint, legal_entity_id, customer_id, billing_account_id, state, digest,
        created_at_ns, revoked_at_ns)
    VALUES (%(id)s, %(name)s, %(hint)s, %(legal_entity_id)s, %(customer_id)s, %(billing_account_id)s, %(state)s,
        %(digest)s, %(created_at_ns)s, %(revoked_at_ns)s)"""

_INSERT_ALL = """INSERT INTO access_key
        (id, name, hint, legal_entity_id, customer_id, billing_account_id, state, digest, created_at_ns)
    SELECT id, %s, hint, legal_entity_id, customer_id, billing_account_id, 'active', digest, %s
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bytea[])
        AS k (id, hint, legal_entity_id, customer_id, billing_account_id, digest)"""
_MANY = tuple(
    attrgetter(column) for column in ("id", "hint", "legal_entity_id", "customer_id", "billing_account_id", "digest")
)


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a key belongs to."""

    legal_entity_id: str
    customer_id: str
    billing_account_id: str


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a key. `hint` is the end of the secret, so that its owner can tell keys apart."""

    id: str
    name: str
    hint: str
    legal_entity_id: str
    customer_id: str
    billing_account_id: str
    state: State
    digest: bytes
    created_at_ns: int
    revoked_at_ns: int | None


def digest(secret: str) -> bytes:
    """What is stored of a secret and what gateways ask for."""
    return hashlib.sha256(secret.encode()).digest()


async def issue(connection: Connection, holder: Holder, name: str, at_ns: int) -> tuple[KeyRecord, str]:
    """A new key and its secret, which exists nowhere else from here on."""
    record, secret = _made(holder, name, at_ns)
    await connection.execute(_INSERT, msgspec.structs.asdict(record))
    return record, secret


async def issue_all(connection: Connection, holders: Iterable[Holder], name: str, at_ns: int) -> list[str]:
    """A new key for each holder, thousands at once; their secrets in this order."""
    made = [_made(holder, name, at_ns) for holder in holders]
    columns = [[value(record) for record, _ in made] for value in _MANY]
    await connection.execute(_INSERT_ALL, (name, at_ns, *columns))
    return [secret for _, secret in made]


def _made(holder: Holder, name: str, at_ns: int) -> tuple[KeyRecord, str]:
    if not 0 < len(name) <= _NAME_LENGTH_MAX:
        raise invalid(f"A key's name has 1 to {_NAME_LENGTH_MAX} characters.", "name")
    secret = ids.secret(SECRET_PREFIX)
    record = KeyRecord(
        id=ids.new("key"),
        name=name,
        hint=secret[-4:],
        legal_entity_id=holder.legal_entity_id,
        customer_id=holder.customer_id,
        billing_account_id=holder.billing_account_id,
        state="active",
        digest=digest(secret),
        created_at_ns=at_ns,
        revoked_at_ns=None,
    )
    return record, secret


async def find(connection: Connection, digest_sha256: bytes) -> Key | None:
    """What a gateway learns of a key: whose it is, the code its use is refused with, if any, and its limits."""
    return (await find_all(connection, [digest_sha256])).get(digest_sha256)


async def find_all(connection: Connection, digests: Collection[bytes]) -> dict[bytes, Key]:
    """The same of several keys, by digest; those that do not exist are not among them."""
    cursor = await connection.execute(
        """SELECT digest, id, legal_entity_id, customer_id, billing_account_id, state,
               EXISTS (SELECT FROM usage_limit WHERE customer_id = access_key.customer_id)
           FROM access_key WHERE digest = ANY(%s)""",
        (list(digests),),
    )
    rows = await cursor.fetchall()
    held = await limits.of_keys(connection, {row[1]: row[3] for row in rows if row[6]})
    return {row[0]: Key(row[1], row[2], row[3], row[4], _REFUSED[row[5]], held.get(row[1])) for row in rows}


async def listed(connection: Connection, customer_id: str, limit: int, before: str) -> list[KeyRecord]:
    """Keys, newest first; all customers' if `customer_id` is empty. `before` is the last id already seen."""
    async with connection.cursor(row_factory=class_row(KeyRecord)) as cursor:
        await cursor.execute(
            _SELECT
            + """WHERE (%(customer_id)s = '' OR customer_id = %(customer_id)s)
                  AND (%(before)s = '' OR id < %(before)s)
                ORDER BY id DESC LIMIT %(limit)s""",
            {"customer_id": customer_id, "before": before, "limit": limit},
        )
        return await cursor.fetchall()


async def get(connection: Connection, key_id: str) -> KeyRecord:
    """One key; refused if there is none."""
    async with connection.cursor(row_factory=class_row(KeyRecord)) as cursor:
        await cursor.execute(_SELECT + "WHERE id = %s", (key_id,))
        record = await cursor.fetchone()
    if record is None:
        raise not_found("key", key_id)
    return record


async def revoke(connection: Connection, key_id: str, at_ns: int) -> KeyRecord:
    """End a key for good. Revoking it again changes nothing."""
    await connection.execute(
        "UPDATE access_key SET state = 'revoked', revoked_at_ns = %s WHERE id = %s AND state <> 'revoked'",
        (at_ns, key_id),
    )
    return await get(connection, key_id)


async def suspend(connection: Connection, billing_account_id: str, *, suspended: bool) -> None:
    """Stop or go on serving all keys of a billing account; revoked keys stay revoked."""
    await connection.execute(
        "UPDATE access_key SET state = %s WHERE billing_account_id = %s AND state <> 'revoked'",
        ("suspended" if suspended else "active", billing_account_id),
    )
