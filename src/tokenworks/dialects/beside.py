"""Fields beside those of an API: which of them pass on where a request of it is translated, or sent as it was written.

What nobody knows passes, as it does in chat completions, and counts as text of the prompt. A knob of chat completions
means the same to their endpoints whoever turns it. All other names of theirs stay behind: the translation says that
itself, or nobody would see what it costs. What can cost money is refused before, by who knows the API.
"""

from collections.abc import Set

from msgspec import Raw

from tokenworks.dialects import chat

# Knobs that mean the same whoever turns them.
_ALIKE = frozenset(
    {
        *("seed", "min_p", "top_k", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias"),
        *("reasoning_effort", "verbosity", "user", "safety_identifier", "prompt_cache_key"),
    }
)
_OF_CHAT = (
    chat.KNOBS
    | chat.HARMLESS.keys()
    | {"messages", "tools", "tool_choice", "functions", "function_call", "response_format"}
)


def to_chat(fields: dict[str, Raw], own: Set[str]) -> dict[str, Raw]:
    """What passes to an endpoint that speaks chat completions, of a request in an API with these names of its own."""
    return unknown(fields, own) | {name: fields[name] for name in _ALIKE & fields.keys() - own if _says(fields[name])}


def unknown(fields: dict[str, Raw], own: Set[str]) -> dict[str, Raw]:
    """The fields that neither an API with these names nor chat completions know, in whatever case they are written."""
    return {
        name: raw
        for name, raw in fields.items()
        if name.casefold() not in own and name.casefold() not in _OF_CHAT and _says(raw)
    }


def _says(raw: Raw) -> bool:
    return bytes(raw) != b"null"
