"""The dialect of chat completions: what the gateway reads of a request, and the request it sends on.

A body is decoded shallowly: field names and the raw JSON of their values. Only what decides about money and routing is
looked into; the rest travels as it came. Fields whose cost nobody can bound beforehand are refused, also those by which
some engine or vendor lets more be written than `max_tokens` and `n` say. Fields nobody knows count as text.
Source: OpenAI API reference, "Create chat completion".
"""

from typing import Any

import msgspec
from msgspec import Raw

from tokenworks.core.bounds import Image, Shape
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.tiers import TIERS
from tokenworks.dialects import images
from tokenworks.dialects.other import Other
from tokenworks.dialects.reading import UNREADABLE
from tokenworks.dialects.thinking import Asked

CHOICES_MAX = 16

# Fields that shape the answer and never become part of the prompt. All others are counted as text.
KNOBS = frozenset(
    {
        *("model", "max_tokens", "max_completion_tokens", "n", "stream", "stream_options", "stop", "seed", "user"),
        *("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"),
        *("logit_bias", "logprobs", "top_logprobs", "parallel_tool_calls", "reasoning_effort", "verbosity", "store"),
        *("metadata", "service_tier", "modalities", "safety_identifier", "prompt_cache_key"),
    }
)
# Other engines' names for `max_tokens` and `n`; beside these two they may win. Sources: the references of the llama.cpp
# server, Hugging Face Transformers, Ollama, and OpenAI's Responses.
_OTHER_LIMITS = ("n_predict", "n_cmpl", "max_new_tokens", "max_output_tokens", "max_length", "num_predict")
# Vendors' names for what they charge beside the tokens of this model: searches, tools of theirs, other models.
EXTRAS = ("plugins", "models", "provider", "preset", "search_parameters", "cached_content", "extra_body")
# What these fields may be; any other value asks for more than text tokens within `max_tokens`, or for text that no
# formula bounds.
HARMLESS: dict[str, tuple[object, ...]] = {
    "web_search_options": (None,),
    "audio": (None,),
    "prediction": (None,),
    "modalities": (None, ["text"]),
    "service_tier": (None, "auto", "default", *TIERS),
    "best_of": (None, 1),
    "use_beam_search": (None, False),
    "chat_template": (None,),
    "background": (None, False),
    "thinking": (None, {"type": "disabled"}),
    "enable_thinking": (None, False),
    "enable_search": (None, False),
    "enable_code_interpreter": (None, False),
    **dict.fromkeys((*_OTHER_LIMITS, *EXTRAS), (None,)),
}
_READ = KNOBS | HARMLESS.keys()
_TOOL_TYPES = frozenset({"function", "custom"})
# Parts of a prompt whose tokens the formula of a model bounds.
PART_TYPES = frozenset({"text", "refusal"})
IMAGE = "image_url"
# An image, and the bytes of its URL, which are no text.
_Seen = tuple[Image, int]
_LIMITS = ("max_tokens", "max_completion_tokens")


class ChatRequest(msgspec.Struct, eq=False):
    """A request as read. `fields` is the body, shallow; `shape` is what its bound is computed from. `other` is set
    where something else than a chat completion is asked for. `images` are bounded, and `thinking` is asked for, when
    the model is known. `own` is the text of a request that some endpoints are sent as it was written: it may say more
    than the chat completion made of it. `own_bytes` are its bytes, without pictures.
    """

    fields: dict[str, Raw]
    model: str
    shape: Shape
    stream: bool
    wants_usage: bool
    other: Other | None = None
    images: tuple[Image, ...] = ()
    thinking: Asked | None = None
    own: dict[str, Raw] | None = None
    own_bytes: int = 0

    @property
    def service_tier(self) -> str:
        """The tier that the customer names; empty if there is none."""
        raw = self.fields.get("service_tier")
        named = _any(raw) if raw is not None else None
        return named if isinstance(named, str) else ""

    @property
    def sent(self) -> dict[str, Raw]:
        """The fields for an endpoint. A tier of ours means nothing there, or something that costs."""
        fields = dict(self.fields)
        if "service_tier" in fields and self.service_tier in TIERS:
            del fields["service_tier"]
        return fields


