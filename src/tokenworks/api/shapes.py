"""Shapes that many answers share: amounts, pages, times, token counts, bodies that take no unknown field."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Generic, Literal, Protocol, TypeVar

from fastapi import Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from tokenworks.base import clock
from tokenworks.core import amounts, usage
from tokenworks.core.commands import invalid

PAGE_MAX = 200

Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="most entries of a page")]
Cursor = Annotated[str, Query(max_length=100, description="`next` of the page before")]
OfCustomer = Annotated[str, Query(max_length=100, description="only this customer's")]
At = Annotated[AwareDatetime | None, Query(description="as it was at this time (RFC 3339)")]
By = Annotated[Literal["posted", "used"], Query(description="with `at`: what was posted, or what was used until then")]
Number = int | str
"""A whole number for token, coin and point; exact decimal text for currencies."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Item = TypeVar("_Item")


class Body(BaseModel):
    """What a command says. Nothing is guessed: types are strict and unknown fields refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Amount(Body):
    """`{"amount": "9.9", "unit": "CNY"}`, `{"amount": 10000000, "unit": "token"}`."""

    amount: Number
    unit: str


class Page(BaseModel, Generic[_Item]):
    """One page of a list. `next` is the cursor of the next page, null at the end."""

    items: list[_Item]
    next: str | None = None


class Tokens(BaseModel):
    """Disjoint classes; `total` is their sum."""

    input: int
    cached_input: int
    cache_write: int
    output: int
    reasoning: int
    total: int


class _Named(Protocol):
    @property
    def id(self) -> str: ...


_Record = TypeVar("_Record", bound=_Named)


class Rates(Body):
    """A price of one million tokens by class. Classes left out cost what their kind costs."""

    input: Number
    output: Number
    cached_input: Number | None = None
    cache_write: Number | None = None
    reasoning: Number | None = None


def page(found: Sequence[_Record], limit: int, shape: Callable[[_Record], _Item]) -> Page[_Item]:
    """A page of records whose id is the cursor; a full page may have a next one."""
    following = found[-1].id if len(found) == limit else None
    return Page(items=[shape(record) for record in found], next=following)


def number(amount: int, unit: str) -> Number:
    """An amount as its JSON number or text."""
    return amount if amounts.scale(unit) == 1 else amounts.exact(amount, unit)


def money(amount: int, unit: str) -> Amount:
    """An amount with its unit."""
    return Amount(amount=number(amount, unit), unit=unit)


def smallest(value: Number, unit: str, field: str) -> int:
    """A number of the unit in its smallest part; refuses what the unit cannot hold."""
    try:
        return amounts.parse(str(value), unit)
    except amounts.AmountFault as fault:
        raise invalid(f"{field}: {fault}.", field) from fault


def tokens(counts: usage.Tokens) -> Tokens:
    """Token counts with their total."""
    return Tokens(**dict(zip(usage.CLASSES, counts.each(), strict=True)), total=counts.total)


def wall_ns(moment: datetime) -> int:
    """The time in nanoseconds since 1970; a datetime has no more than microseconds."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def at(time_ns: int) -> str:
    """RFC 3339, UTC, milliseconds."""
    return clock.iso(time_ns)


Id = Annotated[str, Field(max_length=128)]
