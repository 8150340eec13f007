"""The session cookie: made with the admin token, good for a while, worthless when touched."""

import pytest

from tokenworks.base.clock import SECOND
from tokenworks.console import session

NOW = 1_800_000_000 * SECOND


def test_a_cookie_is_good_until_it_expires() -> None:
    cookie = session.issue("secret", NOW)
    assert session.holds("secret", cookie, NOW)
    assert session.holds("secret", cookie, NOW + (session.SESSION_S - 1) * SECOND)
    assert not session.holds("secret", cookie, NOW + session.SESSION_S * SECOND)


def test_the_cookie_does_not_contain_the_token() -> None:
    assert "secret" not in session.issue("secret", NOW)


@pytest.mark.parametrize(
    "touch",
    [
        lambda cookie: cookie[:0],
        lambda cookie: "9" + cookie,
        lambda cookie: cookie[:-1],
        lambda cookie: cookie + "0",
        lambda cookie: cookie.partition(".")[0],
        lambda cookie: "." + cookie.partition(".")[2],
        lambda cookie: "²." + cookie.partition(".")[2],
        lambda cookie: cookie.partition(".")[0] + ".é",
    ],
)
def test_a_touched_cookie_is_worthless(touch) -> None:
    assert not session.holds("secret", touch(session.issue("secret", NOW)), NOW)


def test_a_new_admin_token_ends_all_sessions() -> None:
    assert not session.holds("other", session.issue("secret", NOW), NOW)


def test_no_admin_token_lets_nobody_in() -> None:
    assert not session.holds("", session.issue("", NOW), NOW)
    assert not session.token_is_right("", "")
