"""The ledger's sealed tables. A later column goes into a later seal format, never into these lists."""

from tokenworks.ledger.seal import SealedTable

TRANSFER = SealedTable(
    "transfer",
    ("posting_id", "ordinal", "debit_account_id", "credit_account_id", "unit", "amount"),
    ("posting_id", "ordinal"),
    copied=True,
)

GRANTED = (
    SealedTable("account", ("id", "legal_entity_id", "code", "unit", "debit_normal"), ("id",)),
    SealedTable(
        "posting",
        ("id", "kind", "event_id", "body_digest", "legal_entity_id", "at_ns", "used_at_ns", "detail"),
        ("id",),
    ),
    TRANSFER,
    SealedTable(
        "lease",
        (
            *("id", "worker", "epoch", "sequence", "ordinal", "request_digest", "bucket_id", "amount"),
            *("granted_at_ns", "use_until_ns", "linger"),
        ),
        ("id",),
    ),
)
"""What granting leases adds rows to. Apart, because a request waits while each table is looked through for them."""

SEALED = (
    *GRANTED,
    SealedTable(
        "bucket",
        (
            *("id", "billing_account_id", "legal_entity_id", "unit", "tariff_id", "valid_from_ns", "valid_to_ns"),
            *("priority", "tier", "models", "granted", "net", "tax", "currency", "kind", "payer", "offer_id"),
            *("order_id", "sold_at_ns"),
        ),
        ("id",),
    ),
    SealedTable("lease_return", ("id", "lease_id", "amount", "claimed", "returned_at_ns", "posting_id"), ("id",)),
    SealedTable("lease_end", ("lease_id", "how", "remainder", "claimed", "ended_at_ns", "posting_id"), ("lease_id",)),
    SealedTable(
        "ledger_epoch", ("epoch", "cluster", "timeline", "why", "started_at_ns", "settle_until_ns"), ("epoch",)
    ),
    SealedTable("ledger_epoch_site", ("epoch", "site_id", "shipped_at_ns"), ("epoch", "site_id")),
    SealedTable("ledger_epoch_end", ("epoch", "how", "settled_at_ns"), ("epoch",)),
)

CORRECTIONS = (
    SealedTable(
        "correction",
        (
            *("id", "kind", "legal_entity_id", "billing_account_id", "about", "reason", "reference", "used_at_ns"),
            *("at_ns", "posting_id"),
        ),
        ("id",),
    ),
    SealedTable(
        "correction_line",
        (
            *("correction_id", "ordinal", "bucket_id", "unit", "amount", "currency", "revenue", "net", "tax", "due"),
            *("charge", "replacement_id"),
        ),
        ("correction_id", "ordinal"),
    ),
)
"""Apart from `SEALED`, so that leases and metering, which correct nothing, need not look there for rows to seal."""
