"""Routes of the ledger's accounts, of its export as plain text, and of verification."""

from collections.abc import AsyncGenerator
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel

from tokenworks.api.office import Office
from tokenworks.api.shapes import Amount, At, By, Page, money, wall_ns
from tokenworks.ledger import balance, export, history
from tokenworks.ledger.export import Extent
from tokenworks.ledger.history import Moment

router = APIRouter(prefix="/ledger", tags=["ledger"])


class AccountShown(BaseModel):
    """A ledger account with its balance on its normal side."""

    code: str
    unit: str
    legal_entity_id: str
    balance: Amount


class CheckShown(BaseModel):
    """One invariant and whether it holds."""

    name: str
    ok: bool
    detail: str


class VerificationShown(BaseModel):
    """All invariants, checked in one snapshot."""

    ok: bool
    checks: list[CheckShown]


@router.get("/accounts")
async def list_accounts(
    office: Office,
    prefix: Annotated[str, Query(max_length=200, description="how the code begins")] = "",
    at: At = None,
    by: By = "posted",
) -> Page[AccountShown]:
    """Accounts by code, all at once; with `at` as they were then, without those that were at zero."""
    async with office.pool.connection() as connection:
        if at is None:
            found = await balance.accounts(connection, prefix)
        else:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            found = await history.accounts(connection, prefix, Moment(wall_ns(at), by))
    return Page(
        items=[
            AccountShown(
                code=account.code,
                unit=account.unit,
                legal_entity_id=account.legal_entity_id,
                balance=money(account.balance, account.unit),
            )
            for account in found
        ]
    )


@router.get("/export", response_class=StreamingResponse)
async def export_ledger(
    office: Office,
    form: Annotated[Literal["beancount", "hledger"], Query(alias="format")],
    from_: Annotated[AwareDatetime | None, Query(alias="from", description="postings from this time on")] = None,
    to: Annotated[AwareDatetime | None, Query(description="and before this time")] = None,
    legal_entity: Annotated[str, Query(max_length=100, description="only this seller's books")] = "",
) -> StreamingResponse:
    """The ledger as plain-text accounting. Its last line counts the transactions; without it the text was cut off."""
    extent = Extent(wall_ns(from_) if from_ else None, wall_ns(to) if to else None, legal_entity or None)

    async def pieces() -> AsyncGenerator[str]:
        async with office.pool.connection() as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            async for piece in export.export(connection, form, extent):
                yield piece

    return StreamingResponse(pieces(), media_type="text/plain; charset=utf-8")


@router.get("/verify")
async def verify(office: Office) -> VerificationShown:
    """Check every invariant, read-only."""
    async with office.pool.connection() as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        found = [check for checks in office.checks for check in await checks(connection)]
    shown = [CheckShown(name=check.name, ok=check.ok, detail=check.detail) for check in found]
    return VerificationShown(ok=all(check.ok for check in found), checks=shown)
