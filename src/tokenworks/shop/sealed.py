"""The sealed tables of this room, and the sealed transactions it writes in.

A later column goes into a later seal format, never into these lists.
"""

from contextlib import AbstractAsyncContextManager

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.base.database import Pool
from tokenworks.ledger import store, tables
from tokenworks.ledger.seal import SealedTable

Connection = AsyncConnection[TupleRow]

STREAM = "shop"

_RATES = ("input", "cached_input", "cache_write", "output", "reasoning")

SEALED = (
    SealedTable("tariff", ("id", "version", "unit", "rounding", "published_at_ns"), ("id", "version")),
    SealedTable("tariff_rate", ("tariff_id", "version", "selector", *_RATES), ("tariff_id", "version", "selector")),
    SealedTable(
        "payment",
        ("order_id", "method", "payer", "reference", "amount", "currency", "paid_at_ns"),
        ("order_id",),
    ),
    SealedTable(
        "bill",
        (
            *("id", "legal_entity_id", "serial", "number", "customer_id", "billing_account_id", "ordinal", "from_ns"),
            *("to_ns", "cut", "currency", "net", "tax", "total"),
        ),
        ("id",),
    ),
    SealedTable(
        "bill_line",
        (
            *("bill_id", "ordinal", "order_id", "offer_id", "name", "bucket_id", "granted", "unit"),
            *("tax_basis_points", "net", "tax", "total", "sold_at_ns"),
        ),
        ("bill_id", "ordinal"),
    ),
    SealedTable(
        "bill_usage",
        (
            *("bill_id", "ordinal", "bucket_id", "model", "tariff", "records", "tokens_input", "tokens_cached_input"),
            *("tokens_cache_write", "tokens_output", "tokens_reasoning", "unit", "amount"),
        ),
        ("bill_id", "ordinal"),
    ),
    SealedTable(
        "bill_balance",
        ("bill_id", "bucket_id", "unit", "valid_to_ns", "opening", "granted", "spent", "expired", "closing"),
        ("bill_id", "bucket_id"),
    ),
)


def transaction(pool: Pool, at_ns: int) -> AbstractAsyncContextManager[Connection]:
    """One transaction of the shop's stream, whose lock it holds: the shop's writers come one after another."""
    return store.transaction(pool, STREAM, at_ns, tables.SEALED + SEALED)
