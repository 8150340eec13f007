"""The dialect of Responses: requests, translated into chat completions.

What the endpoint gets is made from the fields that are known here, and of those `beside` them that pass. What would
need a response that is kept somewhere is refused: nothing that customers write is stored here. What is sent on is then
checked and bounded as any chat completion. Source: OpenAI API reference, "Create a model response".
"""

from typing import Any, Literal

import msgspec
from msgspec import Raw

from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.tiers import TIERS
from tokenworks.dialects import beside, chat
from tokenworks.dialects.reading import UNREADABLE

_KEPT = "nothing is stored here; send the whole conversation as input, with store false"
_COSTS = "it can cost more than can be reserved for it"
# What these fields may be; any other value refers to what is kept, or costs beside the tokens of the model.
HARMLESS: dict[str, tuple[str, tuple[object, ...]]] = {
    **dict.fromkeys(("previous_response_id", "conversation", "prompt"), (_KEPT, (None,))),
    "store": (_KEPT, (None, False)),
    "background": (_KEPT, (None, False)),
    "service_tier": (_COSTS, (None, "auto", "default", *TIERS)),
    **dict.fromkeys(("moderation", "image"), (_COSTS, (None,))),
    "context_management": (_COSTS, (None, [])),
}
_ROLES = frozenset({"user", "assistant", "system", "developer"})
_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
_WITH_LOGPROBS = "message.output_text.logprobs"


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None


class _Item(msgspec.Struct):
    """An item of the input, of any type: what is read of it."""

    type: str | None = None
    role: str | None = None
    content: str | list[_Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[_Part] | None = None


class _Tool(msgspec.Struct):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Raw] | None = None
    strict: bool | None = None


class _ToolChoice(msgspec.Struct):
    type: str
    name: str = ""


class _Format(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]
    name: str = "answer"
    schema: Raw = Raw(b"{}")
    description: str | None = None
    strict: bool | None = None


class _Text(msgspec.Struct):
    format: _Format | None = None
    verbosity: str | None = None


class _Reasoning(msgspec.Struct):
    effort: str | None = None


class Body(msgspec.Struct):
    """What is read of a request. Null is the same as absent."""

    model: str
    input: str | list[_Item]
    instructions: str | None = None
    max_output_tokens: int | None = None
    stream: bool | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None
    include: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    user: str | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


# Fields of responses that no chat completion has, or has for something else: they stay behind.
_WITHOUT_COUNTERPART = frozenset({"truncation", "metadata", "max_tool_calls", "stream_options"})
OWN = frozenset(Body.__struct_fields__) | HARMLESS.keys() | _WITHOUT_COUNTERPART
"""The names of the API of responses."""

_AS_THEY_ARE = ("temperature", "top_p", "user", "safety_identifier", "prompt_cache_key")
_shallow = msgspec.json.Decoder(dict[str, Raw]).decode
_deep = msgspec.json.Decoder(Body).decode
_any = msgspec.json.Decoder().decode
_encode = msgspec.json.encode


class Read(msgspec.Struct, frozen=True):
    """A request as the chat completion that it is sent on as, and the fields that its answer repeats."""

    request: chat.ChatRequest
    fields: dict[str, Raw]


def parse(body: bytes) -> Read | Refusal:
    """Read the body of a response to be created; the first thing wrong with it is the refusal."""
    try:
        read, fields = _deep(body), _shallow(body)
        refusal = _check_fields(fields)
    except UNREADABLE as fault:
        return chat.unreadable(fault)
    refusal = refusal or _check_input(read.input) or _check_rest(read)
    if refusal is not None:
        return refusal
    request = chat.parse(_encode(beside.to_chat(fields, OWN) | translated(read)))
    return request if isinstance(request, Refusal) else Read(request, fields)


def translated(read: Body) -> dict[str, Any]:
    """The fields of the chat completion."""
    fields: dict[str, Any] = {
        "model": read.model,
        "messages": _messages(read),
        "max_tokens": read.max_output_tokens,
        **{name: getattr(read, name) for name in _AS_THEY_ARE},
        "reasoning_effort": read.reasoning.effort if read.reasoning else None,
        "service_tier": read.service_tier if read.service_tier in TIERS else None,
        "verbosity": read.text.verbosity if read.text else None,
        "response_format": _response_format(read.text.format) if read.text else None,
    }
    if read.stream:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    if read.top_logprobs or _WITH_LOGPROBS in (read.include or ()):
        fields |= {"logprobs": True, "top_logprobs": read.top_logprobs}
    if read.tools:
        fields["tools"] = [_chat_tool(tool) for tool in read.tools]
        fields["tool_choice"] = _tool_choice(read.tool_choice)
        fields["parallel_tool_calls"] = read.parallel_tool_calls
    return {name: value for name, value in fields.items() if value is not None}


# --- what is wrong with it


def _check_fields(fields: dict[str, Raw]) -> Refusal | None:
    for name, (why, harmless) in HARMLESS.items():
        if name in fields and _any(fields[name]) not in harmless:
            return chat.unsupported(name, why)
    return None


def _check_input(given: str | list[_Item]) -> Refusal | None:
    if isinstance(given, str):
        return None
    if not given:
        return _wrong("input", "is empty")
    for place, item in enumerate(given):
        refusal = _check_item(f"input[{place}]", item)
        if refusal is not None:
            return refusal
    return None


