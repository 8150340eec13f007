"""`tokenworks sim`: the factory in virtual time, from seeds, with everything breaking; what is found, and how often."""
# ruff: noqa: PLC0415

import os
from typing import TYPE_CHECKING, Annotated

import typer

from tokenworks.cli.command import JsonOption

if TYPE_CHECKING:
    from rich.console import Console

    from tokenworks.sim.hunt import Found, Report


def sim(
    json: JsonOption = False,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds are run.")] = 50,
    first: Annotated[int, typer.Option("--from", metavar="SEED", min=0, help="The first seed.")] = 0,
    requests: Annotated[int, typer.Option(min=1, help="Requests of each seed.")] = 300,
    jobs: Annotated[int, typer.Option(min=0, help="Processes that share the seeds.", show_default="one a core")] = 0,
) -> None:
    """Run gateways, bus, suppliers and ledger in virtual time while everything breaks; exit code 1 on a violation."""
    from rich.progress import Progress

    from tokenworks.cli import render
    from tokenworks.sim import hunt

    out = render.console()
    jobs = jobs or os.cpu_count() or 1
    with Progress(console=out, transient=True, disable=json) as progress:
        task = progress.add_task("seeds", total=seeds)
        report = hunt.hunt(first, seeds, requests, min(jobs, seeds), lambda _: progress.advance(task))
    if json:
        import msgspec

        typer.echo(msgspec.json.encode(report).decode())
    else:
        _show(out, report)
    raise typer.Exit(1 if report.violations else 0)


def _show(out: "Console", report: "Report") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("what broke")
    table.add_column("times", justify="right")
    for name, times in report.faults.items():
        table.add_row(name, f"{times:,}")
    out.print(table)
    for found in report.violations:
        _tell(out, found)
    run = f"{report.seeds:,} seeds from {report.first_seed}, {report.requests:,} requests, {report.virtual_s:,} s"
    if report.violations:
        out.print(f"[bold red]{len(report.violations)} seeds broke a rule[/] in {run} of virtual time.")
    else:
        out.print(f"[bold green]No rule was broken[/] in {run} of virtual time.")


def _tell(out: "Console", found: "Found") -> None:
    from rich.text import Text

    out.print()
    out.print(Text(f"Seed {found.seed}: {found.rule}: {found.text}", style="bold red"), soft_wrap=True)
    faults = ", ".join(found.faults) or "no fault"
    out.print(Text(f"Shortest trace found: {found.requests} requests, {faults}."), soft_wrap=True)
    for line in found.trace:
        out.print(Text(f"  {line}", style="dim"), soft_wrap=True)
