"""Answers as no supplier should send them: what the customer sees, what the journal says, what is charged."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from gateway_bench import COUNTED_INPUT, WORDS, bench, summary
from supplier import CLOSING_STREAM_HEAD, DONE, STREAM_HEAD, Act, Call, chunk, completion, event, events, raw, usage
from supplier import answer as http_answer
from tokenworks.core.usage import Tokens

COUNTED = Tokens(COUNTED_INPUT, output=3)
REPORTED = Tokens(12, output=3)
GOOD = [*events(WORDS, usage(12, 3)), DONE]
END = b"0\r\n\r\n"
Expected = tuple[str, str, Tokens, tuple[str, ...]]
AS_REPORTED: Expected = ("finished", "reported", REPORTED, ())


def framed(pieces: list[bytes], head: bytes = STREAM_HEAD) -> bytes:
    return head + b"".join(map(chunk, pieces)) + END


def told(*reports: Any) -> bytes:
    """A stream whose last events report these usages, one each."""
    return framed([*events(WORDS, None), *[event(None, usage=each) for each in reports], DONE])


def words(seen: list[Any]) -> list[str]:
    found = [choice["delta"].get("content") for each in seen if each != "[DONE]" for choice in each["choices"]]
    return [text for text in found if text]


async def sent_in(call: Call, data: bytes, size: int) -> bool:
    """Send in pieces of this size, each on its own."""
    for place in range(0, len(data), size):
        await call.send(data[place : place + size])
    return True


USAGES: dict[str, tuple[bytes, Expected]] = {
    "with choices in the same event": (
        framed([*events(WORDS, None)[:-1], event({}, "stop", usage=usage(12, 3)), DONE]),
        AS_REPORTED,
    ),
    "with the last word": (
        framed([*[event({"content": word}) for word in WORDS[:2]], event({"content": "three"}, usage=usage(12, 3))])[
            :-5
        ]
        + chunk(event({}, "stop"))
        + chunk(DONE)
        + END,
        AS_REPORTED,
    ),
    "with every word, growing": (
        framed(
            [
                *[event({"content": word}, usage=usage(12, place)) for place, word in enumerate(WORDS, 1)],
                event({}, "stop"),
                DONE,
            ]
        ),
        AS_REPORTED,
    ),
    "missing": (framed([*events(WORDS, None), DONE]), ("finished", "counted", COUNTED, ("usage_missing",))),
    "null": (told(None), ("finished", "counted", COUNTED, ("usage_missing",))),
    "twice the same": (told(usage(12, 3), usage(12, 3)), AS_REPORTED),
    "twice, the last one counts": (told(usage(12, 2), usage(12, 3)), AS_REPORTED),
    "twice, the last one absurd": (
        told(usage(12, 3), usage(12, 1 << 60)),
        ("finished", "counted", COUNTED, ("usage_malformed",)),
    ),
    "only cached": (told(usage(12, 3, cached=12)), ("finished", "reported", Tokens(0, 12, output=3), ())),
    "reasoning inside output": (
        told(usage(12, 9, reasoning=6)),
        ("finished", "reported", Tokens(12, output=3, reasoning=6), ()),
    ),
    "reasoning beside output": (
        told(usage(12, 3, reasoning=6)),
        ("finished", "counted", COUNTED, ("usage_malformed",)),
    ),
    "more cached than input": (told(usage(12, 3, cached=13)), ("finished", "counted", COUNTED, ("usage_malformed",))),
    "zero": (told(usage(0, 0)), ("finished", "counted", COUNTED, ("usage_zero",))),
    "zero output": (told(usage(12, 0)), ("finished", "counted", COUNTED, ("usage_zero",))),
    "negative": (told(usage(-12, -3)), ("finished", "counted", COUNTED, ("usage_malformed",))),
    "negative cached": (told(usage(12, 3, cached=-9)), ("finished", "counted", COUNTED, ("usage_malformed",))),
    "absurd": (told(usage(12, 1 << 52)), ("finished", "counted", COUNTED, ("usage_above_reservation",))),
    "beyond any integer": (told(usage(1 << 80, 3)), ("finished", "counted", COUNTED, ("usage_malformed",))),
    "a fraction": (
        told({"prompt_tokens": 12.5, "completion_tokens": 3}),
        ("finished", "counted", COUNTED, ("usage_malformed",)),
    ),
    "empty": (told({}), ("finished", "counted", COUNTED, ("usage_malformed",))),
    "no object": (told([1, 2]), ("finished", "counted", COUNTED, ("usage_malformed",))),
}


@pytest.mark.parametrize("name", USAGES)
async def test_usage_as_it_comes(tmp_path: Path, name: str) -> None:
    data, expected = USAGES[name]
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(raw(data, keep=True))
        _, seen = await gateway.ask_stream()
        ending, basis, tokens, flags = expected
        assert (words(seen), seen[-1], seen.count("[DONE]")) == (WORDS, "[DONE]", 1)
        assert summary(await gateway.closing()) == (ending, basis, tokens, tokens.total, flags)
        assert gateway.held()[1] == 0


BLANK = b": keep-alive\n\n"
WRITTEN: dict[str, bytes] = {
    "LF": framed(GOOD),
    "CRLF": framed([each.replace(b"\n", b"\r\n") for each in GOOD]),
    "CR": framed([each.replace(b"\n", b"\r") for each in GOOD]),
    "mixed": framed([each.replace(b"\n", end) for each, end in zip(GOOD, [b"\r\n", b"\n", b"\r"] * 3, strict=False)]),
    "comments": framed([BLANK, *[piece for each in GOOD for piece in (each, BLANK)]]),
    "comments within events": framed([b": so\n" + each for each in GOOD]),
    "names and ids": framed([b"event: message\nid: 7\nretry: 1\n" + each for each in GOOD]),
    "no space after data": framed([each.replace(b"data: ", b"data:") for each in GOOD]),
    "an end with a space": framed([*GOOD[:-1], b"data: [DONE] \n\n"]),
    "keep-alives without data": framed([piece for each in GOOD for piece in (b"data:\n\n", each)]),
    "one piece": framed([b"".join(GOOD)]),
    "chunks across events": framed([b"".join(GOOD)[:100], b"".join(GOOD)[100:333], b"".join(GOOD)[333:]]),
    "extensions of chunks": STREAM_HEAD + b"".join(b"%x;a=b\r\n%b\r\n" % (len(each), each) for each in GOOD) + END,
    "trailers": framed(GOOD)[:-2] + b"content-type: text/html\r\nx: y\r\n\r\n",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + b"".join(GOOD),
    "no length": CLOSING_STREAM_HEAD + b"".join(GOOD),
    "announced": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + framed(GOOD),
    "no [DONE]": framed(GOOD[:-1]),
    "after [DONE]": framed([*GOOD, event({"content": "more"}), event(None, usage=usage(12, 20)), DONE]),
    "rubbish after [DONE]": framed([*GOOD, b"\xff\xfe{"]),
    "gzip": framed(
        [gzip.compress(b"".join(GOOD))], STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    ),
    "gzip, event by event": framed(
        [gzip.compress(each) for each in GOOD],
        STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: X-GZIP\r\n\r\n"),
    ),
    "deflate": framed(
        [zlib.compress(b"".join(GOOD))], STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: deflate\r\n\r\n")
    ),
    "identity": framed(GOOD, STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: identity\r\n\r\n")),
}


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("name", WRITTEN)
async def test_the_same_stream_however_it_is_written_and_cut(tmp_path: Path, name: str, size: int) -> None:
    async with bench(tmp_path) as gateway:
        data = WRITTEN[name]

        async def act(call: Call) -> bool:
            await sent_in(call, data, size)
            return name not in {"HTTP/1.0", "no length"}

        gateway.supplier.script(act)
        answer, seen = await gateway.ask_stream()
        assert (answer.status_code, words(seen), seen[-1], seen.count("[DONE]")) == (200, WORDS, "[DONE]", 1)
        ending, basis, tokens, flags = AS_REPORTED
        assert summary(await gateway.closing()) == (ending, basis, tokens, tokens.total, flags)
        assert (await gateway.ask()).status_code == 200


TEXT = event({"content": "né"}).replace(b"\\u00e9", "é".encode())
IN_A_CHARACTER = TEXT[: TEXT.index("é".encode()) + 1]
IN_A_VALUE = TEXT[: TEXT.index(b"content") + 4]
SPOKEN = [event({"content": word}) for word in WORDS]
TORN: dict[str, bytes] = {
    "in a character": CLOSING_STREAM_HEAD + b"".join(SPOKEN) + IN_A_CHARACTER,
    "in a character, framed": framed([*SPOKEN, IN_A_CHARACTER]),
    "in a value": CLOSING_STREAM_HEAD + b"".join(SPOKEN) + IN_A_VALUE,
    "in a value, framed": framed([*SPOKEN, IN_A_VALUE]),
    "in a name of a field": framed([*SPOKEN, b"dat"]),
    "in a chunk": STREAM_HEAD + b"".join(map(chunk, SPOKEN)) + chunk(TEXT)[:-9],
    "in a head of a chunk": STREAM_HEAD + b"".join(map(chunk, SPOKEN)) + b"5",
    "in the end of a chunk": STREAM_HEAD + b"".join(map(chunk, SPOKEN))[:-1],
    "within gzip": CLOSING_STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    + gzip.compress(b"".join(SPOKEN))[:-6],
}


@pytest.mark.parametrize("name", TORN)
async def test_a_stream_that_is_torn_is_told_and_its_shreds_are_kept_back(tmp_path: Path, name: str) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(raw(TORN[name]))
        _, seen = await gateway.ask_stream()
        assert (words(seen[:-1]), seen[-1]["error"]["code"]) == (WORDS, "endpoint_broken")
        closing = await gateway.closing()
        assert (closing.ending, closing.basis, closing.tokens) == ("endpoint_broken", "counted", COUNTED)


GIVEN_UP: dict[str, bytes] = {
    "OpenAI's": b'data: {"error":{"message":"out of memory"}}\n\n',
    "a text": b'data: {"error":"out of memory"}\n\n',
    "named": b'event: error\ndata: {"error":{"message":"out of memory","code":500}}\n\n',
    "flat": b'data: {"object":"error","message":"out of memory","type":"InternalError","code":500}\n\n',
}


@pytest.mark.parametrize("has_begun", [False, True])
@pytest.mark.parametrize("name", GIVEN_UP)
async def test_an_error_inside_a_good_status(tmp_path: Path, name: str, *, has_begun: bool) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(raw(framed([*SPOKEN * has_begun, GIVEN_UP[name], DONE]), keep=True))
        answer = await gateway.ask(stream=True)
        assert b"[DONE]" not in answer.content
        told_error = json.loads(answer.text.rpartition("data: ")[2])["error"] if has_begun else answer.json()["error"]
        assert (answer.status_code, told_error["code"]) == (200 if has_begun else 502, "endpoint_broken")
        tokens = COUNTED if has_begun else Tokens()
        assert summary(await gateway.closing())[:4] == (
            "endpoint_broken",
            "counted" if has_begun else "none",
            tokens,
            tokens.total,
        )


def coded(body: bytes, coding: str) -> bytes:
    return http_answer(200, body, f"content-encoding: {coding}")


BODY = completion("x" * 10, usage(12, 3))
WHOLE: dict[str, tuple[bytes, int]] = {
    "gzip": (coded(gzip.compress(BODY), "gzip"), 200),
    "deflate": (coded(zlib.compress(BODY), "deflate"), 200),
    "torn gzip": (coded(gzip.compress(BODY)[:-5], "gzip"), 502),
    "no gzip": (coded(BODY, "gzip"), 502),
    "a coding nobody asked for": (coded(BODY, "br"), 502),
    "a bomb": (coded(gzip.compress(b" " * (100 << 20)), "gzip"), 502),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + BODY, 200),
    "HTTP/1.0, torn": (b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + BODY[:-3], 502),
    "announced": (b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + http_answer(200, BODY), 200),
    "announced for ever": (b"HTTP/1.1 102 Processing\r\n\r\n" * 20_000, 503),
    "another protocol": (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", 503),
    "a head without end": (b"HTTP/1.1 200 OK\r\nx: " + b"y" * (1 << 20), 503),
    "an error inside": (http_answer(200, b'{"error":{"message":"out of memory"}}'), 502),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 502),
    "both framings": (
        http_answer(200, b"2\r\n{}\r\n0\r\n\r\n", "transfer-encoding: chunked"),
        503,
    ),
}


@pytest.mark.parametrize("size", [3, 1 << 20])
@pytest.mark.parametrize("name", WHOLE)
async def test_whole_answers(tmp_path: Path, name: str, size: int) -> None:
    data, status = WHOLE[name]
    size = size if len(data) < 10_000 else 1 << 20
    async with bench(tmp_path) as gateway:

        async def act(call: Call) -> bool:
            await sent_in(call, data, size)
            return False

        gateway.supplier.script(act)
        answer = await gateway.ask()
        assert answer.status_code == status
        tokens = REPORTED if status == 200 else Tokens()
        assert summary(await gateway.closing())[2:4] == (tokens, tokens.total)
        assert gateway.held()[1] == 0


async def test_a_second_answer_that_nobody_asked_for_reaches_nobody(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        second = http_answer(200, completion("for whom", usage(12, 9)))
        gateway.supplier.script(raw(http_answer(200, BODY) + second[:-20], keep=True))
        for _ in range(2):
            answer = await gateway.ask()
            assert answer.status_code == 200
            assert "for whom" not in answer.text
        assert gateway.supplier.connections == 2
        assert [len(closing.attempts) for closing in gateway.closings()] == [1, 1]


BIG = event({"content": "x" * (10 << 20)})
LARGE: dict[str, Act] = {
    "one chunk": raw(framed([BIG, *GOOD]), keep=True),
    "many small chunks": raw(
        framed([*[BIG[place : place + 4_096] for place in range(0, len(BIG), 4_096)], *GOOD]), keep=True
    ),
}


@pytest.mark.parametrize("name", LARGE)
async def test_an_event_of_ten_megabytes(tmp_path: Path, name: str) -> None:
    async with bench(tmp_path) as gateway:
        gateway.supplier.script(LARGE[name])
        answer, seen = await gateway.ask_stream()
        assert (len(words(seen)[0]), words(seen)[1:], seen[-1]) == (10 << 20, WORDS, "[DONE]")
        assert ((await gateway.closing()).tokens, answer.status_code) == (REPORTED, 200)


async def test_an_event_that_never_ends_is_given_up(tmp_path: Path) -> None:
    async with bench(tmp_path, answer_bytes_max=1 << 16) as gateway:

        async def act(call: Call) -> bool:
            await call.send(STREAM_HEAD + chunk(SPOKEN[0]))
            for _ in range(1_000):
                await call.send(chunk(b"x" * 4_096))
            return False

        gateway.supplier.script(act)
        _, seen = await gateway.ask_stream()
        assert seen[-1]["error"]["code"] == "endpoint_broken"
        assert (await gateway.closing()).counted == Tokens(COUNTED_INPUT, output=1)
