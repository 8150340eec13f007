"""The dialect of Responses: whole answers, usage and items, made of chat completions.

Pure functions. Streams are `responses_stream`'s. Source: OpenAI API reference, "The response object".
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from tokenworks.base import clock
from tokenworks.core.usage import Tokens
from tokenworks.dialects import messages_answer
from tokenworks.dialects.messages_answer import text_of

# What the answer repeats of the request, and what stands there where it was left out.
_REPEATED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "top_logprobs": 0,
    "user": None,
    "safety_identifier": None,
    "prompt_cache_key": None,
}
_ENDS = {"length": "max_output_tokens", "content_filter": "content_filter"}


class _Logprobs(msgspec.Struct):
    content: list[Raw] | None = None


class Choice(messages_answer.Choice):
    """A choice of an answer, whole or streamed."""

    logprobs: _Logprobs | None = None

    @property
    def tokens(self) -> list[Raw]:
        """What is said of the probability of each token; its form is the same."""
        return (self.logprobs.content if self.logprobs else None) or []


class _Answer(msgspec.Struct):
    choices: Annotated[list[Choice], Meta(min_length=1)]


_decode = msgspec.json.Decoder(_Answer).decode


class Names:
    """The ids of a response and of its items, made of the request's."""

    def __init__(self, request_id: str) -> None:
        self.response = f"resp_{request_id}"
        self._request_id = request_id

    def item(self, kind: str, place: int) -> str:
        """An item by its place in the output; `kind` is `msg`, `fc` or `rs`."""
        return f"{kind}_{self._request_id}_{place}"


def response(names: Names, model: str, fields: dict[str, Raw], created_s: int) -> dict[str, Any]:
    """A response of which nothing has been said. Nothing of it is stored."""
    repeated = {
        name: fields[name] if name in fields and bytes(fields[name]) != b"null" else otherwise
        for name, otherwise in _REPEATED.items()
    }
    return {
        "id": names.response,
        "object": "response",
        "created_at": created_s,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "previous_response_id": None,
        "service_tier": "default",
        "store": False,
        "truncation": "disabled",
        "usage": None,
        **repeated,
    }


def output(names: Names, body: bytes) -> tuple[list[dict[str, Any]], str | None]:
    """The items of a whole answer and why it ended; raises one of `reading.UNREADABLE`."""
    choice = _decode(body).choices[0]
    said = choice.message
    items: list[dict[str, Any]] = []
    thought = text_of(said.reasoning_content) or text_of(said.reasoning)
    if thought:
        items.append(reasoning(names.item("rs", 0), thought))
    text, refused = text_of(said.content), text_of(said.refusal)
    if text or refused:
        parts = [text_part(text, choice.tokens)] if text else []
        parts += [refusal_part(refused)] if refused else []
        items.append(message(names.item("msg", len(items)), parts))
    for call in said.tool_calls or ():
        item_id = names.item("fc", len(items))
        items.append(function_call(item_id, call.id or made_id(item_id), call.name, call.arguments))
    return items, choice.finish_reason


def is_cut(reason: str | None) -> bool:
    """Whether an answer that ended for this reason is incomplete."""
    return reason in _ENDS


def ended(
    unfinished: dict[str, Any], items: list[dict[str, Any]], reason: str | None, tokens: Tokens
) -> dict[str, Any]:
    """The response at its end. What was cut short is incomplete, and so is its last item."""
    why = _ENDS.get(reason or "")
    if why and items:
        items = [*items[:-1], items[-1] | {"status": "incomplete"}]
    return unfinished | {
        "status": "incomplete" if why else "completed",
        "incomplete_details": {"reason": why} if why else None,
        "completed_at": None if why else clock.wall_ns() // clock.SECOND,
        "output": items,
        "usage": usage(tokens),
    }


def usage(tokens: Tokens) -> dict[str, Any]:
    """What is charged for, nested as OpenAI nests it."""
    return {
        "input_tokens": tokens.read,
        "input_tokens_details": {"cached_tokens": tokens.cached_input, "cache_write_tokens": tokens.cache_write},
        "output_tokens": tokens.written,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.total,
    }


def message(item_id: str, parts: list[dict[str, Any]], status: str = "completed") -> dict[str, Any]:
    """What the model says."""
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": parts}


def text_part(text: str, logprobs: list[Raw]) -> dict[str, Any]:
    """Text within a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def refusal_part(text: str) -> dict[str, Any]:
    """What the model says when it will not answer."""
    return {"type": "refusal", "refusal": text}


def reasoning(item_id: str, text: str, status: str = "completed") -> dict[str, Any]:
    """What the endpoint shows of the model's reasoning."""
    content = [{"type": "reasoning_text", "text": text}] if text else []
    return {"id": item_id, "type": "reasoning", "status": status, "summary": [], "content": content}


def function_call(item_id: str, call_id: str, name: str, arguments: str, status: str = "completed") -> dict[str, Any]:
    """A call of a function."""
    return {
        "id": item_id,
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def made_id(item_id: str) -> str:
    """A name for a call whose endpoint gave it none."""
    return item_id.replace("fc_", "call_", 1)
