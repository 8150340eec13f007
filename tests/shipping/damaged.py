"""Dead workers' journals with damage in them, and a ledger that takes them as the real one does."""

from pathlib import Path

from stand_in_office import StandInOffice, bucket
from tokenworks.base.config import Settings
from tokenworks.base.journal import JournalWriter, split
from tokenworks.core import journal
from tokenworks.core.journal import Checkpoint, Closing, Entry, Head, LeaseTaken, Opening
from tokenworks.core.purse import Charge
from tokenworks.core.usage import Tokens
from tokenworks.core.wire import ShipReply, ShipRequest

SEGMENT_BYTES = 1 << 16
USED = Tokens(10)
GRANTED = 100_000


class Ledger(StandInOffice):
    """An office that takes a journal as final only when all its requests are closed, and says which are not."""

    async def ship(self, request: ShipRequest) -> ShipReply:
        reply = await super().ship(request)
        waiting = self.open_in(request.journal_id) if request.final else ()
        if not waiting:
            return reply
        self.final.discard(request.journal_id)
        return ShipReply(reply.posted_through, "requests are still open", waiting=waiting)

    def open_in(self, name: str) -> tuple[int, ...]:
        entries = dict(self.placed(name))
        closed = {entry.opening for entry in entries.values() if isinstance(entry, Closing)}
        return tuple(at for at, entry in entries.items() if isinstance(entry, Opening) and at not in closed)

    def placed(self, name: str) -> list[tuple[int, Entry]]:
        return [(offset, journal.decode(payload)) for offset, payload in split(self.posted.get(name, b""))]

    def closings(self, name: str) -> dict[str, list[Closing]]:
        """By request."""
        entries = dict(self.placed(name))
        found: dict[str, list[Closing]] = {}
        for entry in entries.values():
            if isinstance(entry, Closing):
                opening = entries[entry.opening]
                assert isinstance(opening, Opening)
                found.setdefault(opening.request_id, []).append(entry)
        return found


def settings_in(folder: Path) -> Settings:
    return Settings(
        data_dir=str(folder), journal_segment_bytes=SEGMENT_BYTES, ship_batch_bytes=SEGMENT_BYTES, ship_interval_ms=1
    )


def opened() -> Ledger:
    ledger = Ledger(leased=dict.fromkeys(range(3), ("bkt_1", GRANTED)))
    ledger.buckets["bkt_1"] = (bucket(), 0)
    return ledger


def mine(settings: Settings) -> Path:
    return settings.journal_dir / "gw-0" / "mine"


def dead(settings: Settings, name: str, lease_id: int, requests: int, *, left_open: int = 0) -> tuple[Path, list[int]]:
    """A dead worker's journal: requests of 10 tokens each, closed but for the last few. Each is three frames."""
    writer = JournalWriter.create(settings.journal_dir / "gw-0" / name, SEGMENT_BYTES)
    positions: list[int] = []

    def add(entry: Entry) -> int:
        position = writer.append(journal.encode(entry))
        assert isinstance(position, int)
        positions.append(position)
        return position

    add(Head(name, "gw-0", 1))
    add(LeaseTaken(lease_id, GRANTED))
    for number in range(requests):
        half = Charge(lease_id, "bkt_1", "personal@1", "token", Tokens(4), 4)
        charge = Charge(lease_id, "bkt_1", "personal@1", "token", USED, 10)
        opening = add(Opening(f"req_{number}", number, "le_1", "ba_1", "key_1", "m", True, 80, 20, ()))
        add(Checkpoint(opening, Tokens(4), (half,), ()))
        if number < requests - left_open:
            add(Closing(opening, 9, "finished", "reported", USED, USED, USED, (), (charge,), (), 0))
    writer.close()
    return writer.folder, positions


def flip(folder: Path, position: int, size: int = 1) -> dict[str, bytes]:
    """Change bytes of the frame at a position; the segments then."""
    for path in sorted(folder.glob("*.seg"), reverse=True):
        data = bytearray(path.read_bytes())
        base = int.from_bytes(data[10:18], "little")
        if any(data[:4]) and base <= position:
            at = 64 + position - base + 8
            data[at : at + size] = bytes(byte ^ 0x55 for byte in data[at : at + size])
            path.write_bytes(data)
            break
    return segments(folder)


def segments(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.seg")}
