"""Refusals: the expected ways to say no, as values with a stable code.

The order of the enum is the order of precedence: of several reasons the first is given. Which HTTP status a refusal
becomes is decided at the edge, in one table. Broken invariants are faults, not refusals.
"""

from enum import Enum

import msgspec


class Code(Enum):
    """Stable codes; customers' programs compare them, so none is ever renamed."""

    HEADERS_TOO_LARGE = "headers_too_large"
    BODY_TOO_LARGE = "body_too_large"
    MALFORMED_REQUEST = "malformed_request"
    ROUTE_NOT_FOUND = "route_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    KEY_MISSING = "key_missing"
    KEY_INVALID = "invalid_api_key"
    KEY_REVOKED = "key_revoked"
    ACCOUNT_SUSPENDED = "account_suspended"
    MALFORMED_BODY = "malformed_body"
    INVALID_VALUE = "invalid_value"
    FIELD_NOT_SUPPORTED = "field_not_supported"
    MODEL_NOT_FOUND = "model_not_found"
    RESPONSE_NOT_FOUND = "response_not_found"
    MODEL_NOT_SUPPORTED = "model_not_supported"
    CONTEXT_EXCEEDED = "context_length_exceeded"
    RATE_LIMITED = "rate_limit_exceeded"
    CONCURRENCY_LIMITED = "concurrency_limit_exceeded"
    NO_MATCHING_BUCKET = "no_matching_bucket"
    BALANCE_USED_UP = "balance_used_up"
    BALANCE_RESERVED = "balance_reserved"
    SPEND_LIMITED = "spend_limit_exceeded"
    LEASE_UNAVAILABLE = "lease_unavailable"
    LEASE_CONFLICT = "lease_conflict"
    STALE_SNAPSHOT = "stale_snapshot"
    JOURNAL_FULL = "journal_full"
    CONTENT_FILTER = "content_filter"
    SAFETY_UNAVAILABLE = "safety_unavailable"
    DRAINING = "draining"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    OVERLOADED = "overloaded"
    ENDPOINT_REFUSED = "endpoint_refused"
    ENDPOINT_UNAVAILABLE = "endpoint_unavailable"
    ENDPOINT_BROKEN = "endpoint_broken"
    ENDPOINT_TIMEOUT = "endpoint_timeout"


PRECEDENCE = {code: place for place, code in enumerate(Code)}


class Refusal(msgspec.Struct, frozen=True):
    """A no, with its reason. `message` says what is wrong, where, and what to do; `field` names the request field.

    `kind` is OpenAI's error type where it is more particular than the code's.
    """

    code: Code
    message: str
    field: str = ""
    retry_after_ms: int = 0
    kind: str = ""


def first(*refusals: Refusal | None) -> Refusal | None:
    """Of several refusals the one that takes precedence."""
    given = [refusal for refusal in refusals if refusal is not None]
    return min(given, key=lambda refusal: PRECEDENCE[refusal.code], default=None)
