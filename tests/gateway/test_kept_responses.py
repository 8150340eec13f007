"""Responses that an endpoint keeps: OpenAI's client goes on from them and fetches them, and nobody else can.

The money is what the endpoint reports of them.
"""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.keeper import ASK, TOKENS, USED, create, events, keeping, know, other, response, streaming, vault_in
from gateway_bench import INPUT_MAX, Bench, bench, summary
from stand_in_office import SECRET, catalog, endpoint
from supplier import Act, hang_up, ok, status, whole
from tokenworks.base.aliases import Aliases
from tokenworks.core.journal import Opening
from tokenworks.core.limits import Counted, Limit, Limits
from tokenworks.core.usage import Tokens
from tokenworks.core.wire import KeyChanged, LimitCounts
from tokenworks.dialects.kept_ids import KeptIds, Place

WINDOW = 4_096


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[Bench]:
    async with keeping(tmp_path) as running:
        yield running


async def test_it_is_kept_gone_on_from_fetched_and_deleted(gateway: Bench) -> None:
    async with gateway.official as client:
        raw = await client.responses.with_raw_response.create(**ASK, metadata={"a": "b"}, extra_body={"unknown": 1})
        first = raw.parse()
        second = await client.responses.create(model="m", input="And now?", previous_response_id=first.id)
        fetched = await client.responses.retrieve(second.id, include=["message.output_text.logprobs"])
        items = [each async for each in client.responses.input_items.list(second.id, limit=5, order="asc")]
        after = await client.responses.input_items.list(second.id, after=items[0].id or "")
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.cancel(second.id)
        await client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError) as missing:
            await client.responses.retrieve(first.id)
    assert (first.output_text, first.model, first.status) == ("Hello there.", "m", "completed")
    assert raw.headers["x-tokenworks-charged"] == "17 token"
    assert second.previous_response_id == first.id
    assert fetched.model_dump(exclude={"usage"}) == second.model_dump(exclude={"usage"})
    assert refused.value.message.count(second.id) == 1
    assert (missing.value.code, missing.value.param) == ("response_not_found", "response_id")
    calls = gateway.supplier.calls
    assert [(each.method, each.path) for each in calls] == [
        ("POST", "/v1/responses"),
        ("POST", "/v1/responses"),
        ("GET", "/v1/responses/resp_own_a_1?include%5B%5D=message.output_text.logprobs"),
        ("GET", "/v1/responses/resp_own_a_1/input_items?limit=5&order=asc"),
        ("GET", "/v1/responses/resp_own_a_1/input_items?after=msg_in_resp_own_a_1"),
        ("POST", "/v1/responses/resp_own_a_1/cancel"),
        ("DELETE", "/v1/responses/resp_own_a_0"),
        ("GET", "/v1/responses/resp_own_a_0"),
    ]
    assert calls[0].body == ASK | {"model": "up", "metadata": {"a": "b"}, "unknown": 1}
    assert (calls[1].body["previous_response_id"], calls[1].body["store"]) == ("resp_own_a_0", True)
    assert len(after.data) == 1
    seen = [first.to_json(), second.to_json(), fetched.to_json(), str(items), refused.value.message]
    assert not any("own_a" in each for each in seen)
    assert [summary(each) for each in gateway.closings()] == [("finished", "reported", TOKENS, 17, ())] * 2


async def test_a_stream(gateway: Bench) -> None:
    async with gateway.official as client:
        first = await client.responses.create(**ASK)
        running = await client.responses.create(**ASK | {"stream": True, "previous_response_id": first.id})
        seen = [each async for each in running]
        last = seen[-1]
        assert last.type == "response.completed"
        fetched = await client.responses.retrieve(last.response.id)
    assert [each.type for each in seen] == [each["type"] for each in events("x", ["Hello ", "there."])]
    assert [each.sequence_number for each in seen] == list(range(len(seen)))
    assert [each.delta for each in seen if each.type == "response.output_text.delta"] == ["Hello ", "there."]
    assert (last.response.output_text, last.response.previous_response_id) == ("Hello there.", first.id)
    assert {each.response.id for each in seen if each.type in {"response.created", "response.completed"}} == {
        fetched.id
    }
    assert {each.item_id for each in seen if each.type == "response.output_text.delta"} == {last.response.output[0].id}
    assert last.response.to_dict()["tokenworks"] == {"charged": [{"amount": "17", "unit": "token", "bucket": "bkt_1"}]}
    assert "own_a" not in str([each.to_json() for each in seen])
    assert summary(await gateway.closing(1)) == ("finished", "reported", TOKENS, 17, ())


