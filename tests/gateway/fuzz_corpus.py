"""The corpus of the fuzzer: for each way in which an example came out, the first example that did so, kept in a file.

A long run adds what comes out in a new way; every run of the tests tries all that were kept. What an outcome is, the
fuzzing tests say.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "corpus"
MANY = int(os.environ.get("FUZZ_EXAMPLES", "0"))
_BYTES_MAX = 4_096


class Corpus:
    """The examples of one test, a line each: how it came out, and what it was, bytes as Latin-1."""

    def __init__(self, name: str) -> None:
        self._file = FOLDER / f"{name}.jsonl"
        lines = self._file.read_text("utf-8").splitlines() if self._file.exists() else []
        self._kept = {line["outcome"]: line["example"] for line in map(json.loads, lines)}

    def examples(self) -> Iterator[Any]:
        """All that were kept, as they were given to the test."""
        for example in self._kept.values():
            yield _bytes_again(example)

    def note(self, outcome: object, example: object) -> None:
        """In a long run: keep what comes out as nothing before it did."""
        key = repr(outcome)
        if not MANY or key in self._kept:
            return
        kept = _as_text(example)
        line = json.dumps({"outcome": key, "example": kept})
        if len(line) <= _BYTES_MAX:
            self._kept[key] = kept
            FOLDER.mkdir(exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def _as_text(value: object) -> Any:
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    return [_as_text(each) for each in value] if isinstance(value, list | tuple) else value


def _bytes_again(value: Any) -> Any:
    if isinstance(value, dict):
        return value["bytes"].encode("latin-1")
    return [_bytes_again(each) for each in value] if isinstance(value, list) else value
