"""Random histories through the real store against an auditor: a much smaller model of the money that shares no code."""

from fractions import Fraction
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.books import SEALED, SECOND, SETTINGS, TARIFFS, Journal, ask, bucket, charge, faults, lend, sell
from tokenworks.base import ids
from tokenworks.base.database import Pool
from tokenworks.core.corrections import Charged, Head, Kind
from tokenworks.core.journal import LeaseClose, LeaseReturn
from tokenworks.core.leasing import Lease
from tokenworks.ledger import corrections, hours
from tokenworks.ledger.balance import BucketBalance, accounts, wallet
from tokenworks.ledger.buckets import expire_due
from tokenworks.ledger.history import Moment
from tokenworks.ledger.history import wallet as wallet_then
from tokenworks.ledger.leases import LeaseDesk
from tokenworks.ledger.store import transaction

GRANTED, NET, TAX, VALID_S = 997, 10_007, 601, 20


class Auditor:
    """One bucket, from the customer's side: what is left, what is out, what was used, what ran out."""

    def __init__(self) -> None:
        self.left, self.spent, self.expired, self.lost, self.withdrawn = GRANTED, 0, 0, 0, 0
        self.out: dict[int, int] = {}

    def lend(self, lease_id: int, amount: int) -> None:
        self.left -= amount
        self.out[lease_id] = amount

    def use(self, lease_id: int, amount: int) -> None:
        if self.out.get(lease_id, -1) >= amount:
            self.out[lease_id] -= amount
            self.spent += amount
        else:
            self.lost += amount

    def give_part(self, lease_id: int, amount: int) -> None:
        if lease_id in self.out:
            self.out[lease_id] -= amount
            self.left += amount

    def give_back(self, lease_id: int) -> None:
        self.left += self.out.pop(lease_id, 0)

    def run_out(self) -> None:
        self.expired, self.left = self.expired + self.left, 0

    def unspend(self, amount: int, *, to: str) -> None:
        self.spent -= amount
        setattr(self, to, getattr(self, to) + amount)

    def cancel(self, amount: int) -> None:
        self.left, self.withdrawn = self.left - amount, self.withdrawn + amount

    def owed(self) -> int:
        """What we still owe the customer: the share still sold less the share earned, each rounded half up."""
        return self._share(GRANTED - self.withdrawn) - self._share(self.spent + self.expired)

    def _share(self, part: int) -> int:
        return int(Fraction(NET * part, GRANTED) + Fraction(1, 2))

    def owes(self) -> int:
        """What the customer of a credit bucket owes us: the share of the price, rounded half up."""
        return int(Fraction((NET + TAX) * self.spent, GRANTED) + Fraction(1, 2))


