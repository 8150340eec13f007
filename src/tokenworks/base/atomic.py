"""Files that are there whole or not at all: written beside their place, made durable, then renamed into it.

Not for journals, which grow in place; see `base.journal`.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".unfinished"


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO]:
    """A file to write; when the block ends it is `path`. When the block fails, whatever was at `path` stays there."""
    beside = path.with_name(f".{path.name}{UNFINISHED}")
    try:
        with beside.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        put(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make what somebody else wrote to a file durable."""
    with path.open("rb") as written:
        os.fsync(written.fileno())


def put(beside: Path, path: Path) -> None:
    """Rename a finished file of the same folder into its place, for good."""
    beside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
