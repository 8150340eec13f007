"""A limit set at the command line holds in all workers of a real system within what is stated, until it is removed."""

from cli.terminal import Terminal
from tokenworks.app import caller
from tokenworks.app.spawned import Spawned

BODY = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 2}
# Two workers: while one tells the other, that one may let one more in.
ERROR = 1


def test_a_limit_from_the_command_line_to_the_customer(terminal: Terminal, system: Spawned) -> None:
    customer = terminal.done("customers", "add", "Chen Jie", "--phone", "+8613800000077")["id"]
    terminal.done("orders", "add", "--customer", customer, "--offer", "ct-personal-10m")
    key = terminal.done("keys", "add", "--customer", customer, "--name", "laptop")
    limit = terminal.done("limits", "set", "requests", "4", "--key", key["id"], "--per", "minute", "--rolling")
    assert limit["id"] == f"{key['id']}.requests.minute"
    terminal.done("limits", "set", "spend", "9.9", "--customer", customer, "--per", "month", "--unit", "CNY")
    headers = {"authorization": f"Bearer {key['secret']}"}
    codes: list[int] = []
    for _ in range(4 + ERROR + 1):
        # A connection of its own may lead to the other worker.
        with caller.program(system.addresses["gateway"]) as http:
            answer = http.post("/v1/chat/completions", json=BODY, headers=headers)
            codes.append(answer.status_code)
            assert answer.headers["x-ratelimit-limit-requests"] == "4"
    assert 4 <= codes.count(200) <= 4 + ERROR
    assert codes[-1] == 429
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    assert int(answer.headers["retry-after"]) > 0
    listed = terminal.done("limits", "--customer", customer)["items"]
    assert [each["metric"] for each in listed] == ["spend", "requests"]
    assert listed[1]["used"] >= 4
    assert "requests" in terminal.run("limits", "list", "--key", key["id"]).out
    assert terminal.done("limits", "remove", limit["id"])["amount"] is None
    assert terminal.done("limits", "show", limit["id"])["version"] == 2
    with caller.program(system.addresses["gateway"]) as http:
        for _ in range(200):
            answer = http.post("/v1/chat/completions", json=BODY, headers=headers)
            if answer.status_code == 200:
                break
    assert "x-ratelimit-limit-requests" not in answer.headers
