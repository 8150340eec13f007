"""What a customer is told of the money: in headers, and in the event of a stream that tells its use."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway_bench import INPUT_MAX, WORDS, Bench, bench
from stand_in_office import bucket
from supplier import DONE, STREAM_HEAD, chunk, event, raw, stream, usage, whole
from tokenworks.core.purse import Charge
from tokenworks.core.usage import Tokens
from tokenworks.dialects.receipt import charged_fields, with_charges

NANO = 1_000_000_000


def line(amount: int, unit: str = "token", paid_by: str = "bkt_1") -> Charge:
    return Charge(1, paid_by, "personal@1", unit, Tokens(1), amount)


CHARGES: dict[str, tuple[tuple[Charge, ...], bytes]] = {
    "nothing": ((), b"x-tokenworks-charged: 0\r\n"),
    "one": ((line(47),), b"x-tokenworks-charged: 47 token\r\nx-tokenworks-bucket: bkt_1\r\n"),
    "two slices of a bucket": (
        (line(40), line(7)),
        b"x-tokenworks-charged: 47 token\r\nx-tokenworks-bucket: bkt_1\r\n",
    ),
    "two units": (
        (line(40), line(NANO // 4, "CNY", "bkt_2")),
        b"x-tokenworks-charged: 40 token, 0.25 CNY\r\nx-tokenworks-bucket: bkt_1, bkt_2\r\n",
    ),
}


@pytest.mark.parametrize("name", CHARGES)
def test_the_headers_of_a_whole_answer(name: str) -> None:
    charges, told = CHARGES[name]
    assert charged_fields(charges) == told


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (b"", b""),
        (DONE, DONE),
        (b'data: {"a":1}\n\n' + DONE, b'data: {"a":1,"tokenworks":{"charged":[]}}\n\n' + DONE),
        (b'data: {"a":{}}\n\ndata: {"b":1}\n\n', b'data: {"a":{}}\n\ndata: {"b":1,"tokenworks":{"charged":[]}}\n\n'),
        (b'data: {"a":1} \n\n' + DONE, b'data: {"a":1} \n\n' + DONE),
    ],
)
def test_the_last_event_that_is_an_object_tells_it(last: bytes, told: bytes) -> None:
    assert with_charges(last, ()) == told


async def test_a_whole_answer_says_what_it_cost_and_who_paid(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(whole("Hello there.", usage(12, 5)))
        told = await gateway.ask()
        assert told.headers["x-tokenworks-charged"] == "17 token"
        assert told.headers["x-tokenworks-bucket"] == "bkt_1"
        assert "x-tokenworks-reserved" not in told.headers


@pytest.mark.parametrize("wants_usage", [True, False])
async def test_a_stream_says_what_is_reserved_and_at_its_end_what_it_cost(tmp_path: Path, wants_usage: bool) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(stream(WORDS, usage(12, 3)))
        told, events = await gateway.ask_stream(stream_options={"include_usage": wants_usage})
        assert told.headers["x-tokenworks-reserved"] == f"{INPUT_MAX + 20} token"
        assert told.headers["x-tokenworks-bucket"] == "bkt_1"
        assert "x-tokenworks-charged" not in told.headers
        charged = [each["tokenworks"] for each in events[:-1] if "tokenworks" in each]
        lines: list[dict[str, Any]] = [{"amount": "15", "unit": "token", "bucket": "bkt_1"}]
        assert charged == ([{"charged": lines}] if wants_usage else [])


async def test_a_charge_that_two_buckets_share(tmp_path: Path) -> None:
    async with bench(tmp_path, balance=INPUT_MAX - 70) as gateway:
        gateway.office.give(1_000, bucket("bkt_2"))
        gateway.supplier.script(stream(WORDS, usage(12, 3)))
        told, events = await gateway.ask_stream(stream_options={"include_usage": True})
        assert told.headers["x-tokenworks-bucket"] == "bkt_1, bkt_2"
        assert events[-2]["tokenworks"]["charged"] == [
            {"amount": "10", "unit": "token", "bucket": "bkt_1"},
            {"amount": "5", "unit": "token", "bucket": "bkt_2"},
        ]


async def test_the_official_client_reads_the_charge_of_a_stream(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(stream(WORDS, usage(12, 3)))
        assert await last_charge(gateway) == [{"amount": "15", "unit": "token", "bucket": "bkt_1"}]


async def test_usage_that_comes_with_the_last_words_is_passed_before_the_charge_is_known(tmp_path: Path) -> None:
    sent = [event({"content": "a"}), event({}, "stop", usage=usage(12, 1)), DONE]
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(raw(STREAM_HEAD + b"".join(chunk(each) for each in sent) + b"0\r\n\r\n", keep=True))
        _, events = await gateway.ask_stream(stream_options={"include_usage": True})
        assert "tokenworks" not in json.dumps(events)


async def last_charge(gateway: Bench) -> Any:
    async with gateway.official as client:
        running = await client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "Say hello."}],
            stream=True,
            stream_options={"include_usage": True},
        )
        last = [each async for each in running][-1]
    assert last.model_extra is not None
    return last.model_extra["tokenworks"]["charged"]
