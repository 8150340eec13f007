"""The official OpenAI client against the real system: what it is told, what is charged, and every way to be refused."""

import json

import openai
import pytest

from system.conftest import Customer, made
from tokenworks.app.client import OfficeClient
from tokenworks.base import clock

MODEL = "smollm2-135m"
PACKAGE = "ct-personal-10m"
QUESTION: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Name three rivers."}]


async def said_no(customer: Customer) -> openai.APIStatusError | None:
    """The refusal of one question, or None if it was answered."""
    try:
        await customer.client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=16)
    except openai.APIStatusError as refused:
        return refused
    return None


async def test_a_whole_answer_is_charged_to_the_token(customer: Customer) -> None:
    customer.buy(PACKAGE)
    answer = await customer.client.chat.completions.with_raw_response.create(
        model=MODEL, messages=QUESTION, max_tokens=12
    )
    said = answer.parse()
    assert said.choices[0].message.content
    assert said.usage
    record = customer.record(answer.headers["x-request-id"])
    assert (record["basis"], record["ending"], record["flags"]) == ("reported", "finished", [])
    assert record["tokens"]["total"] == said.usage.total_tokens
    assert [charge["amount"] for charge in record["charges"]] == [{"amount": said.usage.total_tokens, "unit": "token"}]
    assert answer.headers["x-tokenworks-charged"] == f"{said.usage.total_tokens} token"
    assert customer.left() == 10_000_000 - said.usage.total_tokens


@pytest.mark.parametrize("wants_usage", [True, False])
async def test_a_stream_is_charged_to_the_token(customer: Customer, wants_usage: bool) -> None:
    customer.buy(PACKAGE)
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    raw = await customer.client.chat.completions.with_raw_response.create(
        model=MODEL, messages=QUESTION, max_tokens=20, stream=True, extra_body=options
    )
    chunks = [chunk async for chunk in raw.parse()]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert text
    assert len(usages) == wants_usage
    record = customer.record(raw.headers["x-request-id"])
    if usages:
        assert record["tokens"]["total"] == usages[0].total_tokens
    assert record["stream"] is True
    assert customer.left() == 10_000_000 - record["charges"][0]["amount"]["amount"]


async def test_a_stream_left_midway_is_charged_for_what_was_made(customer: Customer) -> None:
    customer.buy(PACKAGE)
    raw = await customer.client.chat.completions.with_raw_response.create(
        model=MODEL, messages=QUESTION, max_tokens=1_500, stream=True
    )
    stream = raw.parse()
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    await stream.close()
    record = customer.record(raw.headers["x-request-id"])
    assert (record["ending"], record["basis"]) == ("client_gone", "counted")
    assert 0 < record["tokens"]["output"] < 1_500
    assert customer.left() == 10_000_000 - record["tokens"]["total"]


async def test_the_models_are_listed(customer: Customer) -> None:
    assert MODEL in [model.id async for model in customer.client.models.list()]


async def test_a_wrong_key_is_401(customer: Customer) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        await customer.client.with_options(api_key="sk-tw-wrong").models.list()
    assert refused.value.code == "invalid_api_key"


async def test_a_revoked_key_is_refused_within_a_second(customer: Customer) -> None:
    customer.buy(PACKAGE)
    assert await said_no(customer) is None
    customer.office.delete(f"/keys/{customer.key['id']}")
    since_ns = clock.boot_ns()
    while (refused := await said_no(customer)) is None:
        assert clock.boot_ns() - since_ns < clock.SECOND
    assert (refused.status_code, refused.code) == (401, "key_revoked")


async def test_an_unknown_model_is_404(customer: Customer) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await customer.client.chat.completions.create(model="gpt-9", messages=QUESTION)
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


async def test_without_a_package_it_is_402(customer: Customer) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await customer.client.chat.completions.create(model=MODEL, messages=QUESTION)
    assert (refused.value.status_code, refused.value.code) == (402, "no_matching_bucket")


async def test_a_balance_is_spent_to_its_last_token_and_then_402(customer: Customer, office: OfficeClient) -> None:
    offer = f"tiny-{customer.id}"
    price, grant = {"amount": "1", "unit": "CNY"}, {"amount": 120, "unit": "token"}
    made(office, "/offers", id=offer, name="Tiny", price=price, grant=grant, validity="P1M", tariff="personal")
    customer.buy(offer)
    while (refused := await said_no(customer)) is None or refused.code == "balance_reserved":
        pass
    assert (refused.status_code, refused.code) == (402, "balance_used_up")
    (bucket,) = customer.buckets()
    assert bucket["spent"] + bucket["available"] + bucket["leased"] == 120
    assert bucket["spent"] > 0


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed_body"),
        (b"[]", 400, "malformed_body"),
        (json.dumps({"model": MODEL}).encode(), 400, "invalid_value"),
        (json.dumps({"model": MODEL, "messages": QUESTION, "max_tokens": -1}).encode(), 400, "invalid_value"),
        (b" " * (10 << 20) + b"{}", 413, "body_too_large"),
    ],
    ids=["cut", "not an object", "no messages", "absurd number", "too large"],
)
async def test_bad_bodies(customer: Customer, body: bytes, status: int, code: str) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await customer.client.post("/chat/completions", cast_to=object, content=body)
    assert (refused.value.status_code, refused.value.code) == (status, code)


@pytest.mark.parametrize("streams", [False, True])
async def test_a_completion_of_the_embedded_engine_is_charged_to_the_token(customer: Customer, streams: bool) -> None:
    customer.buy(PACKAGE)
    create = customer.client.completions.with_raw_response.create
    if streams:
        raw = await create(model=MODEL, prompt="Three rivers:", max_tokens=8, stream=True)
        texts = [each.choices[0].text async for each in raw.parse() if each.choices]
    else:
        raw = await create(model=MODEL, prompt="Three rivers:", max_tokens=8)
        texts = [raw.parse().choices[0].text]
    assert "".join(texts)
    record = customer.record(raw.headers["x-request-id"])
    assert (record["basis"], record["ending"], record["flags"]) == ("reported", "finished", [])
    assert 0 < record["tokens"]["output"] <= 8
    assert customer.left() == 10_000_000 - record["tokens"]["total"]
