"""Endpoints: who serves which model at which address and site, and whether it is in service.

Endpoints that serve the same model are interchangeable and make up its pool. What an endpoint costs is its purchase
tariff, which `supply` keeps; how well it answers is seen by the gateway, not here.
"""

import re
from collections import Counter
from typing import Literal

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row

from tokenworks.base.vault import Vault, key_of
from tokenworks.core.commands import conflict, invalid, not_found
from tokenworks.core.snapshot import Spoken
from tokenworks.plant.addresses import base_url

Connection = AsyncConnection[TupleRow]
State = Literal["in_service", "out_of_service"]
Disconnect = Literal["stop", "drain"]

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TEXT_LENGTH_MAX = 256
_API_KEY_LENGTH_MAX = 4096
_CONCURRENCY_MAX = 1_000_000
_SELECT = """SELECT id, site, supplier_id, model_id, base_url, upstream_model, sealed_key, purchase_tariff_id,
    disconnect, dialect, state, created_at_ns, concurrency_max FROM endpoint """
_INSERT = """INSERT INTO endpoint (id, site, supplier_id, model_id, base_url, upstream_model, sealed_key,
        purchase_tariff_id, disconnect, dialect, state, created_at_ns, concurrency_max)
    VALUES (%(id)s, %(site)s, %(supplier_id)s, %(model_id)s, %(base_url)s, %(upstream_model)s, %(sealed_key)s,
        %(purchase_tariff_id)s, %(disconnect)s, %(dialect)s, %(state)s, %(created_at_ns)s, %(concurrency_max)s)
    ON CONFLICT DO NOTHING"""


class EndpointRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint. `sealed_key` is its key as the database and the bus have it; only gateways open it.

    `concurrency_max`: requests that may run there at once; 0 sets no limit.
    """

    id: str
    site: str
    supplier_id: str
    model_id: str
    base_url: str
    upstream_model: str
    sealed_key: str
    purchase_tariff_id: str
    disconnect: Disconnect
    dialect: Spoken = "openai"
    state: State
    created_at_ns: int
    concurrency_max: int = 0


async def add(connection: Connection, vault: Vault, endpoint: EndpointRecord, api_key: str) -> EndpointRecord:
    """Register an endpoint under this key. Its supplier, model and purchase tariff exist already."""
    _check(endpoint, api_key)
    checked = msgspec.structs.replace(
        endpoint, base_url=base_url(endpoint.base_url), sealed_key=vault.seal(api_key, endpoint.id)
    )
    cursor = await connection.execute(_INSERT, msgspec.structs.asdict(checked))
    if cursor.rowcount == 0:
        raise conflict(f"The endpoint {endpoint.id!r} exists already.", "id")
    return checked


async def get(connection: Connection, endpoint_id: str) -> EndpointRecord:
    """One endpoint; refused if there is none."""
    async with connection.cursor(row_factory=class_row(EndpointRecord)) as cursor:
        await cursor.execute(_SELECT + "WHERE id = %s", (endpoint_id,))
        record = await cursor.fetchone()
    if record is None:
        raise not_found("endpoint", endpoint_id)
    return record


async def listed(connection: Connection, limit: int, after: str) -> list[EndpointRecord]:
    """Endpoints by id. `after` is the last id already seen."""
    async with connection.cursor(row_factory=class_row(EndpointRecord)) as cursor:
        await cursor.execute(_SELECT + "WHERE id > %s ORDER BY id LIMIT %s", (after, limit))
        return await cursor.fetchall()


async def in_service(connection: Connection) -> list[EndpointRecord]:
    """The endpoints that requests may be sent to, for the catalog."""
    async with connection.cursor(row_factory=class_row(EndpointRecord)) as cursor:
        await cursor.execute(_SELECT + "WHERE state = 'in_service' ORDER BY id")
        return await cursor.fetchall()


async def set_state(connection: Connection, endpoint_id: str, state: State) -> EndpointRecord:
    """Take an endpoint out of service or put it back."""
    await connection.execute("UPDATE endpoint SET state = %s WHERE id = %s", (state, endpoint_id))
    return await get(connection, endpoint_id)


async def set_concurrency(connection: Connection, endpoint_id: str, concurrency_max: int) -> EndpointRecord:
    """Let so many requests run at an endpoint at once; 0 sets no limit."""
    _check_concurrency(concurrency_max)
    await connection.execute("UPDATE endpoint SET concurrency_max = %s WHERE id = %s", (concurrency_max, endpoint_id))
    return await get(connection, endpoint_id)


async def move(connection: Connection, vault: Vault, endpoint_id: str, address: str, api_key: str) -> EndpointRecord:
    """The same endpoint answers at another address and asks for this key."""
    await connection.execute("UPDATE endpoint SET base_url = %s WHERE id = %s", (base_url(address), endpoint_id))
    return await set_key(connection, vault, endpoint_id, api_key)


async def set_key(connection: Connection, vault: Vault, endpoint_id: str, api_key: str) -> EndpointRecord:
    """The endpoint asks for this key."""
    _check_key(api_key)
    await connection.execute(
        "UPDATE endpoint SET sealed_key = %s WHERE id = %s", (vault.seal(api_key, endpoint_id), endpoint_id)
    )
    return await get(connection, endpoint_id)


async def seal_again(connection: Connection, vault: Vault) -> int:
    """Seal every key with the newest master key; gives how many were sealed with another one."""
    newest = vault.key_ids[-1]
    cursor = await connection.execute(
        "SELECT id, sealed_key FROM endpoint WHERE sealed_key <> '' ORDER BY id FOR NO KEY UPDATE"
    )
    older = [(str(row[0]), str(row[1])) for row in await cursor.fetchall() if key_of(str(row[1])) != newest]
    for endpoint_id, sealed in older:
        await set_key(connection, vault, endpoint_id, vault.open(sealed, endpoint_id))
    return len(older)


async def sealed_with(connection: Connection) -> dict[str, int]:
    """How many endpoints' keys each master key has sealed."""
    cursor = await connection.execute("SELECT sealed_key FROM endpoint WHERE sealed_key <> ''")
    return dict(Counter(key_of(str(row[0])) for row in await cursor.fetchall()))


def _check_concurrency(concurrency_max: int) -> None:
    if not 0 <= concurrency_max <= _CONCURRENCY_MAX:
        raise invalid(f"concurrency_max is between 0 (no limit) and {_CONCURRENCY_MAX}.", "concurrency_max")


def _check(endpoint: EndpointRecord, api_key: str) -> None:
    _check_concurrency(endpoint.concurrency_max)
    for field, text in (("id", endpoint.id), ("site", endpoint.site)):
        if not _ID.fullmatch(text):
            raise invalid(f"{field} has 1 to 64 lower-case letters, digits and . _ -", field)
    if not 0 < len(endpoint.upstream_model) <= _TEXT_LENGTH_MAX:
        raise invalid(f"upstream_model has 1 to {_TEXT_LENGTH_MAX} characters.", "upstream_model")
    _check_key(api_key)


def _check_key(api_key: str) -> None:
    if len(api_key) > _API_KEY_LENGTH_MAX or not api_key.isascii() or not api_key.isprintable():
        raise invalid("api_key has printable ASCII characters only.", "api_key")
