"""Messages between gateway and office over the bus: subjects and payloads. Payloads are msgpack."""

import msgspec

from tokenworks.core.limits import Counted
from tokenworks.core.snapshot import Key

LEASE_REQUEST = "tokenworks.lease.request"  # LeaseRequest → LeaseReply
LEASE_RECALL = "tokenworks.lease.recall"  # published: Recall
KEY_LOOKUP = "tokenworks.key.lookup"  # KeyLookup → KeyAnswer
KEY_CHANGED = "tokenworks.key.changed"  # published: KeyChanged
WORKER_STATE = "tokenworks.gateway.state"  # published: WorkerState
WORKER_HELLO = "tokenworks.gateway.hello"  # published: the epoch of a worker that lives
LIMIT_COUNTS = "tokenworks.limit.counts"  # published: LimitCounts
SHIP = "tokenworks.meter.ship"  # ShipRequest → ShipReply
SITE = "tokenworks.meter.site"  # SiteReport → SiteAnswer
CATALOG_BUCKET = "tokenworks"  # JetStream key-value bucket
CATALOG_KEY = "catalog"  # its entry: Catalog


class Recall(msgspec.Struct, frozen=True):
    """Give back what you hold of this billing account and do not need: `worker` is the first that waits for it."""

    billing_account_id: str
    worker: str = ""


class KeyLookup(msgspec.Struct, frozen=True):
    """Who does the key with this SHA-256 belong to?"""

    digest: bytes


class KeyAnswer(msgspec.Struct, frozen=True):
    """The key, or none if there is no such key."""

    key: Key | None


class KeyChanged(msgspec.Struct, frozen=True):
    """Forget what you remember of this key, or of all keys of this billing account."""

    digest: bytes = b""
    billing_account_id: str = ""


class LimitCounts(msgspec.Struct, frozen=True):
    """What one life of a worker has counted of limits, in all: to be kept in place of what it said before.

    A count in the cell 0 is of requests that run now; it holds for some seconds only and is said again while they do.
    """

    epoch: str
    counts: tuple[Counted, ...]


class WorkerState(msgspec.Struct, frozen=True):
    """How a worker is: by model how many wait, by tier; by endpoint how many run; the endpoints that rest."""

    worker: str
    waiting: dict[str, tuple[int, ...]]
    running: dict[str, int]
    resting: tuple[str, ...]


class ShipRequest(msgspec.Struct, frozen=True):
    """Whole journal frames, contiguous from a position. `final`: the journal is complete and its worker gone.

    `bytes_behind` wait in the journal behind the frames. Without frames, a worker that has nothing to ship asks whether
    the ledger still has everything before the position.
    """

    journal_id: str
    worker: str
    from_position: int
    frames: bytes
    final: bool = False
    bytes_behind: int = 0


class ShipReply(msgspec.Struct, frozen=True):
    """Everything below `posted_through` is in the ledger. `fault` says why the rest was not taken.

    `ledger_epoch` grows when the ledger may have lost commits (a failover, a restore); below `posted_through` of an
    earlier epoch bytes may be missing again. `waiting`, with the fault of a final shipment: openings without a closing,
    by position, the first few.
    """

    posted_through: int
    fault: str = ""
    ledger_epoch: int = 0
    waiting: tuple[int, ...] = ()


class SiteReport(msgspec.Struct, frozen=True):
    """What lies on the disk of some gateway workers: one folder of journals, named by its id.

    `waiting` are journals that are not yet posted to their end in `ledger_epoch`, `damaged` those set aside for a
    person.
    """

    site_id: str
    ledger_epoch: int
    waiting: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


class SiteAnswer(msgspec.Struct, frozen=True):
    """The ledger's epoch now."""

    ledger_epoch: int
