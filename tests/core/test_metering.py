"""What a batch of journal entries means for the books, as a table of entries and transfers."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core import journal
from tokenworks.core.journal import (
    Attempt,
    Checkpoint,
    Closing,
    Entry,
    Extension,
    Head,
    LeaseClose,
    LeaseReturn,
    Opening,
    Reserved,
)
from tokenworks.core.metering import Batch, Known, Outcome, decide
from tokenworks.core.named import EntryFault, Named, named
from tokenworks.core.purse import Charge
from tokenworks.core.standing import OpenLease, SoldBucket
from tokenworks.core.usage import NONE, Tokens

BUCKET = SoldBucket("le", "acc", "token", "CNY", 9_000, 100, 0)
HEAD = Head("j", "gw", 1)
BACK = ("lease/1", "bucket/b/available", "token")
SPENT = ("lease/1", "bucket/b/spent", "token")
EARNED = ("contract_liability/b", "revenue/tokens", "CNY")
LOST = ("loss/unproven", "unproven/delivered", "token")
COST = ("cost/tokens/s", "payable/s", "CNY")


def known(left: int = 50, openings: dict[int, Opening] | None = None, closed: frozenset[int] = frozenset()) -> Known:
    return Known({1: OpenLease("b", left)}, {"b": BUCKET}, openings or {}, closed)


def opening(account: str = "acc", entity: str = "le") -> Opening:
    return Opening(f"r-{account}", 1, entity, account, "key", "m", True, 50, 50, ())


def charge(amount: int, lease_id: int = 1, bucket_id: str = "b", unit: str = "token") -> Charge:
    return Charge(lease_id, bucket_id, "t@1", unit, Tokens(amount), amount)


def closing(at: int, *charges: Charge, cost: int = 0) -> Closing:
    attempts = (Attempt("e", "s", "p@1", "CNY", NONE, cost, "finished", 1, 2, 3),) if cost else ()
    return Closing(at, 9, "finished", "counted", NONE, NONE, None, (), charges, attempts, 2)


def grown(at: int, output_max: int) -> Extension:
    return Extension(at, 50, output_max, (Reserved(1, "b", "token", 50 + output_max),))


def run(entries: list[Entry], state: Known | None = None) -> Outcome:
    batch, state = Batch("j", 0, 900, 77, tuple(enumerate(entries))), state or known()
    state.confirm(named(batch.entries))
    return decide(batch, state)


def moved(outcome: Outcome) -> dict[tuple[str, str, str], int]:
    return {(t.debit, t.credit, t.unit): t.amount for posting in outcome.postings for t in posting.transfers}


@pytest.mark.parametrize(
    ("entries", "transfers"),
    [
        ([HEAD], {}),
        ([opening(), closing(0, charge(10))], {SPENT: 10, EARNED: 900}),
        ([opening(), closing(0, charge(10), charge(5))], {SPENT: 15, EARNED: 1_350}),
        ([opening(), closing(0, charge(0))], {}),
        ([opening(), closing(0, cost=7)], {COST: 7}),
        ([opening(), closing(0, charge(10)), LeaseClose(1, 40)], {SPENT: 10, EARNED: 900, BACK: 40}),
        ([LeaseClose(1, 50), LeaseClose(1, 50)], {BACK: 50}),
        ([LeaseClose(2, 50)], {}),
        ([LeaseClose(1, 50), opening(), closing(1, charge(10))], {BACK: 50, LOST: 10}),
        ([LeaseReturn(1, 20), LeaseClose(1, 30)], {BACK: 50}),
        ([LeaseReturn(1, 20), LeaseReturn(1, 20), opening(), closing(2, charge(11))], {BACK: 40, LOST: 11}),
        ([opening(), LeaseReturn(1, 40), closing(0, charge(10))], {BACK: 40, SPENT: 10, EARNED: 900}),
        ([LeaseReturn(1, 60)], {BACK: 50}),
        ([LeaseReturn(2, 10)], {}),
        ([LeaseClose(1, 50), LeaseReturn(1, 10)], {BACK: 50}),
        ([opening(), grown(0, 60), closing(0, charge(10))], {SPENT: 10, EARNED: 900}),
        ([opening(), closing(0, charge(10)), grown(0, 60)], {SPENT: 10, EARNED: 900}),
        ([opening(), closing(0, charge(51))], {LOST: 51}),
        ([opening(), closing(0, charge(30), charge(30))], {SPENT: 30, EARNED: 2_700, LOST: 30}),
        ([opening(), closing(0, charge(10, lease_id=2))], {LOST: 10}),
        ([opening(), closing(0, charge(10, bucket_id="c"))], {LOST: 10}),
        ([opening("other"), closing(0, charge(10))], {LOST: 10}),
        ([opening(entity="le2"), closing(0, charge(10), cost=7)], {LOST: 10, COST: 7}),
        ([opening(), Checkpoint(0, NONE, (charge(9),), ())], {}),
        ([opening(), closing(0, charge(10)), closing(0, charge(10))], {SPENT: 10, EARNED: 900}),
    ],
)
def test_transfers(entries: list[Entry], transfers: dict[tuple[str, str, str], int]) -> None:
    assert moved(run(entries)) == transfers


OWED = ("receivable/credit/ord", "revenue/tokens", "CNY")
TAXED = ("receivable/credit/ord", "tax/output", "CNY")


@pytest.mark.parametrize(
    ("spent_before", "amounts", "transfers"),
    [
        (0, (50,), {SPENT: 50, OWED: 450, TAXED: 27}),
        (0, (20, 30), {SPENT: 50, OWED: 450, TAXED: 27}),
        (1, (50,), {SPENT: 50, OWED: 450, TAXED: 27}),
        (50, (50,), {SPENT: 50, OWED: 450, TAXED: 27}),
        (0, (1,), {SPENT: 1, OWED: 9, TAXED: 1}),
        (1, (1,), {SPENT: 1, OWED: 9}),
        (0, (51,), {LOST: 51}),
    ],
)
def test_use_on_credit_is_owed_by_its_payer(
    spent_before: int, amounts: tuple[int, ...], transfers: dict[tuple[str, str, str], int]
) -> None:
    """A hundred tokens for 900 and 54 of tax: no liability, and the tax is rounded over all that was spent."""
    lent = SoldBucket("le", "acc", "token", "CNY", 900, 100, spent_before, tax=54, payer="credit/ord")
    state = Known({1: OpenLease("b", 50)}, {"b": lent}, {})
    outcome = run([opening(), closing(0, *(charge(amount) for amount in amounts))], state)
    assert moved(outcome) == transfers
    assert sum(line.revenue for line in outcome.records[0].lines) == transfers.get(OWED, 0)


def test_prepaid_rest_and_credit_in_one_request() -> None:
    lent = SoldBucket("le", "acc", "token", "CNY", 900, 100, 0, tax=54, payer="credit/ord")
    state = Known({1: OpenLease("b", 50), 2: OpenLease("c", 50)}, {"b": BUCKET, "c": lent}, {})
    (record,) = (found := run([opening(), closing(0, charge(10), charge(50, 2, "c"))], state)).records
    assert [(line.charge.bucket_id, line.revenue) for line in record.lines] == [("b", 900), ("c", 450)]
    assert moved(found) == {SPENT: 10, EARNED: 900, ("lease/2", "bucket/c/spent", "token"): 50, OWED: 450, TAXED: 27}


def test_the_posting_says_where_it_comes_from() -> None:
    (posting,) = run([opening(), closing(0, charge(10))]).postings
    assert (posting.kind, posting.event_id, posting.used_at_ns) == ("usage_posted", "journal/j/900/le", 9)
    assert posting.detail == {"journal": "j", "from": 0, "through": 900}
    (returned,) = run([LeaseClose(1, 50)]).postings
    assert returned.used_at_ns == 77


def test_waiting_and_repeated() -> None:
    outcome = run([opening(), opening("b"), closing(1), closing(1)])
    assert [place for place, _ in outcome.waiting] == [0]
    assert (len(outcome.opened), len(outcome.records), outcome.repeats) == (2, 1, 1)
    later = run([HEAD, closing(-5), closing(-6)], known(openings={-5: opening()}, closed=frozenset({-6})))
    assert (len(later.records), later.repeats) == (1, 1)


def test_unproven_records_are_flagged() -> None:
    outcome = run([opening(), closing(0, charge(51)), opening(), closing(2, charge(1))])
    assert [record.flags for record in outcome.records] == [("unproven",), ()]
    assert outcome.unproven == 1


def test_the_last_extension_is_the_records_reservation() -> None:
    outcome = run([opening(), grown(0, 60), grown(0, 70), closing(0, charge(1)), opening("b"), grown(4, 80)])
    (record,) = outcome.records
    assert (record.opening.output_max, record.opening.reserved[0].amount) == (70, 120)
    assert [opening.output_max for _, opening in outcome.waiting] == [80]
    assert outcome.grown == ()
    later = run([HEAD, grown(-5, 60), grown(-5, 70), grown(-6, 90)], known(openings={-5: opening(), -6: opening()}))
    assert [(each.position, each.at, each.opening.output_max) for each in later.grown] == [(-6, 3, 90), (-5, 2, 70)]


def test_a_part_given_back_says_what_was_claimed() -> None:
    (part,) = run([LeaseReturn(1, 60)]).lease_parts
    assert (part.amount, part.claimed) == (50, 60)


def test_a_lease_end_says_what_the_worker_claimed() -> None:
    (end,) = run([LeaseClose(1, 49)]).lease_ends
    assert (end.remainder, end.claimed) == (50, 49)


@pytest.mark.parametrize(
    "entries",
    [
        [closing(5)],
        [HEAD, HEAD],
        [closing(1), opening()],
        [grown(5, 60)],
        [grown(1, 60), opening()],
    ],
    ids=[
        *("no opening", "second head", "closed before it is opened"),
        *("nothing to extend", "extended before it is opened"),
    ],
)
def test_what_no_worker_writes(entries: list[Entry]) -> None:
    with pytest.raises(EntryFault):
        run(entries)


@pytest.mark.parametrize(
    "entry",
    [closing(0, charge(-1)), closing(0, cost=-1), LeaseReturn(1, -1), grown(0, -1)],
    ids=["negative charge", "negative cost", "negative return", "negative extension"],
)
def test_what_is_below_zero_is_refused_by_whoever_reads_it(entry: Entry) -> None:
    with pytest.raises(msgspec.ValidationError):
        journal.decode(journal.encode(entry))


def test_what_to_look_up() -> None:
    entries: list[Entry] = [HEAD, opening(), closing(1, charge(1, 4)), closing(-9, charge(1, 5)), LeaseClose(6, 0)]
    assert named(enumerate(entries)) == Named(frozenset({4, 5, 6}), frozenset({-9}))


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(0, 10**12))
def test_revenue_is_the_exact_share_whatever_the_pieces(amounts: list[int], net: int) -> None:
    total = sum(amounts)
    bucket = SoldBucket("le", "acc", "token", "CNY", net, max(total, 1), 0)
    state = Known({1: OpenLease("b", total)}, {"b": bucket}, {})
    outcome = run([opening(), closing(0, *(charge(amount) for amount in amounts))], state)
    earned = sum(line.revenue for line in outcome.records[0].lines)
    assert earned == (net if total else 0)
    assert moved(outcome).get(EARNED, 0) == earned
