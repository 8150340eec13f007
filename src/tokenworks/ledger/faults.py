"""What the ledger raises when it is asked for something impossible. An expected no is a refusal value instead."""

import psycopg


class LedgerFault(Exception):
    """The ledger was asked for something that would break its books; the transaction must be given up."""


class EventConflict(LedgerFault):
    """The event was posted before with another content."""

    def __init__(self, event_id: str) -> None:
        super().__init__(f"{event_id} was posted before with another content")
        self.event_id = event_id


class Overdrawn(LedgerFault):
    """An account would go below zero."""

    def __init__(self, code: str) -> None:
        super().__init__(f"{code} would go below zero")
        self.code = code


class EpochUnknown(LedgerFault):
    """The database is not the one that the newest ledger epoch was opened on: a failover nobody has noticed yet."""

    def __init__(self) -> None:
        super().__init__("the database has another timeline than the ledger's epoch; a new epoch is about to begin")


OF_ONE = (LedgerFault, psycopg.DataError, psycopg.IntegrityError)
"""What one journal or order may bring that cannot be posted or stored, and that must keep no other waiting.
A database that is away says none of it.
"""
