"""Streams as a measurement sends, counts and relays them; one small measurement end to end."""

import json

import pytest

from tokenworks.base.config import Settings
from tokenworks.bench import held, stream_endpoint, stream_figures, streams
from tokenworks.bench.load import LoadFault
from tokenworks.bench.stream_endpoint import Pace
from tokenworks.bench.stream_figures import Run, Times
from tokenworks.bench.stream_load import Connection, Tally


def test_every_stream_is_posted() -> None:
    told: list[str] = []
    plan = streams.Plan(
        seconds=1,
        accounts=10,
        streams=6,
        chunks=5,
        interval_ms=10,
        runs=1,
    )
    result = streams.measure(Settings(), plan, told.append)
    assert (result.failed_checks, result.other_answers, result.is_sound) == ((), {}, True)
    ours = result.contenders["tokenworks"]
    assert ours.metering
    assert ours.runs[0].streams > 0
    assert ours.runs[0].other_answers == 0
    assert ours.rss_mb > 0
    assert result.answers == result.records > ours.runs[0].streams
    assert result.load_generator.chunks_per_s > 0
    assert ("nginx" in result.contenders) != ("nginx" in result.left_out)
    assert told[-1] == "Verifying the books"


def test_streams_are_held_open_at_once_and_posted() -> None:
    told: list[str] = []
    plan = held.Plan(streams=12, accounts=5, pace=Pace(chunks=3, interval_ms=1_000))
    result = held.measure(Settings(), plan, told.append)
    assert (result.failed_checks, result.other_answers, result.is_sound) == ((), {}, True)
    assert (result.open_max, result.answers, result.missed) == (12, 17, ())
    assert result.rss_mb >= result.before_mb > 0
    assert told[-1] == "Verifying the books"


@pytest.mark.parametrize(
    ("open_max", "top_mb", "missed"),
    [
        (10_000, 400, ()),
        (9_900, 300, ("9,900 streams were open at once instead of 10,000",)),
        (10_000, 401, ("the worker took 401 MB instead of 400",)),
    ],
)
def test_what_an_open_stream_may_not_take_is_said(open_max: int, top_mb: int, missed: tuple[str, ...]) -> None:
    assert held.missed(10_000, open_max, top_mb << 20) == missed


def test_more_streams_than_the_machine_lets_a_process_have_are_refused_beforehand() -> None:
    plan = streams.Plan(seconds=1, accounts=1, streams=1 << 40, chunks=2, interval_ms=1, runs=1)
    with pytest.raises(LoadFault, match="are the most"):
        streams.measure(Settings(), plan, lambda _: None)


def test_a_stream_has_its_chunks_its_usage_and_its_end() -> None:
    parts = stream_endpoint.stream(3)
    assert len(parts) == 3
    head, _, rest = b"".join(parts).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    *events, done, nothing = body.split(b"\n\n")
    assert (done, nothing) == (b"data: [DONE]", b"")
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
    assert chunks[-1]["usage"] == {"prompt_tokens": 48, "completion_tokens": 3, "total_tokens": 51}
    assert "usage" not in chunks[0]


class Transport:
    """Keeps what is written to it."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.ended = ""

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


def asked() -> tuple[Tally, Connection, Transport]:
    """A connection that asks for one stream."""
    tally = Tally(iter([b"request"]), 0)
    connection, transport = Connection(tally), Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    connection.begin()
    assert transport.sent == [b"request"]
    return tally, connection, transport


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
async def test_a_stream_counts_once_however_it_is_cut_into_pieces(size: int) -> None:
    tally, connection, transport = asked()
    whole = b"".join(stream_endpoint.stream(4))
    for at in range(0, len(whole), size):
        connection.data_received(whole[at : at + size])
    assert (tally.streams, tally.open_max, len(tally.ttft_ns), dict(tally.others)) == (1, 1, 1, {})
    assert connection.done.done()
    assert transport.ended == "closed"


@pytest.mark.parametrize(
    ("data", "counted", "begun"),
    [
        (b"HTTP/1.1 429 Too Many\r\n\r\n", {"429": 1}, 0),
        (b"", {"broken": 1}, 0),
        (b"HTTP/1.1 200 OK\r\n\r\n5\r\ndata:", {"broken": 1}, 1),
        (b"HTTP/1.1 200 OK\r\n\r\n5\r\ndata:\r\n0\r\n\r\n", {"cut": 1}, 1),
    ],
)
async def test_what_is_no_whole_stream_is_told_apart(data: bytes, counted: dict[str, int], begun: int) -> None:
    tally, connection, _ = asked()
    if data:
        connection.data_received(data)
    connection.connection_lost(None)
    assert (tally.streams, dict(tally.others), len(tally.ttft_ns)) == (0, counted, begun)
    assert connection.done.done()


def test_a_contender_is_the_median_of_its_runs() -> None:
    def run(number: float) -> Run:
        return Run(
            streams=1,
            cpu_us_per_chunk=number,
            chunks_per_s=number,
            ttft_ms=Times(p50=0, p99=0),
            ttft_added_ms=Times(p50=number, p99=2 * number),
            rss_mb=number,
            other_answers=0,
        )

    found = stream_figures.together([run(1), run(9), run(2)], metering=False)
    assert (found.cpu_us_per_chunk, found.ttft_added_ms) == (2, Times(p50=2, p99=4))
    assert (found.office_cpu_us_per_chunk, found.database_cpu_us_per_chunk) == (None, None)
