"""The dialect of Messages: requests, translated into chat completions.

What the endpoint gets is made from the fields that are known here, and of those `beside` them that pass. Those by which
a customer would ask for something that costs beside the tokens of the model, or cannot be bounded, are refused rather
than left out. What is sent on is then checked and bounded as any chat completion.
Source: Anthropic API reference, "Create a Message" and "Count tokens in a Message".
"""

from typing import Any

import msgspec
from msgspec import Raw

from tokenworks.core.refusals import Code, Refusal
from tokenworks.dialects import beside, chat
from tokenworks.dialects.reading import UNREADABLE
from tokenworks.dialects.thinking import BUDGET_MIN, Asked

# What these fields may be; any other value asks for what costs beside the tokens within `max_tokens`.
_HARMLESS: dict[str, tuple[object, ...]] = {
    "mcp_servers": (None, []),
    "container": (None,),
    "service_tier": (None, "auto", "standard_only"),
    "speed": (None, "standard"),
}
# Blocks by role. Thinking of earlier turns stays behind: no other model can read its signature.
_BLOCKS = {
    "user": frozenset({"text", "image", "document", "tool_result"}),
    "assistant": frozenset({"text", "tool_use", "thinking", "redacted_thinking"}),
}
_RESULTS = frozenset({"text", "document", "image"})
_NEEDED = {"text": ("text",), "tool_use": ("id", "name"), "tool_result": ("tool_use_id",)}
_TOOL_TYPES = (None, "custom")
_TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_AS_THEY_ARE = ("temperature", "top_p", "top_k")
# Anthropic's fields that no chat completion has: they stay behind.
_WITHOUT_COUNTERPART = frozenset({"context_management", "inference_geo", "output_format"})
# Fields whose text an endpoint reads that is sent the message as it was written.
_TEXTS = frozenset({"messages", "system", "tools", "tool_choice", "output_config"})


class _Thinking(msgspec.Struct):
    type: str
    budget_tokens: int | None = None


class _Cache(msgspec.Struct):
    ttl: str | None = None


class _Source(msgspec.Struct):
    type: str
    media_type: str = ""
    data: str = ""
    url: str = ""


class _Block(msgspec.Struct):
    """A block of any type: what is read of it."""

    type: str
    text: str | None = None
    source: _Source | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Raw] | None = None
    tool_use_id: str | None = None
    content: "str | list[_Block] | None" = None
    is_error: bool | None = None
    thinking: str = ""
    signature: str = ""
    data: str = ""
    cache_control: _Cache | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Block]


class _Tool(msgspec.Struct):
    type: str | None = None
    name: str | None = None
    description: str | None = None
    input_schema: dict[str, Raw] | None = None
    strict: bool | None = None
    cache_control: _Cache | None = None


class _ToolChoice(msgspec.Struct):
    type: str
    name: str = ""
    disable_parallel_tool_use: bool | None = None


class _Metadata(msgspec.Struct):
    user_id: str | None = None


class _Format(msgspec.Struct):
    type: str
    schema: Raw = Raw(b"{}")


class _OutputConfig(msgspec.Struct):
    format: _Format | None = None


class Body(msgspec.Struct):
    """What is read of a request. Null is the same as absent."""

    model: str
    messages: list[_Message]
    max_tokens: int | None = None
    system: str | list[_Block] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None
    metadata: _Metadata | None = None
    output_config: _OutputConfig | None = None
    thinking: _Thinking | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    cache_control: _Cache | None = None


OWN = frozenset(Body.__struct_fields__) | _HARMLESS.keys() | _WITHOUT_COUNTERPART
"""The names of Anthropic's API."""

_shallow = msgspec.json.Decoder(dict[str, Raw]).decode
_deep = msgspec.json.Decoder(Body).decode
_any = msgspec.json.Decoder().decode
_encode = msgspec.json.encode


def parse(body: bytes) -> chat.ChatRequest | Refusal:
    """Read the body of a message to be created, as the chat completion that it is sent on as."""
    read = _read(body)
    if isinstance(read, Refusal):
        return read
    if read.max_tokens is None:
        return _wrong("max_tokens", "is missing. It says how long the answer may be")
    request = _check_thinking(read.thinking, read.max_tokens) or _made(body, read)
    if read.thinking is not None and read.thinking.budget_tokens and not isinstance(request, Refusal):
        request.thinking = Asked(read.thinking.budget_tokens, sum(map(_thought_bytes, read.messages)))
    return request


def parse_to_count(body: bytes) -> chat.ChatRequest | Refusal:
    """The same for a message whose tokens are only to be counted: it needs no `max_tokens`."""
    read = _read(body)
    return read if isinstance(read, Refusal) else _made(body, read)


