"""Refusals of management commands: a stable code, a sentence, the field it is about.

Raised, not returned: a refused command must undo the transaction it has begun, and an exception that leaves the
transaction's block does that by itself. The refusals of model requests, which undo nothing, are values and live in
`core.refusals`. Which HTTP status a code becomes is decided in one table of `api.errors`.
"""

from enum import Enum


class CommandCode(Enum):
    """Stable codes of the management API; none is ever renamed."""

    UNAUTHORIZED = "unauthorized"
    INVALID = "invalid_value"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "conflict"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    PAYMENT_DECLINED = "payment_declined"
    CARRIER_UNAVAILABLE = "carrier_unavailable"
    DATABASE_UNAVAILABLE = "database_unavailable"
    LAKE_UNAVAILABLE = "lake_unavailable"
    SECRETS_UNAVAILABLE = "secrets_unavailable"


class CommandRefused(Exception):
    """An expected no. The message says what is wrong and what to do; `field` names the field of the command."""

    def __init__(self, code: CommandCode, message: str, field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field


def invalid(message: str, field: str = "") -> CommandRefused:
    """A value that cannot be accepted, whatever the state of the business."""
    return CommandRefused(CommandCode.INVALID, message, field)


def not_found(what: str, name: str, field: str = "") -> CommandRefused:
    """`not_found("customer", "cus_1")`: nothing has that name."""
    return CommandRefused(CommandCode.NOT_FOUND, f"There is no {what} {name!r}.", field)


def conflict(message: str, field: str = "") -> CommandRefused:
    """A command that contradicts what is already there."""
    return CommandRefused(CommandCode.CONFLICT, message, field)
