"""Two sellers on one system: at no door does a request, an order or a key of one get at what is of the other."""

import msgspec
import psycopg
import pytest

from ledger.books import Journal, charge
from shop.shopfront import LE, NOON, SETTINGS, Shop, faults, holder, offer, opened, with_credit
from shop.shopfront import credit as credit_offer
from tokenworks.access import keys
from tokenworks.base.database import Pool
from tokenworks.core.bounds import Need
from tokenworks.core.commands import CommandCode, CommandRefused
from tokenworks.core.leasing import LeaseRequest
from tokenworks.core.purse import Charge
from tokenworks.core.usage import Tokens
from tokenworks.ledger import balance, buckets
from tokenworks.ledger.buckets import STREAM
from tokenworks.ledger.faults import LedgerFault
from tokenworks.ledger.leases import LeaseDesk
from tokenworks.ledger.store import transaction
from tokenworks.meter.usage import records
from tokenworks.shop import bills, offers, parties, sealed, tariffs
from tokenworks.shop.parties import Customer

NORTH = msgspec.structs.replace(LE, id="north", name="Seller North")


async def two_sellers(pool: Pool) -> tuple[Shop, Customer]:
    """The shop of `le`, and a customer of `north`, each with a package of ten million and the same price list."""
    shop = await opened(pool)
    async with sealed.transaction(pool, NOON) as connection:
        await parties.add_legal_entity(connection, NORTH)
        await offers.add(connection, offer("n10", legal_entity_id=NORTH.id))
        other = await parties.add_customer(
            connection, NORTH, name="Bo", phone="+8613900000042", kind="enterprise", at_ns=NOON
        )
    await shop.desk.place(shop.customer.id, "p10")
    await shop.desk.place(other.id, "n10")
    return shop, other


async def test_orders_and_offers(database: Pool) -> None:
    shop, other = await two_sellers(database)
    await with_credit(shop, credit_offer(legal_entity_id=NORTH.id))
    for customer, wanted in ((shop.customer.id, "n10"), (other.id, "p10"), (shop.customer.id, "credit")):
        with pytest.raises(CommandRefused, match="not sold to customers") as refused:
            await shop.desk.place(customer, wanted)
        assert (refused.value.code, refused.value.field) == (CommandCode.INVALID, "offer")
    with pytest.raises(CommandRefused, match="There is no legal entity"):
        async with sealed.transaction(database, NOON) as connection:
            await offers.add(connection, offer("x", legal_entity_id="south"))
    assert await faults(database) == []


async def test_keys_and_orders_cannot_be_written_for_another_sellers_customer(database: Pool) -> None:
    shop, other = await two_sellers(database)
    ours, theirs = holder(shop.customer), holder(other)
    for wrong in (
        msgspec.structs.replace(ours, legal_entity_id=NORTH.id),
        msgspec.structs.replace(ours, billing_account_id=theirs.billing_account_id),
        msgspec.structs.replace(ours, legal_entity_id="south"),
    ):
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            async with sealed.transaction(database, NOON) as connection:
                await keys.issue(connection, wrong, "laptop", NOON)
    for edit in ("legal_entity_id = 'north'", "offer_id = 'n10'"):
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            async with database.connection() as connection:
                await connection.execute(f"UPDATE customer_order SET {edit} WHERE offer_id = 'p10'".encode())


async def test_leases_are_of_the_accounts_own_seller(database: Pool) -> None:
    shop, other = await two_sellers(database)
    async with database.connection() as connection:
        prices = await tariffs.currents(connection)
    need = Need(50, 0)
    asked = [
        LeaseRequest("gw-0", "e", place, customer.billing_account_id, "m", need, need, Need(0, 0), need)
        for place, customer in enumerate((shop.customer, other))
    ]
    replies = await LeaseDesk(database, SETTINGS).grant(asked, prices, NOON)
    assert [lease.bucket.legal_entity_id for reply in replies for lease in reply.leases] == ["le", "north"]
    async with database.connection() as connection:
        [held] = await balance.wallet(connection, other.billing_account_id)
    stray = msgspec.structs.replace(held.bucket, id="stray", legal_entity_id="le")
    with pytest.raises(LedgerFault, match="gets no bucket of le"):
        async with transaction(database, STREAM, NOON) as connection:
            await buckets.sell(
                connection,
                order_id="stray",
                bucket=stray,
                granted=1,
                payer="carrier/sandbox",
                currency="CNY",
                net=1,
                tax=0,
                offer_id="p10",
                at_ns=NOON,
            )


async def test_a_charge_on_another_sellers_lease_is_our_loss_and_theirs_is_untouched(database: Pool) -> None:
    """A worker that mixes the two up: the books of each stay whole, and nobody's balance pays for the other."""
    shop, other = await two_sellers(database)
    held = await shop.lease(100)
    key = await shop.key(other)
    book = Journal("mixed", entity=NORTH.id, key=key.id)
    strayed: Charge = charge(held, 40)
    book.close(book.open(held, account=other.billing_account_id), strayed)
    assert (await book.ship(database, NOON)).fault == ""
    async with database.connection() as connection:
        [record] = await records(connection, other.billing_account_id)
        found = await balance.accounts(connection, "")
    assert (record.flags, [line.proven for line in record.charges]) == (("odd", "unproven"), [False])
    by_entity = {(account.legal_entity_id, account.code): account.balance for account in found}
    assert by_entity["north", "loss/unproven"] == 40
    assert by_entity["north", "payable/sup"] == 3
    assert by_entity["le", f"lease/{held.lease_id}"] == 100
    assert ("le", "loss/unproven") not in by_entity
    assert [check.name for check in await faults(database)] == []


async def test_each_seller_numbers_its_own_bills(database: Pool) -> None:
    shop, other = await two_sellers(database)
    await shop.use(Tokens(7))
    closed = [await bills.close(database, each.id, NOON + 1) for each in (shop.customer, other, shop.customer)]
    assert [bill.number for bill in closed] == ["le-00000001", "north-00000001", "le-00000002"]
    assert await faults(database) == []