async def test_nobody_else_can_use_an_id(gateway: Bench) -> None:
    async with gateway.official as client, other(gateway) as stranger:
        made = await client.responses.create(**ASK)
        item_id = made.output[0].id or ""
        forged = f"{made.id[:-1]}{'A' if made.id[-1] != 'A' else 'B'}"
        calls = len(gateway.supplier.calls)
        for who, response_id in ((stranger, made.id), (client, forged), (client, "resp_1"), (client, item_id)):
            refusals: list[openai.APIStatusError] = []
            for ask in (
                who.responses.retrieve(response_id),
                who.responses.delete(response_id),
                who.responses.cancel(response_id),
                who.responses.input_items.list(response_id),
                who.responses.create(model="m", input="x", previous_response_id=response_id),
            ):
                with pytest.raises(openai.NotFoundError) as refused:
                    await ask
                refusals.append(refused.value)
            assert {each.code for each in refusals} == {"response_not_found"}
            assert {each.message.replace(response_id, "ID") for each in refusals} == {
                refusals[0].message.replace(response_id, "ID")
            }
        reference: Any = [{"type": "item_reference", "id": item_id}, {"role": "user", "content": "x"}]
        with pytest.raises(openai.NotFoundError):
            await stranger.responses.create(model="m", input=reference)
        with pytest.raises(openai.NotFoundError):
            await client.responses.input_items.list(made.id, after="msg_in_resp_own_a_0")
        assert len(gateway.supplier.calls) == calls
        gateway.office.add_key("sk-tw-second", "ba_1", key_id="key_3")
        colleague = client.with_options(api_key="sk-tw-second")
        assert (await colleague.responses.retrieve(made.id)).id == made.id
        await client.responses.create(model="m", input=reference)
        assert gateway.supplier.calls[-1].body["input"][0] == {
            "type": "item_reference",
            "id": "msg_of_resp_own_a_0",
        }
        gateway.office.add_key("sk-tw-dead", "ba_1", refused="key_revoked", key_id="key_4")
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="sk-tw-dead").responses.retrieve(made.id)


async def test_it_goes_only_where_it_is_kept(gateway: Bench) -> None:
    know(gateway, (0, 1))
    async with gateway.official as client:
        made = [await client.responses.create(**ASK) for _ in range(2)]
        for number in (0, 1):
            gateway.suppliers[number].calls.clear()
        for _ in range(3):
            await client.responses.create(model="m", input="x", previous_response_id=made[0].id)
        kept_at = [len(each.calls) for each in gateway.suppliers]
        assert sorted(kept_at) == [0, 3]
        where = kept_at.index(3)
        gateway.suppliers[where].script(status(503))
        with pytest.raises(openai.InternalServerError) as busy:
            await client.responses.create(model="m", input="x", previous_response_id=made[0].id)
        assert busy.value.code == "endpoint_unavailable"
        assert not gateway.suppliers[1 - where].calls
        know(gateway, (1 - where,))
        for ask in (
            client.responses.retrieve(made[0].id),
            client.responses.create(model="m", input="x", previous_response_id=made[0].id),
        ):
            with pytest.raises(openai.NotFoundError, match=r"is gone|any more"):
                await ask


async def test_what_it_goes_on_from_costs_the_window_at_most(gateway: Bench) -> None:
    async with gateway.official as client:
        made = await client.responses.create(**ASK)
        read = USED | {"input_tokens": 3_000}
        gateway.supplier.script(ok(response("r2", used=read)), ok(response("r3", used=USED | {"input_tokens": 9_999})))
        again = ASK | {"previous_response_id": made.id}
        await client.responses.create(**again)
        await client.responses.create(**again)
    openings = [each for each in gateway.entries() if isinstance(each, Opening)]
    assert [each.input_max < 200 for each in openings] == [True, False, False]
    assert [each.input_max for each in openings[1:]] == [WINDOW, WINDOW]
    assert summary(gateway.closings()[1])[2:4] == (Tokens(2_996, 4, 0, 3, 2), 3_005)
    ending, basis, tokens, _, flags = summary(gateway.closings()[2])
    assert (ending, basis, flags) == ("finished", "counted", ("usage_above_reservation",))
    assert 0 < tokens.read < WINDOW


async def test_without_the_window_in_the_balance_nobody_goes_on(tmp_path: Path) -> None:
    vault = vault_in(tmp_path)
    async with bench(tmp_path, vault=vault, balance=INPUT_MAX + 200) as gateway:
        know(gateway)
        ids = KeptIds(Aliases(vault, "responses"), "ba_1")
        again = await create(gateway, previous_response_id=ids.told("response", Place("ep_0", "resp_1")))
        assert (again.status_code, again.json()["error"]["code"]) == (402, "balance_used_up")
        assert not gateway.supplier.calls


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"store": "yes"}, "field_not_supported", "store"),
    ({"background": True}, "field_not_supported", "background"),
    ({"conversation": "conv_1"}, "field_not_supported", "conversation"),
    ({"prompt": {"id": "p"}}, "field_not_supported", "prompt"),
    ({"tools": [{"type": "web_search"}]}, "field_not_supported", "tools[0].type"),
    ({"n": 2}, "field_not_supported", "n"),
    ({"max_tokens": 9}, "field_not_supported", "max_tokens"),
    ({"plugins": [1]}, "field_not_supported", "plugins"),
    ({"Store": True}, "field_not_supported", "Store"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "field_not_supported", ""),
]


