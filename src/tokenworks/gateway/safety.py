"""Content safety: whether a request may be served, and how much of an answer may be passed on.

Judged by the keyword list, then by the hook, as far as they are set; for all models or for those that are named. A
worker without either has no `Safety`, and its requests pay for one look at None. What is charged is not decided here.
"""

import re
from pathlib import Path

import msgspec

from tokenworks.base import log
from tokenworks.base.config import Settings
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.snapshot import Key
from tokenworks.dialects import texts
from tokenworks.dialects.chat import KNOBS, ChatRequest
from tokenworks.gateway import keywords
from tokenworks.gateway.flow import Errands
from tokenworks.gateway.hook import Hook, Question
from tokenworks.gateway.keywords import Keywords, KeywordsFault

REFUSED = Refusal(Code.CONTENT_FILTER, "Content safety does not let this request be served.")
ANSWER_REFUSED = Refusal(Code.CONTENT_FILTER, "Content safety does not let this answer be shown.")
UNAVAILABLE = Refusal(
    Code.SAFETY_UNAVAILABLE,
    "Content safety cannot be asked now, and nothing is served without it.",
    retry_after_ms=1_000,
)
TOKEN_IDS = Refusal(
    Code.FIELD_NOT_SUPPORTED, "Token ids are not supported: content safety judges texts. Send the prompt as text."
)
_SPACES = re.compile(r"[^\S\n]+")
_encode = msgspec.json.encode
_log = log.get(__name__)


class Asker(msgspec.Struct, frozen=True):
    """Whose request it is that is judged."""

    request_id: str
    model: str
    key: Key


class Safety:
    """The judges of a worker."""

    def __init__(self, settings: Settings, errands: Errands) -> None:
        self.window_chars = settings.safety_window_chars
        self.window_ms = settings.safety_window_ms
        self.hook = Hook(settings, errands) if settings.safety_url else None
        self.keywords = Keywords(())
        self._file = settings.safety_keywords_file
        self._stamp = _stamp(self._file)
        if self._file:
            self.keywords = keywords.read(self._file)
        self._models = frozenset(settings.safety_models.split())
        self._passes_unjudged = settings.safety_on_fault == "open"

    def judges(self, model: str) -> bool:
        """Whether requests for this model are judged."""
        return not self._models or model in self._models

    async def request(self, asker: Asker, request: ChatRequest) -> Refusal | None:
        """The refusal of a request, if it is not to be served."""
        if request.other is not None and _has_token_ids(request):
            return TOKEN_IDS
        text = "\n".join(_texts(request))
        if self.lists(text):
            return REFUSED
        if self.hook is None or not text:
            return None
        judgement = await self.hook.ask(question(asker, "request", 0, "", text, is_last=True))
        if judgement is None:
            return None if self._passes_unjudged else UNAVAILABLE
        return None if judgement.allow else REFUSED

    def lists(self, text: str) -> bool:
        """Whether a listed phrase stands in a text that is whole, also where signs are escaped or spaces doubled."""
        if not self.keywords.longest:
            return False
        forms = {text, _SPACES.sub(" ", text), _SPACES.sub(" ", texts.unescaped(text))}
        return any(self.keywords.find(keywords.plain(form), is_whole=True) >= 0 for form in forms)

    async def allows(self, asker: Asker, choice: int, context: str, text: str, *, is_last: bool) -> bool:
        """Whether the hook lets this part of an answer be passed on."""
        if self.hook is None:
            return True
        judgement = await self.hook.ask(question(asker, "answer", choice, context, text, is_last=is_last))
        return self._passes_unjudged if judgement is None else judgement.allow

    def tick(self) -> None:
        """Every `TICK_MS`: read the list again if it has changed."""
        if self.hook is not None:
            self.hook.tick()
        stamp = _stamp(self._file)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self.keywords = keywords.read(self._file)
            except KeywordsFault as fault:
                _log.error("the keywords stay as they were: %s", fault)
            else:
                _log.info("new keywords are in use")

    def close(self) -> None:
        """Close what leads to the hook."""
        if self.hook is not None:
            self.hook.close()


def safety(settings: Settings, errands: Errands) -> Safety | None:
    """The judges that the settings name, if they name any."""
    return Safety(settings, errands) if settings.safety_url or settings.safety_keywords_file else None


def question(asker: Asker, phase: str, choice: int, context: str, text: str, *, is_last: bool) -> Question:
    """What the hook is asked."""
    key = asker.key
    return Question(
        phase,
        asker.request_id,
        asker.model,
        key.legal_entity_id,
        key.customer_id,
        key.key_id,
        choice,
        context,
        text,
        is_last,
    )


def _texts(request: ChatRequest) -> list[str]:
    """Everything in a request that may become part of a prompt."""
    told = texts.each(_encode({name: raw for name, raw in request.fields.items() if name not in KNOBS}))
    # Where a message is sent as it was written, it may say more than the chat completion made of it.
    known = set(told)
    return told + [text for text in texts.each(_encode(request.own or {})) if text not in known]


def _has_token_ids(request: ChatRequest) -> bool:
    """Whether a prompt or an input, which has one form throughout, begins with a number."""
    given = (bytes(request.fields[name]) for name in ("prompt", "input") if name in request.fields)
    return any(raw.lstrip(b"[ \t\r\n")[:1].isdigit() for raw in given)


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
