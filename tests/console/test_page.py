"""The live page in Chromium, driven through each stage and each way to fail."""

import asyncio

from playwright.async_api import Page, expect

from console.canned import ANSWER, COST_OF_ONE, GRANTED, INPUT_TOKENS, RESERVED, TOKEN, Served

CHARGE = INPUT_TOKENS + len(ANSWER.split())


async def enter(page: Page, office: Served) -> None:
    await page.goto(f"{office.url}/?token={TOKEN}")
    await expect(page.locator("#link")).to_have_text("Live")


async def ask(page: Page, prompt: str) -> None:
    await page.get_by_label("Your prompt").fill(prompt)
    await page.get_by_role("button", name="Send").click()


async def test_one_request_from_prompt_to_posting(page: Page, office: Served) -> None:
    office.canned.gate.clear()
    await enter(page, office)
    await expect(page.locator("#balance")).to_have_text(f"{GRANTED:,}")
    await ask(page, "What does a waterworks do?")

    await expect(page.locator("#told")).to_have_text("A waterworks takes")
    await expect(page.locator("#record-stage")).to_have_text("open")
    await expect(page.locator("#reserved")).to_have_text(f"{RESERVED}")
    await expect(page.locator("#record-reserved")).to_have_text(f"{RESERVED} token")
    await expect(page.locator("#leased")).to_have_text("200,000")
    await expect(page.locator("#record-charged")).to_have_text("–")

    office.canned.gate.set()
    await expect(page.locator("#told")).to_have_text(ANSWER)
    await expect(page.locator("#record-stage")).to_have_text("posted")
    await expect(page.locator("#record-charged")).to_have_text(f"{CHARGE} token")
    await expect(page.locator("#balance")).to_have_text(f"{GRANTED - CHARGE:,}")
    await expect(page.locator("#spent")).to_have_text(f"{CHARGE}")
    await expect(page.locator("#reserved")).to_have_text("0")
    await expect(page.locator("#suppliers dd")).to_have_text(f"CNY0.{COST_OF_ONE * CHARGE:09}")
    await expect(page.locator("#bill-tokens")).to_have_text(f"{CHARGE}")
    await expect(page.locator("#verdict")).to_have_text("12 checks hold")
    await expect(page.locator("#records tr")).to_have_count(1)


async def test_the_bill_shows_every_nano_unit(page: Page, office: Served) -> None:
    await enter(page, office)
    for row, exact in (("net", "CNY9.339622642"), ("tax", "CNY0.560377358"), ("total", "CNY9.900000000")):
        await expect(page.locator(f"#bill-{row}")).to_have_text(exact)


async def test_a_refusal_is_shown_with_its_code(page: Page, office: Served) -> None:
    office.canned.behaviour = "refuses"
    await enter(page, office)
    await ask(page, "hello")
    await expect(page.locator("#refusal")).to_contain_text("402 balance_used_up")
    await expect(page.locator("#refusal")).to_contain_text("The balance does not cover this request.")
    await expect(page.get_by_role("button", name="Send")).to_be_visible()


async def test_a_broken_answer_is_shown(page: Page, office: Served) -> None:
    office.canned.behaviour = "breaks"
    await enter(page, office)
    await ask(page, "hello")
    await expect(page.locator("#refusal")).to_contain_text("answer_broken")
    await expect(page.locator("#told")).to_have_text("A waterworks takes")


async def test_stopping_closes_the_request_at_the_gateway(page: Page, office: Served) -> None:
    office.canned.gate.clear()
    await enter(page, office)
    await ask(page, "hello")
    await expect(page.locator("#told")).to_have_text("A waterworks takes")
    await page.get_by_role("button", name="Stop").click()
    await expect(page.locator("#refusal")).to_contain_text("stopped")
    await asyncio.wait_for(office.canned.left.wait(), 5)