@pytest.mark.parametrize(("fields", "code", "param"), REFUSED)
async def test_refused(gateway: Bench, fields: dict[str, Any], code: str, param: str) -> None:
    answer = await create(gateway, **{"previous_response_id": None} | fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["param"].startswith(param)
    assert not gateway.supplier.calls


def text(kind: str, said: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "text": said} | more


async def test_items_name_nothing_that_is_kept(gateway: Bench) -> None:
    given: list[dict[str, Any]] = [
        {
            "type": "message",
            "id": "msg_of_somebody",
            "role": "user",
            "content": [text("input_text", "Hi", file_id="f")],
        },
        {"type": "reasoning", "id": "rs_of_somebody", "summary": []},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "xyz"},
        {
            "type": "message",
            "role": "assistant",
            "content": [text("output_text", "Ho", annotations=[{"file_id": "f"}])],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
    ]
    assert (await create(gateway, input=given)).status_code == 200
    assert gateway.supplier.calls[0].body["input"] == [
        {"type": "message", "role": "user", "content": [text("input_text", "Hi")]},
        {"type": "reasoning", "summary": [], "encrypted_content": "xyz"},
        {"type": "message", "role": "assistant", "content": [text("output_text", "Ho", annotations=[])]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
    ]


async def test_what_needs_nothing_kept_is_a_chat_completion_as_ever(gateway: Bench) -> None:
    for each in gateway.suppliers:
        each.default = whole("Hello there.")
    answer = await create(gateway, store=False)
    assert (answer.json()["store"], gateway.supplier.calls[0].path) == (False, "/v1/chat/completions")
    gateway.use(catalog(endpoint(gateway.supplier.url)))
    answer = await create(gateway)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "store")


async def test_nothing_is_kept_that_is_judged(tmp_path: Path) -> None:
    vault = vault_in(tmp_path)
    words = tmp_path / "words"
    words.write_text("xyz\n")
    async with bench(tmp_path, vault=vault, safety_keywords_file=str(words)) as gateway:
        know(gateway)
        answer = await create(gateway)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "store")


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (status(500), "endpoint_unavailable"),
        (status(429), "endpoint_unavailable"),
        (hang_up(), "endpoint_unavailable"),
        (status(401), "endpoint_refused"),
        (status(404), "response_not_found"),
        (streaming(b"x"), "endpoint_broken"),
        (streaming(b"{", ends=False), "endpoint_broken"),
    ],
)
async def test_fetching_from_an_endpoint_that_is_not_well(gateway: Bench, act: Act, code: str) -> None:
    made = (await create(gateway)).json()
    gateway.supplier.script(act, act)
    async with gateway.client as client:
        answer = await client.get(f"/v1/responses/{made['id']}")
    assert answer.json()["error"]["code"] == code
    assert "own_a" not in answer.text


async def test_methods_and_what_cannot_be_asked(gateway: Bench) -> None:
    made = (await create(gateway)).json()
    path = f"/v1/responses/{made['id']}"
    async with gateway.client as client:
        shown = (await client.get("/v1/models/m")).json()["tokenworks"]
        assert shown == {"apis": ["chat"], "keeps_responses": True}
        wrong = await client.post(path, json={})
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, DELETE")
        assert (await client.get(f"{path}/other")).status_code == 404
        streamed = await client.get(f"{path}?stream=true")
        assert (streamed.status_code, streamed.json()["error"]["param"]) == (400, "stream")


async def test_what_is_asked_about_them_counts_among_requests_though_no_token_is_left(gateway: Bench) -> None:
    """What the endpoint is not asked does not count."""
    tokens = Limit("key_1.tokens", "tokens", INPUT_MAX + 20, "minute", rolling=True)
    several = Limits((Limit("key_1.requests", "requests", 3, "minute", rolling=True), tokens))
    gateway.gateway.keys.forget(KeyChanged(digest=gateway.office.add_key(SECRET, limits=several)))
    made = (await create(gateway)).json()
    in_use = gateway.gateway.limits
    cell_ns = next(gauge.own()[0][0] for name, gauge in in_use._gauges.items() if name == tokens.id)
    in_use.hear(LimitCounts("jrn_other", (Counted(tokens.id, "jrn_other", cell_ns, 1_000),)))
    assert (await create(gateway)).status_code == 429
    async with gateway.client as client:
        url = f"/v1/responses/{made['id']}"
        missing = await client.get(f"{url}x")
        fetched = await client.get(url)
        items = await client.get(f"{url}/input_items")
        refused = await client.delete(url)
    assert (missing.status_code, fetched.status_code, items.status_code) == (404, 200, 200)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    left = [each.headers["x-ratelimit-remaining-requests"] for each in (fetched, items, refused)]
    assert left == ["1", "0", "0"]
    assert [each.method for each in gateway.supplier.calls] == ["POST", "GET", "GET"]
    assert len(gateway.closings()) == 1