class _Part(msgspec.Struct):
    type: str
    image_url: images.Given | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    audio: dict[str, Raw] | None = None


class _Tool(msgspec.Struct):
    type: str = "function"


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Body(msgspec.Struct):
    """What is looked into. Null is the same as absent."""

    messages: list[_Message]
    model: str
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    tools: list[_Tool] | None = None
    functions: list[_Tool] | None = None


_shallow = msgspec.json.Decoder(dict[str, Raw]).decode
_deep = msgspec.json.Decoder(_Body).decode
_any = msgspec.json.Decoder().decode
_encode = msgspec.json.encode
_is_harmless_alone = HARMLESS.keys().isdisjoint
# Clients send the same fields again and again; so many sets of names are remembered, and only short ones.
_KNOWN_MAX = 1_024
_KNOWN_FIELDS_MAX = 32


class _Names(msgspec.Struct, frozen=True):
    """What the names of a body's fields say by themselves: which are text, and whether values must be looked at."""

    refusal: Refusal | None
    texts: tuple[str, ...]
    is_harmless: bool


_known_names: dict[tuple[str, ...], _Names] = {}


def parse(body: bytes) -> ChatRequest | Refusal:
    """Read the body of a chat completion; the first thing wrong with it is the refusal."""
    try:
        read = _deep(body)
        fields = _shallow(body)
        named = tuple(fields)
        names = _known_names.get(named) or _names_of(named)
        refusal = names.refusal if names.is_harmless else names.refusal or _check_values(fields)
    except UNREADABLE as fault:
        return unreadable(fault)
    seen: list[_Seen] = []
    refusal = refusal or _check_messages(read.messages, seen) or _check_numbers(read)
    if refusal is None and read.tools:
        refusal = _check_tools(read.tools)
    if refusal is not None:
        return refusal
    text_bytes = 0
    for name in names.texts:
        text_bytes += len(bytes(fields[name]))
    pictures: tuple[Image, ...] = ()
    if seen:
        text_bytes -= sum(url_bytes for _, url_bytes in seen)
        pictures = tuple(image for image, _ in seen)
    shape = Shape(
        text_bytes,
        len(read.messages),
        (len(read.tools) if read.tools else 0) + (len(read.functions) if read.functions else 0),
        _output_max(read),
        read.n or 1,
    )
    options = read.stream_options
    wants_usage = options is not None and options.include_usage is True
    return ChatRequest(fields, read.model, shape, read.stream is True, wants_usage, None, pictures)


def upstream_body(request: ChatRequest, upstream_model: str, output_limit: int) -> bytes:
    """The body for the endpoint: its name of the model, a limit it cannot pass, and usage at the end of a stream."""
    fields: dict[str, Any] = request.sent
    fields["model"] = upstream_model
    # `max_tokens` is the name that every engine knows; a customer who used the newer one knows the model does too.
    is_limited = False
    for name in _LIMITS:
        if name in fields and not _is_null(fields[name]):
            fields[name] = output_limit
            is_limited = True
    if not is_limited:
        fields["max_tokens"] = output_limit
    if request.stream:
        options = fields.get("stream_options")
        kept = {} if options is None or _is_null(options) else _shallow(options)
        fields["stream_options"] = {**kept, "include_usage": True}
    return _encode(fields)


def unreadable(fault: Exception) -> Refusal:
    """What is wrong with a body that cannot be decoded, of whatever dialect."""
    if isinstance(fault, msgspec.ValidationError):
        return _wrong_type(str(fault))
    if isinstance(fault, RecursionError):
        return Refusal(Code.MALFORMED_BODY, "The body is nested too deeply.")
    return Refusal(Code.MALFORMED_BODY, f"The body is not valid JSON: {fault}.")


