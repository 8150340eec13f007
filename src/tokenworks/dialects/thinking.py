"""Thinking: what a customer of messages asks for, and how the model is asked, if it says how it reasons.

Thinking is output: it is within `max_tokens` and charged as what it is reported as. So it needs no bound of its own.
"""

from typing import Any

import msgspec
from msgspec import Raw

from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.snapshot import Model

BUDGET_MIN = 1_024
# From so many tokens on, the effort is called so.
_EFFORTS = ((16_384, "high"), (4_096, "medium"), (0, "low"))


class Asked(msgspec.Struct, frozen=True):
    """Thinking that is asked for. `earlier_bytes` is the text of thinking in earlier turns."""

    budget_tokens: int
    earlier_bytes: int = 0


def fields(asked: Asked, model: Model) -> dict[str, Raw] | Refusal:
    """The fields of a chat completion that make this model think."""
    if model.thinking == "none":
        text = f"The field thinking is not supported: the model {model.id!r} does not say how it thinks."
        return Refusal(Code.FIELD_NOT_SUPPORTED, text, "thinking")
    if model.thinking == "effort":
        return _given(reasoning_effort=next(name for least, name in _EFFORTS if asked.budget_tokens >= least))
    if model.thinking == "template":
        return _given(chat_template_kwargs={"enable_thinking": True})
    return _given(thinking={"type": "enabled", "budget_tokens": asked.budget_tokens})


def earlier_bytes(asked: Asked, model: Model) -> int:
    """What of earlier thinking is sent to the model again: only those that sign it want it back."""
    return asked.earlier_bytes if model.thinking == "budget" else 0


def _given(**told: Any) -> dict[str, Raw]:
    return {name: Raw(msgspec.json.encode(value)) for name, value in told.items()}
