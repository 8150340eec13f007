"""What every command of a group shares: the options that find the office, `--json`, and how faults are told.

A command is written as a function of a `Session` and its own options; `command` adds the shared ones. Nothing here
knows a resource. HTTP client, tables and settings are imported when a command runs, so that help and completion are
quick.
"""
# ruff: noqa: PLC0415

import inspect
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from tokenworks.cli import faults

if TYPE_CHECKING:
    from tokenworks.app.client import OfficeClient

Record = dict[str, Any]
Columns = Mapping[str, "str | Callable[[Record], Any]"]
"""Heading → where the value is in the entry, with dots into nested records, or what it is made of."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
OfficeOption = Annotated[
    str, typer.Option("--office", metavar="URL", help="Address of the office.", show_default="the running system's")
]
TokenOption = Annotated[
    str,
    typer.Option("--token", metavar="TEXT", help="Admin token.", show_default="TOKENWORKS_ADMIN_TOKEN or data folder"),
]
LimitOption = Annotated[int, typer.Option(min=1, help="Most entries shown.")]

LIMIT = 50


class Session:
    """One command's way to the office and to the terminal."""

    def __init__(self, *, office_url: str, token: str, as_json: bool, stack: ExitStack) -> None:
        self._office_url = office_url
        self._token = token
        self._as_json = as_json
        self._stack = stack

    @cached_property
    def office(self) -> "OfficeClient":
        """The office, found at first use."""
        from tokenworks.app.client import OfficeClient, address
        from tokenworks.base import config

        return self._stack.enter_context(OfficeClient(address(config.load(), self._office_url, self._token)))

    def show_page(self, path: str, columns: Columns, limit: int, **query: str | None) -> None:
        """Show the entries of a list."""
        self.show_list(path, list(self.office.items(path, limit, **query)), columns)

    def show_list(self, title: str, entries: list[Record], columns: Columns) -> None:
        """Show these entries: a table for people, `{"items": […]}` for machines."""
        if self._as_json:
            typer.echo(_text({"items": entries}))
        else:
            from tokenworks.cli import render

            render.table(title.strip("/"), entries, columns)

    def show(self, record: Record) -> None:
        """Show one record with everything in it."""
        if self._as_json:
            typer.echo(_text(record))
        else:
            from tokenworks.cli import render

            render.record(record)

    def add(self, path: str, **fields: Any) -> None:
        """Create something from the fields that are given, and show it."""
        from tokenworks.base import ids

        body = {name: value for name, value in fields.items() if value not in (None, "", [])}
        self.show(self.office.post(path, body, ids.new("cli")))

    def find(self, path: str, name: str, wanted: str, **query: str | None) -> Record:
        """The entry of a list whose field `name` is `wanted`, for resources that the office only lists."""
        for entry in self.office.items(path, 1_000_000, **query):
            if entry[name] == wanted:
                return entry
        raise faults.CommandFault(f"There is no entry {wanted!r} in {path.strip('/')}.", "List them to see their ids.")


class ListFirst(TyperGroup):
    """A group whose bare name lists: `tokenworks keys --json` is `tokenworks keys list --json`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in the word `list` where no command is named."""
        if not ctx.resilient_parsing and (not args or (args[0][:1] == "-" and args[0] not in ctx.help_option_names)):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def group(about: str) -> typer.Typer:
    """A group of commands about one resource."""
    return typer.Typer(cls=ListFirst, help=about)


def command(of: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command with the shared options added to its own."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        of.command(name)(shared(function))
        return function

    return register


def shared(function: Callable[..., None]) -> Callable[..., None]:
    """The function as a command, with the shared options added to its own."""

    def run(json: bool, office: str, token: str, **own: Any) -> None:
        with faults.told(), ExitStack() as stack:
            function(Session(office_url=office, token=token, as_json=json, stack=stack), **own)

    run.__doc__ = function.__doc__
    run.__signature__ = _with_shared_options(function)  # type: ignore[attr-defined]
    return run


def _with_shared_options(function: Callable[..., None]) -> inspect.Signature:
    _, *own = inspect.signature(function, eval_str=True).parameters.values()
    shared = [
        inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption),
        inspect.Parameter("office", inspect.Parameter.KEYWORD_ONLY, default="", annotation=OfficeOption),
        inspect.Parameter("token", inspect.Parameter.KEYWORD_ONLY, default="", annotation=TokenOption),
    ]
    return inspect.Signature([*(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own), *shared])


def _text(content: Record) -> str:
    return json.dumps(content, ensure_ascii=False, indent=2)
