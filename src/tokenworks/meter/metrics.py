"""Prometheus metrics of posted usage. Names and labels follow OpenTelemetry's GenAI conventions where they exist.

Their token types count cached and cache-writing tokens as input and reasoning as output; the disjoint classes that
charges are made of are in `tokenworks_tokens_total`. Counting is on the way of every record, so it is done here in
plain numbers, and the client library is asked only when somebody reads them.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tokenworks.core.metering import Outcome, Record
from tokenworks.core.usage import CLASSES

# Buckets as the conventions advise; of durations in milliseconds.
_TOKENS = (1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304)
_DURATION_MS = (10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_120, 10_240, 20_480, 40_960, 81_920)
_FIRST_TOKEN_MS = (1, 5, 10, 20, 40, 60, 80, 100, 250, 500, 750, 1_000, 2_500, 5_000, 7_500, 10_000)
_MS = 1_000_000
_SECOND = 1_000_000_000
_LABELS = ("gen_ai_operation_name", "gen_ai_request_model")


class Metrics(Collector):
    """The metrics in one registry; fed with every committed batch."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models: defaultdict[str, _OfModel] = defaultdict(_OfModel)
        self._shipments = 0
        self._repeats = 0
        self._unproven = 0
        self._gaps = 0
        self._waiting: dict[str, int] = {}
        registry.register(self)

    def observe(self, outcome: Outcome) -> None:
        """Count a committed batch."""
        self._shipments += 1
        self._repeats += outcome.repeats
        self._unproven += outcome.unproven
        of_model: defaultdict[str, list[Record]] = defaultdict(list)
        for record in outcome.records:
            of_model[record.opening.model].append(record)
        for model, records in of_model.items():
            self._models[model].add(records)

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
            usage.add_metric(("chat", name, "input"), model.read.buckets(1), model.read.total)
            usage.add_metric(("chat", name, "output"), model.written.buckets(1), model.written.total)
            first_token.add_metric(
                ("chat", name), model.first_token.buckets(_SECOND), model.first_token.total / _SECOND
            )
            for error, histogram in model.duration.items():
                duration.add_metric(("chat", name, error), histogram.buckets(_SECOND), histogram.total / _SECOND)
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


class _Histogram:
    """How many values lie up to each bound, and their sum."""

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.total = 0
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)

    def add(self, values: list[int]) -> None:
        # Sorted once, the values up to each bound are counted by one search for it.
        values.sort()
        before = 0
        for place, bound in enumerate(self._bounds):
            upto = bisect_right(values, bound, before)
            self._counts[place] += upto - before
            before = upto
        self._counts[-1] += len(values) - before
        self.total += sum(values)

    def buckets(self, divisor: int) -> list[tuple[str, float]]:
        """As the text format has them: counted up, bounds in the metric's unit."""
        counted = 0
        shown: list[tuple[str, float]] = []
        for bound, count in zip((*self._bounds, None), self._counts, strict=True):
            counted += count
            shown.append(("+Inf" if bound is None else str(bound / divisor), counted))
        return shown


class _OfModel:
    """What is counted for one model."""

    def __init__(self) -> None:
        self.read = _Histogram(_TOKENS)
        self.written = _Histogram(_TOKENS)
        self.first_token = _Histogram(tuple(bound * _MS for bound in _FIRST_TOKEN_MS))
        self.duration: defaultdict[str, _Histogram] = defaultdict(_durations)
        self.tokens = [0] * len(CLASSES)
        self.endings: Counter[tuple[str, str]] = Counter()

    def add(self, records: list[Record]) -> None:
        counts = [record.closing.tokens.each() for record in records]
        for place, of_class in enumerate(zip(*counts, strict=True)):
            self.tokens[place] += sum(of_class)
        self.read.add([each[0] + each[1] + each[2] for each in counts])
        self.written.add([each[3] + each[4] for each in counts])
        closings = [record.closing for record in records]
        self.first_token.add([each.first_token_after_ns for each in closings if each.first_token_after_ns > 0])
        lasted: defaultdict[str, list[int]] = defaultdict(list)
        for record in records:
            closing = record.closing
            lasted[closing.ending].append(max(0, closing.closed_at_ns - record.opening.opened_at_ns))
        for ending, values in lasted.items():
            self.duration["" if ending == "finished" else ending].add(values)
        self.endings.update([(each.basis, each.ending) for each in closings])


def _durations() -> _Histogram:
    return _Histogram(tuple(bound * _MS for bound in _DURATION_MS))
