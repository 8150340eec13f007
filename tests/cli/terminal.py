"""A terminal for tests: runs one command of the command line in this process and keeps what it said."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from typer.testing import CliRunner

from tokenworks.cli.root import app


class Said(msgspec.Struct, frozen=True):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output as the one JSON object that it is."""
        return json.loads(self.out)


class Terminal:
    """Runs commands with these environment variables."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def run(self, *words: str, typed: str = "") -> Said:
        """Run one command to its end; anything it raises is a failure of the test."""
        result = CliRunner().invoke(app, list(words), env=dict(self._environ), input=typed)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(result.exit_code, result.stdout, result.stderr)

    def done(self, *words: str, typed: str = "") -> dict[str, Any]:
        """Run one command with `--json`; it must succeed and say nothing but its object."""
        said = self.run(*words, "--json", typed=typed)
        assert (said.code, said.err) == (0, ""), said
        return said.json
