"""What a correction does to the books: which buckets take back what, and the money that goes with it.

Pure: the state of buckets and what was charged go in, lines and a posting come out; `ledger.corrections` carries them
out. Nothing is edited: a correction is a further posting. Money follows two figures that are each rounded once:

    revenue of a bucket   = net × (spent + expired) / granted
    price still sold      = net × (granted − withdrawn) / granted

The contract liability is their difference, whatever the order of use, refunds and withdrawals, and zero at the end.
Of a credit bucket nothing was paid before: what its payer owes follows what is spent (`core.sales.owed`), back too.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from tokenworks.core import postings
from tokenworks.core.bucket import Bucket
from tokenworks.core.commands import conflict, invalid
from tokenworks.core.postings import Posting, Transfer
from tokenworks.core.sales import owed, recognised, still_sold

Kind = Literal[
    "usage_refunded",
    "package_withdrawn",
    "payment_charged_back",
    "receivable_written_off",
    "refund_settled",
    "supplier_credited",
]
"""Stable codes: of corrections, and of the postings that carry them out."""

REASON_LENGTH_MAX = 500


class BucketBooks(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket, sold or granted on credit, and what its accounts say; money in nano-units of `currency`."""

    bucket: Bucket
    kind: Literal["prepaid", "credit"] = "prepaid"
    currency: str
    payer: str
    granted: int
    net: int
    tax: int
    available: int
    leased: int
    spent: int
    expired: int
    withdrawn: int

    @property
    def earned(self) -> int:
        """Revenue recognised so far."""
        if self.kind == "credit":
            return owed(self.net, self.tax, self.spent, self.granted)[0]
        return recognised(self.net, self.spent + self.expired, self.granted)

    @property
    def net_sold(self) -> int:
        """The part of the net price that was not withdrawn; of a credit bucket what is owed, whatever the limit."""
        return self.earned if self.kind == "credit" else still_sold(self.net, self.withdrawn, self.granted)

    @property
    def tax_sold(self) -> int:
        """The part of the tax that was not withdrawn, or that is owed."""
        if self.kind == "credit":
            return owed(self.net, self.tax, self.spent, self.granted)[1]
        return still_sold(self.tax, self.withdrawn, self.granted)


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A correction without its lines. `about` is what it corrects: a request, bucket, order, payer or supplier.

    `billing_account_id` is empty if it concerns no customer; `used_at_ns` is when what is corrected happened.
    """

    id: str
    kind: Kind
    legal_entity_id: str
    billing_account_id: str
    about: str
    reason: str
    reference: str
    used_at_ns: int
    at_ns: int


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One bucket's part of a correction, or the whole of one that touches no bucket.

    `amount` of `unit` went back to available, was withdrawn, or moved to the bucket `replacement_id`. `revenue` is
    taken back; `net` and `tax` left the bucket, are owed no longer, or are the money of a correction without a bucket;
    `due` is owed by the customer directly. `charge` is the place of the refunded charge in its record.
    """

    bucket_id: str | None = None
    unit: str = ""
    amount: int = 0
    currency: str
    revenue: int = 0
    net: int = 0
    tax: int = 0
    due: int = 0
    charge: int | None = None
    replacement_id: str | None = None


class Replacement(msgspec.Struct, frozen=True):
    """A dated bucket that takes the place of an expired one, with the price that moves into it."""

    bucket: Bucket
    replaces: str
    granted: int
    net: int
    tax: int


class Charged(msgspec.Struct, frozen=True):
    """A proven charge of a record: its place there, and what of it was not refunded yet."""

    place: int
    bucket_id: str
    unit: str
    left: int


class Decision(msgspec.Struct, frozen=True):
    """Lines and posting of a correction, and the buckets that it opens."""

    lines: tuple[Line, ...]
    posting: Posting
    replacements: tuple[Replacement, ...] = ()


def check_reason(reason: str) -> None:
    """Nothing is corrected without a reason that a reviewer can read."""
    if not reason.strip() or len(reason) > REASON_LENGTH_MAX:
        raise invalid(f"A correction has a reason of 1 to {REASON_LENGTH_MAX} characters.", "reason")


