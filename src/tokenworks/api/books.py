"""Routes of the ledger's accounts and of verification."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from tokenworks.api.office import Office
from tokenworks.api.shapes import Amount, At, By, Page, money, wall_ns
from tokenworks.ledger import balance, history
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


@router.get("/verify")
async def verify(office: Office) -> VerificationShown:
    """Check every invariant, read-only."""
    async with office.pool.connection() as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        found = [check for checks in office.checks for check in await checks(connection)]
    shown = [CheckShown(name=check.name, ok=check.ok, detail=check.detail) for check in found]
    return VerificationShown(ok=all(check.ok for check in found), checks=shown)
