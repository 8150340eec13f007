"""Ids of what endpoints keep, as customers are told them: nobody else can use them, and nothing is remembered here.

An id that a customer has names the endpoint and the endpoint's own id, sealed for the billing account. Somebody else's,
one that is made up and one that was never given are the same: they do not open.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, cast

import msgspec

from tokenworks.base.aliases import Aliases

Kind = Literal["response", "item"]

_RESPONSE = "resp"
_PREFIX = re.compile(r"([a-z]{1,8})_.")
_BETWEEN = "\n"


class Place(msgspec.Struct, frozen=True):
    """Where something is kept, and under which id."""

    endpoint_id: str
    own_id: str


class KeptIds:
    """The ids of one billing account."""

    def __init__(self, aliases: Aliases, account: str) -> None:
        self._aliases = aliases
        self._account = account

    def told(self, kind: Kind, place: Place) -> str:
        """The id that the customer is told. What kind of item it is can still be seen."""
        found = _PREFIX.match(place.own_id) if kind == "item" else None
        prefix = _RESPONSE if kind == "response" else found[1] if found else kind
        name = f"{place.endpoint_id}{_BETWEEN}{place.own_id}"
        return f"{prefix}_{self._aliases.of(name, self._about(kind))}"

    def opened(self, kind: Kind, told: str) -> Place | None:
        """What an id stands for; None where it was not told to this account."""
        name = self._aliases.name_of(told.partition("_")[2], self._about(kind))
        endpoint_id, between, own_id = (name or "").partition(_BETWEEN)
        return Place(endpoint_id, own_id) if between else None

    def _about(self, kind: Kind) -> str:
        return f"{kind}{_BETWEEN}{self._account}"


class Telling:
    """What one endpoint says of what it keeps, with the ids that the customer is told."""

    def __init__(self, ids: KeptIds, endpoint_id: str, model: str) -> None:
        self._ids = ids
        self._endpoint_id = endpoint_id
        self._model = model
        self._told: dict[tuple[Kind, str], str] = {}

    def response(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A response."""
        told: dict[str, Any] = {**given, "model": self._model} if "model" in given else {**given}
        self._rename(told, "response", "id", "previous_response_id")
        if isinstance(told.get("output"), list):
            told["output"] = self._items(told["output"])
        return told

    def listed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A list of items."""
        told = dict(given)
        self._rename(told, "item", "first_id", "last_id")
        if isinstance(told.get("data"), list):
            told["data"] = self._items(told["data"])
        return told

    def event(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """An event of a stream."""
        told = dict(given)
        self._rename(told, "item", "item_id")
        if isinstance(told.get("item"), dict):
            told["item"] = self._items([told["item"]])[0]
        if isinstance(told.get("response"), dict):
            told["response"] = self.response(told["response"])
        return told

    def text(self, given: str) -> str:
        """What the endpoint says of ids that were told: an error."""
        for (_, own_id), told in self._told.items():
            given = given.replace(own_id, told)
        return given

    def knows(self, kind: Kind, own_id: str) -> str:
        """The id for one of the endpoint's."""
        told = self._told.get((kind, own_id))
        if told is None:
            told = self._told[kind, own_id] = self._ids.told(kind, Place(self._endpoint_id, own_id))
        return told

    def _items(self, given: list[Any]) -> list[Any]:
        told: list[Any] = []
        for each in given:
            if isinstance(each, dict):
                item = dict(cast("dict[str, Any]", each))
                self._rename(item, "item", "id")
                told.append(item)
        return told

    def _rename(self, told: dict[str, Any], kind: Kind, *names: str) -> None:
        for name in names:
            if isinstance(told.get(name), str) and told[name]:
                told[name] = self.knows(kind, told[name])