class History:
    """The same happenings told to the store and to the auditor."""

    def __init__(self, pool: Pool, name: str, *, when_over: str) -> None:
        self.when_over = when_over
        self.pool, self.name, self.auditor, self.now = pool, name, Auditor(), SECOND
        self.desk = LeaseDesk(pool, SETTINGS)
        self.book = Journal(f"journal-{name}", name)
        self.asked = 0
        self.leases: list[Lease] = []
        self.granted_at: dict[int, int] = {}
        self.open: list[int] = []
        self.seen: dict[int, list[BucketBalance]] = {}
        self.requests: dict[int, str] = {}
        self.used: dict[str, int] = {}
        self.given_back: dict[str, int] = {}

    async def step(self, kind: str, number: int) -> None:
        match kind:
            case "lend":
                await self.lend(number)
            case "open":
                self.open.append(self.book.open(account=self.name))
                self.requests[self.open[-1]] = f"req-{self.book.name}-{self.book.requests}"
            case "use" if self.open and self.leases:
                self.use(number)
            case "give back" if self.leases:
                held = self.leases.pop(number % len(self.leases))
                self.book.add(LeaseClose(held.lease_id, self.auditor.out.get(held.lease_id, 0)))
                self.auditor.give_back(held.lease_id)
            case "give a part" if self.leases:
                lease_id = self.leases[number % len(self.leases)].lease_id
                part = min(number, self.auditor.out.get(lease_id, number))
                self.book.add(LeaseReturn(lease_id, part))
                self.auditor.give_part(lease_id, part)
            case "wait":
                await self.wait(number)
            case "refund" if self.used:
                await self.refund(number)
            case "withdraw" if self.auditor.left and self.now < VALID_S * SECOND:
                await self.withdraw(1 + number % self.auditor.left)
            case _:
                await self.ship()

    async def lend(self, number: int) -> None:
        await self.ship()
        self.asked += 1
        request = ask(self.asked, 1 + number, self.name, least=1)
        (reply,) = await self.desk.grant([request], TARIFFS, self.now)
        for one in reply.leases:
            self.leases.append(one)
            self.granted_at[one.lease_id] = self.now
            self.auditor.lend(one.lease_id, one.amount)

    def use(self, number: int) -> None:
        held = self.leases[number % len(self.leases)]
        amount = min(number, self.auditor.out.get(held.lease_id, number))
        spent_before = self.auditor.spent
        self.auditor.use(held.lease_id, amount)
        opening = self.open.pop()
        self.book.extend(opening, held, amount=GRANTED)
        self.book.close(opening, charge(held, amount))
        if self.auditor.spent > spent_before:
            self.used[self.requests[opening]] = amount

    async def refund(self, number: int) -> None:
        """Some of what one request was charged; into another bucket once the validity is over."""
        await self.ship()
        request = sorted(self.used)[number % len(self.used)]
        charged, over = self.used[request], self.now >= VALID_S * SECOND
        before = self.given_back.get(request, 0)
        amount = 1 + number % charged
        if before + amount > charged:
            return
        about = self.head("usage_refunded", request, 9)
        async with transaction(self.pool, "shop", self.now, SEALED) as conn:
            charges = [Charged(0, self.name, "token", charged)]
            await corrections.refund(conn, about, charges, (amount, "token"), self.now + SECOND)
        self.given_back[request] = before + amount
        self.auditor.unspend(amount, to=self.when_over if over else "left")

    async def withdraw(self, amount: int) -> None:
        await self.ship()
        async with transaction(self.pool, "shop", self.now, SEALED) as conn:
            await corrections.withdraw(conn, self.head("package_withdrawn", self.name, self.now), amount)
        self.auditor.cancel(amount)

    def head(self, kind: Kind, about: str, used_at_ns: int) -> Head:
        return Head(
            id=ids.new("cor"), kind=kind, legal_entity_id="le", billing_account_id=self.name, about=about,
            reason="asked for", reference="", used_at_ns=used_at_ns, at_ns=self.now,
        )  # fmt: skip

    async def wait(self, number: int) -> None:
        """Time passes; silent leases are reclaimed, and what is over expires."""
        await self.ship()
        async with self.pool.connection() as conn:
            self.seen[self.now] = await wallet(conn, self.name)
        if number % 3 == 0:
            await hours.add_up(self.pool)
        self.now += number * SECOND // 40
        await self.desk.reclaim_due(self.now)
        for lease_id in list(self.auditor.out):
            use_until = min(self.granted_at[lease_id] + SECOND, VALID_S * SECOND)
            if self.now >= use_until + 2 * SECOND:
                self.auditor.give_back(lease_id)
        await expire_due(self.pool, self.now)
        if self.now >= VALID_S * SECOND:
            self.auditor.run_out()

    async def ship(self) -> None:
        assert (await self.book.ship(self.pool, self.now)).fault == ""

    async def compare(self) -> None:
        await self.ship()
        told = self.auditor
        async with self.pool.connection() as conn:
            [shown] = [held for held in await wallet(conn, self.name) if held.bucket.id == self.name]
            money = {line.code: line.balance for line in await accounts(conn, "") if line.code.endswith(self.name)}
            self.seen[self.now] = await wallet(conn, self.name)
            for moment, then in self.seen.items():
                assert await wallet_then(conn, self.name, Moment(moment)) == then
        assert (shown.available, shown.leased, shown.spent, shown.expired, shown.withdrawn) == (
            told.left,
            sum(told.out.values()),
            told.spent,
            told.expired,
            told.withdrawn,
        )
        if shown.kind == "prepaid":
            assert money == {f"contract_liability/{self.name}": told.owed()}
        else:
            assert money.get(f"receivable/credit/order-{self.name}", 0) == told.owes()
            assert shown.recognised <= told.owes() == await self.turnover()

    async def turnover(self) -> int:
        """Revenue and tax that this bucket's payer was made to owe."""
        async with self.pool.connection() as conn:
            found = await conn.execute(
                """SELECT coalesce(sum(CASE WHEN d.code = %(payer)s THEN t.amount ELSE -t.amount END), 0)
                   FROM transfer t JOIN account d ON d.id = t.debit_account_id
                   JOIN account c ON c.id = t.credit_account_id
                   WHERE (d.code = %(payer)s AND c.code IN ('revenue/tokens', 'tax/output'))
                       OR (c.code = %(payer)s AND d.code IN ('revenue/tokens', 'tax/output'))""",
                {"payer": f"receivable/credit/order-{self.name}"},
            )
            row = await found.fetchone()
        return int(row[0]) if row else 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["lend", "open", "use", "use", "open", "give back", "give a part", "wait", "ship", "refund", "withdraw"]
        ),
        st.integers(0, 400),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_the_ledger_agrees_with_the_auditor(database: Pool, steps: Any) -> None:
    name = ids.new("acc")
    await sell(database, bucket(name, name, until_s=VALID_S), granted=GRANTED, net=NET)
    history = History(database, name, when_over="withdrawn")
    for kind, number in steps:
        await history.step(kind, number)
    await history.compare()
    await history.wait(40 * VALID_S)
    await history.compare()
    assert await faults(database) == []


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_the_ledger_agrees_with_the_auditor_about_credit(database: Pool, steps: Any) -> None:
    name = ids.new("acc")
    await lend(database, bucket(name, name, until_s=VALID_S), granted=GRANTED, net=NET, tax=TAX)
    history = History(database, name, when_over="expired")
    for kind, number in steps:
        await history.step(kind, number)
    await history.compare()
    await history.wait(40 * VALID_S)
    await history.compare()
    assert await faults(database) == []
