"""What a measurement of streams finds out, as records.

Durations here are for people who compare, so they are floats; no amount is among them.
"""

import msgspec

from tokenworks.bench.conditions import Machine
from tokenworks.bench.field import About
from tokenworks.bench.figures import median_known, middle
from tokenworks.bench.report import Booked


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """A time to the first event, in milliseconds: of half the streams, and of all but one in a hundred."""

    p50: float
    p99: float


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one contender: its cost at full load, and its times at half load beside the endpoints' own."""

    streams: int
    cpu_us_per_chunk: float
    office_cpu_us_per_chunk: float | None = None
    database_cpu_us_per_chunk: float | None = None
    chunks_per_s: float
    ttft_ms: Times
    ttft_added_ms: Times
    rss_mb: float
    other_answers: int


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """The medians of a contender's runs, and the runs. `metering`: it charges for what it serves.

    `ttft_added_ms` is its time to the first event less that of the endpoints asked directly, at half load.
    """

    cpu_us_per_chunk: float
    office_cpu_us_per_chunk: float | None
    database_cpu_us_per_chunk: float | None
    chunks_per_s: float
    ttft_added_ms: Times
    rss_mb: float
    metering: bool
    runs: tuple[Run, ...]


class LoadGenerator(msgspec.Struct, frozen=True, kw_only=True):
    """The load generator against the endpoints, with nothing between them, at full load."""

    cpu_us_per_chunk: float
    chunks_per_s: float
    ttft_ms: Times


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the figures depend on."""

    seconds: int
    runs: int
    accounts: int
    streams: int
    chunks: int
    interval_ms: int
    skew: str
    endpoints: int
    workers: int
    durability: str
    machine: Machine


class Result(Booked, frozen=True, kw_only=True):
    """The whole measurement. `answers` are whole answers of the gateway, `records` finished usage records."""

    contenders: dict[str, Contender]
    peers: dict[str, About]
    left_out: dict[str, str]
    load_generator: LoadGenerator
    conditions: Conditions


def together(runs: list[Run], *, metering: bool) -> Contender:
    """The median of each figure over the runs."""
    return Contender(
        cpu_us_per_chunk=middle([run.cpu_us_per_chunk for run in runs]),
        office_cpu_us_per_chunk=median_known([run.office_cpu_us_per_chunk for run in runs]),
        database_cpu_us_per_chunk=median_known([run.database_cpu_us_per_chunk for run in runs]),
        chunks_per_s=middle([run.chunks_per_s for run in runs]),
        ttft_added_ms=Times(
            p50=middle([run.ttft_added_ms.p50 for run in runs]), p99=middle([run.ttft_added_ms.p99 for run in runs])
        ),
        rss_mb=middle([run.rss_mb for run in runs]),
        metering=metering,
        runs=tuple(runs),
    )
