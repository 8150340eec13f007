"""What a restore or a damaged journal lost is no discrepancy: usage under a key that is gone, or of nobody."""

import msgspec

from ledger.books import SECOND, SETTINGS, Journal, bucket, charge, lease, sell
from shop.shopfront import all_checks
from tokenworks.base.database import Pool
from tokenworks.core.purse import Charge
from tokenworks.core.usage import Tokens
from tokenworks.ledger.epoch import Epochs


async def wrong(pool: Pool) -> list[str]:
    async with pool.connection() as connection:
        return [check.name for check in await all_checks(connection) if not check.ok]


async def test_salvaged_usage_is_our_loss_under_nobodys_name(database: Pool) -> None:
    book = Journal("slv_a", "salvage", key="")
    of_nobody = Charge(0, "b", "plain@1", "token", Tokens(10), 10)
    book.close(book.open(account=""), of_nobody, cost=5)
    assert (await book.ship(database, final=True)).fault == ""
    assert await wrong(database) == []
    async with database.connection() as connection:
        rows = await connection.execute("SELECT code, balance FROM account WHERE balance > 0 ORDER BY code")
        assert await rows.fetchall() == [
            ("cost/tokens/sup", 5),
            ("loss/unproven", 10),
            ("payable/sup", 5),
            ("unproven/delivered", 10),
        ]


async def test_usage_under_a_key_that_a_restore_lost(database: Pool) -> None:
    await sell(database, msgspec.structs.replace(bucket("b"), billing_account_id="acc"))
    held, book = await lease(database, 1, 100), Journal("j1", key="made after the copy")
    book.close(book.open(held), charge(held, 10))
    await book.ship(database)
    name = "usage is of its key's account and seller"
    assert name in await wrong(database), "a key that never was"
    await Epochs(database, SETTINGS).begin(SECOND, "restore")
    assert name not in await wrong(database)
