"""What was sold, to whom, by which key: every edit of it is found, and every state without a reason."""

import httpx2
import pytest

from ledger.edits import edits_missed
from shop.shopfront import NOON, Shop, all_checks, another, faults, ground, opened, scripted, used_collected_and_paid
from tokenworks.access import keys, limits
from tokenworks.access.sealed import SEALED as ACCESS_SEALED
from tokenworks.base.database import Pool
from tokenworks.core.commands import CommandRefused
from tokenworks.core.usage import Tokens
from tokenworks.shop import bills, corrections, sealed
from tokenworks.shop.orders import OrderDesk

TABLES = sorted(table.name for table in ACCESS_SEALED + sealed.SEALED)
# When the carrier was last asked decides when an order may be given up, and nothing after that.
OF_NO_ACCOUNT = ["customer_order.charged_since_ns"]


async def history(pool: Pool) -> Shop:
    """A past that leaves a row in every table: keys, an order in every state, use, a bill."""
    shop = await opened(pool)
    declining = await another(shop, "+8613800000000")
    for customer in (shop.customer, declining):
        await shop.key(customer)
    await shop.desk.place(shop.customer.id, "p10", "ord_1")
    await shop.desk.place(declining.id, "p10", "ord_2")
    await shop.use(Tokens(5))
    async with sealed.transaction(pool, NOON) as connection:
        for key_id in (None, (await keys.listed(connection, shop.customer.id, 1, ""))[0].id):
            await limits.put(
                connection,
                customer_id=shop.customer.id,
                key_id=key_id,
                metric="spend",
                unit="CNY",
                within="day",
                rolling=False,
                amount=5,
                timezone="UTC",
                currency="CNY",
                at_ns=NOON,
            )
    async with sealed.transaction(pool, NOON) as connection:
        await corrections.refund(connection, ground("cor_1"), "req-j1-1", (2, "token"), "P1M")
        await corrections.charge_back(connection, ground("cor_2"), "ord_1")
    await bills.close(pool, shop.customer.id, NOON + 1)
    with pytest.raises(CommandRefused):
        await OrderDesk(pool, scripted(_away), shop.clock).place(declining.id, "p10", "ord_3")
    return shop


def _away(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("away", request=request)


async def test_every_edited_column_and_every_deleted_row_is_found(database: Pool) -> None:
    await used_collected_and_paid(await history(database))
    assert await faults(database) == []
    assert await edits_missed(database, TABLES, all_checks) == OF_NO_ACCOUNT


CLEVER = {
    "a price list of one's own": "UPDATE offer SET price = 1, granted = granted * 1000",
    "an order that was never placed": "DELETE FROM customer_order WHERE state = 'accepted'",
    "an order given up without the carrier": "UPDATE customer_order SET state = 'failed' WHERE state = 'accepted'",
    "a failed order that waits again": "UPDATE customer_order SET state = 'accepted' WHERE state = 'failed'",
    "another tax": "UPDATE legal_entity SET tax_basis_points = 0",
    "a key on another's account": """UPDATE access_key k SET billing_account_id = b.id, customer_id = b.customer_id
        FROM billing_account b WHERE b.id <> k.billing_account_id""",
    "a suspended customer's key at work": "UPDATE billing_account SET state = 'suspended'",
}


@pytest.mark.parametrize("edit", CLEVER.values(), ids=CLEVER)
async def test_an_edit_that_keeps_every_constraint_is_found(database: Pool, edit: str) -> None:
    await history(database)
    async with database.connection() as connection:
        await connection.execute("SET LOCAL session_replication_role = replica")
        assert (await connection.execute(edit.encode())).rowcount > 0
    assert await faults(database) != []


CLEVER_ABOUT_CREDIT = {
    "a payment nobody made": """INSERT INTO payment_received (id, legal_entity_id, payer, amount, currency, reference,
        received_at_ns, stream, seq) SELECT 'pmt', legal_entity_id, payer, 1, currency, 'r', 1, stream, seq
        FROM payment_received""",
    "a collection taken back": "UPDATE collection_outcome SET collected = false",
    "a debt forgotten": "UPDATE bill_owed SET used = used - 1, closing = closing - 1 WHERE closing > 0",
    "an agreement that goes on": "DELETE FROM credit_end",
}


@pytest.mark.parametrize("edit", CLEVER_ABOUT_CREDIT.values(), ids=CLEVER_ABOUT_CREDIT)
async def test_an_edit_about_credit_that_keeps_every_constraint_is_found(database: Pool, edit: str) -> None:
    await used_collected_and_paid(await opened(database))
    async with database.connection() as connection:
        await connection.execute("SET LOCAL session_replication_role = replica")
        assert (await connection.execute(edit.encode())).rowcount > 0
    assert await faults(database) != []


async def test_use_of_one_customer_on_the_account_of_another_is_found(database: Pool) -> None:
    shop = await opened(database)
    await shop.desk.place(shop.customer.id, "p10")
    stranger = await shop.key(await another(shop, "+8613800000124"))
    held = await shop.lease(10)
    book = await shop.journal()
    for key, found in ((book.key, []), (stranger.id, ["usage is of its key's account and seller"])):
        book.key = key
        book.open(held, account=shop.customer.billing_account_id, amount=1)
        assert (await book.ship(database, NOON)).fault == ""
        assert [check.name for check in await faults(database)] == found


async def test_rows_of_the_business_are_added_under_seal_only(database: Pool) -> None:
    async with database.connection() as connection:
        cursor = await connection.execute(
            """SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'seq'
                   AND table_name = ANY(%s) AND column_default LIKE '%%current_setting%%' AND is_nullable = 'NO'
               ORDER BY table_name COLLATE "C" """,
            (TABLES,),
        )
        assert [row[0] for row in await cursor.fetchall()] == TABLES
