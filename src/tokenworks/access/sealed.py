"""The sealed table of this room. A later column goes into a later seal format, never into this list."""

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
)
"""All of a key but its state."""
