"""Who gets in, and what strangers see."""

import socket

import httpx2

from console.canned import TOKEN, CannedOffice, Served
from console.conftest import serving

BEARER = {"authorization": f"Bearer {TOKEN}"}
JSON = {"content-type": "application/json"}


async def test_strangers_see_nothing(office: Served) -> None:
    for authorization in ("", "Bearer wrong", "Bearer", "Basic abc", f"Bearer {TOKEN}x"):
        for method, path in (("GET", "/live/events"), ("POST", "/live/chat"), ("POST", "/live/kill")):
            answer = await office.http.request(method, path, headers={"authorization": authorization, **JSON})
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")


async def test_the_page_without_a_session_is_the_login_form(office: Served) -> None:
    answer = await office.http.get("/")
    assert answer.status_code == 401
    assert 'action="/login"' in answer.text
    assert "balance" not in answer.text


async def test_the_token_in_the_address_becomes_a_cookie(office: Served) -> None:
    answer = await office.http.get("/", params={"token": TOKEN})
    cookie = answer.headers["set-cookie"]
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert "Bill of the open period" in (await office.http.get("/")).text


async def test_the_login_form(office: Served) -> None:
    wrong = await office.http.post("/login", data={"token": "guess"})
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
    assert "This is not the admin token" in wrong.text
    right = await office.http.post("/login", data={"token": f" {TOKEN} "})
    assert right.status_code == 303
    assert (await office.http.get("/")).status_code == 200
    await office.http.post("/logout")
    assert (await office.http.get("/")).status_code == 401


async def test_pages_allow_no_foreign_or_inline_script(office: Served) -> None:
    answer = await office.http.get("/", headers=BEARER)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert "style=" not in answer.text
    assert " onclick" not in answer.text


async def test_odd_prompts_are_refused(office: Served) -> None:
    for content, headers, status, code in (
        (b'{"prompt": "x"}', {"content-type": "text/plain"}, 400, "malformed_body"),
        (b"{", JSON, 400, "malformed_body"),
        (b'{"prompt": 1}', JSON, 400, "malformed_body"),
        (b'{"prompt": "x", "model": "y"}', JSON, 400, "malformed_body"),
        (b'{"prompt": "' + b"x" * 20_000 + b'"}', JSON, 413, "body_too_large"),
    ):
        answer = await office.http.post("/live/chat", content=content, headers={**BEARER, **headers})
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert office.canned.keys_seen == []


async def test_only_a_worker_that_runs_here_can_be_killed(office: Served) -> None:
    for content, headers, status, code in (
        (b'{"worker": "gw-1"}', {"content-type": "text/plain"}, 400, "malformed_body"),
        (b'{"worker": 1}', JSON, 400, "malformed_body"),
        (b'{"worker": "gw-9"}', JSON, 404, "not_found"),
    ):
        answer = await office.http.post("/live/kill", content=content, headers={**BEARER, **headers})
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    answer = await office.http.post("/live/kill", json={"worker": "gw-1"}, headers=BEARER)
    assert (answer.status_code, answer.json()) == (200, {"worker": "gw-1", "pid": 4711})


async def test_a_page_that_may_kill_nobody_has_no_button(listener: socket.socket) -> None:
    canned = CannedOffice()
    canned.kills = False
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with serving(canned.app(url), listener), httpx2.AsyncClient(base_url=url, verify=False) as http:
        assert "Kill worker" not in (await http.get("/", headers=BEARER)).text
        assert (await http.post("/live/kill", json={"worker": "gw-1"}, headers=BEARER)).status_code == 404


async def test_the_prompt_goes_out_with_the_live_key(office: Served) -> None:
    answer = await office.http.post("/live/chat", json={"prompt": "hello"}, headers=BEARER)
    assert answer.text.startswith('event: answer\ndata: {"request_id":"req_')
    assert answer.text.endswith("data: [DONE]\n\n")
    assert office.canned.keys_seen == ["Bearer sk-tw-live"]
    assert "sk-tw-live" not in answer.text


async def test_static_files_are_asked_about_each_time(office: Served) -> None:
    answer = await office.http.get("/static/live.js")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")
    assert (await office.http.get("/static/../router.py")).status_code == 404
