"""`tokenworks chaos`: a system of its own under load, its parts killed in turn, and what the comparison found."""
# ruff: noqa: PLC0415

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from tokenworks.cli.command import JsonOption
from tokenworks.cli.faults import CommandFault, told

if TYPE_CHECKING:
    from rich.console import Console

    from tokenworks.chaos.figures import Result

_VIOLATIONS_SHOWN = 20


def chaos(
    kills: Annotated[int, typer.Option(min=1, help="Parts killed with SIGKILL, in turn.")] = 60,
    seconds: Annotated[int, typer.Option(min=1, help="How long there is load.")] = 120,
    rate: Annotated[int, typer.Option(min=1, help="Requests begun each second.")] = 1_000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Gateway workers.")] = 4,
    accounts: Annotated[int, typer.Option(min=3, help="Customers; two thirds of them live near zero.")] = 300,
    seed: Annotated[int, typer.Option(help="Another seed asks other questions.")] = 1,
    json: JsonOption = False,
) -> None:
    """Kill every part of a throw-away system under load; exit code 1 if a token is lost, doubled or overspent."""
    import msgspec

    from tokenworks.base import config
    from tokenworks.chaos import run as ordeal
    from tokenworks.cli import render

    # A request to terminate unwinds as Ctrl-C does, so that nothing is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out = render.console()
    plan = ordeal.Plan(kills=kills, seconds=seconds, rate=rate, workers=workers, accounts=accounts, seed=seed)
    with told(), _progress(out, kills, is_shown=not json) as progress:
        try:
            result = ordeal.run(config.load(), plan, progress)
        except ordeal.FAULTS as fault:
            raise CommandFault(str(fault)) from fault
    if json:
        typer.echo(msgspec.json.encode(result).decode())
    else:
        _show(out, result)
    raise typer.Exit(0 if result.is_sound else 1)


@contextmanager
def _progress(out: "Console", kills: int, *, is_shown: bool) -> Generator[Callable[[str, int], None]]:
    """A bar of the kills; standard output is kept for the one object where JSON is asked for."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True, disable=not is_shown) as progress:
        task = progress.add_task("", total=kills)
        yield lambda step, done: progress.update(task, description=step, completed=done)


def _show(out: "Console", result: "Result") -> None:
    out.print(_kills(result))
    out.print()
    for line in _findings(result):
        out.print(line, soft_wrap=True)


def _kills(result: "Result") -> object:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("killed", "times", "longest away, ms"):
        table.add_column(heading, justify="left" if heading == "killed" else "right")
    for kind, times in result.kills.items():
        table.add_row(kind, f"{times}", f"{result.back_ms[kind]:,}")
    return table


def _findings(result: "Result") -> list[str]:
    given = result.conditions
    answers = ", ".join(f"{count:,} {ended}" for ended, count in result.answers.items())
    agree = result.tokens_clients_counted == result.tokens_posted
    cut = (
        f"Of answers that were cut off, customers saw {result.tokens_clients_saw_cut:,} tokens of output; "
        f"{result.tokens_posted_cut:,} tokens are posted for them, {result.tokens_given_away:,} given away."
    )
    load = (
        f"{result.requests:,} requests of {given.accounts:,} customers, {result.requests_per_second:,} a second: "
        f"{answers}. {given.workers} workers, {given.cores} cores of {given.processor}, shared by all."
    )
    whole = (
        f"Complete answers: customers counted {result.tokens_clients_counted:,} tokens, {result.tokens_posted:,} are "
        f"posted: {_said(ok=agree, yes='equal', no='NOT EQUAL')}."
    )
    wrong = (
        f"Charged twice or too much: {_none(result.double_charged)}. Negative balances: "
        f"{_none(result.negative_balances)}. Records whose lease could not be confirmed: {result.unproven:,}."
    )
    stranded = f"Leases that are still open: {result.leases_stranded:,}, with {result.tokens_stranded:,} tokens."
    books = f"The books {_said(ok=result.verified, yes='hold', no='DO NOT HOLD')}."
    shown = result.violations[:_VIOLATIONS_SHOWN]
    return [
        *(load, whole, cut, wrong, stranded, books, f"Violations: {_none(len(result.violations))}."),
        *(f"  {each.request_id or 'the run'}: {each.why}" for each in shown),
        *(f"  {each}" for each in result.failed_checks),
    ]


def _none(count: int) -> str:
    return _said(ok=count == 0, yes="none", no=f"{count:,}")


def _said(*, ok: bool, yes: str, no: str) -> str:
    return f"[green]{yes}[/]" if ok else f"[bold red]{no}[/]"
