"""Account rows: finding them, adding them, changing their balances. What moves between them is the store's affair.

The ids of accounts never change and are remembered: finding an account by its code costs more than changing it. They
are remembered for a database as one run of its server knows it, so that a database put back to an earlier time, where
an id may have become another account's, is asked anew.
"""

from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary, WeakValueDictionary

from tokenworks.core.postings import normal_side
from tokenworks.ledger.arrays import flags, numbers, texts
from tokenworks.ledger.faults import LedgerFault, Overdrawn
from tokenworks.ledger.seal import Connection

Key = tuple[str, str, str]  # legal entity, code, unit
Change = tuple[int, int, Key]  # account, what is added on its normal side, and which account it is

REMEMBERED_MAX = 500_000

# Accounts by their keys, and whether another transaction than this one wrote them.
_FIND = b"""
    SELECT a.legal_entity_id, a.code, a.unit, a.id, a.xmin IS DISTINCT FROM pg_current_xact_id_if_assigned()::xid
    FROM unnest(%s::text[], %s::text[], %s::text[]) AS k (legal_entity_id, code, unit)
    JOIN account a USING (legal_entity_id, code, unit)
"""
# The same, adding those that do not exist, in the order of the keys.
_OPEN = b"""
    WITH named AS MATERIALIZED (
        SELECT k.*, a.id, a.xmin IS DISTINCT FROM pg_current_xact_id_if_assigned()::xid AS is_committed
        FROM unnest(%s::text[], %s::text[], %s::text[], %s::boolean[]) WITH ORDINALITY
            AS k (legal_entity_id, code, unit, debit_normal, place)
        LEFT JOIN account a USING (legal_entity_id, code, unit)),
    added AS (
        INSERT INTO account (legal_entity_id, code, unit, debit_normal)
        SELECT legal_entity_id, code, unit, debit_normal FROM named WHERE id IS NULL ORDER BY place
        ON CONFLICT (code, unit, legal_entity_id) DO NOTHING
        RETURNING legal_entity_id, code, unit, id)
    SELECT legal_entity_id, code, unit, id, is_committed FROM named WHERE id IS NOT NULL
    UNION ALL SELECT legal_entity_id, code, unit, id, false FROM added
"""


class _Ids(dict[Key, int]):
    """Ids of one database's accounts. Only committed accounts are among them."""


_by_connection: WeakKeyDictionary[Connection, _Ids] = WeakKeyDictionary()
_by_database: WeakValueDictionary[tuple[str, str], _Ids] = WeakValueDictionary()


async def find(conn: Connection, keys: Sequence[Key]) -> list[int | None]:
    """The ids of the accounts, in the order of the keys; None for those that do not exist."""
    known = await _known(conn)
    ids = [known.get(key) for key in keys]
    missing = [key for key, number in zip(keys, ids, strict=True) if number is None]
    if not missing:
        return ids
    found = await _ask(conn, _FIND, _names(missing), known)
    return [found.get(key) if number is None else number for key, number in zip(keys, ids, strict=True)]


async def open_all(conn: Connection, keys: Sequence[Key]) -> list[int]:
    """The ids of the accounts, in the order of the keys; those that do not exist are added, with nothing on them."""
    known = await _known(conn)
    ids = [known.get(key) for key in keys]
    missing = sorted(key for key, number in zip(keys, ids, strict=True) if number is None)
    if missing:
        sides = flags(normal_side(code) == "debit" for _, code, _ in missing)
        opened = await _ask(conn, _OPEN, (*_names(missing), sides), known)
        # What another transaction has added since this statement began is neither there nor added.
        if others := [key for key in missing if key not in opened]:
            opened |= await _ask(conn, _FIND, _names(others), known)
        ids = [opened[key] if number is None else number for key, number in zip(keys, ids, strict=True)]
    return [number for number in ids if number is not None]


async def balances(conn: Connection, keys: Sequence[Key]) -> list[int | None]:
    """The balances of the accounts, in the order of the keys; None for those that do not exist.

    Whoever decides by them holds what keeps them from changing.
    """
    ids = await find(conn, keys)
    existing = numbers(number for number in ids if number is not None)
    cursor = await conn.execute("SELECT id, balance::text FROM account WHERE id = ANY(%s::bigint[])", (existing,))
    held: dict[int | None, str] = dict(await cursor.fetchall())
    return [int(held[number]) if number in held else None for number in ids]


async def change(conn: Connection, changes: Sequence[Change]) -> None:
    """Add to balances, which locks the rows in the order of their ids; `Overdrawn` if one would be below zero.

    The order is that of a nested loop over the sorted changes, which a sealed transaction makes the planner use.
    Locking the rows first would write each of them twice.
    """
    changes = sorted(one for one in changes if one[1])
    if not changes:
        return
    cursor = await conn.execute(
        """
        UPDATE account a SET balance = a.balance + c.change
        FROM (SELECT * FROM unnest(%s::bigint[], %s::numeric[]) AS u (id, change) ORDER BY id) c
        WHERE a.id = c.id AND a.balance + c.change >= 0
        """,
        (numbers(number for number, _, _ in changes), numbers(amount for _, amount, _ in changes)),
    )
    if cursor.rowcount < len(changes):
        raise await _reason(conn, changes)


async def _reason(conn: Connection, changes: Sequence[Change]) -> LedgerFault:
    """What kept a change from being made. Accounts that did change show what is on them now."""
    held = await balances(conn, [key for _, _, key in changes])
    for balance, (number, amount, key) in zip(held, changes, strict=True):
        if balance is None:
            return LedgerFault(f"the account {key[1]} with id {number} is gone")
        if balance + amount < 0:
            return Overdrawn(key[1])
    return LedgerFault("a balance could not be changed")


async def _known(conn: Connection) -> _Ids:
    """The ids remembered for the database that this connection leads to."""
    known = _by_connection.get(conn)
    if known is None:
        cursor = await conn.execute("SELECT pg_postmaster_start_time()::text, current_database()::text")
        row = await cursor.fetchone()
        known = _by_database.setdefault((str(row[0]), str(row[1])) if row else ("", ""), _Ids())
        _by_connection[conn] = known
    return known


async def _ask(conn: Connection, statement: bytes, names: tuple[str, ...], known: _Ids) -> dict[Key, int]:
    """Ask the database. What this transaction has added or changed itself is not remembered: it may be rolled back."""
    found: dict[Key, int] = {}
    committed: dict[Key, int] = {}
    for entity, code, unit, number, is_committed in await (await conn.execute(statement, names)).fetchall():
        (committed if is_committed else found)[entity, code, unit] = int(number)
    if len(known) + len(committed) > REMEMBERED_MAX:
        known.clear()
    known.update(committed)
    return found | committed


def _names(keys: Iterable[Key]) -> tuple[str, str, str]:
    return texts(key[0] for key in keys), texts(key[1] for key in keys), texts(key[2] for key in keys)
