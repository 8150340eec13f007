"""A gateway on a bench: its parts in this process, a stand-in office, scripted suppliers, and time that a test moves.

Nothing ticks by itself; `tick` does what a worker does four times a second.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai

from stand_in_office import SECRET, StandInOffice, catalog, endpoint
from supplier import Act, Supplier, supplier
from tokenworks.base import clock
from tokenworks.base.config import Settings
from tokenworks.base.journal import GroupSync, JournalFault, JournalWriter, read_frames, split
from tokenworks.base.vault import Vault
from tokenworks.core import journal
from tokenworks.core.journal import Closing, Entry, Opening
from tokenworks.core.snapshot import Catalog
from tokenworks.core.usage import Tokens
from tokenworks.core.wire import ShipRequest
from tokenworks.gateway.catalog import CatalogInUse
from tokenworks.gateway.delivery import Gateway
from tokenworks.gateway.dispatch import leave_hung
from tokenworks.gateway.flow import Errands
from tokenworks.gateway.keys import Keys
from tokenworks.gateway.leases import Leases
from tokenworks.gateway.limits import LimitsInUse
from tokenworks.gateway.pools import Resolve, Upstreams, resolve
from tokenworks.gateway.queues import Queues
from tokenworks.gateway.records import Records
from tokenworks.gateway.routes import Routes
from tokenworks.gateway.safety import safety
from tokenworks.gateway.server import Server
from tokenworks.grid.dispatch import Board

PATH = "/v1/chat/completions"
# Of the request below: 40 bytes of messages, 4 bytes a token; 32 + 8 + 40 tokens at most.
COUNTED_INPUT = 10
INPUT_MAX = 80
WORDS = ["one", "two", "three"]
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 20}


def raw_request(**fields: Any) -> bytes:
    """The bytes of a chat completion."""
    body = json.dumps(BODY | fields, separators=(",", ":")).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def summary(closing: Closing) -> tuple[Any, ...]:
    """What a closing says about money: ending, basis, tokens, amount charged, flags."""
    return (
        closing.ending,
        closing.basis,
        closing.tokens,
        sum(charge.amount for charge in closing.charges),
        closing.flags,
    )


@dataclass
class Bench:
    """The running gateway and everything around it."""

    settings: Settings
    office: StandInOffice
    suppliers: list[Supplier]
    writer: JournalWriter
    gateway: Gateway
    server: Server
    errands: Errands
    address: tuple[str, int] = ("", 0)
    shipped: int = 0
    faults: list[JournalFault] = field(default_factory=list)
    clients: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def supplier(self) -> Supplier:
        """The first supplier."""
        return self.suppliers[0]

    @property
    def url(self) -> str:
        """Where customers connect."""
        return f"http://{self.address[0]}:{self.address[1]}"

    @property
    def client(self) -> httpx2.AsyncClient:
        """A customer with the test's key."""
        return httpx2.AsyncClient(base_url=self.url, headers={"authorization": f"Bearer {SECRET}"}, timeout=10)

    async def ask(self, **fields: Any) -> httpx2.Response:
        """One unstreamed chat completion of the test's customer."""
        async with self.client as client:
            return await client.post(PATH, json=BODY | fields)

    async def ask_stream(self, **fields: Any) -> tuple[httpx2.Response, list[Any]]:
        """One streamed chat completion: the answer and the data of its events; `[DONE]` as it is."""
        async with self.client as client:
            answer = await client.post(PATH, json=BODY | {"stream": True} | fields)
        lines = [line[5:].strip() for line in re.split("[\r\n]+", answer.text) if line.startswith("data:")]
        return answer, [line if line == "[DONE]" else json.loads(line) for line in lines]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare connection, closed when the bench is."""
        reader, writer = await asyncio.open_connection(*self.address)
        self.clients.append(writer)
        return reader, writer

    def request(self, **fields: Any) -> bytes:
        """The bytes of a chat completion."""
        return raw_request(**fields)

    def use(self, used: Catalog) -> None:
        """Swap the catalog."""
        self.gateway.catalog.take(used)

    def know(self, **about: Any) -> None:
        """Swap the catalog for one that says more of the model `m`."""
        endpoints = (endpoint(each.url, f"ep_{number}") for number, each in enumerate(self.suppliers, 1))
        self.use(catalog(*endpoints, **about))

    @property
    def official(self) -> openai.AsyncOpenAI:
        """A customer with OpenAI's own client, which retries nothing."""
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=SECRET, max_retries=0)

    def tick(self, times: int = 1) -> None:
        """What the worker does every 250 ms."""
        for _ in range(times):
            self.server.tick()
            self.gateway.upstreams.tick()
            leave_hung(self.gateway)
            self.gateway.leases.tick()
            self.gateway.limits.tick()

    async def ship(self) -> None:
        """Let the office have the journal."""
        self.writer.flush()
        folder = self.writer.folder
        batch = read_frames(folder, self.shipped, 4 << 20)
        await self.office.ship(ShipRequest(folder.name, folder.parent.name, self.shipped, batch.data))
        self.shipped = batch.to_position

    def entries(self) -> list[Entry]:
        """The journal as it stands on disk."""
        batch = read_frames(self.writer.folder, 0, 4 << 20)
        return [journal.decode(payload) for _, payload in split(batch.data)]

    def closings(self) -> list[Closing]:
        """Its closings. Also checks that each names an opening, once."""
        batch = read_frames(self.writer.folder, 0, 4 << 20)
        entries = [(position, journal.decode(payload)) for position, payload in split(batch.data)]
        opened = [position for position, entry in entries if isinstance(entry, Opening)]
        closings = [entry for _, entry in entries if isinstance(entry, Closing)]
        assert len({closing.opening for closing in closings}) == len(closings)
        assert {closing.opening for closing in closings} <= set(opened)
        return closings

    async def closing(self, number: int = 0) -> Closing:
        """The closing with this number, when it has been written."""
        async with asyncio.timeout(5):
            while len(self.closings()) <= number:
                await self.gateway_turn()
        return self.closings()[number]

    async def gateway_turn(self) -> None:
        """Let the loop do what is ready."""
        await asyncio.sleep(0)

    def held(self) -> tuple[int, int, int]:
        """(free, reserved, slices) of the test's account: what a purse must add up to."""
        slices = self.gateway.leases.holding("ba_1").purse.slices
        return sum(each.free for each in slices), sum(each.reserved for each in slices), len(slices)


