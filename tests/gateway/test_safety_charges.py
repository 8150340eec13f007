"""What is charged for answers that content safety stops: as the tariff of the offer says."""

from pathlib import Path

import msgspec
import pytest

from gateway_bench import COUNTED_INPUT, Bench, bench, summary
from stand_in_office import bucket
from supplier import stream, usage, whole
from tokenworks.core.journal import Opening
from tokenworks.core.tariff import Stopped, Tariff, flat
from tokenworks.core.usage import NONE, Tokens

WORDS = ["one ", "two ", "three ", "four ", "five"]
# Of a stream that is stopped before its third word with all of it there, and of a whole answer of 12 bytes.
CHARGED: dict[Stopped, tuple[str, Tokens, Tokens]] = {
    "passed": ("counted", Tokens(COUNTED_INPUT, output=2), Tokens(COUNTED_INPUT)),
    "generated": ("counted", Tokens(COUNTED_INPUT, output=5), Tokens(COUNTED_INPUT, output=3)),
    "nothing": ("none", NONE, NONE),
}


def offered(gateway: Bench, tariff_id: str, stopped: Stopped) -> None:
    """The tariff says what a stopped answer costs."""
    tariff = Tariff(tariff_id, 2, "token", {"*/*": flat(1_000_000)}, stopped=stopped)
    gateway.gateway.catalog.tariffs[tariff_id] = gateway.office.tariffs[tariff_id] = tariff


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("stopped", CHARGED)
async def test_a_stopped_answer_costs_what_the_offer_says(tmp_path: Path, stopped: Stopped, is_stream: bool) -> None:
    words = tmp_path / "words"
    words.write_text("three\nthere\n", encoding="utf-8")
    async with bench(tmp_path, safety_keywords_file=str(words)) as gateway:
        offered(gateway, "personal", stopped)
        gateway.supplier.script(stream(WORDS, usage(12, 5)) if is_stream else whole("Hello there."))
        used, owed = await _ask(gateway, is_stream=is_stream)
        basis, streamed, withheld = CHARGED[stopped]
        tokens = streamed if is_stream else withheld
        closing = await gateway.closing()
        assert summary(closing) == ("finished", basis, tokens, tokens.total, ("content_filter", "usage_missing"))
        assert (used["prompt_tokens"], used["completion_tokens"]) == (tokens.read, tokens.written)
        assert closing.attempts[0].tokens == Tokens(COUNTED_INPUT, output=owed)
        assert gateway.held()[1] == 0


async def _ask(gateway: Bench, *, is_stream: bool) -> tuple[dict[str, int], int]:
    """The use that the customer is told of, and the output that the supplier is owed."""
    if not is_stream:
        return (await gateway.ask()).json()["usage"], 3
    _, events = await gateway.ask_stream(stream_options={"include_usage": True})
    return events[-2]["usage"], 5


async def test_of_several_offers_the_mildest_holds(tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_text("there\n", encoding="utf-8")
    async with bench(tmp_path, balance=50, safety_keywords_file=str(words)) as gateway:
        gateway.office.give(100, msgspec.structs.replace(bucket("bkt_2"), tariff_id="kind"))
        offered(gateway, "kind", "nothing")
        await gateway.ask()
        opening = next(each for each in gateway.entries() if isinstance(each, Opening))
        assert [each.bucket_id for each in opening.reserved] == ["bkt_1", "bkt_2"]
        assert summary(await gateway.closing())[1:4] == ("none", NONE, 0)


async def test_a_limit_is_not_content_safety(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        offered(gateway, "personal", "nothing")
        gateway.supplier.script(stream([f"w{number} " for number in range(9)], None))
        await gateway.ask_stream(max_tokens=3)
        assert summary(await gateway.closing())[1:4] == ("counted", Tokens(COUNTED_INPUT, output=3), 13)
