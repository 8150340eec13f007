"""Places at an endpoint are shared by real workers: no more run there than its limit, the others wait their turn."""

import asyncio

import openai

from supplier import held, supplier, whole
from system.conftest import Customer, until
from system.test_operation import PACKAGE, question, serve_from
from tokenworks.app.client import OfficeClient

PLACES, ASKED = 2, 8


async def test_no_more_run_at_an_endpoint_than_its_limit(customer: Customer, office: OfficeClient) -> None:
    customer.buy(PACKAGE)
    release = asyncio.Event()
    async with supplier() as vendor:
        model = serve_from(office, vendor)
        (endpoint,) = [each["id"] for each in office.items("/endpoints", 100) if each["model"] == model]
        office.patch(f"/endpoints/{endpoint}", {"concurrency_max": PLACES})
        while model not in [one.id async for one in customer.client.models.list()]:
            pass
        # The workers have heard of the limit, and of each other.
        await asyncio.to_thread(until, lambda: _know(office, endpoint))
        vendor.script(*(held(release, whole("Hi.")) for _ in range(ASKED)))
        asked = [asyncio.create_task(_ask(customer, model)) for _ in range(ASKED)]
        # All may have come to the same worker, which has one of the places.
        await asyncio.to_thread(until, lambda: _count(office, model) + len(vendor.calls) == ASKED)
        assert 1 <= len(vendor.calls) <= PLACES
        release.set()
        answers = await asyncio.gather(*asked)
        assert [answer.choices[0].message.content for answer in answers] == ["Hi."] * ASKED


async def _ask(customer: Customer, model: str) -> openai.types.chat.ChatCompletion:
    """On a connection of its own, which may lead to any worker."""
    async with openai.AsyncOpenAI(
        base_url=customer.client.base_url, api_key=customer.key["secret"], max_retries=0
    ) as client:
        return await client.chat.completions.create(**question(model))


def _know(office: OfficeClient, endpoint: str) -> bool:
    """Whether both workers have the endpoint with its limit."""
    workers = office.get("/workers")["items"]
    return len(workers) == 2 and all(endpoint in each["running"] for each in workers)


def _count(office: OfficeClient, model: str) -> int:
    """How many wait, in all workers."""
    return sum(sum(each["waiting"].get(model, {}).values()) for each in office.get("/workers")["items"])