def _made(body: bytes, read: Body) -> chat.ChatRequest | Refusal:
    """The chat completion, and what is said in the message as it was written."""
    fields = _shallow(body)
    request = chat.parse(_encode(beside.to_chat(fields, OWN) | translated(read)))
    if not isinstance(request, Refusal):
        request.own = {name: raw for name, raw in fields.items() if name in _TEXTS} | beside.unknown(fields, OWN)
        request.own_bytes = sum(len(bytes(raw)) for raw in request.own.values()) - _picture_bytes(read.messages)
    return request


def _picture_bytes(messages: list[_Message]) -> int:
    blocks = [block for message in messages if isinstance(message.content, list) for block in message.content]
    pictures = [block for block in blocks if block.type == "image"] + _pictures_of_results(blocks)
    sources = [block.source for block in pictures if block.source is not None]
    return sum(len(source.data) for source in sources if source.type == "base64")


def translated(read: Body) -> dict[str, Any]:
    """The fields of the chat completion."""
    system = [{"role": "system", "content": _joined(read.system, "\n\n")}] if read.system else []
    fields: dict[str, Any] = {
        "model": read.model,
        "messages": system + [each for message in read.messages for each in _chat_messages(message)],
        "max_tokens": read.max_tokens,
        "stop": read.stop_sequences or None,
        "user": read.metadata.user_id if read.metadata else None,
        **{name: getattr(read, name) for name in _AS_THEY_ARE},
    }
    if read.stream:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    if read.tools:
        fields |= {"tools": [_chat_tool(tool) for tool in read.tools], **_chat_tool_choice(read.tool_choice)}
    if read.output_config is not None and read.output_config.format is not None:
        schema = {"name": "answer", "schema": read.output_config.format.schema, "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return {name: value for name, value in fields.items() if value is not None}


# --- what is wrong with it


def _read(body: bytes) -> Body | Refusal:
    """The body, if there is nothing wrong with it that chat completions would not find as well."""
    try:
        read = _deep(body)
        refusal = _check_fields(_shallow(body))
    except UNREADABLE as fault:
        return chat.unreadable(fault)
    refusal = refusal or _check_cache("cache_control", read.cache_control) or _check_system(read.system)
    return refusal or _check_messages(read.messages) or _check_tools(read) or read


def _check_fields(fields: dict[str, Raw]) -> Refusal | None:
    for name, harmless in _HARMLESS.items():
        if name in fields and _any(fields[name]) not in harmless:
            return chat.unsupported(name, "it can cost more than can be reserved for it")
    return None


def _check_thinking(thinking: _Thinking | None, max_tokens: int) -> Refusal | None:
    if thinking is None or (thinking.type == "disabled" and not thinking.budget_tokens):
        return None
    if thinking.type != "enabled":
        return chat.unsupported("thinking", f"{thinking.type!r} does not say how much it may be")
    if thinking.budget_tokens is None or not BUDGET_MIN <= thinking.budget_tokens < max_tokens:
        return _wrong("thinking.budget_tokens", f"must be {BUDGET_MIN} at least, and less than max_tokens")
    return None


def _check_cache(path: str, cache: _Cache | None) -> Refusal | None:
    if cache is None or cache.ttl in (None, "5m"):
        return None
    return chat.unsupported(f"{path}.ttl", "only five minutes have a price here")


def _check_system(system: str | list[_Block] | None) -> Refusal | None:
    for place, block in enumerate(system if isinstance(system, list) else ()):
        if block.type != "text":
            return chat.unsupported(f"system[{place}].type", f"{block.type!r} is not text")
        if block.text is None:
            return _wrong(f"system[{place}].text", "is missing")
        refusal = _check_cache(f"system[{place}].cache_control", block.cache_control)
        if refusal is not None:
            return refusal
    return None


def _check_messages(messages: list[_Message]) -> Refusal | None:
    if not messages:
        return _wrong("messages", "is empty. Send at least one message")
    for place, message in enumerate(messages):
        taken = _BLOCKS.get(message.role)
        if taken is None:
            return _wrong(f"messages[{place}].role", "must be user or assistant")
        for index, block in enumerate(message.content if isinstance(message.content, list) else ()):
            refusal = _check_block(f"messages[{place}].content[{index}]", block, taken)
            if refusal is not None:
                return refusal
    return None


def _check_block(path: str, block: _Block, taken: frozenset[str]) -> Refusal | None:
    if block.type not in taken:
        return chat.unsupported(f"{path}.type", f"{block.type!r} is not taken here")
    for name in _NEEDED.get(block.type, ()):
        if getattr(block, name) is None:
            return _wrong(f"{path}.{name}", "is missing")
    refusal = _check_cache(f"{path}.cache_control", block.cache_control)
    if refusal is not None:
        return refusal
    if block.type in {"image", "document"} and _part(block)["type"] not in {"text", chat.IMAGE}:
        return chat.unsupported(f"{path}.type", f"{block.type!r} is not text")
    for index, inner in enumerate(block.content if isinstance(block.content, list) else ()):
        refusal = _check_block(f"{path}.content[{index}]", inner, _RESULTS)
        if refusal is not None:
            return refusal
    return None


def _check_tools(read: Body) -> Refusal | None:
    for place, tool in enumerate(read.tools or ()):
        if tool.type not in _TOOL_TYPES:
            return chat.unsupported(f"tools[{place}].type", f"{tool.type!r} is not a tool that the customer describes")
        if tool.name is None or tool.input_schema is None:
            return _wrong(f"tools[{place}].{'name' if tool.name is None else 'input_schema'}", "is missing")
        refusal = _check_cache(f"tools[{place}].cache_control", tool.cache_control)
        if refusal is not None:
            return refusal
    choice = read.tool_choice
    if choice is not None and choice.type != "tool" and choice.type not in _TOOL_CHOICES:
        return _wrong("tool_choice.type", "must be auto, any, tool or none")
    output = read.output_config
    if output is not None and output.format is not None and output.format.type != "json_schema":
        return _wrong("output_config.format.type", "must be json_schema")
    return None


def _wrong(name: str, why: str) -> Refusal:
    return Refusal(Code.INVALID_VALUE, f"The field {name} {why}.", name)


# --- the translation of its parts


def _thought_bytes(message: _Message) -> int:
    """The text of thinking in a turn, with what signs it."""
    blocks = message.content if isinstance(message.content, list) else ()
    return sum(len(f"{block.thinking}{block.signature}{block.data}".encode()) for block in blocks)


def _chat_messages(message: _Message) -> list[dict[str, Any]]:
    """The messages that one becomes: results of tools are messages of their own, before what the user says.

    Such a message has no place for a picture: what a tool shows comes first of what the user says.
    """
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    if message.role == "assistant":
        return [_chat_turn(message.content)]
    results = [_chat_result(block) for block in message.content if block.type == "tool_result"]
    parts = [_part(block) for block in _pictures_of_results(message.content)]
    parts += [_part(block) for block in message.content if block.type != "tool_result"]
    if results and not parts:
        return results
    is_plain = len(parts) == 1 and parts[0]["type"] == "text"
    return [*results, {"role": "user", "content": parts[0]["text"] if is_plain else parts}]


def _pictures_of_results(blocks: list[_Block]) -> list[_Block]:
    results = (block.content for block in blocks if block.type == "tool_result" and isinstance(block.content, list))
    return [inner for content in results for inner in content if inner.type == "image"]


def _chat_turn(blocks: list[_Block]) -> dict[str, Any]:
    """A turn of the assistant: its text, and the calls it made."""
    text = "".join(block.text or "" for block in blocks if block.type == "text")
    calls = [
        {
            "id": block.id,
            "type": "function",
            "function": {"name": block.name, "arguments": _encode(block.input or {}).decode()},
        }
        for block in blocks
        if block.type == "tool_use"
    ]
    if not calls:
        return {"role": "assistant", "content": text}
    return {"role": "assistant", "content": text or None, "tool_calls": calls}


def _chat_result(block: _Block) -> dict[str, Any]:
    """What a tool answered. Chat completions have no field for its failure, so the text says it."""
    content = block.content or ""
    if isinstance(content, list):
        content = [inner for inner in content if inner.type != "image"]
    text = _joined(content, "\n")
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": f"Error: {text}" if block.is_error else text}


def _part(block: _Block) -> dict[str, Any]:
    """A block as a part of a message; what has no counterpart becomes a file, which nothing here can bound."""
    source = block.source
    if block.type == "text":
        return {"type": "text", "text": block.text}
    if source is not None and block.type == "document" and source.type == "text":
        return {"type": "text", "text": source.data}
    if source is not None and block.type == "image" and source.type in {"base64", "url"}:
        url = source.url if source.type == "url" else f"data:{source.media_type};base64,{source.data}"
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "file"}


def _joined(content: str | list[_Block], between: str) -> str:
    if isinstance(content, str):
        return content
    return between.join(_part(block)["text"] for block in content)


def _chat_tool(tool: _Tool) -> dict[str, Any]:
    described = {"description": tool.description, "strict": tool.strict}
    function = {"name": tool.name, "parameters": tool.input_schema}
    return {
        "type": "function",
        "function": function | {name: value for name, value in described.items() if value is not None},
    }


def _chat_tool_choice(choice: _ToolChoice | None) -> dict[str, Any]:
    if choice is None:
        return {}
    one = {"type": "function", "function": {"name": choice.name}}
    chosen = one if choice.type == "tool" else _TOOL_CHOICES[choice.type]
    return {"tool_choice": chosen} | ({"parallel_tool_calls": False} if choice.disable_parallel_tool_use else {})
