"""A client of the office's management API, for the command line and the demonstration.

Answers are the decoded JSON as the office sent it; nothing is reshaped here. Retries are left to the caller: a command
is repeated safely through its idempotency key.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import httpx2
import msgspec

from tokenworks.app import claim, ports
from tokenworks.app.reach import OfficeRefused, OfficeUnreachable
from tokenworks.base.config import Settings

Record = dict[str, Any]
TIMEOUT_S = 30
# Between two pieces of a long text: the office may have to sort a whole ledger first.
TEXT_TIMEOUT_S = 600
PAGE = 200


class Address(msgspec.Struct, frozen=True):
    """The office's base URL, without a trailing slash, and the admin token (empty if none is known)."""

    url: str
    token: str


def address(settings: Settings, url: str = "", token: str = "") -> Address:
    """What was given, else the system running on the data folder, else where the settings say it would be."""
    running = None if url else claim.running_on(settings.data)
    office = running.addresses.get("office") if running else None
    found = url or office or ports.url_of(settings.host, settings.office_port)
    return Address(found.rstrip("/"), token or settings.admin_token or _kept_token(settings.data))


def _kept_token(data: Path) -> str:
    file = data / "secrets" / "admin-token"
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


class OfficeClient:
    """One connection to one office, used as a context manager."""

    def __init__(self, at: Address) -> None:
        self._url = at.url
        headers = {"authorization": f"Bearer {at.token}"} if at.token else {}
        try:
            self._http = httpx2.Client(base_url=f"{at.url}/api/v1", headers=headers, timeout=TIMEOUT_S)
        except httpx2.InvalidURL as fault:
            raise OfficeUnreachable(f"{at.url!r} is not an address: {fault}") from fault

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int | None) -> Record:
        """One record, or one page of a list. Parameters that are None are left out."""
        return self._call("GET", path, query={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: Record, idempotency_key: str) -> Record:
        """Create something. The same key with the same body returns the first answer."""
        return self._call("POST", path, body=body, headers={"idempotency-key": idempotency_key})

    def patch(self, path: str, body: Record) -> Record:
        """Change a state."""
        return self._call("PATCH", path, body=body)

    def delete(self, path: str) -> Record:
        """End something."""
        return self._call("DELETE", path)

    def items(self, path: str, limit: int, **query: str | None) -> Iterator[Record]:
        """Up to `limit` entries of a list, over as many pages as it takes."""
        cursor: str | None = None
        while limit > 0:
            page = self.get(path, limit=min(limit, PAGE), cursor=cursor, **query)
            yield from page["items"][:limit]
            limit -= len(page["items"])
            cursor = page["next"]
            if cursor is None:
                return

    def text(self, path: str, **query: str | None) -> Iterator[bytes]:
        """A text of any length, piece by piece."""
        given = {name.rstrip("_"): value for name, value in query.items() if value}
        try:
            with self._http.stream("GET", path, params=given, timeout=TEXT_TIMEOUT_S) as answer:
                if not answer.is_success:
                    answer.read()
                    _record(answer, self._url)
                yield from answer.iter_bytes()
        except httpx2.TransportError as fault:
            raise OfficeUnreachable(f"The office at {self._url} broke off ({fault}).") from fault

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str | int] | None = None,
        body: Record | None = None,
        headers: dict[str, str] | None = None,
    ) -> Record:
        try:
            answer = self._http.request(method, path, params=query, json=body, headers=headers)
        except httpx2.TransportError as fault:
            raise OfficeUnreachable(f"The office at {self._url} cannot be reached ({fault}).") from fault
        return _record(answer, self._url)


def _record(answer: httpx2.Response, url: str) -> Record:
    try:
        content: Any = answer.json() if answer.content else {}
    except ValueError as fault:
        raise OfficeUnreachable(f"What answers at {url} is not an office (status {answer.status_code}).") from fault
    if not isinstance(content, dict):
        raise OfficeUnreachable(f"What answers at {url} is not an office (no JSON object).")
    record = cast("Record", content)
    if answer.is_success:
        return record
    error: Record = record.get("error") or {}
    message = error.get("message") or f"status {answer.status_code}"
    raise OfficeRefused(answer.status_code, error.get("code") or "", message, error.get("field") or "")
