"""`tokenworks bench`: measurements of the product on this machine, as a table or as one JSON object.

What is being done, and since when, goes to standard error in both cases: a measurement takes minutes.
"""
# ruff: noqa: PLC0415

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import typer

from tokenworks.cli.command import JsonOption
from tokenworks.cli.faults import CommandFault, told

if TYPE_CHECKING:
    from rich.console import Console

    from tokenworks.base.config import Settings

bench = typer.Typer(help="Measurements of the product on this machine.", no_args_is_help=True)

PeersOption = Annotated[
    bool, typer.Option("--peers", help="Beside nginx, Envoy, sglang-router and LiteLLM, installed on first use.")
]
RunsOption = Annotated[int, typer.Option(min=1, help="Runs; the median is shown.")]


class _Result(Protocol):
    """What every measurement finds out."""

    @property
    def is_sound(self) -> bool: ...


Found = TypeVar("Found", bound=_Result)
Plan = TypeVar("Plan")


@bench.callback()
def several() -> None:
    """Measurements of the product on this machine."""


@bench.command()
def gateway(
    seconds: Annotated[int, typer.Option(min=1, help="Length of a run.")] = 10,
    accounts: Annotated[int, typer.Option(min=1, help="Customers, each with a package and a key.")] = 10_000,
    connections: Annotated[int, typer.Option(min=1, max=1_000, help="Requests under way at once.")] = 32,
    runs: RunsOption = 5,
    peers: PeersOption = False,
    every: Annotated[
        bool, typer.Option("--every", help="Our gateway twice: at durability interval, and at durability every.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure the gateway as it is sold, in a throw-away system, beside nginx if that is installed, or all peers."""
    from tokenworks.bench import gateway as measurement
    from tokenworks.cli.bench_gateway import show

    plan = measurement.Plan(
        seconds=seconds, accounts=accounts, connections=connections, runs=runs, peers=peers, every=every
    )
    _measured(measurement.measure, plan, measurement.FAULTS, show, json=json)


@bench.command()
def stream(
    seconds: Annotated[int, typer.Option(min=1, help="Length of a run.")] = 3,
    accounts: Annotated[int, typer.Option(min=1, help="Customers, each with a package and a key.")] = 10_000,
    streams: Annotated[int, typer.Option(min=2, max=10_000, help="Streams at once.")] = 300,
    chunks: Annotated[int, typer.Option(min=2, max=1_000, help="Chunks of a stream.")] = 64,
    interval_ms: Annotated[int, typer.Option(min=1, max=10_000, help="Time between two chunks.")] = 20,
    runs: RunsOption = 5,
    peers: PeersOption = False,
    json: JsonOption = False,
) -> None:
    """Measure streams relayed by the gateway as it is sold, beside nginx if that is installed, or all peers."""
    from tokenworks.bench import gateway as measurement
    from tokenworks.bench import streams as of_streams
    from tokenworks.cli.bench_stream import show

    plan = of_streams.Plan(
        seconds=seconds,
        accounts=accounts,
        streams=streams,
        chunks=chunks,
        interval_ms=interval_ms,
        runs=runs,
        peers=peers,
    )
    _measured(of_streams.measure, plan, measurement.FAULTS, show, json=json)


@bench.command("open")
def open_streams(
    streams: Annotated[int, typer.Option(min=1, max=50_000, help="Streams to hold open at once.")] = 10_000,
    accounts: Annotated[int, typer.Option(min=1, help="Customers, each with a package and a key.")] = 1_000,
    json: JsonOption = False,
) -> None:
    """Hold slow streams open on one worker: how many are open at once, and what memory they take."""
    from tokenworks.bench import held
    from tokenworks.cli.bench_open import show

    _measured(held.measure, held.Plan(streams=streams, accounts=accounts), held.FAULTS, show, json=json)


@bench.command("keys")
def many_keys(
    keys: Annotated[int, typer.Option(min=1, max=10_000_000, help="Keys in the database.")] = 1_000_000,
    accounts: Annotated[int, typer.Option(min=1, help="Customers, each with a package, who have these keys.")] = 100,
    asked: Annotated[int, typer.Option(min=1, max=10_000, help="Keys that somebody asks with.")] = 400,
    json: JsonOption = False,
) -> None:
    """Measure a worker beside very many keys: its memory, and requests with a cold key beside those with a warm one."""
    from tokenworks.bench import cold_keys
    from tokenworks.cli.bench_keys import show

    plan = cold_keys.Plan(keys=max(keys, asked), accounts=accounts, asked=asked)
    _measured(cold_keys.measure, plan, cold_keys.FAULTS, show, json=json)


@bench.command()
def ledger(
    seconds: Annotated[int, typer.Option(min=1, help="Length of a run.")] = 5,
    accounts: Annotated[int, typer.Option(min=1, help="Accounts, drawn by Zipf's law.")] = 10_000,
    batch: Annotated[int, typer.Option(min=1, max=100_000, help="Charges in one posting.")] = 20_000,
    runs: RunsOption = 5,
    json: JsonOption = False,
) -> None:
    """Measure the ledger against one row-locked transaction per charge, on the same database in the same run."""
    from tokenworks.bench import ledger as measurement
    from tokenworks.cli.bench_books import show_ledger

    plan = measurement.Plan(seconds=seconds, accounts=accounts, batch=batch, runs=runs)
    _measured(measurement.measure, plan, measurement.FAULTS, show_ledger, json=json)


@bench.command()
def metering(
    records: Annotated[int, typer.Option(min=1, help="Requests in a run.")] = 100_000,
    accounts: Annotated[int, typer.Option(min=1, help="Customers, each with a package, a key and a lease.")] = 10_000,
    journals: Annotated[int, typer.Option(min=1, max=64, help="Journals shipped at once.")] = 4,
    runs: RunsOption = 5,
    json: JsonOption = False,
) -> None:
    """Measure metering: journals on disk, shipped over NATS, become posted and stored usage records."""
    from tokenworks.bench import metering as measurement
    from tokenworks.cli.bench_books import show_metering

    plan = measurement.Plan(records=records, accounts=accounts, journals=journals, runs=runs)
    _measured(measurement.measure, plan, measurement.FAULTS, show_metering, json=json)


@bench.command()
def whole(
    rate: Annotated[int, typer.Option(min=1, max=100_000, help="Requests begun each second.")] = 5_000,
    seconds: Annotated[int, typer.Option(min=1, help="How long there is load.")] = 60,
    accounts: Annotated[int, typer.Option(min=1, help="Customers, each with a package and a key.")] = 10_000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Gateway workers.")] = 2,
    connections: Annotated[int, typer.Option(min=1, max=10_000, help="Requests under way at once, at most.")] = 1_000,
    json: JsonOption = False,
) -> None:
    """Measure the whole system under load at a rate; exit code 1 if the books are not what the customers counted."""
    from tokenworks.bench import whole as measurement
    from tokenworks.cli.bench_whole import show

    plan = measurement.Plan(rate=rate, seconds=seconds, accounts=accounts, workers=workers, connections=connections)
    _measured(measurement.measure, plan, measurement.FAULTS, show, json=json)


def _measured(
    measure: "Callable[[Settings, Plan, Callable[[str], None]], Found]",
    plan: Plan,
    faults: tuple[type[Exception], ...],
    show: "Callable[[Console, Found], None]",
    *,
    json: bool,
) -> None:
    """Measure, show what was found, and exit with 1 where something does not add up."""
    import msgspec

    from tokenworks.base import config
    from tokenworks.cli import render

    # A request to terminate unwinds as Ctrl-C does, so that nothing is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with told():
        try:
            result = measure(config.load(), plan, _progress())
        except faults as fault:
            raise CommandFault(str(fault)) from fault
    if json:
        typer.echo(msgspec.json.encode(result).decode())
    else:
        show(render.console(), result)
    raise typer.Exit(0 if result.is_sound else 1)


def _progress() -> "Callable[[str], None]":
    """Says each step on standard error, with the minutes and seconds since the start."""
    from tokenworks.base import clock

    began_ns = clock.boot_ns()

    def say(step: str) -> None:
        minutes, seconds = divmod((clock.boot_ns() - began_ns) // clock.SECOND, 60)
        typer.secho(f"{minutes:2}:{seconds:02} {step} …", err=True, dim=True)

    return say
