"""Keys: shown once, kept as digests, refused with the code of their state. The admin token: compared whole."""

import msgspec
import pytest

from shop.shopfront import NOON, another, faults, holder, opened
from tokenworks.access import admin, keys
from tokenworks.base.database import Pool
from tokenworks.core.commands import CommandRefused
from tokenworks.core.snapshot import Key
from tokenworks.shop import sealed


async def test_the_life_of_a_key(database: Pool) -> None:
    shop = await opened(database)
    customer = shop.customer
    async with sealed.transaction(database, NOON) as connection:
        record, secret = await keys.issue(connection, holder(customer), "laptop", NOON)
        assert secret.startswith("sk-tw-")
        assert secret.endswith(record.hint)

        async def refused() -> str | None:
            found = await keys.find(connection, keys.digest(secret))
            return found.refused if found else None

        known = Key(record.id, "le", customer.id, customer.billing_account_id)
        assert await keys.find(connection, keys.digest(secret)) == known
        assert await keys.find(connection, keys.digest(secret + "x")) is None
        await keys.suspend(connection, customer.billing_account_id, suspended=True)
        assert await refused() == "account_suspended"
        await keys.suspend(connection, customer.billing_account_id, suspended=False)
        assert await refused() == ""
        revoked = await keys.revoke(connection, record.id, NOON + 1)
        assert (revoked.state, revoked.revoked_at_ns) == ("revoked", NOON + 1)
        assert await keys.revoke(connection, record.id, NOON + 2) == revoked
        await keys.suspend(connection, customer.billing_account_id, suspended=False)
        assert await refused() == "key_revoked"
    assert await faults(database) == []


async def test_many_keys_made_at_once_are_as_good_as_one(database: Pool) -> None:
    shop = await opened(database)
    other = await another(shop, "+8613800000124")
    async with sealed.transaction(database, NOON) as connection:
        one, _ = await keys.issue(connection, holder(other), "many", NOON)
        owners = [shop.customer, other, shop.customer]
        secrets = await keys.issue_all(connection, [holder(each) for each in owners], "many", NOON)
        found = [await keys.find(connection, keys.digest(secret)) for secret in secrets]
        assert [key.billing_account_id for key in found if key] == [each.billing_account_id for each in owners]
        records = [await keys.get(connection, key.key_id) for key in found if key]
        assert [record.hint for record in records] == [secret[-4:] for secret in secrets]
        same = ("id", "hint", "digest")
        expected = {name: value for name, value in msgspec.structs.asdict(one).items() if name not in same}
        assert {
            name: value for name, value in msgspec.structs.asdict(records[1]).items() if name not in same
        } == expected
    assert await faults(database) == []


async def test_the_secret_is_nowhere_in_the_database(database: Pool) -> None:
    shop = await opened(database)
    async with sealed.transaction(database, NOON) as connection:
        _, secret = await keys.issue(connection, holder(shop.customer), "laptop", NOON)
        rows = await (await connection.execute("SELECT access_key::text FROM access_key")).fetchall()
    assert secret not in str(rows)
    assert secret.removeprefix("sk-tw-")[:20] not in str(rows)


async def test_keys_are_listed_by_customer_newest_first(database: Pool) -> None:
    shop = await opened(database)
    other = await another(shop, "+8613800000124")
    async with sealed.transaction(database, NOON) as connection:
        made = [(await keys.issue(connection, holder(shop.customer), f"k{n}", NOON))[0] for n in range(3)]
        await keys.issue(connection, holder(other), "theirs", NOON)
        made.sort(key=lambda record: record.id, reverse=True)
        assert await keys.listed(connection, shop.customer.id, 2, "") == made[:2]
        assert await keys.listed(connection, shop.customer.id, 2, made[1].id) == made[2:]
        assert len(await keys.listed(connection, "", 10, "")) == 4
        for name in ("", "x" * 101):
            with pytest.raises(CommandRefused):
                await keys.issue(connection, holder(other), name, NOON)


@pytest.mark.parametrize(
    ("header", "token", "admitted"),
    [
        ("Bearer tw-secret", "tw-secret", True),
        ("bearer  tw-secret ", "tw-secret", True),
        ("Bearer tw-secret2", "tw-secret", False),
        ("Bearer tw-secre", "tw-secret", False),
        ("Bearer ", "tw-secret", False),
        ("tw-secret", "tw-secret", False),
        ("Basic tw-secret", "tw-secret", False),
        ("", "tw-secret", False),
        ("Bearer ", "", False),
        ("Bearer sécret", "tw-secret", False),
    ],
)
def test_who_is_admitted(header: str, token: str, *, admitted: bool) -> None:
    assert admin.admits(header, token) is admitted