def _check_item(path: str, item: _Item) -> Refusal | None:
    if item.type in {None, "message"}:
        return _check_message(path, item)
    if item.type == "function_call":
        return _check_given(path, call_id=item.call_id, name=item.name, arguments=item.arguments)
    if item.type == "function_call_output":
        missing = _check_given(path, call_id=item.call_id, output=item.output)
        return missing or _check_parts(f"{path}.output", item.output or "", images=False)
    if item.type == "reasoning":
        return None
    why = _KEPT if item.type == "item_reference" else f"{item.type!r} is not taken here"
    return chat.unsupported(f"{path}.type", why)


def _check_message(path: str, item: _Item) -> Refusal | None:
    if item.role not in _ROLES:
        return _wrong(f"{path}.role", f"must be one of {', '.join(sorted(_ROLES))}")
    if item.content is None:
        return _wrong(f"{path}.content", "is missing")
    return _check_parts(f"{path}.content", item.content, images=item.role == "user")


def _check_parts(path: str, content: str | list[_Part], *, images: bool) -> Refusal | None:
    for place, part in enumerate(content if isinstance(content, list) else ()):
        where = f"{path}[{place}]"
        if part.type in _TEXTS:
            missing = _check_given(where, text=part.text)
        elif part.type == "refusal":
            missing = _check_given(where, refusal=part.refusal)
        elif part.type == "input_image" and images:
            missing = _check_given(where, image_url=part.image_url)
        else:
            missing = chat.unsupported(f"{where}.type", f"{part.type!r} is not text")
        if missing is not None:
            return missing
    return None


def _check_given(path: str, **fields: object) -> Refusal | None:
    for name, value in fields.items():
        if value is None:
            return _wrong(f"{path}.{name}", "is missing")
    return None


def _check_rest(read: Body) -> Refusal | None:
    for place, tool in enumerate(read.tools or ()):
        if tool.type != "function":
            return chat.unsupported(f"tools[{place}].type", f"{tool.type!r} is not a function that the customer runs")
        if tool.name is None:
            return _wrong(f"tools[{place}].name", "is missing")
    if read.max_output_tokens is not None and read.max_output_tokens < 1:
        return _wrong("max_output_tokens", "must be a positive integer")
    choice = read.tool_choice
    if isinstance(choice, _ToolChoice) and choice.type != "function":
        return chat.unsupported("tool_choice.type", f"{choice.type!r} is not a function that the customer runs")
    return None


def _wrong(name: str, why: str) -> Refusal:
    return Refusal(Code.INVALID_VALUE, f"The field {name} {why}.", name)


# --- the translation of its parts


def _messages(read: Body) -> list[dict[str, Any]]:
    """The conversation. What comes first from the developer is one message: some templates take no more."""
    items = [_Item(role="user", content=read.input)] if isinstance(read.input, str) else read.input
    messages = [{"role": "system", "content": read.instructions}] if read.instructions else []
    for item in items:
        message = _message(item)
        if message is not None:
            _add(messages, message)
    return messages


def _add(messages: list[dict[str, Any]], message: dict[str, Any]) -> None:
    last = messages[-1] if messages else {}
    if message["role"] == "system" == last.get("role") and len(messages) == 1:
        last["content"] = f"{last['content']}\n\n{message['content']}"
    elif "tool_calls" in message and last.get("role") == "assistant":
        last["tool_calls"] = [*last.get("tool_calls", ()), *message["tool_calls"]]
    elif message["role"] == "assistant" and last.get("tool_calls"):
        # What was said after a call must not part it from its result.
        last["content"] = "\n".join(text for text in (last["content"], message["content"]) if text) or None
    else:
        messages.append(message)


def _message(item: _Item) -> dict[str, Any] | None:
    """The message that an item becomes. Reasoning of earlier turns is left out: templates drop it anyway."""
    if item.type == "reasoning":
        return None
    if item.type == "function_call":
        function = {"name": item.name, "arguments": item.arguments}
        return {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": item.call_id, "type": "function", "function": function}],
        }
    if item.type == "function_call_output":
        return {"role": "tool", "tool_call_id": item.call_id, "content": _joined(item.output or "")}
    role = "system" if item.role == "developer" else item.role
    content = item.content or ""
    if isinstance(content, str) or all(part.type != "input_image" for part in content):
        return {"role": role, "content": _joined(content)}
    return {"role": role, "content": [_chat_part(part) for part in content]}


def _chat_part(part: _Part) -> dict[str, Any]:
    if part.type != "input_image":
        return {"type": "text", "text": part.text or part.refusal or ""}
    image = {"url": part.image_url} | ({"detail": part.detail} if part.detail else {})
    return {"type": "image_url", "image_url": image}


def _joined(content: str | list[_Part]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.text or part.refusal or "" for part in content)


def _response_format(given: _Format | None) -> dict[str, Any] | None:
    if given is None or given.type == "text":
        return None
    if given.type == "json_object":
        return {"type": "json_object"}
    described = {"description": given.description, "strict": given.strict}
    schema = {"name": given.name, "schema": given.schema}
    return {"type": "json_schema", "json_schema": schema | _given(described)}


def _chat_tool(tool: _Tool) -> dict[str, Any]:
    described = {"description": tool.description, "parameters": tool.parameters, "strict": tool.strict}
    return {"type": "function", "function": {"name": tool.name} | _given(described)}


def _tool_choice(choice: str | _ToolChoice | None) -> object:
    return {"type": "function", "function": {"name": choice.name}} if isinstance(choice, _ToolChoice) else choice


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
