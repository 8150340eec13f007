"""Growth: the reservation of a running stream, extended step by step while its answer is generated.

More is asked for before the paid limit is reached, so that a stream seldom waits. Every extension is in the journal,
with space for the closing it may lead to, before anything is passed on that it pays for. What comes when the request
has ended meanwhile is released.
"""

from tokenworks.base import clock
from tokenworks.base.journal import PAYLOAD_BYTES_MAX
from tokenworks.core.bounds import Need
from tokenworks.core.journal import Extension, Reserved
from tokenworks.core.purse import Reservation
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.usage import Reported
from tokenworks.gateway.charge import closing_bytes_max
from tokenworks.gateway.delivery import Delivery, Gateway
from tokenworks.gateway.flow import Wait
from tokenworks.gateway.holding import Ask
from tokenworks.gateway.upstream import Upstream

# So many tokens before the paid limit, for each choice, more is asked for.
_AHEAD_TOKENS = 16
_NO_SPACE = Refusal(Code.JOURNAL_FULL, "The gateway cannot record requests right now.")


class Growth:
    """The extensions of one delivery whose reservation may grow. `stop` before it is charged.

    `is_unwritten`: what the last one pays for must wait for `written`.
    """

    def __init__(self, delivery: Delivery, gateway: Gateway) -> None:
        self._delivery = delivery
        self._gateway = gateway
        self._choices = delivery.request.shape.choices
        self._ask: Ask | None = None
        self._wait: Wait[Refusal | None] | None = None
        self._was_refused = False
        self._is_over = False
        self.is_unwritten = False

    @property
    def is_possible(self) -> bool:
        """Whether the customer may have more than is covered."""
        return self._delivery.may_grow and self._delivery.reservation.short.output_max > 0

    def advance(self) -> None:
        """Ask for more in time. Once refused, it is asked again only where the stream would have to end."""
        delivery = self._delivery
        if self._ask is not None or self._was_refused or not self.is_possible:
            return
        # By bytes an answer may be longer than by deltas: some endpoints put several tokens into one.
        seen = max(delivery.tally.output, delivery.tally.text_bytes // delivery.route.model.bytes_per_token)
        if delivery.covered.output_max - seen <= _AHEAD_TOKENS * self._choices:
            self._start(self._gateway.settings.lease_step_tokens * self._choices, 1)

    async def more(self, upstream: Upstream) -> Refusal | None:
        """At the limit: wait for more, the endpoint held back; the refusal where nothing more can be had."""
        if self._ask is None:
            self._start(self._gateway.settings.lease_step_tokens * self._choices, 1)
        upstream.hold()
        try:
            refusal = await self._answered()
        finally:
            upstream.release()
        if refusal is None:
            await self.written()
        return refusal

    async def cover(self, reported: Reported | None) -> None:
        """The answer is over and was longer than we counted: reserve what its endpoint reports, if that can be had."""
        reservation = self._delivery.reservation
        if reported is None or reported.fault or not self._delivery.may_grow:
            return None
        missing = reported.tokens.written - reservation.covered.output_max
        if 0 < missing <= reservation.short.output_max and reported.tokens.read <= reservation.covered.input_max:
            if self._ask is not None:
                await self._answered()
                return await self.cover(reported)
            self._start(missing, missing, may_wait=False)
            if await self._answered() is None:
                await self.written()
        return None

    async def written(self) -> None:
        """Return when the last extension would outlive this process."""
        if self.is_unwritten:
            self.is_unwritten = False
            await self._gateway.records.written()

    def stop(self) -> None:
        """The request ends. What was asked for and comes now is for nobody."""
        self._is_over = True
        if self._ask is not None:
            self._gateway.leases.end(self._delivery.holding, self._ask)

    def _start(self, wanted: int, enough: int, *, may_wait: bool = True) -> None:
        """Ask for so many tokens; what there is will do from `enough` on, rather than to wait."""
        delivery = self._delivery
        wanted = min(wanted, delivery.reservation.short.output_max)
        wait_ms = self._gateway.settings.lease_wait_ms if may_wait else 0
        self._ask = Ask(
            delivery.request.model,
            delivery.reservation,
            Need(0, wanted),
            Need(0, min(wanted, enough)),
            Need(0, min(wanted, enough)),
            delivery.tariffs,
            self._answer,
            clock.boot_ns() + wait_ms * clock.MS,
            extends=True,
        )
        self._gateway.leases.extend(delivery.holding, self._ask)

    async def _answered(self) -> Refusal | None:
        wait: Wait[Refusal | None] = Wait()
        self._wait = wait
        try:
            return await wait
        finally:
            self._wait = None

    def _answer(self, result: Reservation | Refusal) -> bool:
        """Called in a callback of its own. False: nobody takes it."""
        self._ask = None
        if self._is_over:
            return False
        refusal = result if isinstance(result, Refusal) else self._grow(result)
        self._was_refused = refusal is not None
        if self._wait is not None:
            self._wait.resolve(refusal)
        return refusal is None

    def _grow(self, grown: Reservation) -> Refusal | None:
        """Take the grown reservation into use, unless its entry finds no space."""
        delivery = self._delivery
        bytes_max = closing_bytes_max(grown.parts, delivery.route, self._gateway.settings.attempts_max)
        reserved = tuple(
            Reserved(part.slice.lease_id, part.slice.bucket.id, part.price.unit, part.amount) for part in grown.parts
        )
        covered = grown.covered
        extension = Extension(delivery.position, covered.input_max, covered.output_max, reserved)
        if bytes_max > PAYLOAD_BYTES_MAX or not self._gateway.records.extend(extension, bytes_max):
            return _NO_SPACE
        delivery.reservation, delivery.covered = grown, covered
        self.is_unwritten = True
        return None
