"""Prometheus metrics of posted usage. Names and labels follow OpenTelemetry's GenAI conventions where they exist.

Their token types count cached and cache-writing tokens as input and reasoning as output; the disjoint classes that
charges are made of are in `tokenworks_tokens_total`.
"""

from collections import Counter as TallyOf

from prometheus_client import CollectorRegistry, Counter, Histogram

from tokenworks.core.metering import Outcome, Record
from tokenworks.core.usage import CLASSES, NONE, Tokens

# Buckets as the conventions advise; all in seconds or tokens.
_TOKENS = (1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304)
_DURATION_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_SECOND_NS = 1_000_000_000
_LABELS = ("gen_ai_operation_name", "gen_ai_request_model")


class Metrics:
    """The metrics in one registry; fed with every committed batch."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._usage = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of a request by type",
            (*_LABELS, "gen_ai_token_type"),
            registry=registry,
            buckets=_TOKENS,
        )
        self._duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "Time from the opening to the closing of a request",
            (*_LABELS, "error_type"),
            registry=registry,
            buckets=_DURATION_S,
        )
        self._first_token = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Time from the opening of a request to its first token",
            _LABELS,
            registry=registry,
            buckets=_FIRST_TOKEN_S,
        )
        self._tokens = Counter(
            "tokenworks_tokens",
            "Tokens posted, by disjoint class",
            ("gen_ai_request_model", "token_class"),
            registry=registry,
        )
        self._records = Counter(
            "tokenworks_usage_records", "Records posted", ("gen_ai_request_model", "basis", "ending"), registry=registry
        )
        self._repeats = Counter("tokenworks_usage_repeats", "Closings that came again, skipped", registry=registry)
        self._unproven = Counter(
            "tokenworks_usage_unproven", "Charges posted to loss because their lease had ended", registry=registry
        )
        self._shipments = Counter("tokenworks_shipments", "Journal batches posted", registry=registry)
        self._by_model: dict[str, _OfModel] = {}

    def observe(self, outcome: Outcome) -> None:
        """Count a committed batch."""
        self._shipments.inc()
        self._repeats.inc(outcome.repeats)
        self._unproven.inc(outcome.unproven)
        tokens: dict[str, Tokens] = {}
        endings: TallyOf[tuple[str, str, str]] = TallyOf()
        for record in outcome.records:
            model, closing = record.opening.model, record.closing
            tokens[model] = tokens.get(model, NONE) + closing.tokens
            endings[model, closing.basis, closing.ending] += 1
            self._observe(record)
        for model, total in tokens.items():
            for name, count in zip(CLASSES, total.each(), strict=True):
                self._tokens.labels(model, name).inc(count)
        for labels, count in endings.items():
            self._records.labels(*labels).inc(count)

    def _observe(self, record: Record) -> None:
        model, closing = record.opening.model, record.closing
        children = self._by_model.get(model)
        if children is None:
            children = self._by_model[model] = _OfModel(model, self._usage, self._first_token)
        children.input.observe(closing.tokens.read)
        children.output.observe(closing.tokens.written)
        if closing.first_token_after_ns > 0:
            children.first_token.observe(closing.first_token_after_ns / _SECOND_NS)
        error = "" if closing.ending == "finished" else closing.ending
        duration_ns = max(0, closing.closed_at_ns - record.opening.opened_at_ns)
        self._duration.labels("chat", model, error).observe(duration_ns / _SECOND_NS)


class _OfModel:
    """A model's children of the metrics: looking labels up costs more than counting."""

    def __init__(self, model: str, usage: Histogram, first_token: Histogram) -> None:
        self.input = usage.labels("chat", model, "input")
        self.output = usage.labels("chat", model, "output")
        self.first_token = first_token.labels("chat", model)
