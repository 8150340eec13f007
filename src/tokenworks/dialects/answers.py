"""Answers: the bytes a customer gets. The one table from refusal codes to HTTP status and OpenAI's error type is here.

Knows HTTP/1.1 heads and OpenAI's error body; knows no sockets and decides nothing.
"""

from email.utils import formatdate
from http import HTTPStatus

import msgspec

from tokenworks.base.clock import SECOND
from tokenworks.core.refusals import Code, Refusal

INVALID = "invalid_request_error"
AUTHENTICATION = "authentication_error"
QUOTA = "insufficient_quota"
SERVER = "server_error"

# Types are OpenAI's, so that its clients raise the same exception classes as with OpenAI.
TABLE: dict[Code, tuple[int, str]] = {
    Code.HEADERS_TOO_LARGE: (431, INVALID),
    Code.BODY_TOO_LARGE: (413, INVALID),
    Code.MALFORMED_REQUEST: (400, INVALID),
    Code.ROUTE_NOT_FOUND: (404, INVALID),
    Code.METHOD_NOT_ALLOWED: (405, INVALID),
    Code.KEY_MISSING: (401, AUTHENTICATION),
    Code.KEY_INVALID: (401, AUTHENTICATION),
    Code.KEY_REVOKED: (401, AUTHENTICATION),
    Code.ACCOUNT_SUSPENDED: (403, "permission_error"),
    Code.MALFORMED_BODY: (400, INVALID),
    Code.INVALID_VALUE: (400, INVALID),
    Code.FIELD_NOT_SUPPORTED: (400, INVALID),
    Code.MODEL_NOT_FOUND: (404, INVALID),
    Code.RESPONSE_NOT_FOUND: (404, INVALID),
    Code.MODEL_NOT_SUPPORTED: (400, INVALID),
    Code.CONTEXT_EXCEEDED: (400, INVALID),
    Code.RATE_LIMITED: (429, "rate_limit_error"),
    Code.CONCURRENCY_LIMITED: (429, "requests"),
    Code.NO_MATCHING_BUCKET: (402, QUOTA),
    Code.BALANCE_USED_UP: (402, QUOTA),
    Code.BALANCE_RESERVED: (429, QUOTA),
    Code.SPEND_LIMITED: (429, QUOTA),
    Code.LEASE_UNAVAILABLE: (503, SERVER),
    Code.LEASE_CONFLICT: (503, SERVER),
    Code.STALE_SNAPSHOT: (503, SERVER),
    Code.JOURNAL_FULL: (503, SERVER),
    Code.CONTENT_FILTER: (400, INVALID),
    Code.SAFETY_UNAVAILABLE: (503, SERVER),
    Code.DRAINING: (503, SERVER),
    Code.TOO_MANY_CONNECTIONS: (503, SERVER),
    Code.OVERLOADED: (429, SERVER),
    Code.ENDPOINT_REFUSED: (502, SERVER),
    Code.ENDPOINT_UNAVAILABLE: (503, SERVER),
    Code.ENDPOINT_BROKEN: (502, SERVER),
    Code.ENDPOINT_TIMEOUT: (504, SERVER),
}

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
# Anthropic's, for what is busy.
_STATUS_LINES[529] = b"HTTP/1.1 529 Overloaded\r\n"

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"
CLOSE = b"connection: close\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
LAST_CHUNK = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def head(status: int, content_type: bytes, request_id: str, stamp: bytes, fields: bytes) -> bytes:
    """Status line and headers up to the empty line. `fields` are further header lines, each with its line end."""
    return b"%bcontent-type: %b\r\nx-request-id: %b\r\n%b%b\r\n" % (
        _STATUS_LINES[status],
        content_type,
        request_id.encode(),
        stamp,
        fields,
    )


def stamp(now_ns: int, worker: str) -> bytes:
    """The header lines that all answers of a moment share: the date, and the worker's name if it has one."""
    lines = f"date: {formatdate(now_ns / SECOND, usegmt=True)}\r\n"
    return (lines + (f"x-tokenworks-worker: {worker}\r\n" if worker else "")).encode()


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def error_body(message: str, kind: str, field: str | None, code: str | None) -> bytes:
    """OpenAI's error object. Source: OpenAI API reference, "Error codes"."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": field, "code": code}})


def refusal_body(refusal: Refusal) -> bytes:
    """The error object of a refusal."""
    return error_body(
        refusal.message, refusal.kind or TABLE[refusal.code][1], refusal.field or None, refusal.code.value
    )


def refusal_fields(refusal: Refusal) -> bytes:
    """Header lines of a refusal: when to try again, if there is anything to wait for, and who may ask."""
    if refusal.code in {Code.KEY_MISSING, Code.KEY_INVALID, Code.KEY_REVOKED}:
        return b"www-authenticate: Bearer\r\n"
    if refusal.retry_after_ms:
        return b"retry-after: %d\r\n" % -(-refusal.retry_after_ms // 1000)
    return b""
