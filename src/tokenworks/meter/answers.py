"""What comes of a shipment: the answer for its worker, and what others in the office hear of it.

Posting is done by processes of their own (`clerks`), so what the office needs of it is made there, small enough to be
sent: sums for the metrics, events only where somebody watches the live page.
"""

from collections import deque
from collections.abc import Callable, Collection

import msgspec

from tokenworks.core.wire import ShipReply
from tokenworks.meter.feed import EVENTS_WAITING_MAX, Event, Feed, events
from tokenworks.meter.metrics import Counted, Metrics, counted
from tokenworks.meter.posting import Posted

Moved = Callable[[Collection[str]], None]


class Answer(msgspec.Struct, frozen=True):
    """The reply to a shipment, and what was posted of it if anything was.

    `is_gap`: bytes before it are missing. `accounts` are billing accounts of which leases were used or given back, in
    the whole transaction. `events` are the last ones, as many as a watcher of the feed keeps.
    """

    reply: ShipReply
    is_gap: bool = False
    accounts: frozenset[str] = frozenset()
    counted: Counted | None = None
    events: tuple[Event, ...] = ()


def of(posted: Posted, *, is_watched: bool) -> Answer:
    """The answer to a shipment that was posted; with events if somebody watches."""
    outcome = posted.outcome
    if outcome is None:
        return Answer(posted.reply, posted.is_gap, posted.accounts)
    told = deque(events(outcome, posted.posting_ids, posted.at_ns), EVENTS_WAITING_MAX) if is_watched else ()
    return Answer(posted.reply, posted.is_gap, posted.accounts, counted(outcome), tuple(told))


def tell(answer: Answer, feed: Feed, metrics: Metrics, moved: Moved) -> None:
    """Let feed and metrics know of what was committed, and `moved` of the billing accounts whose balance changed."""
    if answer.accounts:
        moved(answer.accounts)
    if answer.is_gap:
        metrics.gap()
    if answer.counted is not None:
        metrics.add(answer.counted)
    for event in answer.events:
        feed.publish(event)
