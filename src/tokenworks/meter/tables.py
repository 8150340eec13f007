"""Metering's sealed tables and the column lists that writing and reading share."""

from tokenworks.ledger.seal import SealedTable

STREAM = "meter"

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
EXTENSION_COLUMNS = ("journal_id", "position", "extended_at", "input_max", "output_max", "reserved")
RECORD_COLUMNS = (
    *("id", "journal_id", "position", "closing_position", *OPENING_COLUMNS, *CLOSING_COLUMNS),
    *("charges", "attempts", "posting_id"),
)

OPENING = SealedTable("usage_opening", WAITING_COLUMNS, ("journal_id", "position"), copied=True)
RECORD = SealedTable("usage_record", RECORD_COLUMNS, ("id",), copied=True, follows_seal=True)
EXTENSION = SealedTable("usage_extension", EXTENSION_COLUMNS, ("journal_id", "position", "extended_at"), copied=True)
SEALED = (SealedTable("shipment", SHIPMENT_COLUMNS, ("journal_id", "ordinal")), OPENING, EXTENSION, RECORD)
LAKE = (
    SealedTable("lake_export", ("from_seq", "through_seq", "at_ns"), ("through_seq",)),
    SealedTable(
        "lake_file",
        ("path", "day", "from_seq", "through_seq", "records", "tokens", "charged", "revenue", "cost"),
        ("path",),
    ),
)
"""Written in transactions of their own."""

ORDINAL_BITS = 20


def first_id(seq: int) -> int:
    """The id of the first record of a seal: ids grow in the order of posting, and those of a seal lie together."""
    return seq << ORDINAL_BITS
