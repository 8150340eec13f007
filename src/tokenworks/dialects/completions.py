"""The API of completions, the older one without messages: what is read of a request, and of answers.

The endpoint serves it itself: a prompt is not a chat, and its template would be in the way. Only what stands for its
answers in the life of a request is a chat completion. Source: OpenAI API reference, "Create completion".
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from tokenworks.core.bounds import Need, Shape, need_of_prompts
from tokenworks.core.refusals import Refusal
from tokenworks.core.snapshot import Endpoint, Model, Served
from tokenworks.core.usage import Tokens
from tokenworks.dialects import chat, completions_answer, passed, prompts
from tokenworks.dialects.chat import CHOICES_MAX, ChatRequest
from tokenworks.dialects.completions_answer import AsChat, Echo
from tokenworks.dialects.other import Splits
from tokenworks.dialects.passed import Passed, wrong
from tokenworks.dialects.reading import UNREADABLE

PATH = "/v1/completions"

# What is generated where no limit is given, as OpenAI has it.
_OUTPUT_OTHERWISE = 16
_KNOBS = chat.KNOBS | {"echo", "best_of"}
_HARMLESS: dict[str, tuple[object, ...]] = {
    **{name: harmless for name, harmless in chat.HARMLESS.items() if name != "best_of"},
    "prompt_embeds": (None,),
    "max_completion_tokens": (None,),
}
_READ = _KNOBS | _HARMLESS.keys() | {"prompt", "suffix"}


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Body(msgspec.Struct):
    model: str
    prompt: prompts.Prompts
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    n: Annotated[int, Meta(ge=1, le=CHOICES_MAX)] | None = None
    best_of: int | None = None
    echo: bool | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


_shallow = msgspec.json.Decoder(dict[str, Raw]).decode
_deep = msgspec.json.Decoder(_Body).decode
_encode = msgspec.json.encode


class Completions(Passed):
    """One exchange."""

    api: Served = "completions"
    path = "/completions"

    def __init__(self) -> None:
        super().__init__()
        self._echo = Echo([], 1)
        self._is_stream = False

    def parse(self, body: bytes) -> ChatRequest | Refusal:
        """Read the request; the first thing wrong with it is the refusal."""
        try:
            read, fields = _deep(body), _shallow(body)
            refusal = passed.check_fields(fields, _HARMLESS, _READ) or _check_numbers(read)
        except UNREADABLE as fault:
            return chat.unreadable(fault)
        given = refusal or prompts.read("prompt", read.prompt, fields["prompt"])
        if isinstance(given, Refusal):
            return given
        choices = read.n or 1
        if read.echo:
            self._echo = Echo(_texts(read.prompt), choices)
        self._is_stream = bool(read.stream)
        limit = _OUTPUT_OTHERWISE if read.max_tokens is None else read.max_tokens
        shape = Shape(
            text_bytes=given.text_bytes + passed.text_bytes(fields, _KNOBS | {"prompt"}),
            messages=given.prompts,
            output_max=max(1, limit),
            choices=choices * given.prompts,
        )
        options = read.stream_options
        wants_usage = options is not None and options.include_usage is True
        return ChatRequest(fields, read.model, shape, self._is_stream, wants_usage, self)

    def need(self, shape: Shape, model: Model) -> Need:
        """The bound of all prompts and all that is written to them."""
        return need_of_prompts(shape, model.formula, model.context_window, model.output_max)

    def body(self, fields: dict[str, Raw], endpoint: Endpoint, output_limit: int) -> bytes:
        """The request as it came, with a limit it cannot pass, and usage at the end of a stream."""
        # An echo alone asks for no token; for one it is reserved.
        limit = 0 if bytes(fields.get("max_tokens", b"")) == b"0" else output_limit
        sent: dict[str, Any] = {**fields, "model": endpoint.upstream_model, "max_tokens": limit}
        if self._is_stream:
            options = fields.get("stream_options")
            kept = {} if options is None or bytes(options) == b"null" else _shallow(options)
            sent["stream_options"] = {**kept, "include_usage": True}
        return _encode(sent)

    def whole(self, body: bytes) -> bytes:
        """The answer as a chat completion."""
        self._answer = body
        return completions_answer.whole_as_chat(body, self._echo)

    def splitter(self, splitter: Splits) -> Splits:
        """The events of a stream as those of a chat completion."""
        return AsChat(splitter, self._echo)

    def pass_on(self, events: bytes) -> bytes:
        """The same events as those of a completion again."""
        return completions_answer.from_chat(events)

    def last(self, status: int, body: bytes, tokens: Tokens) -> bytes:
        """The error, the end of the stream, or the answer of the endpoint."""
        return self.pass_on(body) if self._is_stream and status < 400 else super().last(status, body, tokens)


def _check_numbers(read: _Body) -> Refusal | None:
    if read.max_tokens == 0 and not read.echo:
        return wrong("max_tokens", "must be a positive integer; 0 asks for an echo alone")
    if read.best_of is not None and read.best_of > (read.n or 1):
        return chat.unsupported("best_of", "answers that are generated and thrown away cost as much")
    return None


def _texts(given: prompts.Prompts) -> list[str]:
    """The prompts that are text: what an echo of them looks like is known."""
    return [given] if isinstance(given, str) else [each for each in given if isinstance(each, str)]
