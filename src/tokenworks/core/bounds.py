"""The most a request can use: the bound that a reservation is made for, before anything has been counted.

A tokenizer never makes more tokens than there are bytes of text plus what the chat template adds, so that sum, held to
the context window, is a bound that needs no tokenizer. It is loose on purpose; what is not used is released.
"""

import msgspec


class InputBound(msgspec.Struct, frozen=True, array_like=True):
    """A model's formula: a fixed part, a part per message, per tool and per 1,000 bytes of text, added up."""

    per_request: int = 32
    per_message: int = 8
    per_tool: int = 64
    per_1000_bytes: int = 1000


class ImageBound(msgspec.Struct, frozen=True):
    """What an image costs a model that sees: `tokens_max` at most, at `detail` low `tokens_low` if that is not 0.

    With `tile_pixels` it is also at most `tokens_base`, and `tokens_per_tile` for each tile of so many pixels by so
    many that covers a part of it. `urls`: endpoints may fetch images from wherever a customer says.
    """

    tokens_max: int
    tokens_low: int = 0
    tile_pixels: int = 0
    tokens_per_tile: int = 0
    tokens_base: int = 0
    urls: bool = False


class Image(msgspec.Struct, frozen=True):
    """What can be seen of an image. Sides are 0 where they cannot be read; `is_url`: it is to be fetched."""

    width: int = 0
    height: int = 0
    is_low: bool = False
    is_url: bool = False


class Shape(msgspec.Struct, frozen=True):
    """What can be seen of a request without a tokenizer. `output_max` 0 means that the customer set no limit.

    `messages` that are prompts of their own have a context window each; see `need_of_prompts`.
    """

    text_bytes: int
    messages: int
    tools: int = 0
    output_max: int = 0
    choices: int = 1
    image_tokens: int = 0


class Need(msgspec.Struct, frozen=True, array_like=True):
    """Upper bounds of the tokens read and written (all choices together)."""

    input_max: int
    output_max: int


NOTHING = Need(0, 0)


def need(shape: Shape, formula: InputBound, context_window: int, model_output_max: int) -> Need:
    """The bound of a request: the formula held to the context window, and the output asked for, times the choices."""
    tokens = (
        formula.per_request
        + formula.per_message * shape.messages
        + formula.per_tool * shape.tools
        + -(-shape.text_bytes * formula.per_1000_bytes // 1000)
        + shape.image_tokens
    )
    output = min(shape.output_max or model_output_max, model_output_max, context_window)
    return Need(min(tokens, context_window), output * shape.choices)


def image_tokens(image: Image, bound: ImageBound) -> int:
    """The most tokens that an image can be."""
    if image.is_low and bound.tokens_low:
        return bound.tokens_low
    if not (bound.tile_pixels and image.width and image.height):
        return bound.tokens_max
    tiles = -(-image.width // bound.tile_pixels) * -(-image.height // bound.tile_pixels)
    return min(bound.tokens_max, bound.tokens_base + bound.tokens_per_tile * tiles)


def need_of_prompts(shape: Shape, formula: InputBound, context_window: int, model_output_max: int) -> Need:
    """The same where each message is a prompt of its own, with a window of its own and the formula's fixed part.

    `choices` are those of all prompts together. Where nothing is written, `model_output_max` is 0.
    """
    prompts = shape.messages
    tokens = (
        (formula.per_request + formula.per_message) * prompts
        + formula.per_tool * shape.tools
        + -(-shape.text_bytes * formula.per_1000_bytes // 1000)
    )
    output = min(shape.output_max or model_output_max, model_output_max, context_window)
    return Need(min(tokens, context_window * prompts), output * shape.choices)
