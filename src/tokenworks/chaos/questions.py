"""What the customers of a chaos run ask, and what they may expect: each question says how long its answer is to be.

The scripted endpoint reads the same words, so that a customer knows without asking anybody how many tokens an answer
had when it came whole. The same seed draws the same questions.
"""

import hashlib
import re
from collections.abc import Iterator

import msgspec

from tokenworks.bench.endpoint import MODEL
from tokenworks.bench.load import by_zipf

INPUT_TOKENS = 20
"""What the scripted endpoint reports for every prompt."""

_WORDS = re.compile(rb"(\d+) words, (\d+) at a time, (\d+) ms apart")
_DRAW_BYTES = 16
_STEADY_OF_256 = 192


class Script(msgspec.Struct, frozen=True, array_like=True):
    """How an answer is to come: so many tokens, in pieces of so many, with so many milliseconds between them."""

    tokens: int
    piece: int
    pause_ms: int

    def text(self) -> str:
        """As a prompt."""
        return f"Say {self.tokens} words, {self.piece} at a time, {self.pause_ms} ms apart."


class Question(msgspec.Struct, frozen=True, array_like=True):
    """One request. `account` is the place of the customer, `limit` what is sent as `max_tokens`."""

    account: int
    streamed: bool
    wants_usage: bool
    limit: int
    script: Script

    @property
    def output_most(self) -> int:
        """The longest answer that the endpoint may give."""
        return min(self.script.tokens, self.limit)

    def body(self) -> bytes:
        """The request's body."""
        body: dict[str, object] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": self.script.text()}],
            "max_tokens": self.limit,
        }
        if self.streamed:
            body["stream"] = True
            body["stream_options"] = {"include_usage": self.wants_usage}
        return msgspec.json.encode(body)


def script_of(body: bytes) -> Script | None:
    """The script in a request's body; None for a prompt of another kind."""
    found = _WORDS.search(body)
    return Script(*(int(number) for number in found.groups())) if found else None


def drawn(seed: int, count: int, keys: int, steady: int) -> Iterator[Question]:
    """So many questions of customers 0 … keys - 1, of whom the first `steady` have large packages.

    Those ask three quarters, by Zipf's law; the rest, whose balance is near zero, ask alike. Half the questions are
    unstreamed, one in sixty is for a long stream; one in ten allows for less than the answer would have.
    """
    dice = hashlib.shake_128(b"tokenworks chaos %d" % seed).digest(_DRAW_BYTES * count)
    ranks = by_zipf(steady, count)
    for number in range(count):
        throw = dice[number * _DRAW_BYTES : (number + 1) * _DRAW_BYTES]
        poor = steady + int.from_bytes(throw[6:8], "big") % (keys - steady)
        yield _question(throw, ranks[number] if throw[8] < _STEADY_OF_256 else poor)


def _question(throw: bytes, account: int) -> Question:
    kind, length, piece, pause, room, usage = throw[0], throw[1], throw[2], throw[3], throw[4], throw[5]
    streamed = kind >= 128
    if kind >= 252:
        script = Script(150 + length, 8 + piece % 8, 40 + pause % 40)
    else:
        script = Script(4 + length % 40, 6 + piece % 8, 4 + pause % 24)
    limit = script.tokens * 3 // 4 if room < 26 else script.tokens * (1 + room % 4)
    return Question(account, streamed, streamed and usage % 2 == 0, limit, script)
