"""Shipments posted on `sim.state`, as `meter` posts them on PostgreSQL; `core.metering` decides what they mean."""

import msgspec

from tokenworks.base.journal import FrameFault, split
from tokenworks.core import journal
from tokenworks.core.journal import Entry, Head
from tokenworks.core.leasing import SliceGrant
from tokenworks.core.metering import Batch, Known, Outcome, decide
from tokenworks.core.named import EntryFault, Named, named
from tokenworks.core.standing import OpenLease, Registered, Standing
from tokenworks.core.wire import ShipReply, ShipRequest
from tokenworks.sim.commands import Ship
from tokenworks.sim.state import Cursor, EndRow, LeaseRow, State, StoreFault

_WAITING_MAX = 1_000


def ship(state: State, command: Ship) -> ShipReply:
    """Post what is new in a shipment."""
    request = command.request
    cursor = state.journals.get(request.journal_id, Cursor())
    try:
        entries = decode(request)
        reply = _post(state, request, entries, cursor, command.at_ns)
    except (FrameFault, EntryFault, msgspec.MsgspecError) as fault:
        reply = ShipReply(cursor.posted_through, f"{request.journal_id}: {fault}")
    return msgspec.structs.replace(reply, ledger_epoch=state.epoch.number if state.epoch else 0)


def decode(request: ShipRequest) -> list[tuple[int, Entry]]:
    """Entries with their positions. The first of a journal is its head and says what the request says."""
    entries = [(request.from_position + offset, journal.decode(payload)) for offset, payload in split(request.frames)]
    if entries and request.from_position == 0:
        head = entries[0][1]
        if not isinstance(head, Head):
            raise EntryFault("a journal begins with its head")
        if (head.journal_id, head.worker, head.format) != (request.journal_id, request.worker, journal.FORMAT):
            raise EntryFault(f"the head is of {head.journal_id}, {head.worker}, format {head.format}")
    named(entries)
    return entries


def _post(  # noqa: PLR0911
    state: State, request: ShipRequest, entries: list[tuple[int, Entry]], cursor: Cursor, now_ns: int
) -> ShipReply:
    """Each answer where it is known."""
    journal_id, done = request.journal_id, cursor.posted_through
    through = request.from_position + len(request.frames)
    if request.from_position > done:
        return ShipReply(done, f"{journal_id}: bytes from {done} to {request.from_position} are missing")
    if not request.frames and not request.final:
        return ShipReply(done)
    new = tuple([entry for entry in entries if entry[0] >= done])
    if through > done and (not new or new[0][0] != done):
        return ShipReply(done, f"{journal_id}: no entry begins at {done}")
    if not new and (cursor.final or not request.final or not cursor.shipments):
        return ShipReply(done)
    through = max(through, done)
    names = named(new)
    known = known_of(state, journal_id, names)
    known.confirm(names)
    outcome = decide(Batch(journal_id, done, through, now_ns, new), known, standing_of(state, known, names))
    if outcome.through == done < through:
        return ShipReply(done, _waits(journal_id, done))
    _write(state, request, outcome)
    is_whole = outcome.through == through
    after = _after(cursor, outcome, request.final and is_whole)
    state.journals[journal_id] = after
    if not is_whole:
        return ShipReply(after.posted_through, _waits(journal_id, after.posted_through))
    if not request.final or after.final:
        return ShipReply(after.posted_through)
    fault = f"{journal_id}: {after.openings - after.closings} requests are still open"
    return ShipReply(after.posted_through, fault, waiting=_waiting(state, journal_id))


def known_of(state: State, journal_id: str, names: Named) -> Known:
    """What the ledger knows of what a batch names."""
    lost = lost_of(state, names)
    leases = {
        lease_id: OpenLease(row.grant.bucket.id, state.left(lease_id), not row.digest)
        for lease_id in sorted(names.leases)
        if lease_id in state.open
        for row in (state.leases[lease_id],)
    }
    buckets = {state.leases[lease_id].grant.bucket.id for lease_id in names.leases if lease_id in state.leases}
    buckets |= {names.taken[lease_id] for lease_id in lost if names.taken[lease_id] in state.buckets}
    places = [(journal_id, position) for position in sorted(names.openings)]
    return Known(
        leases=leases,
        buckets={bucket_id: state.sold(bucket_id) for bucket_id in sorted(buckets)},
        openings={place[1]: state.openings[place] for place in places if place in state.openings},
        closed=frozenset(place[1] for place in places if place in state.records),
    )


def lost_of(state: State, names: Named) -> frozenset[int]:
    """Leases that a worker took and the ledger does not know; not those whose ids it has yet to give."""
    return frozenset(
        lease_id for lease_id in names.taken if lease_id <= state.last_lease_id and lease_id not in state.leases
    )


def standing_of(state: State, known: Known, names: Named) -> Standing:
    """What leases and buckets stand at while the batch is decided."""
    lost = lost_of(state, names)
    if not lost and not any(lease.draws for lease in known.leases.values()):
        return Standing(known.leases, known.buckets)
    available = {bucket_id: state.available(bucket_id) for bucket_id in known.buckets}
    epoch = state.epoch
    is_settling = epoch is not None and not epoch.is_settled
    return Standing(known.leases, known.buckets, lost, available, is_settling)


def _write(state: State, request: ShipRequest, outcome: Outcome) -> None:
    journal_id = request.journal_id
    for lost in outcome.registered:
        _register(state, request, lost)
    state.post_all(outcome.postings)
    for place, opening in outcome.waiting:
        state.openings[journal_id, place] = opening
    for grown in outcome.grown:
        state.openings[journal_id, grown.position] = grown.opening
    for record in outcome.records:
        if (journal_id, record.position) in state.records:
            raise StoreFault(f"{journal_id}: the request at {record.position} is recorded twice")
        state.records[journal_id, record.position] = record
    for part in outcome.lease_parts:
        state.not_returned[part.lease_id] = state.not_returned.get(part.lease_id, 0) + part.claimed - part.amount
    for end in outcome.lease_ends:
        state.end(end.lease_id, EndRow("closed", end.remainder, end.claimed))
    state.unproven += outcome.unproven


def _register(state: State, request: ShipRequest, lost: Registered) -> None:
    taken = lost.taken
    name = (request.worker, request.journal_id, taken.sequence)
    grant = SliceGrant(state.buckets[taken.bucket_id].terms, taken.amount, linger=False)
    state.leases[taken.lease_id] = LeaseRow(taken.lease_id, name, taken.ordinal, b"", grant, taken.use_until_ns)
    state.open[taken.lease_id] = None
    state.granted[name] = (*state.granted.get(name, ()), taken.lease_id)


def _after(cursor: Cursor, outcome: Outcome, is_final: bool) -> Cursor:
    openings, closings = cursor.openings + len(outcome.opened), cursor.closings + len(outcome.records)
    final = cursor.final or (is_final and openings == closings)
    return Cursor(outcome.through, cursor.shipments + 1, openings, closings, final)


def _waiting(state: State, journal_id: str) -> tuple[int, ...]:
    places = [place for place in state.openings if place[0] == journal_id and place not in state.records]
    return tuple(sorted(position for _, position in places)[:_WAITING_MAX])


def _waits(journal_id: str, position: int) -> str:
    return f"{journal_id}: the closing at {position} waits for balance that other journals give back"
