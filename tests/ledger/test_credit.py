"""Credit buckets: a limit that is granted and owed as it is spent, paid later, and never a liability."""

import msgspec
import pytest

from ledger.books import (
    GRANTED,
    NET,
    SECOND,
    TAX,
    Journal,
    ask,
    balances,
    bucket,
    charge,
    faults,
    grant,
    lease,
    lend,
    sell,
)
from tokenworks.base.database import Pool
from tokenworks.core import postings
from tokenworks.core.journal import LeaseClose
from tokenworks.core.postings import Posting
from tokenworks.ledger.balance import wallet
from tokenworks.ledger.buckets import expire_due
from tokenworks.ledger.faults import EventConflict, LedgerFault, Overdrawn
from tokenworks.ledger.store import post, transaction

OWED = "receivable/credit/order-c"


async def book(pool: Pool, posting: Posting) -> None:
    async with transaction(pool, "shop", SECOND) as conn:
        await post(conn, posting, SECOND)


async def test_use_on_credit_is_owed_with_tax_and_nothing_is_a_liability(database: Pool) -> None:
    await lend(database, bucket("c"))
    assert await balances(database) == {"bucket/c/issued": GRANTED, "bucket/c/available": GRANTED}
    held = await lease(database, 1, 1_000)
    worker = Journal()
    worker.close(worker.open(held), charge(held, 400))
    worker.add(LeaseClose(held.lease_id, 600))
    assert (await worker.ship(database, final=True)).fault == ""
    assert await balances(database) == {
        "bucket/c/issued": GRANTED,
        "bucket/c/available": GRANTED - 400,
        "bucket/c/spent": 400,
        OWED: 396_000,
        "revenue/tokens": 373_585,
        "tax/output": 22_415,
        "cost/tokens/sup": 3,
        "payable/sup": 3,
    }
    async with database.connection() as conn:
        (shown,) = await wallet(conn, "acc")
    assert (shown.kind, shown.recognised, shown.net, shown.tax) == ("credit", 373_585, NET, TAX)
    assert await faults(database) == []


async def test_the_whole_limit_is_owed_to_the_last_nano_however_it_is_cut(database: Pool) -> None:
    await lend(database, bucket("c"), granted=7, net=100, tax=6)
    held = await lease(database, 1, 7)
    worker = Journal()
    for _ in range(7):
        worker.close(worker.open(held), charge(held, 1))
        await worker.ship(database)
    left = await balances(database)
    assert (left[OWED], left["revenue/tokens"], left["tax/output"]) == (106, 100, 6)
    assert await faults(database) == []


async def test_a_limit_that_expires_moves_only_the_unit_book(database: Pool) -> None:
    await lend(database, bucket("c", until_s=2), granted=1_000, net=900, tax=54)
    held = await lease(database, 1, 300)
    worker = Journal()
    worker.close(worker.open(held), charge(held, 100))
    await worker.ship(database)
    assert await expire_due(database, 2 * SECOND) == 1
    # A record that comes after the first expiry is priced as if nothing had expired.
    worker.close(worker.open(held), charge(held, 50))
    worker.add(LeaseClose(held.lease_id, 150))
    await worker.ship(database, 3 * SECOND)
    assert await expire_due(database, 3 * SECOND) == 1
    left = await balances(database)
    assert (left["bucket/c/spent"], left["bucket/c/expired"], left[OWED]) == (150, 850, 143)
    assert (left["revenue/tokens"], left["tax/output"], left.get("revenue/breakage")) == (135, 8, None)
    assert await faults(database) == []


async def test_the_rest_of_a_package_goes_before_credit_in_one_request(database: Pool) -> None:
    await lend(database, bucket("c", priority=1_000), granted=1_000, net=900, tax=54)
    await sell(database, bucket("p", until_s=5_000), granted=30, net=300, tax=18)
    reply = await grant(database, ask(1, 100))
    assert [(one.bucket.id, one.amount) for one in reply.leases] == [("p", 30), ("c", 70)]
    worker = Journal()
    worker.close(worker.open(*reply.leases), *(charge(one, one.amount) for one in reply.leases))
    assert (await worker.ship(database)).fault == ""
    left = await balances(database)
    assert (left["bucket/p/spent"], left["bucket/c/spent"], left[OWED]) == (30, 70, 67)
    assert (left["revenue/tokens"], left["tax/output"]) == (300 + 63, 18 + 4)
    assert "contract_liability/p" not in left
    assert await faults(database) == []


async def test_what_is_owed_can_be_paid_once_and_not_overpaid(database: Pool) -> None:
    await lend(database, bucket("c"), granted=100, net=100, tax=6)
    held = await lease(database, 1, 100)
    worker = Journal()
    worker.close(worker.open(held), charge(held, 100))
    await worker.ship(database)
    taken_over = postings.credit_collected(
        "col", "le", 5, agreement_id="order-c", payer="carrier/sandbox", currency="CNY", amount=60
    )
    paid = postings.payment_received("pay", "le", 5, payer="credit/order-c", currency="CNY", amount=46)
    for posting in (taken_over, taken_over, paid, paid):
        await book(database, posting)
    left = await balances(database)
    assert (left.get(OWED), left["receivable/carrier/sandbox"], left["cash/clearing"]) == (None, 60, 46)
    with pytest.raises(Overdrawn):
        await book(database, msgspec.structs.replace(paid, event_id="payment/more"))
    assert await faults(database) == []


async def test_the_same_grant_again_changes_nothing(database: Pool) -> None:
    first = await lend(database, bucket("c"))
    assert await lend(database, bucket("c")) == first
    with pytest.raises(EventConflict):
        await lend(database, bucket("c", priority=1))
    with pytest.raises(EventConflict):
        await lend(database, bucket("c"), granted=1)


async def test_a_billing_account_gets_no_bucket_of_another_legal_entity(database: Pool) -> None:
    await sell(database, bucket("b"))
    other = msgspec.structs.replace(bucket("b2"), legal_entity_id="le2")
    for add in (sell, lend):
        with pytest.raises(LedgerFault, match="acc is of le: it gets no bucket of le2"):
            await add(database, other)
    assert await faults(database) == []


async def test_money_of_credit_that_is_not_as_it_was_spent_is_found(database: Pool) -> None:
    await lend(database, bucket("c"), granted=100, net=100, tax=6)
    held = await lease(database, 1, 100)
    worker = Journal()
    worker.close(worker.open(held), charge(held, 50))
    await worker.ship(database)
    more = postings.Transfer(OWED, postings.TAX_OUTPUT, "CNY", 1)
    await book(database, Posting("usage_posted", "e", "le", 5, (more,)))
    assert [check.name for check in await faults(database)] == [
        "a credit agreement's receivable is the price of what was spent less what was paid"
    ]
