"""Sites: disks with journals of gateway workers, and what they still owe to the ledger's epoch.

Each worker reports for the disk it writes to. A site that has shipped everything counts towards the settling of the
epoch; what waits or is damaged is a metric that an operator watches.
"""

import msgspec
import psycopg
from prometheus_client import CollectorRegistry, Gauge

from tokenworks.base import clock, log
from tokenworks.base.bus import Bus, Served
from tokenworks.base.database import Pool
from tokenworks.core.wire import SITE, SiteAnswer, SiteReport
from tokenworks.ledger import epoch
from tokenworks.ledger.epoch import Epochs
from tokenworks.ledger.faults import LedgerFault

_log = log.get(__name__)
_decode = msgspec.msgpack.Decoder(SiteReport).decode
_encode = msgspec.msgpack.Encoder().encode


class Sites:
    """Serves `wire.SITE`; `start` and `stop` frame its life."""

    def __init__(self, pool: Pool, bus: Bus, epochs: Epochs, registry: CollectorRegistry) -> None:
        self._pool = pool
        self._bus = bus
        self._epochs = epochs
        self._served: Served | None = None
        self._damaged: dict[str, tuple[str, ...]] = {}
        self._shipped: set[tuple[str, int]] = set()
        self._waiting_gauge = Gauge(
            "tokenworks_journals_waiting",
            "Journals not posted to their end in this epoch",
            ("site",),
            registry=registry,
        )
        self._damaged_gauge = Gauge(
            "tokenworks_journals_damaged", "Journals set aside for a person", ("site",), registry=registry
        )

    async def start(self) -> None:
        """Subscribe; reports are answered from now on."""
        self._served = await self._bus.subscribe(SITE, self._on_report, queue=SITE)

    async def stop(self) -> None:
        """Take no more reports."""
        if self._served:
            await self._served.finish()

    async def take(self, report: SiteReport) -> SiteAnswer | None:
        """Note what a site says; None where the database cannot be asked, so that the worker asks again."""
        self._watch(report)
        try:
            async with self._pool.connection() as conn:
                number = await epoch.number(conn)
            done = (report.site_id, number)
            if report.ledger_epoch == number and not report.waiting and done not in self._shipped:
                await self._epochs.site_shipped(number, report.site_id, clock.wall_ns())
                self._shipped.add(done)
        except (psycopg.Error, LedgerFault) as fault:
            _log.warning("a site's report is not taken", extra={"site": report.site_id, "reason": str(fault)})
            return None
        return SiteAnswer(number)

    def _watch(self, report: SiteReport) -> None:
        """Metrics, and one line for each journal that is newly damaged."""
        self._waiting_gauge.labels(report.site_id).set(len(report.waiting))
        self._damaged_gauge.labels(report.site_id).set(len(report.damaged))
        for journal_id in set(report.damaged) - set(self._damaged.get(report.site_id, ())):
            _log.error(
                "a journal is damaged, a person must look", extra={"journal": journal_id, "site": report.site_id}
            )
        self._damaged[report.site_id] = report.damaged

    async def _on_report(self, _subject: str, payload: bytes) -> bytes | None:
        answer = await self.take(_decode(payload))
        return None if answer is None else _encode(answer)
