"""Faults: what strikes at a time, how it is healed, and what was seen of the kinds that are somebody's conduct."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from tokenworks.core import wire
from tokenworks.sim.chance import Chance
from tokenworks.sim.plan import LIES, MS_NS, SECOND_NS, Strike
from tokenworks.sim.scene import sale

if TYPE_CHECKING:
    from tokenworks.sim.machines import Machine
    from tokenworks.sim.workers import Slot
    from tokenworks.sim.world import World

_pack = msgspec.msgpack.encode


def strike(world: "World", what: Strike) -> bool:
    """Let a fault happen; False if there was nothing for it to strike."""
    slot = world.slots[what.target % len(world.slots)]
    struck = _KINDS[what.kind](world, slot, what)
    if struck:
        world.note(f"fault: {what.kind} ({slot.name}, {what.for_ms} ms)")
    return struck


def heal(world: "World") -> None:
    """Everything works again; what is dead is started again by its slot."""
    for slot in world.slots:
        _set_disk(slot, is_full=False, is_broken=False, sync_ms=1)
        _set_right(world, slot.machine)
        world.hub.heal(slot.machine)
        _resume(world, slot.machine)
    _set_right(world, world.office_machine)
    world.database.is_away = False
    world.hub.weather.lost = world.hub.weather.repeated = world.hub.weather.delayed = 0
    world.start_office()


def seen(world: "World") -> Counter[str]:
    """Faults that are the conduct of customers and suppliers, or that follow from others, counted by what was seen."""
    counts: Counter[str] = Counter()
    for call in world.witnesses.served:
        kind = "lying" if call.kind in LIES else call.kind.partition(" ")[0]
        if kind != "good":
            counts[f"supplier {kind}"] += 1
    asks = {ask.number: ask for ask in world.plan.asks}
    for heard in world.witnesses.heard:
        ask = asks[heard.number]
        if heard.left_ns:
            counts[f"client gone {ask.leave or 'after waiting'}"] += 1
        elif ask.is_slow and heard.tokens:
            counts["slow client"] += 1
    counts["torn tail"] += len(world.facts.losses)
    state = world.database.store.state
    counts["late shipment after reclaim"] += state.unproven
    counts["expiry in mid-flight"] += len(world.facts.expired_leased)
    return +counts


def _worker_crash(world: "World", slot: "Slot", what: Strike) -> bool:
    del world, what
    return slot.kill(silent=False)


def _power_failure(world: "World", slot: "Slot", what: Strike) -> bool:
    return _power(world, slot, what, again_ns=(500 + what.for_ms // 4) * MS_NS)


def _long_outage(world: "World", slot: "Slot", what: Strike) -> bool:
    """The machine is away for so long that its leases are reclaimed before its journals are shipped."""
    return _power(world, slot, what, again_ns=what.for_ms * MS_NS)


def _power(world: "World", slot: "Slot", what: Strike, *, again_ns: int) -> bool:
    there = [each for each in world.slots if each.machine is slot.machine]
    died = [each.kill(silent=True, again_ns=again_ns) for each in there]
    chance = Chance(world.plan.seed, what.kind, what.at_ms)
    losses, has_holes = slot.disk.lose_power(chance, holes=what.number % 8 == 0)
    world.facts.holes = world.facts.holes or has_holes
    world.facts.losses.extend(losses)
    slot.machine.boot_start_ns = -world.loop.now_ns
    return any(died)


def _office_crash(world: "World", slot: "Slot", what: Strike) -> bool:
    del slot
    process = world.office_process
    if process is None or not process.is_alive:
        return False
    process.die()
    _later(world, what, world.start_office)
    return True


def _database_outage(world: "World", slot: "Slot", what: Strike) -> bool:
    del slot
    world.database.is_away = True
    _later(world, what, lambda: _bring_back(world))
    return True


def _failover(world: "World", slot: "Slot", what: Strike) -> bool:
    """The standby takes over, without the newest commits."""
    return _go_back(world, slot, what, 1 + what.number % 1_500)


def _restore(world: "World", slot: "Slot", what: Strike) -> bool:
    """An operator restores a backup, as it was seconds ago."""
    return _go_back(world, slot, what, 1_000 + what.number % 12_000)


def _go_back(world: "World", slot: "Slot", what: Strike, back_ms: int) -> bool:
    del slot
    if not world.go_back(back_ms):
        return False
    world.database.is_away = True
    _later(world, what, lambda: _bring_back(world))
    return True


def _bring_back(world: "World") -> None:
    world.database.is_away = False


def _partition(world: "World", slot: "Slot", what: Strike) -> bool:
    world.hub.cut_to.add(slot.machine.name)
    world.hub.cut_from.add(slot.machine.name)
    _later(world, what, lambda: world.hub.heal(slot.machine))
    return True


def _partition_one_way(world: "World", slot: "Slot", what: Strike) -> bool:
    (world.hub.cut_to if what.number % 2 else world.hub.cut_from).add(slot.machine.name)
    _later(world, what, lambda: world.hub.heal(slot.machine))
    return True


def _bad_lines(world: "World", slot: "Slot", what: Strike) -> bool:
    del slot
    weather = world.hub.weather
    weather.lost, weather.repeated, weather.delayed = 100, 150, 200

    def fair() -> None:
        weather.lost = weather.repeated = weather.delayed = 0

    _later(world, what, fair)
    return True


def _clock_jump(world: "World", slot: "Slot", what: Strike) -> bool:
    _set_clock(world, slot.machine, slot.machine.wall_start_ns + _jump_ns(what))
    _later(world, what, lambda: _set_right(world, slot.machine))
    return True


def _office_clock_jump(world: "World", slot: "Slot", what: Strike) -> bool:
    del slot
    world.facts.office_jumped = True
    _set_clock(world, world.office_machine, world.office_machine.wall_start_ns + _jump_ns(what))
    _later(world, what, lambda: _set_right(world, world.office_machine))
    return True


def _suspension(world: "World", slot: "Slot", what: Strike) -> bool:
    now_ns = world.loop.now_ns
    for process in slot.machine.processes:
        if process.is_alive:
            world.loop.suspend(process)
    world.facts.suspended.append((slot.machine.name, now_ns, now_ns + what.for_ms * MS_NS))
    _later(world, what, lambda: _resume(world, slot.machine))
    return True


def _disk_failed(world: "World", slot: "Slot", what: Strike) -> bool:
    world.facts.disk_failed = True
    _set_disk(slot, is_full=True)
    _later(world, what, lambda: _set_disk(slot, is_full=False))
    return True


def _disk_broken(world: "World", slot: "Slot", what: Strike) -> bool:
    world.facts.disk_failed = True
    _set_disk(slot, is_broken=True)
    _later(world, what, lambda: _set_disk(slot, is_broken=False))
    return True


def _slow_disk(world: "World", slot: "Slot", what: Strike) -> bool:
    _set_disk(slot, sync_ms=30 + what.number % 600)
    _later(world, what, lambda: _set_disk(slot, sync_ms=1))
    return True


def _drain(world: "World", slot: "Slot", what: Strike) -> bool:
    del world, what
    if not slot.is_alive:
        return False
    slot.stop()
    return True


def _key_revoked(world: "World", slot: "Slot", what: Strike) -> bool:
    del slot
    account = world.scene.accounts[what.number % len(world.scene.accounts)]
    if account.id in world.facts.revoked_ns:
        return False
    world.keys[account.digest] = account.key("key_revoked")
    world.facts.revoked_ns[account.id] = world.loop.now_ns
    world.hub.publish(wire.KEY_CHANGED, _pack(wire.KeyChanged(account.digest)))
    return True


def _sale(world: "World", slot: "Slot", what: Strike) -> bool:
    del slot
    if world.database.is_away:
        return False
    account = world.scene.accounts[what.number % len(world.scene.accounts)]
    wall_ns = world.loop.now_ns + world.office_machine.wall_start_ns
    chance = Chance(world.plan.seed, "sale", what.at_ms)
    world.sell(sale(chance, account, f"s{what.at_ms}-{what.number}", wall_ns, wall_ns=wall_ns))
    return True


def _tariff_change(world: "World", slot: "Slot", what: Strike) -> bool:
    del slot, what
    world.version += 1
    world.publish_catalog()
    return True


def _jump_ns(what: Strike) -> int:
    """Seconds or minutes, forwards or backwards."""
    size = 1 + what.number % (40 if what.number % 3 else 2)
    return (size if what.number % 2 else -size) * SECOND_NS


def _later(world: "World", what: Strike, undo: Callable[[], None]) -> None:
    world.loop.call_at_ns(world.loop.now_ns + what.for_ms * MS_NS, undo, context=world.outside.context)


def _set_right(world: "World", machine: "Machine") -> None:
    _set_clock(world, machine, world.outside.machine.wall_start_ns)


def _set_clock(world: "World", machine: "Machine", wall_start_ns: int) -> None:
    machine.wall_start_ns = wall_start_ns
    world.facts.clock_set(machine.name, world.loop.now_ns, wall_start_ns)


def _set_disk(
    slot: "Slot", *, is_full: bool | None = None, is_broken: bool | None = None, sync_ms: int | None = None
) -> None:
    disk = slot.disk
    disk.is_full = disk.is_full if is_full is None else is_full
    disk.is_broken = disk.is_broken if is_broken is None else is_broken
    disk.sync_ms = disk.sync_ms if sync_ms is None else sync_ms


def _resume(world: "World", machine: "Machine") -> None:
    for process in machine.processes:
        if process.is_suspended:
            world.loop.resume(process)


_KINDS: dict[str, Callable[["World", "Slot", Strike], bool]] = {
    "worker crash": _worker_crash,
    "power failure": _power_failure,
    "long outage": _long_outage,
    "office crash": _office_crash,
    "database outage": _database_outage,
    "database failover": _failover,
    "restore": _restore,
    "partition": _partition,
    "partition one way": _partition_one_way,
    "bad lines": _bad_lines,
    "clock jump": _clock_jump,
    "office clock jump": _office_clock_jump,
    "suspension": _suspension,
    "disk full": _disk_failed,
    "disk broken": _disk_broken,
    "slow disk": _slow_disk,
    "drain": _drain,
    "key revoked": _key_revoked,
    "sale in mid-flight": _sale,
    "tariff change": _tariff_change,
}
