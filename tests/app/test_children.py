"""Children started side by side: who is told to end is told once, and waited for."""

import asyncio

from tokenworks.app.children import all_of


async def test_who_cleans_up_after_being_cancelled_is_not_cancelled_again() -> None:
    cleaned: list[str] = []

    async def quick() -> None:
        await asyncio.Event().wait()

    async def careful() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            cleaned.append("whole")

    starting = asyncio.create_task(all_of([quick(), careful()]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    starting.cancel()
    (ended,) = await asyncio.gather(starting, return_exceptions=True)
    assert (isinstance(ended, asyncio.CancelledError), cleaned) == (True, ["whole"])