def refund(
    head: Head,
    charged: Sequence[Charged],
    books: Mapping[str, BucketBooks],
    receivables: Mapping[str, int],
    amount: tuple[int, str] | None,
    until_ns: int,
) -> Decision:
    """Give use back, the bucket drawn last first; into an expired one as a bucket that is valid until `until_ns`.

    `amount` is how much of which unit, None all that was charged and not refunded before. `receivables` are what the
    payers of credit buckets owe: what they have paid already is owed back to them. The limit of a credit period that is
    over is not opened again.
    """
    state, lines, transfers = dict(books), list[Line](), list[Transfer]()
    owing = dict(receivables)
    for charge, part in _split(charged, amount):
        before = state[charge.bucket_id]
        to = _way_back(before, head.at_ns)
        after = msgspec.structs.replace(before, spent=before.spent - part, **{to: getattr(before, to) + part})
        state[charge.bucket_id] = after
        new = _replacement_id(head, charge.bucket_id, books) if to == "withdrawn" else None
        line = _unspent(before, after, part, new, charge.place)
        lines.append(line)
        transfers.append(Transfer(postings.spent(charge.bucket_id), _PARTS[to](charge.bucket_id), line.unit, part))
        transfers += _owed_less(line, before.payer, owing) if before.kind == "credit" else _unearned(line)
    replacements = tuple(_replacements(lines, books, head, until_ns))
    return Decision(tuple(lines), _posting(head, transfers), replacements)


def withdraw(head: Head, books: BucketBooks, amount: int | None) -> Decision:
    """Take back what is available, or `amount` of it; its share of price and tax is owed to the payer.

    Of a credit bucket only the limit shrinks.
    """
    if amount is None:
        _refuse_leased(books)
    taken = books.available if amount is None else amount
    if books.bucket.valid_to_ns <= head.at_ns:
        raise conflict(f"The bucket {books.bucket.id!r} has expired; nothing of it can be withdrawn.", "bucket")
    if not 0 < taken <= books.available:
        raise conflict(f"The bucket {books.bucket.id!r} has {books.available} {books.bucket.unit} available.", "amount")
    line = _withdrawn(books, taken)
    due = postings.refund_due(books.payer)
    return Decision((line,), _posting(head, _withdrawal_transfers(line, due)))


def charge_back(head: Head, family: Sequence[BucketBooks], receivable: int) -> Decision:
    """The payer took the price back: what is unspent is withdrawn, what was spent or has expired the customer owes.

    `family` is the order's bucket with all that replaced it. `receivable` is what the payer owes us; if that is less
    than the price, the payer has paid it already and now we owe it.
    """
    for books in family:
        _refuse_leased(books)
        if books.kind == "credit":
            raise conflict(f"Nothing was paid in advance for {head.about!r}.", "order")
    gross = sum(books.net_sold + books.tax_sold for books in family)
    if not gross:
        raise conflict(f"Nothing of the order {head.about!r} is still paid for.", "order")
    returned = (postings.receivable if receivable >= gross else postings.refund_due)(family[0].payer)
    owed = postings.receivable(f"customer/{head.billing_account_id}")
    lines, transfers = list[Line](), list[Transfer]()
    for books in family:
        line = _withdrawn(books, books.available)
        due = books.net_sold + books.tax_sold - line.net - line.tax
        lines.append(msgspec.structs.replace(line, due=due))
        transfers += (*_withdrawal_transfers(line, returned), Transfer(owed, returned, books.currency, due))
    return Decision(tuple(lines), _posting(head, transfers))


def write_off(head: Head, currency: str, owed: int, amount: int | None) -> Decision:
    """Give up what the payer `head.about` owes, all of it or `amount`."""
    given_up = owed if amount is None else amount
    if not 0 < given_up <= owed:
        raise conflict(f"{head.about!r} does not owe that much.", "amount")
    transfers = (Transfer(postings.LOSS_BAD_DEBT, postings.receivable(head.about), currency, given_up),)
    return Decision((Line(currency=currency, due=given_up),), _posting(head, transfers))


def settle_refund(head: Head, currency: str, due: int, receivable: int, amount: int) -> Decision:
    """The payer has given refunds to its customers and keeps as much of what it owes us."""
    if not 0 < amount <= due:
        raise conflict(f"The refunds due through {head.about!r} are less than that.", "amount")
    if amount > receivable:
        raise conflict(f"{head.about!r} owes us less than that, so there is nothing to keep.", "amount")
    transfers = (Transfer(postings.refund_due(head.about), postings.receivable(head.about), currency, amount),)
    return Decision((Line(currency=currency, net=amount),), _posting(head, transfers))


def credit_supplier(head: Head, currency: str, payable: int, cost: int, amount: int) -> Decision:
    """A supplier's credit note: we owe it less, and what it served has cost us less."""
    if not 0 < amount <= min(payable, cost):
        raise conflict(f"The supplier {head.about!r} is owed less than that, or has cost less.", "amount")
    transfers = (Transfer(postings.payable(head.about), postings.cost(head.about), currency, amount),)
    return Decision((Line(currency=currency, net=amount),), _posting(head, transfers))


