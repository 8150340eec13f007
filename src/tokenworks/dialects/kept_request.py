"""Responses that an endpoint keeps: what is read of a request, and what the endpoint is sent.

What costs money is checked as in every response; the ids of what is gone on from are opened, and only those that this
customer was told do open. What the endpoint is sent is written anew: items and their parts field by field, so that none
of them can name anything else that is kept there. All other fields travel as they came.
"""

from itertools import chain
from typing import Any, cast

import msgspec
from msgspec import Raw

from tokenworks.core.refusals import Code, Refusal
from tokenworks.dialects import chat, passed, responses_request
from tokenworks.dialects.chat import ChatRequest
from tokenworks.dialects.kept_ids import KeptIds, Kind, Place
from tokenworks.dialects.reading import UNREADABLE
from tokenworks.dialects.responses_request import Body

REFERENCE = "item_reference"
# Knobs of responses, beside those of chat completions.
_KNOBS = chat.KNOBS | {
    *("max_output_tokens", "previous_response_id", "include", "truncation", "reasoning", "max_tool_calls"),
    *("prompt_cache_retention", "tool_choice"),
}
_HARMLESS: dict[str, tuple[object, ...]] = {
    **{name: harmless for name, harmless in chat.HARMLESS.items() if name not in {"max_output_tokens", "service_tier"}},
    "max_tokens": (None,),
    "max_completion_tokens": (None,),
    "n": (None, 1),
}
_READ = _KNOBS | _HARMLESS.keys() | set(Body.__struct_fields__) | responses_request.HARMLESS.keys()
# What is sent on of items and parts. Their ids stay behind: what they say is sent.
_ITEM = ("type", "role", "content", "status", "phase", "call_id", "name", "arguments", "output")
_REASONING = ("type", "summary", "encrypted_content")
_PART = ("type", "text", "refusal", "image_url", "detail")
_PLACEHOLDER = {"role": "user", "content": ""}
_fields = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.encode


class Read(msgspec.Struct, frozen=True):
    """A request as read. `endpoint_id` is where it must go, empty where it goes on from nothing."""

    fields: dict[str, Raw]
    as_chat: ChatRequest
    text_bytes: int
    items: int
    endpoint_id: str
    goes_on_from: list[tuple[Kind, str]]


def wants(body: bytes) -> str:
    """The model that is asked for a response that needs something kept at its endpoint; empty where none is."""
    if not any(name in body for name in (b'"store"', b'"previous_response_id"', REFERENCE.encode())):
        return ""
    try:
        asked = _fields(body)
    except UNREADABLE:
        return ""
    is_wanted = asked.get("store") is True or asked.get("previous_response_id") or _references(asked)
    model = asked.get("model")
    return model if is_wanted and isinstance(model, str) else ""


def parse(body: bytes, ids: KeptIds) -> Read | Refusal:
    """Read the body; the first thing wrong with it is the refusal."""
    try:
        return _read(_fields(body), ids)
    except UNREADABLE as fault:
        return chat.unreadable(fault)


def _read(fields: dict[str, Any], ids: KeptIds) -> Read | Refusal:
    asked = responses_request.parse(_encode(_stateless(fields)))
    if isinstance(asked, Refusal):
        return asked
    refusal = passed.check_fields({name: Raw(_encode(each)) for name, each in fields.items()}, _HARMLESS, _READ)
    places = refusal or _check_store(fields) or _opened(fields, ids)
    if isinstance(places, Refusal):
        return places
    fields["input"] = _sent_input(fields["input"], places)
    sent = _sent(fields, places.get("previous_response_id"))
    endpoint_id = next((place.endpoint_id for place in places.values()), "")
    items = len(cast("list[Any]", fields["input"])) if isinstance(fields["input"], list) else 1
    text_bytes = sum(len(bytes(raw)) for name, raw in sent.items() if name not in _KNOBS) - _url_bytes(fields["input"])
    own: list[tuple[Kind, str]] = [
        ("response" if name in fields else "item", place.own_id) for name, place in places.items()
    ]
    return Read(sent, asked.request, text_bytes, items, endpoint_id, own)


