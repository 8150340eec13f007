"""Routes of ledger epochs: what was lost and made good, and an operator's word about it."""

from fastapi import APIRouter
from pydantic import BaseModel

from tokenworks.api.office import Connection, Office, OfficeContext
from tokenworks.api.shapes import Page
from tokenworks.base import clock
from tokenworks.ledger import epoch
from tokenworks.ledger.epoch import Epoch, Epochs, How, Why

router = APIRouter(prefix="/ledger/epochs", tags=["ledger"])


class EpochShown(BaseModel):
    """An epoch; leases are granted once it is settled. `sites` have shipped all their journals in it."""

    epoch: int
    why: Why
    timeline: str
    started_at: str
    settle_until: str
    settled: How | None
    settled_at: str | None
    sites: list[str]


@router.get("")
async def list_epochs(office: Office) -> Page[EpochShown]:
    """Ledger epochs, newest first."""
    async with office.pool.connection() as connection:
        return Page(items=[await _shown(connection, each) for each in await epoch.epochs(connection)])


@router.post("", status_code=201)
async def begin_epoch(office: Office) -> EpochShown:
    """Begin an epoch, after a restore that the office cannot notice by itself."""
    return await _told(office, await _epochs(office).begin(office.wall_ns(), "restore"))


@router.post("/settle")
async def settle_epoch(office: Office) -> EpochShown:
    """Settle the epoch without the sites that have not shipped; what they still have may be our loss."""
    await _epochs(office).settle(office.wall_ns())
    async with office.pool.connection() as connection:
        return await _shown(connection, (await epoch.epochs(connection))[0])


def _epochs(office: OfficeContext) -> Epochs:
    return Epochs(office.pool, office.settings)


async def _told(office: OfficeContext, found: Epoch) -> EpochShown:
    async with office.pool.connection() as connection:
        return await _shown(connection, found)


async def _shown(connection: Connection, found: Epoch) -> EpochShown:
    return EpochShown(
        epoch=found.epoch,
        why=found.why,
        timeline=found.timeline,
        started_at=clock.iso(found.started_at_ns),
        settle_until=clock.iso(found.settle_until_ns),
        settled=found.how,
        settled_at=None if found.settled_at_ns is None else clock.iso(found.settled_at_ns),
        sites=await epoch.sites(connection, found.epoch),
    )
