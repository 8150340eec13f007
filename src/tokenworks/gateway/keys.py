"""Keys: who a request is from. A bounded memory of keys by digest, filled by asking the office.

A remembered key is trusted for a named time without asking, so the gateway goes on while the office is away; an
announced change is forgotten at once. Where announcements may have been missed, a key is asked for again before it is
trusted, or, if the office cannot be asked either, while it is. Secrets are never kept, only their SHA-256.
"""

from collections import deque
from collections.abc import Callable
from hashlib import sha256

import msgspec

from tokenworks.base import clock
from tokenworks.base.bus import BusFault
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.snapshot import Key
from tokenworks.core.wire import KeyChanged
from tokenworks.gateway.flow import Errands, Wait, resolve_each
from tokenworks.shipping.office import Office

_MISSING = Refusal(Code.KEY_MISSING, "No API key was given. Send the header `Authorization: Bearer sk-tw-…`.")
_INVALID = Refusal(Code.KEY_INVALID, "This API key is not known. Check it, or create one in the portal.")
_UNREACHABLE = Refusal(
    Code.LEASE_UNAVAILABLE, "The API key cannot be checked right now. Retry shortly.", retry_after_ms=1_000
)
_REFUSED = {
    Code.KEY_REVOKED: "This API key was revoked. Use another one.",
    Code.ACCOUNT_SUSPENDED: "The account of this API key is suspended. Contact your operator.",
}


def digest_of(headers: dict[bytes, bytes]) -> bytes | None:
    """SHA-256 of the key in `authorization` or `x-api-key`; None if there is none."""
    given = headers.get(b"authorization")
    if given is not None and given[:7].lower() == b"bearer ":
        secret = given[7:].strip()
    else:
        secret = headers.get(b"x-api-key", b"").strip()
    return sha256(secret).digest() if secret else None


def _usable(found: Key | Refusal) -> Key | Refusal:
    if isinstance(found, Key) and found.refused:
        code = Code(found.refused)
        return Refusal(code, _REFUSED.get(code, "This API key may not be used."))
    return found


class Entry(msgspec.Struct, eq=False):
    """A remembered key. `is_doubted`: a change may have been missed; `is_tried`: and could not be asked for since."""

    key: Key
    asked_ns: int
    is_doubted: bool = False
    is_tried: bool = False


class Keys:
    """The memory of one worker. Entries are kept in the order in which they were asked for; the oldest goes first.

    `know` is told of each key that is remembered.
    """

    def __init__(
        self, office: Office, errands: Errands, entries_max: int, stale_ms: int, know: Callable[[Key], None]
    ) -> None:
        self._know = know
        self._office = office
        self._errands = errands
        self._entries_max = entries_max
        self._stale_ns = stale_ms * clock.MS
        self._entries: dict[bytes, Entry] = {}
        self._lookups: dict[bytes, deque[Wait[Key | Refusal]]] = {}
        self._changes = 0

    async def authenticate(self, headers: dict[bytes, bytes]) -> Key | Refusal:
        """The key that the headers hold, or why it may not be used."""
        return self.known(headers, clock.boot_ns()) or await self.asked(headers)

    def known(self, headers: dict[bytes, bytes], now_ns: int) -> Key | Refusal | None:
        """The same, where it can be said at once."""
        digest = digest_of(headers)
        if digest is None:
            return _MISSING
        entry = self._entries.get(digest)
        if entry is None or entry.is_doubted or now_ns - entry.asked_ns > self._stale_ns:
            return None
        return entry.key if not entry.key.refused else _usable(entry.key)

    async def asked(self, headers: dict[bytes, bytes]) -> Key | Refusal:
        """The same, asking the office."""
        digest = digest_of(headers)
        if digest is None:
            return _MISSING
        entry = self._entries.get(digest)
        if entry is None or clock.boot_ns() - entry.asked_ns > self._stale_ns:
            return _usable(await self._ask(digest))
        return _usable(await self._confirm(digest, entry))

    def forget(self, changed: KeyChanged) -> None:
        """A key changed, or all keys of an account did."""
        self._changes += 1
        if changed.digest:
            self._entries.pop(changed.digest, None)
        if changed.billing_account_id:
            for digest, entry in list(self._entries.items()):
                if entry.key.billing_account_id == changed.billing_account_id:
                    del self._entries[digest]

    def doubt_all(self) -> None:
        """Changes may have been missed: every key is asked for again."""
        self._changes += 1
        for entry in self._entries.values():
            entry.is_doubted, entry.is_tried = True, False

    async def _confirm(self, digest: bytes, entry: Entry) -> Key | Refusal:
        """Ask for a remembered key; it holds where the office cannot be asked. Only the first attempt is waited for."""
        if entry.is_tried:
            self._start_asking(digest)
            return entry.key
        found = await self._ask(digest)
        if found is not _UNREACHABLE or self._entries.get(digest) is not entry:
            return found
        entry.is_tried = True
        return entry.key

    async def _ask(self, digest: bytes) -> Key | Refusal:
        """Ask the office; all who ask for the same key meanwhile share the answer."""
        wait: Wait[Key | Refusal] = Wait()
        self._start_asking(digest).append(wait)
        return await wait

    def _start_asking(self, digest: bytes) -> deque[Wait[Key | Refusal]]:
        """Those who wait for the answer."""
        waiting = self._lookups.get(digest)
        if waiting is None:
            waiting = self._lookups[digest] = deque()
            self._errands.start(self._look_up(digest))
        return waiting

    async def _look_up(self, digest: bytes) -> None:
        answer: Key | Refusal = _UNREACHABLE
        asked_ns, changes = clock.boot_ns(), self._changes
        try:
            key = await self._office.find_key(digest)
            answer = key or _INVALID
            # A change announced meanwhile may not be in the answer yet: it serves those who wait and is not kept.
            if changes == self._changes:
                self._remember(digest, key, asked_ns)
        except BusFault:
            pass
        finally:
            resolve_each(self._lookups.pop(digest), answer)

    def _remember(self, digest: bytes, key: Key | None, asked_ns: int) -> None:
        self._entries.pop(digest, None)
        if key is None:
            return
        self._know(key)
        if len(self._entries) >= self._entries_max:
            del self._entries[next(iter(self._entries))]
        self._entries[digest] = Entry(key, asked_ns)
