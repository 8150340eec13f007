"""Token counts of one request, in disjoint classes.

Suppliers report nested counts (cached inside input, reasoning inside output); adding those up would charge cached and
reasoning tokens twice. Everything in Tokenworks uses the disjoint classes below. Prices are not known here.
"""

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]
"""Never below zero: whoever decodes a record with one that is, refuses it."""

CLASSES = ("input", "cached_input", "cache_write", "output", "reasoning")


class Tokens(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Disjoint token counts, each ≥ 0: three of what the model read, two of what it wrote."""

    input: Count = 0
    cached_input: Count = 0
    cache_write: Count = 0
    output: Count = 0
    reasoning: Count = 0

    @property
    def read(self) -> int:
        """All input tokens, whatever their price."""
        return self.input + self.cached_input + self.cache_write

    @property
    def written(self) -> int:
        """All output tokens, reasoning included."""
        return self.output + self.reasoning

    @property
    def total(self) -> int:
        """All tokens."""
        return self.input + self.cached_input + self.cache_write + self.output + self.reasoning

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(*(a + b for a, b in zip(self.each(), other.each(), strict=True)))

    def __sub__(self, other: "Tokens") -> "Tokens":
        return Tokens(*(a - b for a, b in zip(self.each(), other.each(), strict=True)))

    def each(self) -> tuple[int, int, int, int, int]:
        """The five counts in the order of `CLASSES`."""
        return (self.input, self.cached_input, self.cache_write, self.output, self.reasoning)


NONE = Tokens()


class Reported(msgspec.Struct, frozen=True):
    """What a supplier reported, made disjoint, or why it cannot be believed (`fault`)."""

    tokens: Tokens
    fault: str = ""


def from_openai(prompt: int, completion: int, cached: int = 0, reasoning: int = 0, cache_write: int = 0) -> Reported:
    """Disjoint classes from OpenAI's nested counts. Source: OpenAI API reference, the `usage` object."""
    if prompt < 0 or completion < 0 or cached < 0 or reasoning < 0 or cache_write < 0:
        return Reported(NONE, "negative count")
    if cached + cache_write > prompt:
        return Reported(NONE, "more cached tokens than input tokens")
    if reasoning > completion:
        return Reported(NONE, "more reasoning tokens than output tokens")
    return Reported(Tokens(prompt - cached - cache_write, cached, cache_write, completion - reasoning, reasoning))


def plausible(reported: Reported, input_max: int, output_max: int, counted_output: int) -> str:
    """Empty if the report can be the basis of a charge, else the flag that says why not.

    A report above the reservation is never charged; one that claims nothing where an answer was seen is not believed.
    """
    if reported.fault:
        return "usage_malformed"
    tokens = reported.tokens
    read, written = tokens.input + tokens.cached_input + tokens.cache_write, tokens.output + tokens.reasoning
    if read > input_max or written > output_max:
        return "usage_above_reservation"
    if read == 0 or (counted_output > 0 and written == 0):
        return "usage_zero"
    return ""


def clip(tokens: Tokens, input_max: int, output_max: int) -> Tokens:
    """The same counts held within the reservation, the dear end (output) cut last of its kind."""
    cached_input = min(tokens.cached_input, input_max)
    cache_write = min(tokens.cache_write, input_max - cached_input)
    plain = min(tokens.input, input_max - cached_input - cache_write)
    reasoning = min(tokens.reasoning, output_max)
    return Tokens(plain, cached_input, cache_write, min(tokens.output, output_max - reasoning), reasoning)