def _wrong_type(fault: str) -> Refusal:
    """msgspec says what is wrong and where: `Expected `int`, got `str` - at `$.max_tokens``."""
    problem, _, path = fault.partition(" - at `$")
    field = path.strip(".`")
    if not field and "missing required field" in problem:
        field = problem.split("`")[-2]
    where = f"The field {field} cannot be read" if field else "The body cannot be read"
    return Refusal(Code.INVALID_VALUE if field else Code.MALFORMED_BODY, f"{where}: {problem}.", field)


def _names_of(named: tuple[str, ...]) -> _Names:
    refusal = None
    for name in named:
        # Servers that do not tell cases apart would take it for the field that was checked.
        if name not in _READ and name.casefold() in _READ:
            refusal = unsupported(name, "names of fields are in lower case")
            break
    names = _Names(refusal, tuple(name for name in named if name not in KNOBS), _is_harmless_alone(named))
    if len(named) <= _KNOWN_FIELDS_MAX and sum(map(len, named)) <= _KNOWN_FIELDS_MAX * _KNOWN_FIELDS_MAX:
        if len(_known_names) >= _KNOWN_MAX:
            _known_names.clear()
        _known_names[named] = names
    return names


def _check_values(fields: dict[str, Raw]) -> Refusal | None:
    for name, harmless in HARMLESS.items():
        if name in fields and _any(fields[name]) not in harmless:
            return unsupported(name, "it can cost more than can be reserved for it")
    return None


def _check_messages(messages: list[_Message], seen: list[_Seen]) -> Refusal | None:
    if not messages:
        return Refusal(Code.INVALID_VALUE, "The field messages is empty. Send at least one message.", "messages")
    for place, message in enumerate(messages):
        if message.audio is not None:
            return unsupported(f"messages[{place}].audio", "it refers to content of unknown size")
        if not isinstance(message.content, list):
            continue
        for index, part in enumerate(message.content):
            if part.type not in PART_TYPES:
                refusal = _see(f"messages[{place}].content[{index}]", part, seen)
                if refusal is not None:
                    return refusal
    return None


def _see(path: str, part: _Part, seen: list[_Seen]) -> Refusal | None:
    """Take note of an image; anything else that is no text is refused."""
    if part.type != IMAGE:
        return unsupported(f"{path}.type", f"{part.type!r} is neither text nor an image")
    image = images.seen(f"{path}.image_url", part.image_url)
    if isinstance(image, Refusal):
        return image
    seen.append((image, len(part.image_url.url) if part.image_url else 0))
    return None


def _check_numbers(read: _Body) -> Refusal | None:
    if read.max_tokens is not None and read.max_tokens < 1:
        return _not_positive("max_tokens")
    if read.max_completion_tokens is not None and read.max_completion_tokens < 1:
        return _not_positive("max_completion_tokens")
    if read.n is not None and not 1 <= read.n <= CHOICES_MAX:
        return Refusal(Code.INVALID_VALUE, f"The field n must be between 1 and {CHOICES_MAX}.", "n")
    return None


def _not_positive(name: str) -> Refusal:
    return Refusal(Code.INVALID_VALUE, f"The field {name} must be a positive integer.", name)


def _check_tools(tools: list[_Tool]) -> Refusal | None:
    for place, tool in enumerate(tools):
        if tool.type not in _TOOL_TYPES:
            return unsupported(f"tools[{place}].type", f"{tool.type!r} runs at the endpoint at a cost of its own")
    return None


def _output_max(read: _Body) -> int:
    """The smaller of the two limits, 0 if none is given."""
    one, other = read.max_tokens or 0, read.max_completion_tokens or 0
    return min(one, other) if one and other else one or other


def _is_null(raw: Raw) -> bool:
    return bytes(raw) == b"null"


def unsupported(name: str, why: str) -> Refusal:
    """A field whose cost nobody can bound."""
    return Refusal(Code.FIELD_NOT_SUPPORTED, f"The field {name} is not supported: {why}.", name)
