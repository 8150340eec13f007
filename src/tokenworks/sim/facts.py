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
    `clocks`: when a machine's clock was set, and the wall time at virtual zero from then on.
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
    machine_of: dict[str, str] = {}
    clocks: dict[str, list[tuple[int, int]]] = {}
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

    def clock_set(self, machine: str, at_ns: int, wall_start_ns: int) -> None:
        """A machine's wall clock reads otherwise from now on."""
        self.clocks.setdefault(machine, []).append((at_ns, wall_start_ns))

    def showed(self, worker: str, between_ns: tuple[int, int], wall_ns: tuple[int, int]) -> bool:
        """Whether a worker's wall clock read anything from the first to before the second of `wall_ns` in that time."""
        (from_ns, to_ns), (valid_from_ns, valid_to_ns) = between_ns, wall_ns
        sets = self.clocks[self.machine_of[worker]]
        ends = [*(at_ns for at_ns, _ in sets[1:]), to_ns + 1]
        return any(
            max(at_ns, from_ns) + start_ns < valid_to_ns and min(end_ns, to_ns) + start_ns >= valid_from_ns
            for (at_ns, start_ns), end_ns in zip(sets, ends, strict=True)
            if at_ns <= to_ns and end_ns >= from_ns
        )
