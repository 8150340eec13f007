"""What the world did in a run, as far as the auditor must know: who was killed when, what a disk lost, what was cut."""

from collections import Counter

import msgspec

from tokenworks.sim.disk import Loss


class Violation(msgspec.Struct, frozen=True):
    """Something that must hold and does not. `rule` is the same for the same rule broken elsewhere."""

    rule: str
    text: str
    at_ns: int = 0


class Facts(msgspec.Struct):
    """Filled while the run goes on. Times are virtual; workers are named by their slots.

    A run is calm if nothing strikes, orderly if nothing does that keeps a worker from giving its leases back.
    """

    faults: Counter[str] = msgspec.field(default_factory=Counter[str])
    killed: dict[str, list[int]] = {}
    losses: list[Loss] = []
    damaged: set[str] = set()
    holes: bool = False
    suspended: list[tuple[str, int, int]] = []
    disk_failed: bool = False
    expired_leased: set[str] = set()
    office_jumped: bool = False
    went_back: bool = False
    sites_known_ns: int = 0
    lost_sales: set[str] = set()
    revoked_ns: dict[str, int] = {}
    is_calm: bool = False
    is_orderly: bool = False

    def lost_since(self, worker: str, at_ns: int) -> bool:
        """Whether what a worker wrote at that time may be gone by a power failure."""
        slot = worker.partition("#")[0]
        return any(loss.worker == slot and at_ns >= loss.since_ns for loss in self.losses)

    def was_suspended(self, from_ns: int, to_ns: int) -> bool:
        """Whether any machine stood still then."""
        return any(start <= to_ns and end >= from_ns for _, start, end in self.suspended)
