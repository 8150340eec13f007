"""A canned day at the office: a gateway that tells a fixed answer and books that move as the real ones do.

It lets the page be driven through every stage without a model or a database. What the figures mean is tested in their
own rooms.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import httpx2
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from tokenworks.base import clock
from tokenworks.base.config import Settings
from tokenworks.console import BooksUnreadable, ConsoleContext, create
from tokenworks.console.view import (
    Amount,
    Bill,
    BillLine,
    Bucket,
    Charge,
    Check,
    Customer,
    Margin,
    Operator,
    Record,
    State,
    Supplier,
    Tokens,
    Verification,
    amount,
)
from tokenworks.core.sales import recognised

TOKEN = "admin-for-tests"
KEY = "sk-tw-live"
MODEL = "smollm2-135m"
WORKER = "gw-1"
GRANTED = 10_000_000
NET = 9_339_622_642
TAX = 560_377_358
INPUT_TOKENS = 34
RESERVED = 341
COST_OF_ONE = 500
ANSWER = "A waterworks takes water from a river, cleans it, and sends it through pipes to every tap in town."


@dataclass(frozen=True)
class Served:
    """A canned office on a real port, and a client of it."""

    canned: "CannedOffice"
    url: str
    http: httpx2.AsyncClient


class CannedOffice:
    """Moves its books by hand. `gate` holds the answer back after its first words until it is opened."""

    def __init__(self) -> None:
        self.spent = 0
        self.leased = 0
        self.calls = 0
        self.reads = 0
        self.cost = 0
        self.ok = True
        self.behaviour = "answers"
        self.kills = True
        self.killed: list[str] = []
        self.keys_seen: list[str] = []
        self.unreadable = ""
        self.gate = asyncio.Event()
        self.gate.set()
        self.left = asyncio.Event()
        self.pace: Callable[[], Awaitable[None]] = _at_once
        self.records: list[Record] = []
        self._queues: set[asyncio.Queue[Record]] = set()

    def app(self, gateway_url: str) -> FastAPI:
        """The office with the console in it, and the gateway beside it."""
        app = FastAPI()
        app.add_api_route("/v1/chat/completions", self.complete, methods=["POST"])
        self._board = create(app, self.context(gateway_url))
        return app

    def context(self, gateway_url: str = "", **limits: int) -> ConsoleContext:
        """What the console gets to work with."""
        return ConsoleContext(
            settings=Settings(live_read_pause_ms=10, live_verify_pause_ms=10, **limits),
            admin_token=TOKEN,
            gateway_url=gateway_url,
            live_key=KEY,
            model=MODEL,
            read=self.read,
            verify=self.verify,
            happenings=self.happenings,
            wall_ns=clock.wall_ns,
            kill=self.kill if self.kills else None,
        )

    def kill(self, worker: str) -> int | None:
        """The only worker there is dies in the middle of its answer."""
        self.killed.append(worker)
        if worker != WORKER:
            return None
        self.behaviour = "dies"
        self.gate.set()
        return 4711

    async def happenings(self) -> AsyncIterator[Record]:
        queue: asyncio.Queue[Record] = asyncio.Queue()
        self._queues.add(queue)
        while True:
            yield await queue.get()

    def drop_viewers(self) -> None:
        """Break every event stream, as a network does."""
        self._board.end()

    def tell(self, record: Record) -> None:
        for queue in self._queues:
            queue.put_nowait(record)

    async def verify(self) -> Verification:
        names = (
            "debits equal credits in every unit",
            "granted = available + leased + spent + expired + withdrawn",
            "no balance below zero",
            "cached balances equal the transfers",
            "liability = net less recognised revenue",
            "every opening has one closing",
            "every record is posted once",
            "charges sum to the postings",
            "attempt costs sum to the payables",
            "lease book equals the lease rows",
            "journal cursors are contiguous",
            "seals are unbroken",
        )
        checks = [Check(name, True, "") for name in names]
        if not self.ok:
            checks[7] = Check(names[7], False, "posting 12 has 61 token, its charges 60")
        return Verification(self.ok, tuple(checks), 18, clock.iso(clock.wall_ns()))

    async def read(self) -> State:
        self.reads += 1
        if self.unreadable:
            raise BooksUnreadable(self.unreadable)
        revenue = recognised(NET, self.spent, GRANTED)
        cny = "CNY"
        available = GRANTED - self.spent - self.leased
        return State(
            operator=Operator("Tokenworks Demo Telecom"),
            customer=Customer("cus_1", "Li Na", "acc_1"),
            wallet=(
                Bucket(
                    "bkt_06f1v3k2m8n4", "Personal 10M", "token", str(GRANTED), str(available), str(self.leased),
                    str(self.spent), "0", "0", "2026-12-22T00:00:00.000Z",
                ),
            ),
            bill=Bill(
                "2026-11-01T00:00:00.000Z",
                (BillLine("Personal 10M, 10,000,000 tokens", amount(NET + TAX, cny)),),
                amount(NET, cny), amount(TAX, cny), amount(NET + TAX, cny), self.spent,
            ),
            suppliers=(Supplier("sup_1", "Embedded Engine Works", amount(self.cost, cny)),),
            margins=(Margin(amount(revenue, cny), amount(self.cost, cny), amount(revenue - self.cost, cny)),),
            records=tuple(self.records[:12]),
        )  # fmt: skip

    async def complete(self, request: Request) -> Response:
        self.keys_seen.append(request.headers["authorization"])
        body = await request.json()
        assert body["stream"] is True
        assert body["model"] == MODEL
        if self.behaviour == "refuses":
            error = {"message": "The balance does not cover this request.", "type": "insufficient_quota"}
            return JSONResponse({"error": {**error, "param": None, "code": "balance_used_up"}}, 402)
        self.calls += 1
        request_id = f"req_06f1v3k2m8n4p5q6r7s8t{self.calls:05}"
        prompt = body["messages"][0]["content"]
        words = [prompt] if self.behaviour == "echoes" else ANSWER.split()
        headers = {"x-request-id": request_id, "x-tokenworks-worker": WORKER}
        return StreamingResponse(self._tell(request_id, words), media_type="text/event-stream", headers=headers)

    async def _tell(self, request_id: str, words: list[str]) -> AsyncIterator[bytes]:
        opened_ns = clock.wall_ns()
        self.leased += 200_000 if not self.leased else 0
        opened = Record(request_id, "opened", MODEL, clock.iso(opened_ns), reserved=(Amount(str(RESERVED), "token"),))
        self.tell(opened)
        first_ms = None
        for place, word in enumerate(words):
            await self.pace()
            first_ms = first_ms or (clock.wall_ns() - opened_ns) // clock.MS
            chunk = {"choices": [{"index": 0, "delta": {"content": word if not place else f" {word}"}}]}
            yield f"data: {json.dumps(chunk)}\r\n\r\n".encode()
            if place == 2:
                await self._waits()
                if self.behaviour == "breaks":
                    return
                if self.behaviour == "dies":
                    self._close(opened, opened_ns, first_ms or 0, 2, ending="orphaned", basis="counted")
                    raise ConnectionAbortedError
        self._close(opened, opened_ns, first_ms or 0, len(words))
        yield b"data: [DONE]\n\n"

    async def _waits(self) -> None:
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise

    def _close(
        self,
        opened: Record,
        opened_ns: int,
        first_ms: int,
        written: int,
        ending: str = "finished",
        basis: str = "reported",
    ) -> None:
        charge = INPUT_TOKENS + written
        self.spent += charge
        self.leased -= charge
        self.cost += COST_OF_ONE * charge
        took_ms = (clock.wall_ns() - opened_ns) // clock.MS
        posted = Record(
            opened.request_id,
            "posted",
            MODEL,
            opened.opened_at,
            reserved=opened.reserved,
            tokens=Tokens(INPUT_TOKENS, 0, 0, written, 0),
            basis=basis,
            ending=ending,
            charges=(Charge("bkt_06f1v3k2m8n4", "personal@1", Amount(str(charge), "token")),),
            costs=(amount(COST_OF_ONE * charge, "CNY"),),
            first_token_ms=first_ms,
            duration_ms=took_ms,
            posted_ms=took_ms + 27,
            posting_id=12,
        )
        self.records.insert(0, posted)
        self.tell(posted)


async def _at_once() -> None:
    await asyncio.sleep(0)
