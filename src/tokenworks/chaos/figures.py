"""What a chaos run finds out, as records: kills, load, the comparison, sums of the books, and what does not hold."""

import msgspec

from tokenworks.app import verification
from tokenworks.chaos.compare import Comparison, Violation
from tokenworks.chaos.customers import Count
from tokenworks.chaos.kills import BACK_WITHIN_MS, Kill
from tokenworks.chaos.posted import Sums
from tokenworks.ledger.verify import Check


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the figures depend on."""

    seconds: int
    rate: int
    workers: int
    accounts: int
    granted_small: int
    connections: int
    seed: int
    cores: int
    processor: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The whole run. Tokens and requests are counts; what the fields of the comparison mean is said there.

    `back_ms` is the longest time a part of a kind was away. `leases_stranded` are leases that are still open after an
    orderly stop: granted to a worker that was killed before it knew.
    """

    kills: dict[str, int]
    back_ms: dict[str, int]
    requests: int
    requests_per_second: int
    held_back: int
    under_way_most: int
    answers: dict[str, int]
    codes: dict[str, int]
    top_ups: int
    tokens_clients_counted: int
    tokens_posted: int
    tokens_clients_saw_cut: int
    tokens_posted_cut: int
    tokens_posted_unheard: int
    tokens_given_away: int
    unproven: int
    double_charged: int
    negative_balances: int
    leases_stranded: int
    tokens_stranded: int
    violations: tuple[Violation, ...]
    verified: bool
    failed_checks: tuple[str, ...]
    conditions: Conditions

    @property
    def is_sound(self) -> bool:
        """Whether everything that must hold does."""
        return self.verified and not self.violations and self.double_charged == self.negative_balances == 0


def result(
    *,
    kills: list[Kill],
    count: Count,
    is_settled: bool,
    top_ups: int,
    found: Comparison,
    sums: Sums,
    checks: tuple[Check, ...],
    conditions: Conditions,
) -> Result:
    """Put together what the parts of a run have found."""
    kinds = sorted({kill.kind for kill in kills})
    return Result(
        kills={kind: sum(1 for kill in kills if kill.kind == kind) for kind in kinds},
        back_ms={kind: max(kill.back_ms or BACK_WITHIN_MS for kill in kills if kill.kind == kind) for kind in kinds},
        requests=count.requests,
        requests_per_second=count.requests // conditions.seconds,
        held_back=count.held_back,
        under_way_most=count.under_way_most,
        answers=found.ended,
        codes=found.codes,
        top_ups=top_ups,
        tokens_clients_counted=found.tokens_clients_counted,
        tokens_posted=found.tokens_posted,
        tokens_clients_saw_cut=found.tokens_clients_saw_cut,
        tokens_posted_cut=found.tokens_posted_cut,
        tokens_posted_unheard=found.tokens_posted_unheard,
        tokens_given_away=found.tokens_given_away,
        unproven=found.unproven,
        double_charged=found.double_charged,
        negative_balances=sums.negative_balances,
        leases_stranded=sums.leases_open,
        tokens_stranded=sums.leased,
        violations=found.violations + tuple(_of_the_whole(kills, found, sums, is_settled=is_settled)),
        verified=all(check.ok for check in checks),
        failed_checks=verification.failed(checks),
        conditions=conditions,
    )


def _of_the_whole(kills: list[Kill], found: Comparison, sums: Sums, *, is_settled: bool) -> list[Violation]:
    """What is no single request's."""
    texts = [f"{kill.part} was not back after {BACK_WITHIN_MS} ms" for kill in kills if kill.back_ms is None]
    if not is_settled:
        texts.append("not everything was posted in time")
    charged = found.tokens_posted + found.tokens_posted_cut + found.tokens_posted_unheard
    if charged != sums.spent:
        texts.append(f"{charged} tokens are charged by the records, {sums.spent} spent by the ledger")
    if found.tokens_unproven != sums.unproven:
        texts.append(f"{found.tokens_unproven} tokens are unproven by the records, {sums.unproven} in the ledger")
    if sums.issued != sums.available + sums.leased + sums.spent:
        texts.append(f"issued {sums.issued}, available {sums.available}, leased {sums.leased}, spent {sums.spent}")
    return [Violation("", text) for text in texts]
