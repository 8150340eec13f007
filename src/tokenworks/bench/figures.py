"""What a measurement of the gateway finds out, as records: a run, a contender's runs together, the whole.

Ratios and durations here are for people who compare, so they are floats; no amount is among them.
"""

from collections.abc import Iterable
from statistics import median

import msgspec

from tokenworks.bench.field import About
from tokenworks.bench.report import Booked


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one contender. `office…` and `database_cpu_us_per_request` are None where there are none.

    `other_answers`: those with a status that is not 200, and broken connections.
    """

    answers: int
    cpu_us_per_request: float
    office_cpu_us_per_request: float | None = None
    database_cpu_us_per_request: float | None = None
    other_answers: int = 0
    rps: float
    p50_ms: float
    p99_ms: float
    rss_mb: float


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """The medians of a contender's runs, and the runs. `metering`: it charges for what it serves.

    `cpu_us_per_request` is of the processes that serve; ours is the worker, which ships its journal, too.
    """

    cpu_us_per_request: float
    office_cpu_us_per_request: float | None
    database_cpu_us_per_request: float | None
    rps: float
    p50_ms: float
    p99_ms: float
    rss_mb: float
    metering: bool
    runs: tuple[Run, ...]


class LoadGenerator(msgspec.Struct, frozen=True, kw_only=True):
    """The load generator against the endpoints, with nothing between them: its own CPU, and what it can ask."""

    cpu_us_per_request: float
    rps: float
    p50_ms: float
    p99_ms: float


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the figures depend on."""

    seconds: int
    runs: int
    accounts: int
    connections: int
    skew: str
    endpoints: int
    request_bytes: int
    answer_bytes: int
    workers: int
    durability: str
    journal_fsync_ms: int
    lease_use_ms: int
    database: dict[str, str]
    fdatasync_us: int
    cores: int
    processor: str
    python: str
    tokenworks: str
    nginx: str


class Result(Booked, frozen=True, kw_only=True):
    """The whole measurement. `answers` are those of the gateway with status 200, `records` finished usage records.

    Leases are those of the busiest accounts once they are warm, `slice_percent_max` is their largest slice as a share
    of its bucket; round trips are measured at rest, to the lease desk and to nobody in particular.
    `other_answers` counts answers of the gateway by any other status; `failed_checks` names what does not hold.
    `peers` says what the others are that ran, `left_out` why one did not.
    """

    contenders: dict[str, Contender]
    peers: dict[str, About]
    left_out: dict[str, str]
    leases_per_1000_requests: float
    slice_percent_max: float
    lease_rtt_p50_ms: float
    nats_rtt_p50_ms: float
    load_generator: LoadGenerator
    conditions: Conditions


def together(runs: list[Run], *, metering: bool) -> Contender:
    """The median of each figure over the runs."""
    return Contender(
        cpu_us_per_request=middle(run.cpu_us_per_request for run in runs),
        office_cpu_us_per_request=median_known(run.office_cpu_us_per_request for run in runs),
        database_cpu_us_per_request=median_known(run.database_cpu_us_per_request for run in runs),
        rps=middle(run.rps for run in runs),
        p50_ms=middle(run.p50_ms for run in runs),
        p99_ms=middle(run.p99_ms for run in runs),
        rss_mb=middle(run.rss_mb for run in runs),
        metering=metering,
        runs=tuple(runs),
    )


class Figure(msgspec.Struct, frozen=True):
    """What several runs gave: the median, and the smallest and largest."""

    median: float
    low: float
    high: float


def figure(values: Iterable[float]) -> Figure:
    """Of at least one run."""
    listed = list(values)
    return Figure(middle(listed), min(listed), max(listed))


def median_known(values: Iterable[float | None]) -> float | None:
    """The median of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return middle(known) if known else None


def middle(values: Iterable[float]) -> float:
    """The median, to a thousandth."""
    return round(median(values), 3)
