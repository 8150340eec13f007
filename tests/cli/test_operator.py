"""An operator's day at the command line, on a real system: sell, call, bill, buy, and every list and page between."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from cli.terminal import Terminal
from tokenworks.app import caller
from tokenworks.app.caller import Call
from tokenworks.app.spawned import Spawned
from tokenworks.core import amounts

Sold = dict[str, Any]
BODY = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}


@pytest.fixture(scope="module")
def sold(terminal: Terminal, system: Spawned) -> Sold:
    """A customer with a package, a key and one call that the ledger has posted."""
    customer = terminal.done("customers", "add", "Zhang Wei", "--phone", "+8613800000042")
    order = terminal.done("orders", "add", "--customer", customer["id"], "--offer", "ct-personal-10m")
    key = terminal.done("keys", "add", "--customer", customer["id"], "--name", "laptop")
    call = _call(system, key["secret"])
    record = until(lambda: terminal.done("usage", "--customer", customer["id"])["items"])[0]
    return {"customer": customer, "order": order, "key": key, "call": call, "record": record}


def _call(system: Spawned, secret: str) -> Call:
    with caller.program(system.addresses["gateway"]) as http:
        return caller.whole(http, secret, BODY)


def until(look: Callable[[], list[Any]], looks: int = 200) -> list[Any]:
    for _ in range(looks):
        if found := look():
            return found
    raise AssertionError(f"nothing came in {looks} looks")


def test_a_usage_record_names_counts_basis_flags_and_bucket(sold: Sold) -> None:
    record, call = sold["record"], sold["call"]
    assert record["request_id"] == call.request_id
    assert record["basis"] == "reported"
    assert isinstance(record["flags"], list)
    assert record["tokens"]["total"] == call.tokens_prompt + call.tokens_completion
    assert [charge["bucket_id"] for charge in record["charges"]] == [sold["order"]["bucket_id"]]
    assert record["charges"][0]["amount"] == {"amount": record["tokens"]["total"], "unit": "token"}


def test_the_balance_is_what_was_bought_less_what_was_charged(terminal: Terminal, sold: Sold) -> None:
    (bucket,) = terminal.done("balances", "--customer", sold["customer"]["id"])["items"]
    spent = sold["record"]["tokens"]["total"]
    assert bucket["granted"] == 10_000_000
    assert bucket["available"] + bucket["leased"] + spent == 10_000_000
    assert terminal.done("balances", "show", bucket["bucket_id"])["granted"] == 10_000_000


def test_a_bill_closes_the_period_and_names_the_price(terminal: Terminal, sold: Sold) -> None:
    customer = sold["customer"]["id"]
    assert terminal.run("bills", "statement", "--customer", customer).code == 0
    bill = terminal.done("bills", "add", "--customer", customer)
    assert bill["total"] == {"amount": "9.9", "unit": "CNY"}
    assert bill["net"] == {"amount": "9.339622642", "unit": "CNY"}
    assert terminal.done("bills", "show", bill["id"]) == bill
    assert [each["id"] for each in terminal.done("bills", "--customer", customer)["items"]] == [bill["id"]]


def test_credit_is_drawn_after_packages_and_paid_afterwards(terminal: Terminal, system: Spawned) -> None:
    customer = terminal.done("customers", "add", "Wang Fang", "--phone", "+8613800000043")["id"]
    terminal.done("orders", "add", "--customer", customer, "--offer", "pay-as-you-go")
    key = terminal.done("keys", "add", "--customer", customer, "--name", "laptop")
    call = _call(system, key["secret"])
    until(lambda: terminal.done("usage", "--customer", customer)["items"])
    (agreement,) = terminal.done("credits", "--customer", customer)["items"]
    nano = (call.tokens_prompt + call.tokens_completion) * 2_500
    assert agreement["owed"] == {"amount": amounts.exact(nano, "CNY"), "unit": "CNY"}
    bill = terminal.done("bills", "add", "--customer", customer)
    assert (bill["total"], [line["used"] for line in bill["credit"]]) == (agreement["owed"], [agreement["owed"]])
    payment = ("payments", "add", "--payer", agreement["payer_name"], "--reference", "wire", "--amount")
    assert terminal.run(*payment, "1").code == 1
    received = terminal.done(*payment, agreement["owed"]["amount"])
    assert terminal.done("payments", "--payer", agreement["payer_name"])["items"] == [received]
    assert terminal.done("credits", "end", agreement["id"])["state"] == "ended"
    assert terminal.done("credits", "show", agreement["id"])["owed"] == {"amount": "0", "unit": "CNY"}


def test_offers_of_credit_and_offers_without_a_price(terminal: Terminal) -> None:
    terms = ("--name", "Team", "--tariff", "pay-as-you-go", "--unit", "CNY", "--grant", "500.5")
    offer = terminal.done("offers", "add", "team-credit", *terms, "--kind", "credit", "--payer", "customer")
    assert (offer["price"], offer["grant"]) == ({"amount": "500.5", "unit": "CNY"},) * 2
    said = terminal.run("offers", "add", "free", "--name", "Free", "--tariff", "personal", "--grant", "1000")
    assert (said.code, "no price" in said.err) == (2, True)


def test_a_declined_payment_is_1_and_sells_nothing(terminal: Terminal) -> None:
    customer = terminal.done("customers", "add", "Poor", "--phone", "+8613800000000")
    said = terminal.run("orders", "add", "--customer", customer["id"], "--offer", "ct-personal-10m", "--json")
    assert (said.code, said.out) == (1, "")
    assert "nothing was charged" in said.err
    assert terminal.done("balances", "--customer", customer["id"])["items"] == []


def test_a_revoked_key_is_refused(terminal: Terminal, system: Spawned, sold: Sold) -> None:
    key = terminal.done("keys", "add", "--customer", sold["customer"]["id"])
    assert terminal.done("keys", "revoke", key["id"])["state"] == "revoked"
    assert terminal.done("keys", "show", key["id"])["state"] == "revoked"
    with pytest.raises(caller.CallFault, match="401"):
        _call(system, key["secret"])


def test_an_external_endpoint_is_one_command_and_works_without_a_restart(
    terminal: Terminal, system: Spawned, sold: Sold
) -> None:
    """The other endpoint is the engine under another name: any OpenAI-compatible URL will do."""
    terminal.done("suppliers", "add", "Example Models", "--id", "example-models", "--currency", "CNY")
    engine_key = (system.data / "secrets" / "engine-key").read_text().strip()
    words = ["endpoints", "add", f"{system.addresses['engine']}/v1", "--supplier", "example-models"]
    words += ["--model", "other-model", "--context-window", "2048", "--upstream-model", "smollm2-135m"]
    prices = ["--input-price", "2.0", "--output-price", "8.0", "--cached-input-price", "0.4"]
    endpoint = terminal.done(*words, *prices, "--api-key", "-", typed=f"{engine_key}\n")
    assert engine_key not in json.dumps(endpoint)
    terminal.done("tariffs", "add", "any-model", "--rate", "*/*:input=1000000,output=4000000", "--stopped", "nothing")
    terminal.done(
        *["offers", "add", "any-1m", "--name", "Any model, 1M", "--price", "1.5", "--grant", "1000000"],
        *["--tariff", "any-model", "--validity", "P1M"],
    )
    terminal.done("orders", "add", "--customer", sold["customer"]["id"], "--offer", "any-1m")
    until(lambda: list(filter(None, [_answers(system, sold["key"]["secret"], "other-model")])))
    until(lambda: [owed for owed in [_payable(terminal)] if owed != "0"])
    assert terminal.done("endpoints", "set-state", endpoint["id"], "out_of_service")["state"] == "out_of_service"
    assert terminal.done("endpoints", "show", endpoint["id"])["state"] == "out_of_service"


def _answers(system: Spawned, key: str, model: str) -> str:
    """The model's answer, or nothing while the gateways do not know it yet."""
    request = urllib.request.Request(
        f"{system.addresses['gateway']}/v1/chat/completions",
        json.dumps(BODY | {"model": model}).encode(),
        {"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    with suppress(urllib.error.HTTPError), urllib.request.urlopen(request) as answer:
        return answer.read().decode()
    return ""


def _payable(terminal: Terminal) -> str:
    return terminal.done("suppliers", "show", "example-models")["payable"]["amount"]


LISTS = [
    *(["legal-entities"], ["customers"], ["keys"], ["tariffs"], ["offers"], ["orders"], ["balances"], ["usage"]),
    *(["bills"], ["accounts"], ["accounts", "list", "--prefix", "payable/"], ["suppliers"], ["endpoints"], ["models"]),
]


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_every_list_is_a_table_and_an_object(terminal: Terminal, sold: Sold, words: list[str]) -> None:
    table = terminal.run(*words)
    assert (table.code, table.err) == (0, "")
    assert len(table.out.splitlines()) > 2
    items = terminal.done(*words)["items"]
    assert items
    for name in ("id", "request_id", "bucket_id", "code"):
        if name in items[0]:
            assert items[0][name] in table.out
            return


SHOWN = [
    *("customers", "offers", "orders", "usage", "tariffs", "suppliers", "endpoints", "models", "legal-entities"),
    *("keys", "balances"),
]


@pytest.mark.parametrize("group", SHOWN)
def test_what_is_listed_can_be_shown(terminal: Terminal, sold: Sold, group: str) -> None:
    first = terminal.done(group)["items"][0]
    name = next(first[key] for key in ("id", "request_id", "bucket_id") if key in first)
    assert name in terminal.run(group, "show", name).out
    assert terminal.done(group, "show", name).keys() >= first.keys() - {"balances"}


def test_a_list_goes_over_pages_up_to_its_limit(terminal: Terminal) -> None:
    every = terminal.done("offers", "--limit", "1000")["items"]
    assert len(terminal.done("offers", "--limit", "2")["items"]) == 2
    assert len({offer["id"] for offer in every}) == len(every) > 2


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["customers", "show", "cus_none"], 1, "cus_none"),
        (["offers", "show", "none"], 1, "none"),
        (["models", "show", "none"], 1, "none"),
        (["keys", "revoke", "none"], 1, "none"),
        (["customers", "add", "X", "--phone", "12"], 2, "phone"),
        (["orders", "add", "--customer", "cus_none", "--offer", "ct-personal-10m"], 1, "cus_none"),
        (["customers", "--token", "wrong"], 2, "token"),
    ],
)
def test_the_office_says_no(terminal: Terminal, words: list[str], code: int, sentence: str) -> None:
    said = terminal.run(*words, "--json")
    assert (said.code, said.out) == (code, "")
    assert said.err.startswith("tokenworks: ")
    assert sentence in said.err