def _split(charged: Sequence[Charged], amount: tuple[int, str] | None) -> Iterable[tuple[Charged, int]]:
    """What of which charge, in reverse draw order."""
    meant = [charge for charge in charged if amount is None or charge.unit == amount[1]]
    left = sum(charge.left for charge in meant)
    wanted = left if amount is None else amount[0]
    if not left:
        raise conflict("Nothing of this use is left to be refunded.", "request")
    if not 0 < wanted <= left:
        raise conflict(f"Of this use {left} {meant[0].unit} can be refunded.", "amount")
    for charge in sorted(meant, key=lambda charge: charge.place, reverse=True):
        part = min(wanted, charge.left)
        wanted -= part
        if part:
            yield charge, part


_PARTS = {"available": postings.available, "withdrawn": postings.withdrawn, "expired": postings.expired}


def _way_back(books: BucketBooks, now_ns: int) -> Literal["available", "withdrawn", "expired"]:
    """Where unspent amounts go: what is withdrawn moves on into a replacement."""
    if now_ns < books.bucket.valid_to_ns:
        return "available"
    return "expired" if books.kind == "credit" else "withdrawn"


def _unspent(before: BucketBooks, after: BucketBooks, amount: int, into: str | None, charge: int) -> Line:
    return Line(
        bucket_id=before.bucket.id,
        unit=before.bucket.unit,
        amount=amount,
        currency=before.currency,
        revenue=before.earned - after.earned,
        net=before.net_sold - after.net_sold,
        tax=before.tax_sold - after.tax_sold,
        charge=charge,
        replacement_id=into,
    )


def _withdrawn(books: BucketBooks, amount: int) -> Line:
    after = msgspec.structs.replace(books, withdrawn=books.withdrawn + amount)
    return Line(
        bucket_id=books.bucket.id,
        unit=books.bucket.unit,
        amount=amount,
        currency=books.currency,
        net=books.net_sold - after.net_sold,
        tax=books.tax_sold - after.tax_sold,
    )


def _refuse_leased(books: BucketBooks) -> None:
    if books.leased:
        raise conflict(
            f"{books.leased} {books.bucket.unit} of the bucket {books.bucket.id!r} are with gateways. Suspend the"
            " customer; what nobody uses comes back after lease_idle_ms. Try again then.",
            "bucket",
        )


def _replacement_id(head: Head, bucket_id: str, books: Mapping[str, BucketBooks]) -> str:
    """One new bucket for each old one, named after the correction."""
    return f"bkt_{head.id.partition('_')[2]}-{sorted(books).index(bucket_id) + 1}"


def _replacements(
    lines: Iterable[Line], books: Mapping[str, BucketBooks], head: Head, until_ns: int
) -> Iterable[Replacement]:
    moved: dict[str, list[Line]] = {}
    for line in lines:
        if line.replacement_id is not None and line.bucket_id is not None:
            moved.setdefault(line.bucket_id, []).append(line)
    for bucket_id, parts in moved.items():
        terms = msgspec.structs.replace(
            books[bucket_id].bucket,
            id=_replacement_id(head, bucket_id, books),
            valid_from_ns=head.at_ns,
            valid_to_ns=until_ns,
        )
        sums = (sum(part.amount for part in parts), sum(part.net for part in parts), sum(part.tax for part in parts))
        yield Replacement(terms, bucket_id, *sums)


def _unearned(line: Line) -> Iterable[Transfer]:
    """Revenue turns into liability again, of this bucket or of the one that replaces it."""
    liability = postings.liability(str(line.bucket_id))
    yield Transfer(postings.REVENUE_TOKENS, liability, line.currency, line.revenue)
    if line.replacement_id is not None:
        new = line.replacement_id
        yield Transfer(postings.issued(new), postings.available(new), line.unit, line.amount)
        yield Transfer(liability, postings.liability(new), line.currency, line.net)


def _owed_less(line: Line, payer: str, owing: dict[str, int]) -> Iterable[Transfer]:
    """What the payer still owes shrinks; what it has paid already we owe back."""
    for code, amount in ((postings.REVENUE_TOKENS, line.revenue), (postings.TAX_OUTPUT, line.tax)):
        off = min(amount, owing[payer])
        owing[payer] -= off
        yield Transfer(code, postings.receivable(payer), line.currency, off)
        yield Transfer(code, postings.refund_due(payer), line.currency, amount - off)


def _withdrawal_transfers(line: Line, to: str) -> tuple[Transfer, ...]:
    """`to`: whom the money is owed, or who owes it no longer."""
    bucket_id = str(line.bucket_id)
    return (
        Transfer(postings.available(bucket_id), postings.withdrawn(bucket_id), line.unit, line.amount),
        Transfer(postings.liability(bucket_id), to, line.currency, line.net),
        Transfer(postings.TAX_OUTPUT, to, line.currency, line.tax),
    )


def _posting(head: Head, transfers: Iterable[Transfer]) -> Posting:
    return postings.corrected(head.kind, head.id, head.legal_entity_id, head.used_at_ns, tuple(transfers))
