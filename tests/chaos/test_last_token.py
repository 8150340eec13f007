"""The last token on real processes: balance for 50 answers, 500 requests at once, four workers, the official client.

Each request allows for eight times what its answer needs, so reserving in full would refuse customers who can pay, and
admitting on hope would spend what is not there.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import httpx2
import msgspec
import openai
import pytest

from system.conftest import PATIENCE_NS
from tokenworks.app import ports
from tokenworks.app.children import Child
from tokenworks.app.client import OfficeClient, address
from tokenworks.app.spawned import Spawned, spawned, throwaway
from tokenworks.base import clock
from tokenworks.base import database as databases
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.bench import books
from tokenworks.bench.books import Buyer
from tokenworks.bench.endpoint import MODEL
from tokenworks.chaos.endpoint import Scripted
from tokenworks.chaos.questions import INPUT_TOKENS, Script
from tokenworks.ledger import balance
from tokenworks.ledger.balance import BucketBalance

ANSWERS, REQUESTS, WORKERS = 50, 500, 4
SCRIPT = Script(tokens=100, piece=20, pause_ms=20)
OUTPUT_MAX = 8 * SCRIPT.tokens
BALANCE = ANSWERS * (INPUT_TOKENS + SCRIPT.tokens)
PACKAGE = "fifty-answers"


@pytest.fixture(scope="module")
def factory(scratch: Path) -> Generator[Spawned]:
    """A system with four workers and nothing else on it."""
    settings = throwaway(scratch / "last-token", Settings())
    settings = msgspec.structs.replace(settings, workers=WORKERS, embedded_engine=False, demo_operator=False)
    with spawned(settings) as running:
        yield running


@pytest.fixture(scope="module")
async def pool(factory: Spawned) -> AsyncGenerator[Pool]:
    """The database of that system, with a catalog whose only endpoint is scripted."""
    pool = await databases.open_pool(factory.addresses["database"])
    settings = Settings(data_dir=str(factory.data))
    with await ports.listen("127.0.0.1", 0, "") as listener, OfficeClient(address(settings)) as office:
        endpoint = Child(Scripted("endpoint", listener), settings)
        await endpoint.start()
        books.catalog(office, [ports.port_of(listener)])
        books.package(office, PACKAGE, BALANCE)
        yield pool
        await endpoint.stop()
    await pool.close()


async def ask(client: openai.AsyncOpenAI, *, streamed: bool) -> str:
    """How one request ended for its customer, all retries of the client over."""
    prompt: openai.types.chat.ChatCompletionUserMessageParam = {"role": "user", "content": SCRIPT.text()}
    try:
        if not streamed:
            answer = await client.chat.completions.create(model=MODEL, messages=[prompt], max_tokens=OUTPUT_MAX)
            return answer.choices[0].finish_reason
        stream = await client.chat.completions.create(
            model=MODEL, messages=[prompt], max_tokens=OUTPUT_MAX, stream=True
        )
        reasons = [choice.finish_reason async for chunk in stream for choice in chunk.choices]
        return reasons[-1] or "no end"
    except openai.APIStatusError as refusal:
        return refusal.code or str(refusal.status_code)


async def settled(pool: Pool, buyer: Buyer) -> BucketBalance:
    """The only bucket of a customer when no worker holds a slice of it any more."""
    give_up_ns = clock.boot_ns() + PATIENCE_NS
    while True:
        async with pool.connection() as connection:
            (bucket,) = await balance.wallet(connection, buyer.customer.billing_account_id)
        if bucket.leased == 0:
            return bucket
        assert clock.boot_ns() < give_up_ns, bucket


async def test_the_last_token_is_sold_and_not_one_more(factory: Spawned, pool: Pool) -> None:
    """For a customer who streams and one who does not, side by side."""
    ((streams, waits),) = [batch async for batch in books.customers(pool, 2, PACKAGE)]
    ends = await asyncio.gather(ends_of(factory, streams, streamed=True), ends_of(factory, waits, streamed=False))
    for buyer, ended in zip((streams, waits), ends, strict=True):
        assert ended["stop"] >= ANSWERS - 1, ended
        assert ended["length"] <= 1, ended
        left = await settled(pool, buyer)
        assert left.issued == left.available + left.spent == BALANCE
        assert left.spent >= ended["stop"] * (INPUT_TOKENS + SCRIPT.tokens)


async def ends_of(factory: Spawned, buyer: Buyer, *, streamed: bool) -> Counter[str]:
    """How all requests of a customer ended."""
    limits = httpx2.Limits(max_connections=REQUESTS, max_keepalive_connections=REQUESTS)
    async with openai.AsyncOpenAI(
        base_url=f"{factory.addresses['gateway']}/v1",
        api_key=buyer.secret,
        http_client=openai.DefaultAsyncHttpxClient(limits=limits),
    ) as client:
        while MODEL not in [model.id async for model in client.models.list()]:
            pass
        return Counter(await asyncio.gather(*(ask(client, streamed=streamed) for _ in range(REQUESTS))))
