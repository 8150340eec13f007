"""Takes `docs/images/live.png` of a running system: `python tests/console/screenshot.py 'http://127.0.0.1:8701/?token=…'`."""

import asyncio
import sys
from pathlib import Path

from playwright.async_api import async_playwright, expect

IMAGE = Path(__file__).parents[2] / "docs/images/live.png"
PROMPT = "What is electricity used for? Answer in two sentences."


async def take(address: str) -> None:
    """Ask one prompt, wait until its record is posted and the books are verified again, and take the picture."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = await browser.new_page(
            viewport={"width": 1360, "height": 900}, device_scale_factor=1.5, reduced_motion="reduce"
        )
        await page.goto(address)
        await page.get_by_label("Your prompt").fill(PROMPT)
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator("#record-stage")).to_have_text("posted", timeout=60_000)
        await expect(page.locator("#spent")).not_to_have_text("0")
        await expect(page.locator("#seal")).to_have_text("The books agree")
        IMAGE.parent.mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=IMAGE)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(take(sys.argv[1]))
