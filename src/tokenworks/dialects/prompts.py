"""Prompts of completions and inputs of embeddings: a text, a list of texts, token ids, or a list of lists of them.

Reads how many prompts there are and about how many bytes of text they have. Source: OpenAI API reference, "Create
embeddings" and "Create completion".
"""

from typing import Annotated

from msgspec import Meta, Raw, Struct

from tokenworks.core.refusals import Refusal
from tokenworks.dialects.passed import wrong

PROMPTS_MAX = 2_048
# A token that is given as a number is taken for so many bytes of text: enough for any bound of one token.
_TOKEN_BYTES = 4

TokenId = Annotated[int, Meta(ge=0, lt=1 << 32)]
Prompts = str | list[str | TokenId | list[TokenId]]


class Read(Struct, frozen=True):
    """What is read of prompts."""

    prompts: int
    text_bytes: int


def read(name: str, given: Prompts, raw: Raw) -> Read | Refusal:
    """The prompts in the field of this name; its raw JSON is the measure where it is text."""
    if isinstance(given, str):
        return Read(1, len(bytes(raw)))
    fault = _fault(given)
    if fault:
        return wrong(name, fault)
    ids = [each for each in given if isinstance(each, int)]
    if ids:
        return Read(1, _TOKEN_BYTES * len(ids))
    lists = [each for each in given if isinstance(each, list)]
    return Read(len(given), _TOKEN_BYTES * sum(map(len, lists)) if lists else len(bytes(raw)))


def _fault(given: list[str | TokenId | list[TokenId]]) -> str:
    """What is wrong with a list, if anything."""
    kinds = {type(each) for each in given}
    if not given:
        return "is empty"
    if len(kinds) > 1:
        return "mixes texts and token ids"
    if len(given) > PROMPTS_MAX and kinds != {int}:
        return f"has more than {PROMPTS_MAX} parts"
    return "" if all(given) or kinds != {list} else "has an empty list of token ids"
