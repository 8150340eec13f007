"""What the API needs from the process that serves it, and how a handler gets at it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.access import admin
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.base.vault import Vault
from tokenworks.core.commands import CommandCode, CommandRefused
from tokenworks.core.limits import Limit
from tokenworks.core.wire import KeyChanged, WorkerState
from tokenworks.ledger.verify import Check
from tokenworks.shop.orders import OrderDesk

Connection = AsyncConnection[TupleRow]


@dataclass(frozen=True, kw_only=True)
class OfficeContext:
    """`admin_token` opens `/api/v1`. `wall_ns` is the clock of `base.clock`.

    `catalog_changed` publishes a new snapshot of the catalog; `key_changed` tells the gateways to forget a key; both
    are awaited after the change is committed. `checks` are run one after another in one read-only snapshot.
    `health` says of each part of the system, by name, `ok` or in a few words what is wrong; the database is looked
    after here. `vault` seals the keys of endpoints. `limit_use` says how much of limits is used now, `workers` how
    those that live are.
    """

    settings: Settings
    admin_token: str
    version: str
    pool: Pool
    orders: OrderDesk
    wall_ns: Callable[[], int]
    catalog_changed: Callable[[], Awaitable[None]]
    key_changed: Callable[[KeyChanged], Awaitable[None]]
    checks: tuple[Callable[[Connection], Awaitable[list[Check]]], ...]
    health: Mapping[str, Callable[[], Awaitable[str]]]
    metrics: CollectorRegistry
    vault: Vault
    limit_use: Callable[[Iterable[Limit]], Mapping[str, int]]
    workers: Callable[[], Sequence[WorkerState]]


def office_of(request: Request) -> OfficeContext:
    """The context that the application was created with."""
    return cast("OfficeContext", request.app.state.office)


Office = Annotated[OfficeContext, Depends(office_of)]


def require_admin(request: Request, office: Office) -> None:
    """Refuse whoever does not carry the admin token."""
    if not admin.admits(request.headers.get("authorization", ""), office.admin_token):
        raise CommandRefused(
            CommandCode.UNAUTHORIZED, "Send the admin token as `Authorization: Bearer …`; it is in secrets/admin-token."
        )
