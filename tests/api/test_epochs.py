"""Ledger epochs over the management API."""

from api.offices import Office


async def test_an_operator_begins_and_settles_an_epoch(office: Office) -> None:
    assert (await office.get("/ledger/epochs"))["items"] == []
    begun = await office.post("/ledger/epochs", None)
    assert (begun["why"], begun["settled"], begun["sites"]) == ("restore", None, [])
    settled = await office.post("/ledger/epochs/settle", None, status=200)
    assert (settled["epoch"], settled["settled"]) == (begun["epoch"], "operator")
    assert await office.post("/ledger/epochs/settle", None, status=200) == settled
    assert (await office.get("/ledger/epochs"))["items"] == [settled]
