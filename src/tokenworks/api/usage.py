"""Routes of usage: each request with its counts, charges by bucket and attempts; and sums by hour or day."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from msgspec import structs
from pydantic import AwareDatetime, BaseModel, Field

from tokenworks.api import shapes
from tokenworks.api.office import Office
from tokenworks.api.shapes import (
    Amount,
    Cursor,
    Limit,
    Number,
    OfCustomer,
    Page,
    Tokens,
    at,
    money,
    number,
    tokens,
    wall_ns,
)
from tokenworks.base import clock
from tokenworks.core.commands import invalid
from tokenworks.meter import usage, usage_hours
from tokenworks.meter.usage import AttemptLine, ChargeLine, UsageRecord
from tokenworks.meter.usage_hours import Used, Wanted
from tokenworks.shop import parties

router = APIRouter(tags=["usage"])


class ChargeShown(BaseModel):
    """What a record took from one bucket at one tariff version. Not `proven`: it came too late and took nothing."""

    bucket_id: str
    tariff: str
    tokens: Tokens
    amount: Amount
    proven: bool
    revenue: Amount


class AttemptShown(BaseModel):
    """One try at one endpoint and what it costs us."""

    endpoint: str
    supplier: str
    tariff: str
    tokens: Tokens
    cost: Amount
    outcome: str


class UsageShown(BaseModel):
    """One request. `basis` says whether `tokens` are the reported or the counted ones."""

    request_id: str
    opened_at: str
    closed_at: str
    customer_id: str
    key_id: str
    model: str
    stream: bool
    tokens: Tokens
    counted: Tokens
    reported: Tokens | None
    basis: str
    flags: list[str]
    ending: str
    charges: list[ChargeShown]
    attempts: list[AttemptShown]
    first_token_ms: int | None
    duration_ms: int
    posting_id: int | None


@router.get("/usage")
async def list_usage(
    office: Office,
    customer: OfCustomer = "",
    request: Annotated[str, Query(max_length=100, description="only this request")] = "",
    before: Annotated[AwareDatetime | None, Query(description="only records closed before this time")] = None,
    limit: Limit = 50,
    cursor: Cursor = "",
) -> Page[UsageShown]:
    """Usage records, newest first."""
    if cursor and not cursor.isdecimal():
        raise invalid("The cursor is not one of this list.", "cursor")
    async with office.pool.connection() as connection:
        account = (await parties.customer(connection, customer)).billing_account_id if customer else None
        found = await usage.records(
            connection,
            billing_account_id=account,
            request_id=request or None,
            before=int(cursor) if cursor else None,
            limit=limit,
            closed_before_ns=wall_ns(before) if before else None,
        )
        owners = await parties.names(connection, [record.billing_account_id for record in found])
    following = str(found[-1].id) if len(found) == limit else None
    return Page(items=[_record(record, owners[record.billing_account_id]) for record in found], next=following)


class UsedShown(BaseModel):
    """Sums of one hour or day (UTC) in one unit: a charge counts in its unit, revenue and cost in their currency.

    A request counts once, in the unit of its first charge. `unproven` was delivered and charged to nobody.
    """

    from_: str = Field(alias="from", serialization_alias="from")
    legal_entity_id: str
    customer_id: str
    model: str
    unit: str
    requests: int
    tokens: Tokens
    charged: Number
    unproven: Number
    revenue: Number
    cost: Number


@router.get("/usage/summary")
async def summarise_usage(
    office: Office,
    by: Annotated[Literal["hour", "day"], Query(description="how long a span is, in UTC")] = "day",
    customer: OfCustomer = "",
    from_: Annotated[AwareDatetime | None, Query(alias="from", description="closed from this time on")] = None,
    to: Annotated[AwareDatetime | None, Query(description="closed before this time")] = None,
) -> Page[UsedShown]:
    """Sums of usage by hour or day, customer, model and unit, all at once; both ends are taken down to whole spans."""
    async with office.pool.connection() as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        account = (await parties.customer(connection, customer)).billing_account_id if customer else None
        span = Wanted(by=by, billing_account_id=account)
        if from_:
            span = structs.replace(span, from_ns=wall_ns(from_))
        if to:
            span = structs.replace(span, to_ns=wall_ns(to))
        found = await usage_hours.summary(connection, span)
        owners = await parties.names(connection, sorted({used.billing_account_id for used in found}))
    return Page(items=[_used(used, owners.get(used.billing_account_id, "")) for used in found])


def _used(used: Used, customer_id: str) -> UsedShown:
    return UsedShown.model_validate(
        {
            "from": shapes.at(used.from_ns),
            "legal_entity_id": used.legal_entity_id,
            "customer_id": customer_id,
            "model": used.model,
            "unit": used.unit,
            "requests": used.requests,
            "tokens": tokens(used.tokens),
            **{
                name: number(getattr(used, name), used.unit) if used.unit else 0
                for name in ("charged", "unproven", "revenue", "cost")
            },
        }
    )


def _record(record: UsageRecord, customer_id: str) -> UsageShown:
    return UsageShown(
        request_id=record.request_id,
        opened_at=at(record.opened_at_ns),
        closed_at=at(record.closed_at_ns),
        customer_id=customer_id,
        key_id=record.key_id,
        model=record.model,
        stream=record.streamed,
        tokens=tokens(record.tokens),
        counted=tokens(record.counted),
        reported=tokens(record.reported) if record.reported is not None else None,
        basis=record.basis,
        flags=list(record.flags),
        ending=record.ending,
        charges=[_charge(line) for line in record.charges],
        attempts=[_attempt(line) for line in record.attempts],
        first_token_ms=record.first_token_after_ns // clock.MS if record.first_token_after_ns else None,
        duration_ms=(record.closed_at_ns - record.opened_at_ns) // clock.MS,
        posting_id=record.posting_id,
    )


def _charge(line: ChargeLine) -> ChargeShown:
    return ChargeShown(
        bucket_id=line.bucket_id,
        tariff=line.tariff,
        tokens=tokens(line.tokens),
        amount=money(line.amount, line.unit),
        proven=line.proven,
        revenue=money(line.revenue, line.currency),
    )


def _attempt(line: AttemptLine) -> AttemptShown:
    return AttemptShown(
        endpoint=line.endpoint_id,
        supplier=line.supplier_id,
        tariff=line.tariff,
        tokens=tokens(line.tokens),
        cost=money(line.cost, line.currency),
        outcome=line.outcome,
    )
