"""The sealed tables of this room. A later column goes into a later seal format, never into this list."""

from tokenworks.ledger.seal import SealedTable

SEALED = (
    SealedTable(
        "access_key",
        (
            *("id", "name", "hint", "legal_entity_id", "customer_id", "billing_account_id", "digest"),
            "created_at_ns",
        ),
        ("id",),
    ),
    SealedTable(
        "usage_limit",
        (
            *("id", "version", "customer_id", "key_id", "metric", "unit", "within", "rolling", "amount", "timezone"),
            "set_at_ns",
        ),
        ("id", "version"),
    ),
)
"""All of a key but its state; limits in all their versions."""
