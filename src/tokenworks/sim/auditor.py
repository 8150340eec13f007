"""The auditor: a much smaller model of the money that believes only what was sold and what customers and suppliers saw.

It reads the ledger's rows as an examiner reads books and does its own arithmetic (`rating`); it shares no code with the
ledger or with the decisions of `core`. `after` is called for every committed command, `at_the_end` when all is quiet.
"""

from collections import defaultdict
from itertools import islice

from tokenworks.core.bucket import Bucket
from tokenworks.core.metering import Record
from tokenworks.sim import rating
from tokenworks.sim.commands import Done, Grant, Reclaim, Sell, Settle, Ship
from tokenworks.sim.extensions import Extensions
from tokenworks.sim.facts import Facts, Violation
from tokenworks.sim.records import check_record, check_told
from tokenworks.sim.scene import Scene
from tokenworks.sim.state import SoldRow, State
from tokenworks.sim.witness import Heard, Served, Witnesses

MS_NS = 1_000_000
_MANY = 8
# What may keep a worker from hearing that a key was revoked.
_HARD_OF_HEARING = frozenset({"partition", "partition one way", "bad lines", "suspension"})


class Auditor:
    """The checks of one run. `violations` has at most a few: the first says what to look at."""

    def __init__(self, scene: Scene, facts: Facts, witnesses: Witnesses) -> None:
        self.violations: list[Violation] = []
        self._scene = scene
        self._facts = facts
        self._witnesses = witnesses
        self._roundings = {endpoint.id: endpoint.rounding == "up" for endpoint in scene.endpoints}
        self._sold: dict[str, tuple[int, int]] = {}
        self._granted_ns: dict[int, int] = {}
        self._records = 0
        self._ends = 0
        self._extensions = Extensions()
        self._settled_late = False
        self._seen: dict[str, tuple[int, int, int, int]] = {}
        self._now_ns = 0

    def say(self, rule: str, text: str) -> None:
        """A rule is broken."""
        if len(self.violations) < _MANY:
            self.violations.append(Violation(rule, text, self._now_ns))

    # --- after every step

    def after(self, done: Done, state: State, now_ns: int) -> None:
        """Check what a committed command left behind."""
        self._now_ns = now_ns
        match done.command:
            case Sell():
                sale = done.command
                self._sold[sale.bucket.id] = (sale.granted, sale.net)
            case Grant():
                self._check_grant(done, state)
            case Ship():
                self._extensions.take(done.command, now_ns)
            case Settle() if done.reply:
                self._settled_late = self._settled_late or done.command.is_late
            case Reclaim() if done.reply:
                self._check_reclaim(state, done.command)
            case _:
                pass
        self._records = min(self._records, len(state.records))
        self._ends = min(self._ends, len(state.ends))
        for record in islice(state.records.values(), self._records, None):
            self._check_unproven(record, state)
        self._records = len(state.records)
        for bucket_id, row in state.buckets.items():
            self._check_bucket(bucket_id, row, state)

    def _check_bucket(self, bucket_id: str, row: SoldRow, state: State) -> None:
        entity, unit = row.terms.legal_entity_id, row.terms.unit
        accounts = state.accounts
        issued, available, spent, expired = (
            accounts.get((entity, f"bucket/{bucket_id}/{part}", unit), 0)
            for part in ("issued", "available", "spent", "expired")
        )
        leased = state.leased.get(bucket_id, 0)
        if self._seen.get(bucket_id) == (available, leased, spent, expired):
            return
        self._seen[bucket_id] = (available, leased, spent, expired)
        if min(issued, available, leased, spent, expired) < 0:
            self.say("below zero", f"{bucket_id}: {available} available, {leased} leased, {spent} spent")
        granted, net = self._sold.get(bucket_id, (0, 0))
        if not issued == granted == available + leased + spent + expired:
            parts = f"{available} available, {leased} leased, {spent} spent, {expired} expired"
            self.say("conservation", f"{bucket_id}: {granted} granted, {issued} issued, {parts}")
        if row.on_credit:
            owed = state.balance(entity, f"receivable/{row.payer}", row.currency)
            price = rating.earned(net + row.tax, spent, granted)
            if owed != price:
                self.say("owed", f"{bucket_id}: {owed} is owed for {spent} spent on credit, which cost {price}")
            return
        liability = state.balance(entity, f"contract_liability/{bucket_id}", row.currency)
        earned = rating.earned(net, spent + expired, granted)
        if liability != net - earned:
            self.say("liability", f"{bucket_id}: {liability} is owed, of {net} sold {earned} is earned")

    def _check_grant(self, done: Done, state: State) -> None:
        replies = done.reply
        if not isinstance(replies, tuple):
            return
        for reply in replies:
            for lease in reply.leases:
                if lease.lease_id not in self._granted_ns:
                    self._granted_ns[lease.lease_id] = self._now_ns
                    if lease.amount <= 0:
                        self.say("empty lease", f"lease {lease.lease_id} of {lease.amount}")
                    self._check_cap(lease.bucket, done.command.at_ns, state)

    def _check_cap(self, bucket: Bucket, at_ns: int, state: State) -> None:
        """What workers hold of an account when more was just granted."""
        account, unit = bucket.billing_account_id, bucket.unit
        cap = rating.caps(self._scene.settings.lease_cap_account).get(unit)
        terms = [state.buckets[each].terms for each in state.owned[account]]
        valid = [each.id for each in terms if each.unit == unit and each.valid_from_ns <= at_ns < each.valid_to_ns]
        held = sum(state.leased.get(each, 0) for each in valid)
        if cap is not None and held > cap:
            self.say("above the cap", f"{account}: workers hold {held} {unit}, the cap is {cap}")

    def _check_reclaim(self, state: State, reclaim: Reclaim) -> None:
        self._check_settled(state)
        if self._facts.office_jumped or self._facts.went_back:
            return
        settings = self._scene.settings
        least_ns = (settings.lease_use_ms + settings.request_longest_ms + settings.lease_grace_ms) * MS_NS
        for lease_id, end in state.ends.items():
            if end.how == "reclaimed" and lease_id in self._granted_ns:
                row = state.leases[lease_id]
                age_ns = self._now_ns - self._granted_ns.pop(lease_id)
                if row.name[1] in reclaim.final:
                    continue
                if age_ns < least_ns - 100 * MS_NS and row.grant.bucket.valid_to_ns > row.use_until_ns:
                    self.say("reclaimed too early", f"lease {lease_id} after {age_ns // MS_NS} ms")

    def _check_settled(self, state: State) -> None:
        """A journal that is whole and posted has given back every lease that a request in it drew from."""
        new = {lease_id for lease_id, end in islice(state.ends.items(), self._ends, None) if end.how == "reclaimed"}
        self._ends = len(state.ends)
        if self._facts.disk_failed or self._facts.holes:
            return
        for (journal_id, _), record in state.records.items():
            for part in record.opening.reserved:
                if part.lease_id in new and state.journals[journal_id].final:
                    self.say("settled and not given back", f"lease {part.lease_id} of {journal_id}")

    def _check_unproven(self, record: Record, state: State) -> None:
        """Only what the ledger took back, or what was bought and lost by a restore, is not charged."""
        for line in record.lines:
            end = state.ends.get(line.charge.lease_id)
            is_reclaimed = end is not None and end.how == "reclaimed"
            # A lease that its worker had written down where a hole is cannot be registered again.
            is_in_hole = self._facts.holes and self._facts.went_back
            is_lost = line.charge.bucket_id in self._facts.lost_sales or self._settled_late or is_in_hole
            if not (line.proven or is_reclaimed or is_lost):
                lease = f"lease {line.charge.lease_id}"
                self.say("unproven without reason", f"{record.opening.request_id}: {lease} was not reclaimed")

    # --- at the end

    def at_the_end(self, state: State, now_ns: int) -> None:
        """All is quiet: everything healed, every journal shipped, every lease over."""
        self._now_ns = now_ns
        served: defaultdict[str, list[Served]] = defaultdict(list)
        for call in self._witnesses.served:
            served[call.request_id].append(call)
        records: dict[str, Record] = {}
        for (journal_id, position), record in state.records.items():
            request_id = record.opening.request_id
            if request_id in records:
                self.say("posted twice", f"{request_id} has two records")
            records[request_id] = record
            bound = self._extensions.bound(journal_id, position, record.opening)
            for rule, text in check_record(record, bound, served.get(request_id, []), self._roundings):
                self.say(rule, f"{request_id}: {text}")
            self._check_in_time(record, served.get(request_id, []), state)
            self._check_valid(journal_id, position, record, state)
        self._check_served(records, served)
        self._check_heard(records)
        self._check_books(state)
        self._check_ends(state)
        if self._facts.damaged and not self._facts.holes:
            self.say("damaged without reason", ", ".join(sorted(self._facts.damaged)))
        if self._facts.is_orderly:
            self._check_orderly(state)
        if self._facts.is_calm:
            self._check_calm(state)

    def _check_served(self, records: dict[str, Record], served: dict[str, list[Served]]) -> None:
        for request_id, calls in served.items():
            if request_id in records or self._facts.damaged:
                continue
            if not self._facts.lost_since(calls[0].worker, calls[0].began_ns):
                self.say("dispatched without record", f"{request_id}: {calls[0].endpoint} served it, nothing is posted")

    def _check_heard(self, records: dict[str, Record]) -> None:
        stale_ms = self._scene.settings.key_stale_ms
        for heard in self._witnesses.heard:
            revoked_ns = self._facts.revoked_ns.get(heard.account)
            late_ns = (1_000 if _HARD_OF_HEARING.isdisjoint(self._facts.faults) else stale_ms + 500) * MS_NS
            if heard.status == 200 and revoked_ns and heard.began_ns > revoked_ns + late_ns:
                self.say("revoked key served", f"{heard.request_id} at {heard.began_ns // MS_NS} ms")
            record = records.get(heard.request_id)
            if record is not None:
                self._check_answer(heard, record)

    def _check_answer(self, heard: Heard, record: Record) -> None:
        closing, facts = record.closing, self._facts
        if heard.status != 200:
            return
        may_be_lost = self._scene.settings.durability == "interval" or not heard.is_whole or facts.disk_failed
        if may_be_lost and facts.lost_since(heard.worker, heard.ended_ns):
            return
        if heard.is_whole and not heard.is_error and closing.ending != "finished":
            self.say("answered and not finished", f"{heard.request_id} ended as {closing.ending}")
        for rule, text in check_told(record, heard):
            self.say(rule, f"{heard.request_id}: {text}")
        if closing.basis == "reported" or not heard.tokens or not record.opening.stream:
            return
        owed = heard.tokens
        if closing.ending == "orphaned":
            if facts.disk_failed:
                return
            owed -= self._scene.settings.checkpoint_tokens - 1
        if closing.counted.output < min(owed, record.opening.output_max):
            self.say(
                "delivered and not counted",
                f"{heard.request_id} ({closing.ending}): the customer has {heard.tokens} tokens, counted"
                f" {closing.counted.output}",
            )

    def _check_in_time(self, record: Record, calls: list[Served], state: State) -> None:
        """No reservation is made from a slice whose time is over."""
        if self._facts.office_jumped:
            return
        for line in record.lines:
            granted_ns = self._granted_ns.get(line.charge.lease_id)
            if granted_ns is None or not calls:
                continue
            row = state.leases.get(line.charge.lease_id)
            if row is None:
                continue
            until_ns = granted_ns + self._scene.settings.lease_use_ms * MS_NS
            began_ns = min(call.began_ns for call in calls)
            late = began_ns > until_ns + 20 * MS_NS and row.grant.bucket.valid_to_ns > row.use_until_ns
            if late and not self._facts.was_suspended(granted_ns, began_ns):
                ago = f"{(began_ns - until_ns) // MS_NS} ms before"
                lease = f"lease {line.charge.lease_id} ended {ago}"
                self.say("reserved too late", f"{record.opening.request_id}: {lease}")

    def _check_valid(self, journal_id: str, position: int, record: Record, state: State) -> None:
        """Validity is judged when something is reserved, by the worker's clock: of an opening when it was opened, of an
        extension, which says no time, after its lease was granted and before it was shipped.
        """
        opened_ns = record.opening.opened_at_ns
        for step in self._extensions.drawn(journal_id, position):
            for part in step.reserved:
                row = state.buckets.get(part.bucket_id)
                terms = row.terms if row else None
                if terms is None:
                    continue
                valid_ns = (terms.valid_from_ns, terms.valid_to_ns)
                between_ns = (self._granted_ns.get(part.lease_id, 0), step.known_ns)
                is_valid = valid_ns[0] <= opened_ns < valid_ns[1]
                if not (is_valid if step.is_first else self._facts.showed(step.worker, between_ns, valid_ns)):
                    self.say("spent out of its validity", f"{record.opening.request_id} from {terms.id}")

    def _check_books(self, state: State) -> None:
        spent: defaultdict[str, int] = defaultdict(int)
        for record in state.records.values():
            for line in record.lines:
                if line.proven:
                    spent[line.charge.bucket_id] += line.charge.amount
        for bucket_id, row in state.buckets.items():
            entity, unit = row.terms.legal_entity_id, row.terms.unit
            if state.leased.get(bucket_id, 0):
                self.say("stranded", f"{bucket_id}: {state.leased[bucket_id]} is leased to nobody")
            booked = state.balance(entity, f"bucket/{bucket_id}/spent", unit)
            if booked != spent[bucket_id]:
                self.say("charges and spent", f"{bucket_id}: charges are {spent[bucket_id]}, spent is {booked}")
        left = [lease_id for lease_id in state.open if lease_id not in state.ends]
        if left:
            self.say("stranded", f"leases {left[:5]} never ended")
        for (journal_id, position), opening in state.openings.items():
            if (journal_id, position) not in state.records and journal_id not in self._facts.damaged:
                self.say("opened and not closed", f"{opening.request_id} in {journal_id} at {position}")

    def _check_ends(self, state: State) -> None:
        for lease_id, end in state.ends.items():
            if end.how == "reclaimed" or end.claimed in {None, end.remainder}:
                continue
            self.say("another remainder", f"lease {lease_id}: {end.claimed} was said, the ledger has {end.remainder}")

    def _check_orderly(self, state: State) -> None:
        """Where every worker lived to its end, it gave back what it held."""
        reclaimed = [lease_id for lease_id, end in state.ends.items() if end.how == "reclaimed"]
        if reclaimed:
            self.say("not given back", f"leases {reclaimed[:5]} were reclaimed")

    def _check_calm(self, state: State) -> None:
        """Where nothing broke, nothing is lost or refused for want of anything but balance."""
        for record in state.records.values():
            if record.closing.ending == "orphaned":
                self.say("orphan in calm", record.opening.request_id)
        for heard in self._witnesses.heard:
            if heard.code in {"lease_unavailable", "lease_conflict", "journal_full", "stale_snapshot", "draining"}:
                self.say("refused in calm", f"request {heard.number}: {heard.code}")