def _references(fields: dict[str, Any]) -> list[tuple[int, Any]]:
    """The items of the input that only name what is kept, with their places."""
    given = fields.get("input")
    items = cast("list[Any]", given) if isinstance(given, list) else []
    return [(place, item) for place, item in enumerate(items) if isinstance(item, dict) and _is_reference(item)]


def _is_reference(item: Any) -> bool:
    return item.get("type") == REFERENCE


def _stateless(fields: dict[str, Any]) -> dict[str, Any]:
    """The request as if nothing were kept: so much of it is checked as every response is."""
    stateless = {name: each for name, each in fields.items() if name not in {"store", "previous_response_id"}}
    references = {place for place, _ in _references(fields)}
    if references:
        stateless["input"] = [_PLACEHOLDER if n in references else item for n, item in enumerate(fields["input"])]
    return stateless


def _check_store(fields: dict[str, Any]) -> Refusal | None:
    if not isinstance(fields.get("store"), bool | None):
        return _wrong("store", "must be true or false")
    if not isinstance(fields.get("previous_response_id"), str | None):
        return _wrong("previous_response_id", "must be the id of a response")
    return None


def _opened(fields: dict[str, Any], ids: KeptIds) -> dict[str, Place] | Refusal:
    """What is gone on from, by the field that names it. It is all in one place, or nobody can serve it."""
    places: dict[str, Place] = {}
    previous = fields.get("previous_response_id")
    if previous:
        place = ids.opened("response", previous)
        if place is None:
            return not_found(previous, "previous_response_id")
        places["previous_response_id"] = place
    for number, item in _references(fields):
        told = item.get("id")
        place = ids.opened("item", told) if isinstance(told, str) else None
        if place is None:
            return not_found(str(told), f"input[{number}].id", "item")
        places[f"input[{number}]"] = place
    for name, place in places.items():
        if place.endpoint_id != next(iter(places.values())).endpoint_id:
            return _wrong(name, "is not kept where the rest is that the request goes on from")
    return places


def not_found(told: str, field: str, what: str = "response") -> Refusal:
    """There is none by this id, or not for this customer: nobody is told which."""
    return Refusal(Code.RESPONSE_NOT_FOUND, f"There is no {what} {told!r}.", field)


def _sent(fields: dict[str, Any], previous: Place | None) -> dict[str, Raw]:
    """The fields for the endpoint, all but its name of the model and the limit of the output."""
    # Who goes on from what is kept, and says nothing, keeps on, as at OpenAI.
    store = fields.get("store")
    changed: dict[str, Any] = {"store": True if store is None else store}
    if previous is not None:
        changed["previous_response_id"] = previous.own_id
    return {name: Raw(_encode(each)) for name, each in (fields | changed).items() if each is not None}


def _sent_input(given: Any, places: dict[str, Place]) -> Any:
    if isinstance(given, str):
        return given
    items: list[Any] = []
    for number, item in enumerate(given):
        place = places.get(f"input[{number}]")
        if place is not None:
            items.append({"type": REFERENCE, "id": place.own_id})
        elif item.get("type") != "reasoning":
            items.append(_sent_item(item))
        elif item.get("encrypted_content"):
            # Without it there is nothing in it that the model could read.
            items.append({name: item[name] for name in _REASONING if name in item})
    return items


def _sent_item(item: dict[str, Any]) -> dict[str, Any]:
    sent = {name: item[name] for name in _ITEM if item.get(name) is not None}
    for name in ("content", "output"):
        if isinstance(sent.get(name), list):
            sent[name] = [_sent_part(part) for part in sent[name]]
    return sent


def _sent_part(part: dict[str, Any]) -> dict[str, Any]:
    sent = {name: part[name] for name in _PART if part.get(name) is not None}
    return sent | ({"annotations": []} if sent["type"] == "output_text" else {})


def _url_bytes(given: Any) -> int:
    """The bytes of images, which are no text."""
    items = cast("list[dict[str, Any]]", given) if isinstance(given, list) else []
    contents = [item["content"] for item in items if isinstance(item.get("content"), list)]
    parts = cast("list[dict[str, Any]]", list(chain.from_iterable(contents)))
    return sum(len(part.get("image_url") or "") for part in parts)


def _wrong(name: str, why: str) -> Refusal:
    return Refusal(Code.INVALID_VALUE, f"The field {name} {why}.", name)
