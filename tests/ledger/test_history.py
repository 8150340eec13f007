"""Balances at a moment: whatever hours are added up already, in whatever order postings come, by posting and by use."""

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.books import bucket, faults, lease, sell
from tokenworks.base import ids
from tokenworks.base.database import Pool
from tokenworks.core.postings import Posting, Transfer
from tokenworks.ledger import history, hours
from tokenworks.ledger.balance import accounts, wallet
from tokenworks.ledger.history import Moment
from tokenworks.ledger.hours import HOUR_NS
from tokenworks.ledger.store import post, transaction

MINUTE = HOUR_NS // 60
TIMES = st.integers(0, 5 * 60).map(lambda minutes: minutes * MINUTE)
STEPS = st.lists(
    st.tuples(
        TIMES, st.one_of(st.none(), TIMES), st.integers(1, 50), st.sampled_from(["lease", "meter"]), st.booleans()
    ),
    max_size=15,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, moments=st.lists(TIMES, min_size=1, max_size=4))
async def test_a_balance_at_a_moment_is_the_sum_until_then(database: Pool, steps: Any, moments: list[int]) -> None:
    name = ids.new("x")
    debit, credit = f"cost/tokens/{name}", f"payable/{name}"
    told: list[tuple[int, int, int]] = []
    for at_ns, used, amount, stream, add_up in steps:
        used_ns = at_ns if used is None else used
        move = Posting("test", ids.new("event"), "le", used_ns, (Transfer(debit, credit, "CNY", amount),))
        async with transaction(database, stream, at_ns) as conn:
            await post(conn, move, at_ns)
        told.append((at_ns, used_ns, amount))
        if add_up:
            await hours.add_up(database)
    async with database.connection() as conn:
        for moment in moments:
            for by, place in (("posted", 0), ("used", 1)):
                expected = sum(each[2] for each in told if each[place] <= moment)
                for code in (debit, credit):
                    found = await history.accounts(conn, code, Moment(moment, by), "le")  # type: ignore[arg-type]
                    assert [each.balance for each in found] == ([expected] if expected else [])


async def test_now_is_what_the_balances_say(database: Pool) -> None:
    await sell(database, bucket("b"))
    await lease(database, 1, 500)
    for covered in (False, True):
        if covered:
            await hours.keep_up(database)
        async with database.connection() as conn:
            now = Moment(1 << 62)
            assert await history.wallet(conn, "acc", now) == await wallet(conn, "acc")
            shown = Counter(dict.fromkeys(await history.accounts(conn, "", now), 1))
            assert shown == Counter({each: 1 for each in await accounts(conn, "") if each.balance})
            assert await history.wallet(conn, "acc", Moment(0)) == []
    assert await faults(database) == []
