"""What endpoints are sent that speak Anthropic's API: a chat completion as a message to be created.

A customer's own message is sent as it was written, in the fields that were checked and those that nobody knows. Of a
chat completion what has no counterpart stays behind where it only shapes the answer, and is refused where somebody
would miss it. Source: Anthropic API reference, "Create a Message".
"""

from typing import Any

import msgspec
from msgspec import Raw

from tokenworks.core.refusals import Refusal
from tokenworks.dialects import beside, messages_request
from tokenworks.dialects.chat import ChatRequest, unsupported
from tokenworks.dialects.reading import UNREADABLE
from tokenworks.dialects.thinking import BUDGET_MIN

# Fields of a customer's own message that are sent. The others of Anthropic's can cost more than tokens.
_OWN = frozenset(
    {
        *("messages", "system", "metadata", "stop_sequences", "stream", "temperature", "top_p", "top_k"),
        *("tools", "tool_choice", "thinking", "output_config", "cache_control"),
    }
)
_CHOICES = {"auto": "auto", "required": "any", "none": "none"}
_OBJECT = {"type": Raw(b'"object"')}
_NO_PARAMETERS = {"properties": Raw(b"{}")}


class _Url(msgspec.Struct):
    url: str


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: _Url | None = None


class _Function(msgspec.Struct, frozen=True):
    name: str = ""
    arguments: str = ""
    description: str | None = None
    parameters: Raw = Raw(b"null")
    strict: bool | None = None


class _Call(msgspec.Struct):
    id: str = ""
    function: _Function = _Function()


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


class _Tool(msgspec.Struct):
    type: str = "function"
    function: _Function = _Function()


class _Choice(msgspec.Struct):
    type: str = "function"
    function: _Function = _Function()


class _Schema(msgspec.Struct):
    schema: Raw = Raw(b"{}")


class _Format(msgspec.Struct):
    type: str
    json_schema: _Schema | None = None


class _Thinking(msgspec.Struct):
    type: str = ""
    budget_tokens: int = 0


class _Chat(msgspec.Struct):
    """What is read of a chat completion. Null is the same as absent."""

    messages: list[_Message]
    stop: str | list[str] | None = None
    tools: list[_Tool] | None = None
    functions: list[Raw] | None = None
    tool_choice: str | _Choice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _Format | None = None
    user: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    logprobs: bool | None = None
    thinking: _Thinking | None = None


_read = msgspec.json.Decoder(_Chat).decode
_own = msgspec.json.Decoder(dict[str, Raw]).decode
_thinking = msgspec.json.Decoder(_Thinking | None).decode
_object = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.encode


def body(request: ChatRequest, own: bytes | None, upstream_model: str, output_limit: int) -> bytes | Refusal:
    """The body for the endpoint. `own` is the customer's own message, where it was one."""
    sent: dict[str, Any] = {"model": upstream_model, "max_tokens": output_limit}
    if own is not None:
        given = _own(own)
        fields = {name: raw for name, raw in given.items() if name in _OWN} | beside.unknown(
            given, messages_request.OWN
        )
        thinking = _thinking(fields.pop("thinking", Raw(b"null")))
        return _encode({**fields, **sent, **_thought(thinking, output_limit)})
    try:
        read = _read(_encode(request.sent))
        return _refusal(request, read) or _encode(
            sent | _translated(request, read) | _thought(read.thinking, output_limit)
        )
    except UNREADABLE as fault:
        return unsupported("messages", f"the endpoint cannot be told it ({fault})")


def _refusal(request: ChatRequest, read: _Chat) -> Refusal | None:
    """What somebody would miss in the answer, or the model in the question."""
    why = "no endpoint of this model knows it"
    shaped, choice = read.response_format, read.tool_choice
    asked: list[tuple[bool, str, str]] = [
        (request.shape.choices > 1, "n", why),
        (read.logprobs is True, "logprobs", why),
        (bool(read.functions), "functions", f"{why}; use tools"),
        (shaped is not None and shaped.type == "json_object", "response_format", f"{why}; use json_schema"),
        *((tool.type != "function", f"tools[{place}].type", why) for place, tool in enumerate(read.tools or ())),
        (isinstance(choice, _Choice) and choice.type != "function", "tool_choice.type", why),
    ]
    return next((unsupported(name, reason) for is_missed, name, reason in asked if is_missed), None)


