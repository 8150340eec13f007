"""Keys that gateways ask for: all that are asked for while others are looked up are looked up together."""

import asyncio

from tokenworks.access import keys
from tokenworks.base.database import Pool
from tokenworks.core.snapshot import Key

# How many keys one query asks for at most.
_AT_ONCE = 256

_Answer = asyncio.Future[Key | None]


class KeyDesk:
    """Answers from the database as it is after the question came; nothing is remembered."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: list[tuple[bytes, _Answer]] = []
        self._worker: asyncio.Task[None] | None = None

    async def find(self, digest: bytes) -> Key | None:
        """What `keys.find` gives. Raises what keeps the database from being asked, as psycopg does."""
        answer: _Answer = asyncio.get_running_loop().create_future()
        self._waiting.append((digest, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            (found,) = await asyncio.gather(self._found({digest for digest, _ in batch}), return_exceptions=True)
            for digest, answer in batch:
                if answer.done():
                    continue  # who asked has gone
                if isinstance(found, BaseException):
                    answer.set_exception(found)
                else:
                    answer.set_result(found.get(digest))

    async def _found(self, digests: set[bytes]) -> dict[bytes, Key]:
        async with self._pool.connection() as connection:
            return await keys.find_all(connection, digests)
