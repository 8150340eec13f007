"""The hook: somebody else's judgement of a text, asked over HTTP. docs/safety.md has the contract.

Any answer but a clear one in time is a fault; what a fault means is a setting, and decided in `safety`. Texts are not
kept here, and never logged.
"""

import asyncio
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from tokenworks.base import log
from tokenworks.base.config import Settings
from tokenworks.core.snapshot import Endpoint
from tokenworks.core.tariff import Rate
from tokenworks.dialects.reading import UNREADABLE
from tokenworks.gateway.flow import Errands, Flow, Interrupt, Wait
from tokenworks.gateway.pools import Upstreams
from tokenworks.gateway.upstream import Sending, Unreachable, Upstream, UpstreamBroken, UpstreamSilent

_ANSWER_BYTES_MAX = 64 << 10
# Where it is the operator chooses by a setting; the rule for endpoints is for those who may add endpoints.
_ANYWHERE = "0.0.0.0/0 ::/0"

_log = log.get(__name__)


class Question(msgspec.Struct, frozen=True):
    """What is asked. `phase`: of a request, or of an answer; `context` is the text before, judged already."""

    phase: str
    request_id: str
    model: str
    legal_entity_id: str
    customer_id: str
    key_id: str
    choice: int
    context: str
    text: str
    is_last: bool


class Judgement(msgspec.Struct, frozen=True):
    """The answer of a hook."""

    allow: bool
    reason: str = ""


class _TooLate(Interrupt):
    """The time for an answer is over."""


_judgement = msgspec.json.Decoder(Judgement).decode


class Hook:
    """The way to one hook, with connections that are kept."""

    def __init__(self, settings: Settings, errands: Errands) -> None:
        url = urlsplit(settings.safety_url)
        origin = f"{url.scheme}://{url.netloc}"
        self._path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._timeout_s = settings.safety_timeout_ms / 1000
        self._upstreams = Upstreams(replace(settings, endpoint_networks=_ANYWHERE), errands)
        self._endpoint = Endpoint("safety", "", "", origin, "", settings.safety_token, "", "", Rate(0, 0, 0, 0, 0))
        self._is_well = True

    async def ask(self, question: Question) -> Judgement | None:
        """What it says; None for a fault."""
        wait: Wait[Judgement | str] = Wait()
        flow = Flow(self._ask(question, wait), _nothing)
        flow.start()
        timer = asyncio.get_running_loop().call_later(self._timeout_s, flow.interrupt, _TooLate())
        # Also where the request ends meanwhile the timer stays: somebody must end what was asked.
        said = await wait
        timer.cancel()
        if isinstance(said, str):
            self._tell(said)
            return None
        if not self._is_well:
            self._is_well = True
            _log.info("the safety hook answers again")
        return said

    def tick(self) -> None:
        """Every `TICK_MS`."""
        self._upstreams.tick()

    def close(self) -> None:
        """Close the connections."""
        self._upstreams.close()

    async def _ask(self, question: Question, wait: "Wait[Judgement | str]") -> None:
        sending = Sending(msgspec.json.encode(question), question.request_id, path=self._path)
        try:
            answer = await self._upstreams.send(self._endpoint, sending)
            wait.resolve(answer.text if isinstance(answer, Unreachable) else await _read(answer))
        except _TooLate:
            wait.resolve(f"no answer within {self._timeout_s} s")

    def _tell(self, reason: str) -> None:
        if self._is_well:
            self._is_well = False
            _log.error("the safety hook does not answer", extra={"reason": reason})


def _nothing() -> None:
    """What comes of a question is handed over by its flow."""


async def _read(answer: Upstream) -> Judgement | str:
    body = b""
    try:
        while (data := await answer.chunk()) and len(body) <= _ANSWER_BYTES_MAX:
            body += data
        if answer.status != 200:
            return f"status {answer.status}"
        return _judgement(body)
    except (UpstreamBroken, UpstreamSilent) as fault:
        return str(fault)
    except UNREADABLE:
        return "what it said is not a judgement"
    finally:
        answer.let_go()
