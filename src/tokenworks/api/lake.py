"""Routes of the usage lake: its files, and an export now. Queries are for whoever has the files."""

from fastapi import APIRouter
from pydantic import BaseModel

from tokenworks.api.office import Office
from tokenworks.api.shapes import Page
from tokenworks.core.commands import CommandCode, CommandRefused
from tokenworks.meter import lake
from tokenworks.meter.lake_files import LakeFault, LakeFile

router = APIRouter(prefix="/lake", tags=["usage"])


class LakeFileShown(BaseModel):
    """One file below the lake's folder: the day (UTC) its requests were opened on, and what is in it."""

    path: str
    day: str
    records: int
    tokens: int
    from_seal: int
    through_seal: int


class ExportShown(BaseModel):
    """What an export has added, and where."""

    folder: str
    records: int
    files: list[LakeFileShown]


@router.get("/files")
async def list_files(office: Office) -> Page[LakeFileShown]:
    """Files of the lake by day, all at once."""
    async with office.pool.connection() as connection:
        return Page(items=[_file(file) for file in await lake.files(connection)])


@router.post("/exports", status_code=201)
async def export_usage(office: Office) -> ExportShown:
    """Put every usage record into the lake that is not there yet."""
    folder = office.settings.lake
    try:
        made = await lake.export(office.pool, folder, office.wall_ns())
    except LakeFault as fault:
        raise CommandRefused(CommandCode.LAKE_UNAVAILABLE, str(fault)) from fault
    return ExportShown(
        folder=str(folder), records=sum(file.sums.records for file in made), files=[_file(file) for file in made]
    )


def _file(file: LakeFile) -> LakeFileShown:
    return LakeFileShown(
        path=file.path,
        day=file.day,
        records=file.sums.records,
        tokens=file.sums.tokens,
        from_seal=file.from_seq,
        through_seal=file.through_seq,
    )
