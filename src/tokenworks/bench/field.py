"""The field of a measurement: every peer that could be had and started, and why another could not.

A peer that fails is left out by name with its reason; no figure of it is shown.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from tokenworks.app import ports
from tokenworks.base import processes
from tokenworks.base.processes import Program, StartFault
from tokenworks.bench import environments, peers, proxy
from tokenworks.bench.peers import Peer, Place
from tokenworks.bench.proxy import Proxy


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader has to know of a peer: its version, what it runs with, what is switched off in it."""

    version: str
    workers: str
    processes: int
    threads: int
    off: tuple[str, ...]


class Field(msgspec.Struct, kw_only=True):
    """The peers that run, what each is, and the reasons of those that do not run (any more)."""

    proxies: dict[str, Proxy]
    about: dict[str, About]
    left_out: dict[str, str]

    def leave_out(self, name: str, why: str) -> None:
        """Strike a peer off, with the reason."""
        self.left_out[name] = why
        self.proxies.pop(name, None)


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """The endpoints' ports, the folder for the peers' files, and the one that keeps their packages."""

    endpoints: list[int]
    folder: Path
    cache: Path
    unbuffered: bool = False


@asynccontextmanager
async def running(chosen: Sequence[Peer], where: Where, told: Callable[[str], None]) -> AsyncGenerator[Field]:
    """Those that can be had, started one after the other."""
    field = Field(proxies={}, about={}, left_out={})
    async with AsyncExitStack() as stack:
        for peer in chosen:
            is_new = peer.requirement and not environments.is_there(where.cache, peer.requirement)
            told(f"Installing {peer.name} and starting it" if is_new else f"Starting {peer.name}")
            try:
                programs = await _programs(peer, where.cache)
                place = await _place(peer, where, programs)
                started = proxy.running(peer.name, peer.launch(place), place.folder, place.port)
                running = await stack.enter_async_context(started)
            except (StartFault, OSError) as fault:
                field.leave_out(peer.name, str(fault))
                continue
            field.proxies[peer.name] = running
            field.about[peer.name] = About(
                version=await _version(peer, programs),
                workers=peer.workers,
                processes=len(running.pids),
                threads=running.threads(),
                off=peer.off,
            )
        yield field


async def _programs(peer: Peer, cache: Path) -> Path:
    if not peer.requirement:
        return peers.on_path(peer.name)
    return await environments.programs(cache, peer.requirement)


async def _place(peer: Peer, where: Where, programs: Path) -> Place:
    return Place(
        folder=where.folder / peer.name,
        programs=programs,
        port=await ports.free_port(0, ""),
        spare_port=await ports.free_port(0, ""),
        endpoints=where.endpoints,
        unbuffered=where.unbuffered,
    )


async def _version(peer: Peer, programs: Path) -> str:
    if peer.requirement:
        return peer.requirement.rpartition("==")[2]
    _, said = await processes.run(Program(argv=(str(programs / peer.name), "-v"), environ={}))
    return said.strip().rpartition("/")[2]
