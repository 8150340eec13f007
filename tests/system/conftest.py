"""Customers of the session's real system: a person with a key, a package and the official client."""

import itertools
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from tokenworks.app.client import OfficeClient, Record, address
from tokenworks.app.spawned import Spawned
from tokenworks.base import clock, ids
from tokenworks.base.config import Settings

PATIENCE_NS = 20 * clock.SECOND
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Customer:
    """A customer of the running system, with the official client under its key."""

    id: str
    key: Record
    client: openai.AsyncOpenAI
    office: OfficeClient

    def buy(self, offer: str) -> Record:
        """Order an offer on the phone bill."""
        return made(self.office, "/orders", customer=self.id, offer=offer)

    def buckets(self) -> list[Record]:
        """The wallet."""
        return self.office.get("/balances", customer=self.id)["items"]

    def left(self) -> int:
        """Tokens not spent, with a gateway or not."""
        return sum(bucket["available"] + bucket["leased"] for bucket in self.buckets())

    def record(self, request_id: str) -> Record:
        """The usage record of a request, when it is posted."""
        found = until(lambda: self.office.get("/usage", request=request_id)["items"])
        return found[0]


def made(office: OfficeClient, path: str, **body: Any) -> Record:
    """What the management API makes of this body."""
    return office.post(path, body, ids.new("idem"))


def until(look: Callable[[], Any]) -> Any:
    """What `look` finds, as soon as it finds something. Each look asks the office, so this does not spin."""
    deadline_ns = clock.boot_ns() + PATIENCE_NS
    while not (found := look()):
        assert clock.boot_ns() < deadline_ns, "nothing came"
    return found


@pytest.fixture(scope="session")
def office(system: Spawned) -> Generator[OfficeClient]:
    """The management API."""
    with OfficeClient(address(Settings(data_dir=str(system.data)))) as client:
        yield client


@pytest.fixture
async def customer(system: Spawned, office: OfficeClient) -> AsyncGenerator[Customer]:
    """A customer with a key and nothing bought yet. The client does not retry, so that a test sees each answer."""
    person = made(office, "/customers", name="Chen Jie", phone=f"+86139{next(_numbers):06}42")
    key = made(office, "/keys", customer=person["id"], name="test")
    base_url = f"{system.addresses['gateway']}/v1"
    async with openai.AsyncOpenAI(base_url=base_url, api_key=key["secret"], max_retries=0) as client:
        yield Customer(person["id"], key, client, office)
