"""Routes of master keys: which there are, what each seals, a new one, and sealing everything with it.

A master key never leaves its file: only ids are shown. What is sealed with them are the keys of endpoints.
"""

from fastapi import APIRouter
from pydantic import BaseModel

from tokenworks.api.commands import Command, once
from tokenworks.api.office import Connection, Office
from tokenworks.api.shapes import Page
from tokenworks.plant import registry

router = APIRouter(prefix="/secrets", tags=["secrets"])


class MasterKeyShown(BaseModel):
    """A master key by its id. `missing`: endpoints' keys are sealed with it, and it is not in the file."""

    id: str
    seals: bool
    sealed_endpoints: int
    missing: bool


class ResealedShown(BaseModel):
    """How many endpoints' keys were sealed with another key before."""

    sealed_again: int
    with_key: str


@router.get("")
async def list_master_keys(office: Office) -> Page[MasterKeyShown]:
    """Master keys, the one that seals last, then those that are missing."""
    async with office.pool.connection() as connection:
        return Page(items=await _shown(office, connection))


@router.post("/keys", status_code=201)
async def add_master_key(office: Office, command: Command) -> MasterKeyShown:
    """Make a new master key, which seals from now on. Give other gateway machines the file before anything else."""

    async def work(_: Connection) -> MasterKeyShown:
        return MasterKeyShown(id=office.vault.add_key(), seals=True, sealed_endpoints=0, missing=False)

    return await once(office, command, MasterKeyShown, work)


@router.post("/reseal")
async def reseal(office: Office, command: Command) -> ResealedShown:
    """Seal every endpoint's key with the newest master key."""

    async def work(connection: Connection) -> ResealedShown:
        count = await registry.seal_again(connection, office.vault)
        return ResealedShown(sealed_again=count, with_key=office.vault.key_ids[-1])

    resealed = await once(office, command, ResealedShown, work)
    await office.catalog_changed()
    return resealed


async def _shown(office: Office, connection: Connection) -> list[MasterKeyShown]:
    used = await registry.sealed_with(connection)
    known = office.vault.key_ids
    shown = [
        MasterKeyShown(id=key_id, seals=key_id == known[-1], sealed_endpoints=used.pop(key_id, 0), missing=False)
        for key_id in known
    ]
    lost = [
        MasterKeyShown(id=key_id, seals=False, sealed_endpoints=count, missing=True)
        for key_id, count in sorted(used.items())
    ]
    return shown + lost
