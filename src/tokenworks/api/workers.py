"""Routes of gateway workers: what waits in them, and how they find their endpoints."""

from fastapi import APIRouter
from pydantic import BaseModel

from tokenworks.api.office import Office
from tokenworks.api.shapes import Page
from tokenworks.core.tiers import TIERS
from tokenworks.core.wire import WorkerState

router = APIRouter(tags=["service"])


class WorkerShown(BaseModel):
    """A gateway worker. `waiting` counts requests by model and tier; `resting` are endpoints it leaves alone."""

    worker: str
    waiting: dict[str, dict[str, int]]
    running: dict[str, int]
    resting: list[str]


@router.get("/workers")
async def list_workers(office: Office) -> Page[WorkerShown]:
    """Gateway workers heard within five seconds: requests that wait and run, endpoints that rest."""
    return Page(items=[_worker(state) for state in office.workers()])


def _worker(state: WorkerState) -> WorkerShown:
    return WorkerShown(
        worker=state.worker,
        waiting={model: dict(zip(TIERS, lengths, strict=True)) for model, lengths in state.waiting.items()},
        running=state.running,
        resting=list(state.resting),
    )
