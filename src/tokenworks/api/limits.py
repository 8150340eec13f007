"""Routes of the limits of keys and customers."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from tokenworks.access import keys, limits
from tokenworks.access.limits import LimitRecord
from tokenworks.api.commands import Command, once
from tokenworks.api.office import Connection, Office, OfficeContext
from tokenworks.api.shapes import Body, Cursor, Number, OfCustomer, Page, at, number, page, smallest
from tokenworks.api.shapes import Limit as PageLimit
from tokenworks.core.amounts import TOKEN
from tokenworks.core.commands import invalid
from tokenworks.core.limits import Metric, Window
from tokenworks.core.wire import KeyChanged
from tokenworks.shop import parties

router = APIRouter(tags=["limits"])

OfKey = Annotated[str, Query(max_length=100, description="only this key's")]


class LimitBody(Body):
    """A limit of a key, or of a customer with all its keys: `amount` of the metric within the window.

    `unit` is for `spend`: token, coin, point or a currency. `weight` is a customer's share where capacity is short.
    """

    customer: str = ""
    key: str = ""
    metric: Literal["requests", "tokens", "concurrency", "spend", "weight"]
    amount: Number
    window: Literal["", "minute", "day", "month"] = ""
    rolling: bool = False
    unit: str = ""


class LimitShown(BaseModel):
    """A limit. `used` is what workers have told of it; an `amount` of null says that it was removed."""

    id: str
    customer_id: str
    key_id: str | None
    metric: Metric
    amount: Number | None
    unit: str
    window: Window
    rolling: bool
    timezone: str
    version: int
    used: Number
    set_at: str


@router.get("/limits")
async def list_limits(
    office: Office, customer: OfCustomer = "", key: OfKey = "", limit: PageLimit = 50, cursor: Cursor = ""
) -> Page[LimitShown]:
    """Limits that hold, with what is used of them now."""
    async with office.pool.connection() as connection:
        found = await limits.listed(connection, customer, key, limit, cursor)
    return page(found, limit, lambda record: _limit(office, record))


@router.post("/limits", status_code=201)
async def set_limit(office: Office, command: Command, body: LimitBody) -> LimitShown:
    """Set a limit, or another amount of one; gateways follow at once."""
    if bool(body.customer) == bool(body.key):
        raise invalid("Name either a customer or a key.", "customer")
    changed: list[KeyChanged] = []

    async def work(connection: Connection) -> LimitShown:
        key = await keys.get(connection, body.key) if body.key else None
        customer = await parties.customer(connection, key.customer_id if key else body.customer, "customer")
        entity = await parties.legal_entity(connection, customer.legal_entity_id)
        record = await limits.put(
            connection,
            customer_id=customer.id,
            key_id=key.id if key else None,
            metric=body.metric,
            unit=body.unit,
            within=body.window,
            rolling=body.rolling,
            amount=smallest(body.amount, body.unit if body.metric == "spend" else TOKEN, "amount"),
            timezone=entity.timezone,
            currency=entity.currency,
            at_ns=office.wall_ns(),
        )
        changed.append(KeyChanged(key.digest) if key else KeyChanged(b"", customer.billing_account_id))
        return _limit(office, record)

    shown = await once(office, command, LimitShown, work)
    for each in changed:
        await office.key_changed(each)
    return shown


@router.get("/limits/{limit_id}")
async def show_limit(office: Office, limit_id: str) -> LimitShown:
    """One limit, also one that was removed."""
    async with office.pool.connection() as connection:
        return _limit(office, await limits.get(connection, limit_id))


@router.delete("/limits/{limit_id}")
async def remove_limit(office: Office, command: Command, limit_id: str) -> LimitShown:
    """Remove a limit; gateways follow at once."""
    changed: list[KeyChanged] = []

    async def work(connection: Connection) -> LimitShown:
        record = await limits.remove(connection, limit_id, office.wall_ns())
        if record.key_id is not None:
            changed.append(KeyChanged((await keys.get(connection, record.key_id)).digest))
        else:
            customer = await parties.customer(connection, record.customer_id)
            changed.append(KeyChanged(b"", customer.billing_account_id))
        return _limit(office, record)

    shown = await once(office, command, LimitShown, work)
    for each in changed:
        await office.key_changed(each)
    return shown


def _limit(office: OfficeContext, record: LimitRecord) -> LimitShown:
    limit, unit = record.limit(), record.unit or TOKEN
    used = office.limit_use((limit,)).get(limit.id, 0) if limit else 0
    return LimitShown(
        id=record.id,
        customer_id=record.customer_id,
        key_id=record.key_id,
        metric=record.metric,
        amount=None if record.amount is None else number(record.amount, unit),
        unit=record.unit,
        window=record.within,
        rolling=record.rolling,
        timezone=record.timezone,
        version=record.version,
        used=number(used, unit),
        set_at=at(record.set_at_ns),
    )
