"""The demonstration: one customer's story through a real running system, from the offer to the supplier's due.

It talks to the system only as anybody could: to the management API as the operator, to the customers' API as a
customer. How the story is told is the teller's; whether it adds up is decided in `adding_up`.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec

from tokenworks.app import adding_up, caller
from tokenworks.app.adding_up import Facts
from tokenworks.app.caller import Call
from tokenworks.app.client import OfficeClient, Record
from tokenworks.app.seed import FIRST_OFFER
from tokenworks.app.spawned import Spawned
from tokenworks.base import clock, ids
from tokenworks.ledger.verify import Check
from tokenworks.plant.engine import MODEL

CUSTOMER = {"name": "Wang Fang", "phone": "+8613900000021"}
TOLD = "Tell me a short story about a town where words come out of the tap like water."
ASKED = "In one sentence: what is a token?"

_POSTED_WITHIN_S = 20
_LOOK_EVERY_S = 0.05


class DemoFault(Exception):
    """The story cannot go on; the text is one sentence."""


class Teller(Protocol):
    """Tells the story while it happens."""

    def offered(self, seller: Record, offer: Record) -> None:
        """Who sells what."""

    def ordered(self, customer: Record, order: Record) -> None:
        """Who bought it, and how it was paid."""

    def wallet(self, bucket: Record) -> None:
        """What the customer has."""

    def answering(self, prompt: str) -> AbstractContextManager[Callable[[str], None]]:
        """While an answer streams in; what it gives is called with each piece."""
        ...

    def answered(self, call: Call) -> None:
        """What the customer's program saw of a finished call."""

    def metered(self, records: tuple[Record, ...], bucket: Record) -> None:
        """The usage records, and what they left of the bucket."""

    def billed(self, statement: Record, bill: Record) -> None:
        """The open period, and the bill that closed it."""

    def settled(self, supplier: Record, margin: Record) -> None:
        """What is owed to the supplier, and what remains."""

    def checked(self, checks: tuple[Check, ...]) -> None:
        """Whether everything adds up."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The story's end: its facts, and every check of them and of the books."""

    facts: Facts
    startup_ms: int
    checks: tuple[Check, ...]

    @property
    def verified(self) -> bool:
        """Everything adds up."""
        return all(check.ok for check in self.checks)

    def result(self) -> Record:
        """The story as one JSON object. Counts of tokens are integers, money is exact decimal text."""
        facts = self.facts
        return {
            "verified": self.verified,
            "model": MODEL,
            "offer": facts.offer["id"],
            "requests": len(facts.calls),
            "tokens": adding_up.by_class(facts.records),
            "charged": {"amount": adding_up.charged(facts.records), "unit": facts.bucket_after["unit"]},
            "balance_before": adding_up.left(facts.bucket_before),
            "balance_after": adding_up.left(facts.bucket_after),
            "bill_total": facts.bill["total"],
            "bill_net": facts.bill["net"],
            "bill_tax": facts.bill["tax"],
            "supplier_payable": facts.supplier["payable"],
            "revenue": facts.margin["revenue"],
            "margin": facts.margin["margin"],
            "first_token_ms": facts.calls[0].first_token_ms,
            "startup_s": self.startup_ms / 1000,
            "checks": msgspec.to_builtins(self.checks),
        }


def play(system: Spawned, office: OfficeClient, teller: Teller) -> Outcome:
    """The whole story on a fresh system."""
    offer = office.get(f"/offers/{FIRST_OFFER}")
    teller.offered(_seller(office), offer)
    customer = office.post("/customers", CUSTOMER, ids.new("demo"))
    bought: Record = {"customer": customer["id"], "offer": FIRST_OFFER, "payment": "carrier"}
    order = office.post("/orders", bought, ids.new("demo"))
    teller.ordered(customer, order)
    before = _bucket(office, customer, order)
    teller.wallet(before)
    key = office.post("/keys", {"customer": customer["id"], "name": "demonstration"}, ids.new("demo"))
    calls = _calls(system.addresses["gateway"], key["secret"], teller)
    records = _posted(office, customer, len(calls))
    after = _bucket(office, customer, order)
    teller.metered(records, after)
    statement = office.get("/statements", customer=customer["id"])
    bill = office.post("/bills", {"customer": customer["id"]}, ids.new("demo"))
    teller.billed(statement, bill)
    supplier = office.get(f"/suppliers/{records[0]['attempts'][0]['supplier']}")
    margin = office.get("/margin", customer=customer["id"])
    teller.settled(supplier, margin)
    facts = Facts(
        offer=offer,
        order=order,
        bucket_before=before,
        bucket_after=after,
        calls=calls,
        records=records,
        bill=bill,
        supplier=supplier,
        margin=margin,
    )
    checks = (*adding_up.findings(facts), *_books(office))
    teller.checked(checks)
    return Outcome(facts=facts, startup_ms=system.startup_ms, checks=checks)


def _seller(office: OfficeClient) -> Record:
    return office.get("/legal-entities")["items"][0]


def _bucket(office: OfficeClient, customer: Record, order: Record) -> Record:
    buckets = office.get("/balances", customer=customer["id"])["items"]
    return next(bucket for bucket in buckets if bucket["bucket_id"] == order["bucket_id"])


def _calls(gateway: str, key: str, teller: Teller) -> tuple[Call, ...]:
    with caller.program(gateway) as http:
        with teller.answering(TOLD) as hear:
            streamed = caller.streamed(http, key, _request(TOLD, 120), hear)
        teller.answered(streamed)
        with teller.answering(ASKED) as hear:
            whole = caller.whole(http, key, _request(ASKED, 40))
            hear(whole.text)
        teller.answered(whole)
    return streamed, whole


def _request(prompt: str, tokens_max: int) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens_max, "seed": 7}


def _posted(office: OfficeClient, customer: Record, expected: int) -> tuple[Record, ...]:
    """The usage records, first first, once the ledger has them all."""
    deadline_ns = clock.boot_ns() + _POSTED_WITHIN_S * clock.SECOND
    while clock.boot_ns() < deadline_ns:
        records = office.get("/usage", customer=customer["id"])["items"]
        if len(records) >= expected:
            return tuple(sorted(records, key=lambda record: record["opened_at"]))
        time.sleep(_LOOK_EVERY_S)
    raise DemoFault(f"The ledger had not posted {expected} usage records after {_POSTED_WITHIN_S} s.")


def _books(office: OfficeClient) -> list[Check]:
    return [Check(each["name"], each["ok"], each["detail"]) for each in office.get("/ledger/verify")["checks"]]
