"""An order that the books cannot close keeps no other order from being completed."""

import contextlib
import json

import httpx2
import psycopg
import pytest

from shop.shopfront import opened, payment_for, scripted
from tokenworks.base.database import Pool
from tokenworks.core.commands import CommandRefused
from tokenworks.shop import order_rows


async def test_one_order_that_cannot_be_closed_keeps_no_other_waiting(database: Pool) -> None:
    """A carrier that names two payments alike (the second breaks `UNIQUE (payer, reference)`), and a third, sound one.
    All were paid while our process was away.
    """
    made: dict[str, dict[str, object]] = {}

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return httpx2.Response(200, json=[made[request.url.params["clientCorrelator"]]])
        correlator = json.loads(request.content)["amountTransaction"]["clientCorrelator"]
        name = "pay-9" if correlator == "ord_3" else "pay-1"
        made[correlator] = payment_for(request, paymentId=name).json()
        raise httpx2.ReadError("lost", request=request)

    shop = await opened(database, scripted(answer))
    for number in (1, 2, 3):
        with pytest.raises(CommandRefused):
            await shop.desk.place(shop.customer.id, "p10", f"ord_{number}")
    for _ in range(3):
        with contextlib.suppress(psycopg.Error):  # as housekeeping does, for the whole chore
            await shop.desk.complete_paid()
    async with database.connection() as connection:
        states = [(await order_rows.get(connection, f"ord_{number}")).state for number in (1, 2, 3)]
    assert states == ["completed", "accepted", "completed"]