def _translated(request: ChatRequest, read: _Chat) -> dict[str, Any]:
    system = [_text(message.content) for message in read.messages if message.role in {"system", "developer"}]
    schema = read.response_format.json_schema if read.response_format else None
    fields: dict[str, Any] = {
        "system": "\n\n".join(system) or None,
        "messages": _turns(read.messages),
        "stream": request.stream or None,
        "stop_sequences": [read.stop] if isinstance(read.stop, str) else read.stop or None,
        "metadata": {"user_id": read.user} if read.user else None,
        "temperature": None if read.temperature is None else min(read.temperature, 1.0),
        "top_p": read.top_p,
        "top_k": read.top_k,
        "output_config": {"format": {"type": "json_schema", "schema": schema.schema}} if schema else None,
        "tools": [_tool(tool.function) for tool in read.tools] if read.tools else None,
        "tool_choice": _tool_choice(read) if read.tools else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _turns(messages: list[_Message]) -> list[dict[str, Any]]:
    """The turns of user and assistant. Results of tools belong to the user's turn that follows the calls."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role in {"system", "developer"}:
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: _Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": _text(message.content)}]
    content = message.content
    parts = [_Part("text", content)] if isinstance(content, str) else content or []
    blocks = [_block(part) for part in parts if part.image_url or part.text or part.refusal]
    return blocks + [_tool_use(call) for call in message.tool_calls or ()]


def _block(part: _Part) -> dict[str, Any]:
    if part.type != "image_url" or part.image_url is None:
        return {"type": "text", "text": part.text or part.refusal}
    url = part.image_url.url
    if not url.startswith("data:"):
        return {"type": "image", "source": {"type": "url", "url": url}}
    kind, _, data = url.removeprefix("data:").partition(";base64,")
    return {"type": "image", "source": {"type": "base64", "media_type": kind.lower(), "data": data}}


def _tool_use(call: _Call) -> dict[str, Any]:
    given = _object(call.function.arguments or "{}")
    return {"type": "tool_use", "id": call.id, "name": call.function.name, "input": given}


def _tool(function: _Function) -> dict[str, Any]:
    described = {"description": function.description, "strict": function.strict}
    parameters = _NO_PARAMETERS if bytes(function.parameters) == b"null" else _object(function.parameters)
    # A schema must say there that it is one of an object; an empty one does not.
    told: dict[str, Any] = {"name": function.name, "input_schema": _OBJECT | parameters}
    return told | {name: value for name, value in described.items() if value is not None}


def _tool_choice(read: _Chat) -> dict[str, Any] | None:
    choice = read.tool_choice
    if choice is None and read.parallel_tool_calls is not False:
        return None
    if isinstance(choice, _Choice):
        chosen: dict[str, Any] = {"type": "tool", "name": choice.function.name}
    else:
        chosen = {"type": _CHOICES.get(choice or "auto", "auto")}
    is_alone = read.parallel_tool_calls is False and chosen["type"] != "none"
    return chosen | ({"disable_parallel_tool_use": True} if is_alone else {})


def _thought(thinking: _Thinking | None, output_limit: int) -> dict[str, Any]:
    """Thinking within the limit of the output, or none where the limit leaves too little for it."""
    if thinking is None or thinking.type != "enabled" or output_limit <= BUDGET_MIN:
        return {}
    budget = min(max(thinking.budget_tokens, BUDGET_MIN), output_limit - 1)
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _text(content: str | list[_Part] | None) -> str:
    if isinstance(content, list):
        return "\n".join(part.text or part.refusal or "" for part in content)
    return content or ""