async def test_the_worker_can_be_killed_in_the_middle_of_its_answer(page: Page, office: Served) -> None:
    office.canned.gate.clear()
    await enter(page, office)
    await expect(page.get_by_role("button", name="Kill worker")).to_be_hidden()
    await ask(page, "hello")
    await expect(page.locator("#told")).to_have_text("A waterworks takes")
    await page.get_by_role("button", name="Kill worker").click()
    await expect(page.locator("#refusal")).to_contain_text("worker_killed")
    await expect(page.locator("#refusal")).to_contain_text("You killed gw-1")
    await expect(page.locator("#record-ending")).to_have_text("closed at its checkpoint")
    await expect(page.locator("#record-charged")).to_have_text(f"{INPUT_TOKENS + 2} token")
    await expect(page.locator("#balance")).to_have_text(f"{GRANTED - INPUT_TOKENS - 2:,}")
    await expect(page.locator("#verdict")).to_have_text("12 checks hold")
    await expect(page.get_by_role("button", name="Kill worker")).to_be_hidden()
    assert office.canned.killed == ["gw-1"]


async def test_the_model_cannot_write_markup(page: Page, office: Served) -> None:
    office.canned.behaviour = "echoes"
    await enter(page, office)
    bad = "<img src=x onerror=alert(1)><b>bold</b>"
    await ask(page, bad)
    await expect(page.locator("#told")).to_have_text(bad)
    assert await page.locator("#answer img, #answer b").count() == 0


async def test_a_discrepancy_is_red(page: Page, office: Served) -> None:
    office.canned.ok = False
    await enter(page, office)
    await expect(page.locator("#seal")).to_have_text("1 of 12 checks fail")
    await expect(page.locator("#checks li").first).to_have_text(
        "charges sum to the postings: posting 12 has 61 token, its charges 60"
    )


async def test_unreadable_books_are_said_and_got_over(page: Page, office: Served) -> None:
    office.canned.unreadable = "The database does not answer: gone."
    await enter(page, office)
    await expect(page.locator("#trouble")).to_have_text("The database does not answer: gone.")
    office.canned.unreadable = ""
    await expect(page.locator("#trouble")).to_be_hidden()
    await expect(page.locator("#balance")).to_have_text(f"{GRANTED:,}")


async def test_the_event_stream_comes_back(page: Page, office: Served) -> None:
    await enter(page, office)
    await expect(page.locator("#balance")).to_have_text(f"{GRANTED:,}")
    await page.context.set_offline(True)
    office.canned.drop_viewers()
    await expect(page.locator("#link")).to_have_text("Reconnecting")
    office.canned.spent = 1_000
    await page.context.set_offline(False)
    await expect(page.locator("#link")).to_have_text("Live")
    await expect(page.locator("#balance")).to_have_text(f"{GRANTED - 1_000:,}")


async def test_an_ended_session_leads_to_the_login_form(page: Page, office: Served) -> None:
    await enter(page, office)
    await page.context.clear_cookies()
    office.canned.drop_viewers()
    await page.get_by_label("Admin token").fill(TOKEN)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.locator("#link")).to_have_text("Live")


async def test_it_fits_a_phone(page: Page, office: Served) -> None:
    await page.set_viewport_size({"width": 360, "height": 740})
    await enter(page, office)
    await ask(page, "hello")
    await expect(page.locator("#record-stage")).to_have_text("posted")
    wide = await page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 360


async def test_every_control_has_a_name_and_keys_are_enough(page: Page, office: Served) -> None:
    await enter(page, office)
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.locator("#prompt").focus()
    await page.keyboard.type("hello")
    await page.keyboard.press("Enter")
    await expect(page.locator("#told")).to_have_text(ANSWER)
    await expect(page.locator("#prompt")).to_be_focused()
    for control in await page.locator("button, textarea, a").all():
        assert (await control.evaluate("e => e.innerText || e.labels?.[0]?.innerText")).strip()
