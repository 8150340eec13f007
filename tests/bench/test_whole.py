"""The whole system at a rate: what its customers count, what is said to be missed, one small measurement end to end."""

import asyncio
from collections.abc import Iterator
from itertools import islice

import pytest

from tokenworks.base.config import Settings
from tokenworks.bench import endpoint, paced_load, whole
from tokenworks.bench.endpoint import Endpoint
from tokenworks.bench.open_loop import OpenLoop, Pace
from tokenworks.bench.paced_load import Connection, Count, Plan, Tally


def test_every_customers_own_count_is_in_the_books() -> None:
    told: list[str] = []
    plan = whole.Plan(rate=100, seconds=1, accounts=20, workers=1, connections=50)
    result = whole.measure(Settings(), plan, told.append)
    assert (result.failed_checks, result.differing, result.others, result.is_sound) == ((), 0, {}, True)
    assert result.answers == result.records >= 20
    assert result.tokens_counted == result.tokens_posted == result.tokens_charged == 112 * result.answers
    assert set(result.cpu_us_per_request) == {"workers", "office", "nats", "database", "customers"}
    assert told[-1] == "Verifying the books"


def count(*, answers: int, others: dict[str, int] | None = None) -> Count:
    """One second of load."""
    return Count(
        begun=answers,
        held_back=0,
        under_way_most=1,
        answers=[answers],
        tokens=[0],
        others=others or {},
        elapsed_ns=1_000_000_000,
        ended_ns=0,
        cpu_ns=0,
        p50_ns=0,
        p99_ns=0,
    )


@pytest.mark.parametrize(
    ("found", "posted_after_ms", "missed"),
    [
        (count(answers=100), 10_000, ()),
        (count(answers=98), 0, ("98 charged requests/s instead of 100",)),
        (count(answers=100), 10_001, ("everything was posted after 10,001 ms instead of 10,000",)),
        (count(answers=100, others={"429": 2, "broken": 1}), 0, ("3 requests were not served",)),
    ],
)
def test_what_was_not_reached_is_said(found: Count, posted_after_ms: int, missed: tuple[str, ...]) -> None:
    plan = whole.Plan(rate=100, seconds=1, accounts=1, workers=1, connections=1)
    assert whole.missed(plan, found, posted_after_ms) == missed


def test_customers_add_up_what_their_answers_say() -> None:
    tally = Tally(3)
    tally.answered(1, endpoint.answer(), 5)
    tally.answered(1, endpoint.answer(), 7)
    tally.answered(2, b'HTTP/1.1 429 Too Many\r\n\r\n{"error":{"code":"balance_reserved"}}', 5)
    tally.answered(2, b"HTTP/1.1 502 Bad Gateway\r\n\r\n", 5)
    tally.answered(2, b'HTTP/1.1 200 OK\r\n\r\n{"choices":[]}', 5)
    assert (tally.answers, tally.tokens, list(tally.latencies_ns)) == ([0, 2, 0], [0, 224, 0], [5, 7])
    assert tally.others == {"429 balance_reserved": 1, "502": 1, "200": 1}


def test_every_key_is_asked_with_once_before_they_are_drawn() -> None:
    plan = Plan(port=0, keys=["a", "b", "c"], pace=Pace(rate=1, duration_ms=1, connections=1), each_once=True)
    assert [place for place, _ in islice(paced_load.requests(plan), 3)] == [0, 1, 2]


class Falling(Endpoint):
    """An endpoint that answers once and then closes its connection."""

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._transport.close()


@pytest.mark.parametrize("kind", [Endpoint, Falling])
async def test_requests_are_begun_at_the_rate_on_as_many_connections_as_it_takes(kind: type[Endpoint]) -> None:
    whole_answer, loop = endpoint.answer(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: kind(whole_answer), "127.0.0.1", 0)
    tally, pace = Tally(2), Pace(rate=500, duration_ms=100, connections=50)

    def requests() -> Iterator[tuple[int, bytes]]:
        plan = Plan(port=0, keys=["a", "b"], pace=pace)
        return paced_load.requests(plan)

    async with server:
        asking: OpenLoop[tuple[int, bytes]] = OpenLoop(
            server.sockets[0].getsockname()[1], pace, requests(), lambda: Connection(asking, tally)
        )
        await asking.run()
    assert asking.begun + asking.held_back == 50
    assert sum(tally.answers) + tally.others.total() == asking.begun > 0
    assert sum(tally.tokens) == 112 * sum(tally.answers)


async def test_what_finds_no_connection_is_held_back() -> None:
    class Silent(Endpoint):
        """Never answers while requests come, then closes."""

        def on_message_complete(self) -> None:
            asyncio.get_running_loop().call_later(0.1, self._transport.close)

    server = await asyncio.get_running_loop().create_server(lambda: Silent(b""), "127.0.0.1", 0)
    tally, pace = Tally(1), Pace(rate=1_000, duration_ms=50, connections=2)
    async with server:
        plan = Plan(port=0, keys=["a"], pace=pace)
        asking: OpenLoop[tuple[int, bytes]] = OpenLoop(
            server.sockets[0].getsockname()[1], pace, paced_load.requests(plan), lambda: Connection(asking, tally)
        )
        await asking.run()
    assert asking.begun == asking.under_way_most == tally.others["broken"] == 2
    assert asking.held_back > 0
