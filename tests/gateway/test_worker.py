"""A whole worker on the real bus: the official client, keys and catalog that change under it, and its end."""

import asyncio
from pathlib import Path

import msgspec
import openai
import pytest
from openai import AsyncOpenAI

from gateway.workers import MESSAGES, worker
from stand_in_office import SECRET, StandInOffice, catalog, endpoint
from supplier import held, stream, supplier, usage, whole
from tokenworks.base.bus import Bus
from tokenworks.base.config import Settings
from tokenworks.base.journal import list_journals
from tokenworks.core import wire
from tokenworks.core.journal import Closing, Head


async def test_the_official_client(services: Settings, bus: Bus, tmp_path: Path) -> None:
    async with worker(services, bus, tmp_path) as running:
        create = running.client.chat.completions.create
        assert [model.id async for model in running.client.models.list()] == ["m", "lonely"]
        answer = await create(model="m", messages=MESSAGES, max_tokens=20)
        assert answer.choices[0].message.content == "Hello there."
        assert answer.usage is not None
        assert answer.usage.total_tokens == 17
        running.supplier.script(stream(["one ", "two"], usage(12, 2)))
        chunks = [chunk async for chunk in await create(model="m", messages=MESSAGES, stream=True)]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two"
        assert all(chunk.usage is None for chunk in chunks)
        running.supplier.script(stream(["one"], usage(12, 1)))
        asked = await create(model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True})
        last = [chunk async for chunk in asked][-1]
        assert last.usage is not None
        assert last.usage.total_tokens == 13
        await running.end()
        (journal_id,) = running.office.final
        closings = [entry for entry in running.office.entries(journal_id) if isinstance(entry, Closing)]
        assert [sum(charge.amount for charge in closing.charges) for closing in closings] == [17, 14, 13]
        assert running.office.balance() == 1_000_000 - 44
        assert all(left == 0 for _, left in running.office.leased.values())
        assert list_journals(running.settings.journal_dir) == []


async def test_the_official_client_raises_what_it_should(services: Settings, bus: Bus, tmp_path: Path) -> None:
    async with worker(services, bus, tmp_path) as running:
        create = running.client.chat.completions.create
        with pytest.raises(openai.NotFoundError) as missing:
            await create(model="other", messages=MESSAGES)
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as bad:
            await create(model="m", messages=[])
        assert bad.value.param == "messages"
        running.office.buckets.clear()
        with pytest.raises(openai.APIStatusError) as poor:
            await create(model="m", messages=MESSAGES)
        assert (poor.value.status_code, poor.value.code) == (402, "no_matching_bucket")
        digest = running.office.add_key(SECRET, refused="key_revoked")
        await bus.publish(wire.KEY_CHANGED, msgspec.msgpack.encode(wire.KeyChanged(digest=digest)))
        with pytest.raises(openai.AuthenticationError) as revoked:
            await _ask_until_refused(running.client)
        assert revoked.value.code == "key_revoked"


async def _ask_until_refused(client: AsyncOpenAI) -> None:
    """The announcement is on its way; it takes effect within a second."""
    async with asyncio.timeout(1):
        while True:
            await client.models.list()


async def test_a_new_catalog_takes_effect_while_requests_run(services: Settings, bus: Bus, tmp_path: Path) -> None:
    release = asyncio.Event()
    async with worker(services, bus, tmp_path) as running, supplier() as other:
        running.supplier.script(held(release, whole("old")))
        old = asyncio.create_task(running.client.chat.completions.create(model="m", messages=MESSAGES))
        await running.supplier.call(0)
        await running.publish(catalog(endpoint(other.url, "ep_2"), version=2))
        async with asyncio.timeout(5):
            while not other.calls:
                await running.client.chat.completions.create(model="m", messages=MESSAGES)
        release.set()
        assert (await old).choices[0].message.content == "old"


async def test_usage_is_shipped_while_the_worker_runs(services: Settings, bus: Bus, tmp_path: Path) -> None:
    async with worker(services, bus, tmp_path) as running:
        await running.client.chat.completions.create(model="m", messages=MESSAGES)
        (folder,) = list_journals(running.settings.journal_dir)
        async with asyncio.timeout(5):
            while not any(isinstance(entry, Closing) for entry in _entries(running.office, folder.name)):
                await asyncio.wait([running.task], timeout=0.005)
        head = running.office.entries(folder.name)[0]
        assert isinstance(head, Head)
        assert (head.journal_id, head.worker) == (folder.name, "gw-0")


def _entries(office: StandInOffice, journal_id: str) -> list[object]:
    return [*office.entries(journal_id)] if journal_id in office.posted else []


async def test_a_running_request_finishes_before_the_worker_ends(services: Settings, bus: Bus, tmp_path: Path) -> None:
    release = asyncio.Event()
    async with worker(services, bus, tmp_path) as running:
        running.supplier.script(held(release, whole("late")))
        asked = asyncio.create_task(running.client.chat.completions.create(model="m", messages=MESSAGES))
        await running.supplier.call(0)
        running.stop.set()
        release.set()
        assert (await asked).choices[0].message.content == "late"
        await running.task
        assert len(running.office.final) == 1


async def test_a_lease_still_asked_for_at_the_end_goes_back(services: Settings, bus: Bus, tmp_path: Path) -> None:
    async with worker(services, bus, tmp_path) as running:
        running.office.release = asyncio.Event()
        asked = asyncio.create_task(running.client.chat.completions.create(model="m", messages=MESSAGES))
        async with asyncio.timeout(5):
            while not running.office.asked:
                await asyncio.wait([running.task], timeout=0.001)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        running.stop.set()
        running.office.release.set()
        await running.task
        assert running.office.buckets["bkt_1"][1] == 1_000_000
        assert list_journals(running.settings.journal_dir) == []


async def test_without_the_office_the_journal_stays(services: Settings, bus: Bus, tmp_path: Path) -> None:
    async with worker(services, bus, tmp_path) as running:
        await running.client.chat.completions.create(model="m", messages=MESSAGES)
        running.office.is_down = True
        await running.end()
        assert len(list_journals(running.settings.journal_dir)) == 1