@contextlib.asynccontextmanager
async def bench(
    folder: Path,
    *,
    suppliers: int = 1,
    balance: int = 1_000_000,
    office: StandInOffice | None = None,
    worker: str = "gw-0",
    resolve: Resolve = resolve,
    vault: Vault | None = None,
    **changes: Any,
) -> AsyncGenerator[Bench]:
    """A gateway in front of this many suppliers of the model `m`; the test's account has this balance.

    Several gateways may share an `office`, which has its balances then.
    """
    settings = Settings(**({"data_dir": str(folder), "journal_segment_bytes": 1 << 20, "lease_wait_ms": 200} | changes))
    async with contextlib.AsyncExitStack() as stack:
        running = [await stack.enter_async_context(supplier()) for _ in range(suppliers)]
        if office is None:
            office = StandInOffice()
            office.give(balance)
        made = _make(settings, office, running, worker, resolve, vault)
        office.recalled.append(made.gateway.leases.recall)
        office.counted.append(made.gateway.limits.hear)
        made.use(catalog(*(endpoint(each.url, f"ep_{number}") for number, each in enumerate(running, 1))))
        tcp = await asyncio.get_running_loop().create_server(made.server.connection, "127.0.0.1", 0)
        made.address = tcp.sockets[0].getsockname()
        try:
            yield made
        finally:
            tcp.close()
            for client in made.clients:
                client.transport.abort()
            await made.server.drain(0)
            await made.errands.cancel()
            made.gateway.upstreams.close()
            if made.gateway.safety is not None:
                made.gateway.safety.close()
            await tcp.wait_closed()
            made.writer.close()


def _make(
    settings: Settings,
    office: StandInOffice,
    running: list[Supplier],
    worker: str,
    resolve: Resolve,
    vault: Vault | None,
) -> Bench:
    errands = Errands()
    journal_id = "jrn_test" if worker == "gw-0" else f"jrn_{worker}"
    writer = JournalWriter.create(settings.journal_dir / worker / journal_id, settings.journal_segment_bytes)
    writer.append(journal.encode(journal.Head(journal_id, worker, 1)))
    sync = GroupSync(writer, settings.journal_fsync_ms)
    faults: list[JournalFault] = []
    records = Records(writer, sync if settings.durability == "every" else None, errands, faults.append)
    leases = Leases(office, errands, records.append, settings, worker=worker, epoch=journal_id)
    limits = LimitsInUse(office, errands, settings, journal_id)
    board = Board(settings.endpoint_rest_ms * clock.MS)
    gateway = Gateway(
        settings,
        Keys(office, errands, settings.key_cache_entries, settings.key_stale_ms, limits.know),
        CatalogInUse(settings.catalog_stale_ms, vault),
        leases,
        records,
        Upstreams(settings, errands, resolve),
        board,
        limits,
        Queues(settings, board),
        safety(settings, errands),
    )
    server = Server(settings, Routes(gateway, lambda: True).handle)
    return Bench(settings, office, running, writer, gateway, server, errands, faults=faults)


async def charged_alike(
    gateway: Bench, act: Act, create: Callable[..., Awaitable[httpx2.Response]], *, is_stream: bool
) -> tuple[httpx2.Response, httpx2.Response, Tokens]:
    """Asks for a chat completion and, by another API, for the same: what was sent and what it cost must be the same.

    Gives both answers, and the tokens that were charged for.
    """
    gateway.supplier.default = act
    streamed: dict[str, Any] = {"stream": True} if is_stream else {}
    options = {"stream_options": {"include_usage": True}} if is_stream else {}
    chat = await gateway.ask(**streamed, **options)
    gateway.gateway.board.succeeded("ep_1")
    told = await create(gateway, **streamed)
    first, second = await gateway.closing(0), await gateway.closing(1)
    assert summary(first) == summary(second)
    assert [each.tokens for each in first.attempts] == [each.tokens for each in second.attempts]
    bodies = [call.body for call in gateway.supplier.calls]
    assert bodies[: len(bodies) // 2] == bodies[len(bodies) // 2 :]
    assert chat.headers.get("x-tokenworks-charged") == told.headers.get("x-tokenworks-charged")
    return chat, told, second.tokens
