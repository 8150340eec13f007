"""Metering's sealed tables and the column lists that writing and reading share."""

from tokenworks.ledger.seal import SealedTable

OPENING_COLUMNS = (
    *("request_id", "opened_at_ns", "legal_entity_id", "billing_account_id", "key_id", "model", "streamed"),
    *("input_max", "output_max", "reserved"),
)
TOKEN_COLUMNS = ("tokens_input", "tokens_cached_input", "tokens_cache_write", "tokens_output", "tokens_reasoning")
CLOSING_COLUMNS = (
    *("closed_at_ns", "first_token_after_ns", "ending", "basis", *TOKEN_COLUMNS),
    *("counted", "reported", "flags"),
)
SHIPMENT_COLUMNS = (
    *("journal_id", "ordinal", "worker", "from_position", "through_position", "openings", "closings", "repeats"),
    *("unproven", "final", "posted_at_ns"),
)
WAITING_COLUMNS = ("journal_id", "position", *OPENING_COLUMNS)
RECORD_COLUMNS = (
    *("journal_id", "position", "closing_position", *OPENING_COLUMNS, *CLOSING_COLUMNS),
    "posting_id",
)
CHARGE_COLUMNS = (
    *("journal_id", "position", "ordinal", "lease_id", "bucket_id", "tariff", "unit", *TOKEN_COLUMNS),
    *("amount", "proven", "revenue", "currency"),
)
ATTEMPT_COLUMNS = (
    *("journal_id", "position", "ordinal", "endpoint_id", "supplier_id", "tariff", "currency", *TOKEN_COLUMNS),
    *("cost", "outcome", "sent_after_ns", "first_token_after_ns", "ended_after_ns"),
)

# In the order of the journal's entries: by number, not by text, so that a sort needs no collation.
_ENTRY = ("position", "journal_id")

SEALED = (
    SealedTable("shipment", SHIPMENT_COLUMNS, ("journal_id", "ordinal")),
    SealedTable("usage_opening", WAITING_COLUMNS, _ENTRY),
    SealedTable("usage_record", ("id", *RECORD_COLUMNS), ("id",)),
    SealedTable("charge", CHARGE_COLUMNS, (*_ENTRY, "ordinal")),
    SealedTable("attempt", ATTEMPT_COLUMNS, (*_ENTRY, "ordinal")),
)
