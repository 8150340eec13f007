"""Prometheus metrics of posted usage. Names and labels follow OpenTelemetry's GenAI conventions where they exist.

Their token types count cached and cache-writing tokens as input and reasoning as output; the disjoint classes that
charges are made of are in `tokenworks_tokens_total`. Counting is on the way of every record, so it is done in plain
numbers where the record is posted, and the client library is asked only when somebody reads them.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TypeVar

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tokenworks.core.metering import Outcome, Record
from tokenworks.core.usage import CLASSES

# Buckets as the conventions advise; of durations in nanoseconds.
_TOKENS = (1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304)
_DURATION_NS = tuple(10_000_000 << power for power in range(14))
_FIRST_TOKEN_NS = tuple(
    ms * 1_000_000 for ms in (1, 5, 10, 20, 40, 60, 80, 100, 250, 500, 750, 1_000, 2_500, 5_000, 7_500, 10_000)
)
_SECOND = 1_000_000_000
_LABELS = ("gen_ai_operation_name", "gen_ai_request_model")


class Histogram(msgspec.Struct):
    """How many values lie between one bound and the next, the last beyond all, and their sum."""

    counts: list[int]
    total: int

    def merge(self, other: "Histogram") -> None:
        """Count what the other has counted, by the same bounds."""
        self.counts = _sums(self.counts, other.counts)
        self.total += other.total

    def buckets(self, bounds: tuple[int, ...], divisor: int = 1) -> list[tuple[str, float]]:
        """As the text format has them: counted up, bounds in the metric's unit."""
        counted = 0
        shown: list[tuple[str, float]] = []
        for bound, count in zip((*bounds, None), self.counts, strict=True):
            counted += count
            shown.append(("+Inf" if bound is None else str(bound / divisor), counted))
        return shown


class OfModel(msgspec.Struct):
    """What is counted for one model: tokens read and written, times, tokens by class, (basis, ending)."""

    read: Histogram
    written: Histogram
    first_token: Histogram
    duration: dict[str, Histogram]
    tokens: list[int]
    endings: dict[tuple[str, str], int]

    def merge(self, other: "OfModel") -> None:
        """Count what the other has counted."""
        self.read.merge(other.read)
        self.written.merge(other.written)
        self.first_token.merge(other.first_token)
        _merge(self.duration, other.duration)
        self.tokens = _sums(self.tokens, other.tokens)
        for ending, count in other.endings.items():
            self.endings[ending] = self.endings.get(ending, 0) + count


_Kind = TypeVar("_Kind", Histogram, OfModel)


class Counted(msgspec.Struct, frozen=True):
    """What a committed batch adds to the metrics."""

    repeats: int
    unproven: int
    models: dict[str, OfModel]


def counted(outcome: Outcome) -> Counted:
    """Count a committed batch, where it was posted."""
    of_model: defaultdict[str, list[Record]] = defaultdict(list)
    for record in outcome.records:
        of_model[record.opening.model].append(record)
    models = {model: _of_model(records) for model, records in of_model.items()}
    return Counted(outcome.repeats, outcome.unproven, models)


def _of_model(records: list[Record]) -> OfModel:
    counts = [record.closing.tokens.each() for record in records]
    closings = [record.closing for record in records]
    lasted: defaultdict[str, list[int]] = defaultdict(list)
    for record in records:
        closing = record.closing
        lasted[closing.ending].append(max(0, closing.closed_at_ns - record.opening.opened_at_ns))
    return OfModel(
        read=_histogram([each[0] + each[1] + each[2] for each in counts], _TOKENS),
        written=_histogram([each[3] + each[4] for each in counts], _TOKENS),
        first_token=_histogram(
            [each.first_token_after_ns for each in closings if each.first_token_after_ns > 0], _FIRST_TOKEN_NS
        ),
        duration={
            "" if ending == "finished" else ending: _histogram(values, _DURATION_NS)
            for ending, values in lasted.items()
        },
        tokens=[sum(of_class) for of_class in zip(*counts, strict=True)],
        endings=Counter([(each.basis, each.ending) for each in closings]),
    )


