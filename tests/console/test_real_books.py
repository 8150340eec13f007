"""The page on real books in PostgreSQL: every figure right, and a row touched by hand found while one looks."""

import socket
from collections.abc import AsyncGenerator

import pytest
from playwright.async_api import Page, expect

from console.canned import TOKEN
from console.conftest import serving
from console.scripted import COST, GRANTED, USED, ScriptedOffice, found
from tokenworks.base import clock
from tokenworks.base.database import Pool
from tokenworks.console import books
from tokenworks.console.context import BooksUnreadable
from tokenworks.console.view import Amount

NET = 9_339_622_642
REVENUE = "0.000056972"  # NET × 61 / 10,000,000, rounded half up to a nano-unit
MARGIN = "0.000030572"


@pytest.fixture
async def scripted(database: Pool, listener: socket.socket) -> AsyncGenerator[tuple[ScriptedOffice, str]]:
    office = await found(database)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with serving(office.app(url), listener):
        yield office, url
        office.gate.set()
        office.board.end()


async def test_a_request_moves_every_figure(page: Page, scripted: tuple[ScriptedOffice, str]) -> None:
    office, url = scripted
    await page.goto(f"{url}/?token={TOKEN}")
    await expect(page.locator("#balance")).to_have_text(f"{GRANTED:,}")
    await expect(page.locator("#bill-total")).to_have_text("CNY9.900000000")
    await page.get_by_label("Your prompt").fill("Write a poem.")
    await page.get_by_role("button", name="Send").click()

    await expect(page.locator("#record-stage")).to_have_text("open")
    await expect(page.locator("#reserved")).to_have_text("300")
    await expect(page.locator("#leased")).not_to_have_text("0")
    office.gate.set()
    await expect(page.locator("#told")).to_have_text("Rivers run.")
    await expect(page.locator("#record-stage")).to_have_text("posted")
    await expect(page.locator("#record-charged")).to_have_text(f"{USED.total} token")
    await expect(page.locator("#record-bucket")).to_have_text("Personal 10M at personal@1")
    await expect(page.locator("#balance")).to_have_text(f"{GRANTED - USED.total:,}")
    await expect(page.locator("#bill-tokens")).to_have_text(f"{USED.total}")
    await expect(page.locator("#margins dd")).to_have_text([f"CNY{REVENUE}", f"CNY0.{COST:09}", f"CNY{MARGIN}"])
    await expect(page.locator("#suppliers dd")).to_have_text(f"CNY0.{COST:09}")
    await expect(page.locator("#seal")).to_have_text("The books agree")

    async with office.pool.connection() as connection:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("UPDATE usage_record SET charges[1].amount = charges[1].amount + 1")
    await page.reload()
    await expect(page.locator("#seal")).to_contain_text("checks fail")


async def test_the_state_after_a_reload_is_the_one_that_was_told(scripted: tuple[ScriptedOffice, str]) -> None:
    office, _ = scripted
    office.gate.set()
    with office.feed.subscribe() as events:
        answer = await office.complete()
        async for _ in answer.body_iterator:
            pass
        told = [await anext(events) for _ in range(3)]
    state = await books.reader(office.pool, office.customer.id, clock.wall_ns)()
    assert [event.kind for event in told] == ["opened", "closed", "posted"]
    assert state.records == (books.happened(told[2]),)
    assert state.records[0].reserved == (Amount("300", "token"),)
    assert state.customer.name == "Li Na"


async def test_an_unknown_customer_is_one_sentence(scripted: tuple[ScriptedOffice, str]) -> None:
    office, _ = scripted
    with pytest.raises(BooksUnreadable, match="There is no customer 'nobody'"):
        await books.reader(office.pool, "nobody", clock.wall_ns)()
