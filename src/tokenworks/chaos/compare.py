"""The comparison: what customers counted against what was posted, request id by request id. Pure.

A complete answer is posted exactly once with exactly the tokens that its customer counted. A refusal costs nothing. Of
an answer that was cut off, no more is charged than its customer may have got and one checkpoint more, never twice. A
record that no customer knows must be one of the requests whose connection was lost before any head came.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

import msgspec

from tokenworks.chaos.answers import Answer
from tokenworks.chaos.posted import Posted
from tokenworks.chaos.questions import INPUT_TOKENS, Question


class Violation(msgspec.Struct, frozen=True):
    """What does not hold, for one request, or for the whole run where `request_id` is empty."""

    request_id: str
    why: str


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """`accounts` are the billing accounts by the questions' places, `checkpoint` the tokens between two checkpoints."""

    accounts: list[str]
    checkpoint: int


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. Tokens: of complete answers as counted and as posted, of the others as seen and as posted.

    `unproven` counts records that took nothing from the customer because the ledger could not confirm their lease.
    `tokens_given_away` were with customers and not charged, because a worker died after its last checkpoint.
    """

    ended: dict[str, int]
    codes: dict[str, int]
    tokens_clients_counted: int
    tokens_posted: int
    tokens_clients_saw_cut: int
    tokens_posted_cut: int
    tokens_posted_unheard: int
    tokens_given_away: int
    tokens_unproven: int
    unproven: int
    double_charged: int
    violations: tuple[Violation, ...]


def compare(seen: Iterable[Answer], posted: Iterable[Posted], limits: Limits) -> Comparison:
    """Hold every answer against its record, and every record against an answer."""
    sheet = _Sheet(limits)
    records = sheet.by_request(posted)
    for answer in seen:
        sheet.take(answer, records.pop(answer.request_id, None) if answer.request_id else None)
    sheet.strangers(records.values())
    return sheet.result()


class _Sheet:
    """The counts as they grow."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._ended: Counter[str] = Counter()
        self._codes: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._unheard: defaultdict[str, list[Question]] = defaultdict(list)
        self._unproven = 0
        self._double: set[str] = set()
        self._violations: list[Violation] = []

    def by_request(self, posted: Iterable[Posted]) -> dict[str, Posted]:
        """The records by request id; a second one for the same id is a finding."""
        found: dict[str, Posted] = {}
        for record in posted:
            self._unproven += record.unproven > 0
            self._tokens["unproven"] += record.unproven
            if record.request_id in found:
                self._found_double(record.request_id, "posted more than once")
            found[record.request_id] = record
        return found

    def take(self, answer: Answer, record: Posted | None) -> None:
        """One request of a customer."""
        self._ended[answer.ended] += 1
        if answer.code:
            self._codes[answer.code] += 1
        account = self._limits.accounts[answer.question.account]
        if record and record.billing_account_id != account:
            self._found(answer.request_id, f"asked by {account}, posted to {record.billing_account_id}")
        if answer.ended == "complete":
            self._complete(answer, record)
        elif answer.ended == "cut":
            self._cut(answer, record)
        elif answer.ended == "unheard":
            self._unheard[account].append(answer.question)
        elif record and record.charged + record.unproven:
            self._found_double(answer.request_id, f"refused with {answer.status}, and {record.charged} charged")

    def strangers(self, records: Iterable[Posted]) -> None:
        """Records that no customer knows, largest first, each against a request that was never heard of again."""
        for questions in self._unheard.values():
            questions.sort(key=_most)
        for record in sorted(records, key=lambda each: -each.charged):
            questions = self._unheard[record.billing_account_id]
            self._tokens["unheard"] += record.charged
            if not questions:
                self._found(record.request_id, "posted, and no customer has asked for it")
            elif record.charged > _most(questions.pop()):
                self._found_double(record.request_id, f"charged {record.charged}, more than the request could cost")

    def result(self) -> Comparison:
        """All of it."""
        return Comparison(
            ended=dict(sorted(self._ended.items())),
            codes=dict(self._codes.most_common()),
            tokens_clients_counted=self._tokens["counted"],
            tokens_posted=self._tokens["posted"],
            tokens_clients_saw_cut=self._tokens["seen cut"],
            tokens_posted_cut=self._tokens["posted cut"],
            tokens_posted_unheard=self._tokens["unheard"],
            tokens_given_away=self._tokens["given away"],
            tokens_unproven=self._tokens["unproven"],
            unproven=self._unproven,
            double_charged=len(self._double),
            violations=tuple(self._violations),
        )

    def _complete(self, answer: Answer, record: Posted | None) -> None:
        counted = _counted(answer, record)
        self._tokens["counted"] += counted
        if record is None:
            self._found(answer.request_id, f"answered with {counted} tokens, and not posted")
            return
        self._tokens["posted"] += record.charged
        if answer.charged not in {None, record.charged}:
            self._found(answer.request_id, f"its answer said {answer.charged} charged, its record {record.charged}")
        if record.charged > counted:
            self._found_double(answer.request_id, f"counted {counted} tokens, charged {record.charged}")
        elif record.charged < counted or record.tokens != counted:
            text = f"counted {counted} tokens, posted {record.tokens}, charged {record.charged} ({record.ending})"
            self._found(answer.request_id, text)

    def _cut(self, answer: Answer, record: Posted | None) -> None:
        self._tokens["seen cut"] += answer.deltas
        if record is None:
            self._found(answer.request_id, "its answer had begun, and it was not posted")
            return
        self._tokens["posted cut"] += record.charged
        self._tokens["given away"] += max(0, answer.deltas - record.tokens_output)
        question, checkpoint = answer.question, self._limits.checkpoint
        most = min(question.output_most, answer.deltas + checkpoint) if question.streamed else question.output_most
        if record.tokens_output > most or record.charged + record.unproven > most + _input_most(question):
            text = f"cut after {answer.deltas} deltas, charged {record.charged} for {record.tokens_output}"
            self._found_double(answer.request_id, text)
        # A piece may hold several tokens, so the last checkpoint can be a little further back than its distance.
        if answer.deltas - record.tokens_output > 2 * checkpoint:
            text = f"cut after {answer.deltas} deltas, posted {record.tokens_output}: more lost than a checkpoint"
            self._found(answer.request_id, text)

    def _found(self, request_id: str, why: str) -> None:
        self._violations.append(Violation(request_id, why))

    def _found_double(self, request_id: str, why: str) -> None:
        """Charged more than once, or for more than was had."""
        self._double.add(request_id)
        self._found(request_id, why)


def _counted(answer: Answer, record: Posted | None) -> int:
    """What the customer counts of a complete answer: its usage, else the prompt and the deltas.

    Of a stream that was ended early because no more could be paid for, no usage came: how the prompt was counted then
    is the gateway's affair, within its bound.
    """
    if answer.usage:
        return sum(answer.usage)
    if record and answer.deltas < answer.question.output_most:
        return min(record.tokens_input, _input_most(answer.question)) + answer.deltas
    return INPUT_TOKENS + answer.deltas


def _input_most(question: Question) -> int:
    """A token has at least one byte."""
    return len(question.body())


def _most(question: Question) -> int:
    return _input_most(question) + question.output_most