def _histogram(values: list[int], bounds: tuple[int, ...]) -> Histogram:
    # Sorted once, the values up to each bound are counted by one search for it.
    values.sort()
    counts: list[int] = []
    before = 0
    for bound in bounds:
        upto = bisect_right(values, bound, before)
        counts.append(upto - before)
        before = upto
    return Histogram([*counts, len(values) - before], sum(values))


def _sums(first: list[int], second: list[int]) -> list[int]:
    return [one + other for one, other in zip(first, second, strict=True)]


def _merge(held: dict[str, _Kind], others: dict[str, _Kind]) -> None:
    """Count what others have counted, under their names."""
    for name, other in others.items():
        if name in held:
            held[name].merge(other)
        else:
            held[name] = other


class Metrics(Collector):
    """The metrics in one registry; fed with what was counted of every committed batch."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models: dict[str, OfModel] = {}
        self._shipments = 0
        self._repeats = 0
        self._unproven = 0
        self._gaps = 0
        self._waiting: dict[str, int] = {}
        registry.register(self)

    def add(self, counted: Counted) -> None:
        """Count a committed batch."""
        self._shipments += 1
        self._repeats += counted.repeats
        self._unproven += counted.unproven
        _merge(self._models, counted.models)

    def gap(self) -> None:
        """Count a shipment that was refused because bytes before it are missing."""
        self._gaps += 1

    def waiting(self, worker: str, waiting_bytes: int) -> None:
        """Say how many bytes of a worker's journal were not posted when it shipped last."""
        self._waiting[worker] = waiting_bytes

    def collect(self) -> Iterator[Metric]:
        """The numbers as they are now, for a reader."""
        yield from self._histograms()
        yield from self._usage()
        for name, text, count in (
            ("tokenworks_usage_repeats", "Closings that came again, skipped", self._repeats),
            ("tokenworks_usage_unproven", "Charges posted to loss because their lease had ended", self._unproven),
            ("tokenworks_shipments", "Journal batches posted", self._shipments),
            ("tokenworks_shipment_gaps", "Shipments refused because bytes before them are missing", self._gaps),
        ):
            yield CounterMetricFamily(name, text, count)
        waiting = GaugeMetricFamily(
            "tokenworks_usage_waiting_bytes", "Journal bytes that a worker had not shipped yet", labels=("worker",)
        )
        for worker, waiting_bytes in self._waiting.items():
            waiting.add_metric((worker,), waiting_bytes)
        yield waiting

    def _histograms(self) -> Iterator[Metric]:
        usage = HistogramMetricFamily(
            "gen_ai_client_token_usage", "Tokens of a request by type", labels=(*_LABELS, "gen_ai_token_type")
        )
        duration = HistogramMetricFamily(
            "gen_ai_server_request_duration_seconds",
            "Time from the opening to the closing of a request",
            labels=(*_LABELS, "error_type"),
        )
        first_token = HistogramMetricFamily(
            "gen_ai_server_time_to_first_token_seconds",
            "Time from the opening of a request to its first token",
            labels=_LABELS,
        )
        for name, model in self._models.items():
            usage.add_metric(("chat", name, "input"), model.read.buckets(_TOKENS), model.read.total)
            usage.add_metric(("chat", name, "output"), model.written.buckets(_TOKENS), model.written.total)
            first_token.add_metric(
                ("chat", name), model.first_token.buckets(_FIRST_TOKEN_NS, _SECOND), model.first_token.total / _SECOND
            )
            for error, histogram in model.duration.items():
                duration.add_metric(
                    ("chat", name, error), histogram.buckets(_DURATION_NS, _SECOND), histogram.total / _SECOND
                )
        yield from (usage, duration, first_token)

    def _usage(self) -> Iterator[Metric]:
        tokens = CounterMetricFamily(
            "tokenworks_tokens", "Tokens posted, by disjoint class", labels=("gen_ai_request_model", "token_class")
        )
        records = CounterMetricFamily(
            "tokenworks_usage_records", "Records posted", labels=("gen_ai_request_model", "basis", "ending")
        )
        for name, model in self._models.items():
            for token_class, count in zip(CLASSES, model.tokens, strict=True):
                tokens.add_metric((name, token_class), count)
            for (basis, ending), count in model.endings.items():
                records.add_metric((name, basis, ending), count)
        yield from (tokens, records)
