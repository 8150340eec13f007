"""`tokenworks bench`: measurements of the product on this machine, as a table or as one JSON object."""
# ruff: noqa: PLC0415

import signal
from typing import TYPE_CHECKING, Annotated

import typer

from tokenworks.cli.command import JsonOption
from tokenworks.cli.faults import CommandFault, told

if TYPE_CHECKING:
    from rich.console import Console

    from tokenworks.bench.figures import Contender, Result

bench = typer.Typer(help="Measurements of the product on this machine.", no_args_is_help=True)

_HEADINGS = ("", "CPU µs per request", "office's CPU µs", "requests/s", "p50 ms", "p99 ms", "memory MB", "metering")


@bench.callback()
def several() -> None:
    """Measurements of the product on this machine."""


@bench.command()
def gateway(
    seconds: Annotated[int, typer.Option(min=1, help="Length of a run.")] = 10,
    accounts: Annotated[int, typer.Option(min=1, help="Customers, each with a package and a key.")] = 10_000,
    connections: Annotated[int, typer.Option(min=1, max=1_000, help="Requests under way at once.")] = 32,
    runs: Annotated[int, typer.Option(min=1, help="Runs; the median is shown.")] = 5,
    json: JsonOption = False,
) -> None:
    """Measure the gateway as it is sold, in a throw-away system, beside nginx if that is installed."""
    import msgspec

    from tokenworks.base import config
    from tokenworks.bench import gateway as measurement
    from tokenworks.cli import render

    # A request to terminate unwinds as Ctrl-C does, so that nothing is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out = render.console()
    plan = measurement.Plan(seconds=seconds, accounts=accounts, connections=connections, runs=runs)
    with told():
        try:
            result = measurement.measure(config.load(), plan, _quiet if json else lambda step: _say(out, step))
        except measurement.FAULTS as fault:
            raise CommandFault(str(fault)) from fault
    if json:
        typer.echo(msgspec.json.encode(result).decode())
    else:
        _show(out, result)
    raise typer.Exit(0 if result.is_sound else 1)


def _quiet(_step: str) -> None:
    """Standard output is kept for the one object."""


def _say(out: "Console", step: str) -> None:
    out.print(f"{step} …", style="dim")


def _show(out: "Console", result: "Result") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading in {"", "metering"} else "right")
    for name, contender in result.contenders.items():
        table.add_row(name, *_cells(contender))
    direct = result.load_generator
    table.add_row(
        Text("load generator alone", style="dim"),
        *(f"{direct.cpu_us_per_request:.1f}", "", f"{direct.rps:,.0f}", f"{direct.p50_ms:.2f}", f"{direct.p99_ms:.2f}"),
    )
    out.print()
    out.print(table)
    out.print()
    for line in (*_under(result), *_findings(result)):
        out.print(line, soft_wrap=True)


def _cells(contender: "Contender") -> list[str]:
    runs = contender.runs
    office = contender.office_cpu_us_per_request
    return [
        _spread(contender.cpu_us_per_request, [run.cpu_us_per_request for run in runs], ".1f"),
        "" if office is None else f"{office:.1f}",
        _spread(contender.rps, [run.rps for run in runs], ",.0f"),
        f"{contender.p50_ms:.2f}",
        f"{contender.p99_ms:.2f}",
        f"{contender.rss_mb:.0f}",
        "yes" if contender.metering else "no",
    ]


def _spread(middle: float, values: list[float], form: str) -> str:
    """`18.3 (17.9–19.0)`: the median, and in brackets the smallest and largest."""
    shown = format(middle, form)
    return shown if len(values) == 1 else f"{shown} ({min(values):{form}}–{max(values):{form}})"


def _under(result: "Result") -> list[str]:
    given = result.conditions
    runs = (
        f"Median of {given.runs} runs of {given.seconds} s, in turn; {given.connections} connections, "
        f"{given.accounts:,} accounts ({given.skew}), {given.endpoints} endpoints, {given.answer_bytes}-byte answers."
    )
    system = (
        f"One worker, durability {given.durability}; PostgreSQL {given.database['server_version']}, fsync "
        f"{given.database['fsync']}, {given.fdatasync_us:,} µs for one; {given.cores} cores of {given.processor}, "
        "shared by all."
    )
    nginx = f"nginx {given.nginx}, a plain proxy." if given.nginx else "nginx is not installed here: not measured."
    return [runs, system, nginx]


def _findings(result: "Result") -> list[str]:
    agree = "[green]equal[/]" if result.answers == result.records else "[bold red]NOT EQUAL[/]"
    others = ", ".join(f"{number:,} × {status}" for status, number in result.other_answers.items())
    books = "[green]hold[/]" if result.verified else "[bold red]DO NOT HOLD[/]"
    return [
        f"Answers counted {result.answers:,}, usage records posted {result.records:,}: {agree}."
        + (f" [bold red]Other answers: {others}.[/]" if others else ""),
        f"The books {books}." + "".join(f"\n  {each}" for each in result.failed_checks),
    ]
