"""The sealed tables of this room, and the sealed transactions it writes in.

A later column goes into a later seal format, never into these lists. The state of a billing account or an order is not
under seal; `verify` checks it against what is.
"""

from contextlib import AbstractAsyncContextManager

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.access import sealed as access_sealed
from tokenworks.base.database import Pool
from tokenworks.ledger import store, tables
from tokenworks.ledger.seal import SealedTable

Connection = AsyncConnection[TupleRow]

STREAM = "shop"

_RATES = ("input", "cached_input", "cache_write", "output", "reasoning")

SEALED = (
    SealedTable(
        "legal_entity",
        ("id", "name", "country", "currency", "tax_basis_points", "timezone", "created_at_ns"),
        ("id",),
    ),
    SealedTable("customer", ("id", "legal_entity_id", "kind", "name", "phone", "created_at_ns"), ("id",)),
    SealedTable("billing_account", ("id", "customer_id"), ("id",)),
    SealedTable("tariff", ("id", "version", "unit", "rounding", "stopped", "published_at_ns"), ("id", "version")),
    SealedTable("tariff_rate", ("tariff_id", "version", "selector", *_RATES), ("tariff_id", "version", "selector")),
    SealedTable(
        "offer",
        (
            *("id", "legal_entity_id", "name", "seller", "source", "price", "currency", "granted", "unit", "validity"),
            *("tariff_id", "tier", "models", "priority", "created_at_ns", "kind", "payer"),
        ),
        ("id",),
    ),
    SealedTable(
        "customer_order",
        (
            *("id", "customer_id", "billing_account_id", "legal_entity_id", "offer_id", "phone", "price", "net", "tax"),
            *("tax_basis_points", "currency", "placed_at_ns"),
        ),
        ("id",),
    ),
    SealedTable("order_failure", ("order_id", "code", "message", "failed_at_ns"), ("order_id",)),
    SealedTable(
        "payment",
        ("order_id", "method", "payer", "reference", "amount", "currency", "paid_at_ns"),
        ("order_id",),
    ),
    SealedTable("credit_end", ("order_id", "ended_at_ns"), ("order_id",)),
    SealedTable(
        "collection",
        ("id", "order_id", "bucket_id", "phone", "amount", "currency", "description", "placed_at_ns"),
        ("id",),
    ),
    SealedTable(
        "collection_outcome",
        ("collection_id", "collected", "payer", "reference", "code", "message", "at_ns"),
        ("collection_id",),
    ),
    SealedTable(
        "payment_received",
        ("id", "legal_entity_id", "payer", "amount", "currency", "reference", "received_at_ns"),
        ("id",),
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
        (
            *("bill_id", "bucket_id", "unit", "valid_to_ns", "opening", "granted", "refunded", "spent", "expired"),
            *("withdrawn", "closing"),
        ),
        ("bill_id", "bucket_id"),
    ),
    SealedTable(
        "bill_credit",
        (
            *("bill_id", "ordinal", "order_id", "offer_id", "name", "bucket_id", "unit", "used", "tax_basis_points"),
            *("net", "tax", "total"),
        ),
        ("bill_id", "ordinal"),
    ),
    SealedTable("bill_owed", ("bill_id", "order_id", "opening", "used", "paid", "closing"), ("bill_id", "order_id")),
    SealedTable(
        "bill_correction",
        (
            *("bill_id", "ordinal", "correction_id", "line", "kind", "about", "reason", "bucket_id", "replacement_id"),
            *("unit", "amount", "net", "tax", "due", "used_at_ns", "at_ns"),
        ),
        ("bill_id", "ordinal"),
    ),
)


def transaction(
    pool: Pool, at_ns: int, others: tuple[SealedTable, ...] = ()
) -> AbstractAsyncContextManager[Connection]:
    """One transaction of the shop's stream, whose lock it holds: the shop's writers come one after another.

    Rows may be added to the tables of ledger, access and shop, and to `others`.
    """
    return store.transaction(
        pool, STREAM, at_ns, tables.SEALED + tables.CORRECTIONS + access_sealed.SEALED + SEALED + others
    )
