"""The sealed tables of this room. A later column goes into a later seal format, never into these lists."""

from tokenworks.ledger.seal import SealedTable

SEALED = (
    SealedTable(
        "purchase_tariff",
        (
            *("id", "version", "supplier_id", "currency", "rounding"),
            *("input", "cached_input", "cache_write", "output", "reasoning", "published_at_ns"),
        ),
        ("id", "version"),
    ),
)