def test_a_model_needs_nothing_but_its_window(terminal: Terminal) -> None:
    made = terminal.done("models", "add", "plain", "--context-window", "4096")
    assert (made["context_window"], made["output_max"], made["image"]) == (4096, 4096, None)
    assert terminal.run("models", "add", "other", "--context-window", "4096", "--image-urls").code == 2


def test_margin_is_revenue_less_cost(terminal: Terminal, sold: Sold) -> None:
    assert {"revenue", "cost", "margin"} <= terminal.done("accounts", "margin").keys()


def test_verify_holds_on_the_running_system(terminal: Terminal, sold: Sold) -> None:
    report = terminal.done("verify")
    assert report["ok"] is True
    assert {"name", "ok", "detail"} <= report["checks"][0].keys()
    said = terminal.run("verify")
    assert said.code == 0
    assert f"All {len(report['checks'])} checks hold." in said.out


def test_up_says_where_things_are_and_gives_a_line_to_paste(system: Spawned) -> None:
    said = (system.data / "log" / "up.log").read_text().splitlines()
    key = (system.data / "secrets" / "demo-key").read_text().strip()
    assert f"api      {system.addresses['gateway']}/v1" in said
    assert f"data     {system.data}" in said
    (line,) = [line for line in said if line.startswith("curl ")]
    assert f"curl {system.addresses['gateway']}/v1/chat/completions -H 'Authorization: Bearer {key}'" in line


def test_a_second_up_on_the_same_folder_is_refused(terminal: Terminal) -> None:
    said = terminal.run("up")
    assert (said.code, said.out) == (1, "")
    assert "already running" in said.err
