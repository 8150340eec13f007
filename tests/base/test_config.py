"""The settings: what is read, what is refused, and that a child reads what its parent resolved."""

import pytest
from hypothesis import given
from hypothesis import strategies as any_of
from msgspec.structs import replace

from tokenworks.base import config
from tokenworks.base.config import Settings, SettingsFault


def test_nothing_given_is_all_defaults() -> None:
    assert config.load({"PATH": "/bin", "TOKENWORK_HOST": "ignored"}) == Settings()


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("TOKENWORKS_GATEWAY_PORT", "0", "gateway_port", 0),
        ("TOKENWORKS_HOST", "::1", "host", "::1"),
        ("TOKENWORKS_EMBEDDED_ENGINE", "false", "embedded_engine", False),
        ("TOKENWORKS_EMBEDDED_ENGINE", "1", "embedded_engine", True),
        ("TOKENWORKS_DURABILITY", "every", "durability", "every"),
        ("TOKENWORKS_ADMIN_TOKEN", "12345", "admin_token", "12345"),
    ],
)
def test_a_value_is_read(variable: str, text: str, field: str, value: object) -> None:
    assert getattr(config.load({variable: text}), field) == value


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("TOKENWORKS_GATEWAY_PROT", "1", "is not a setting"),
        ("TOKENWORKS_GATEWAY_PORT", "65536", "<= 65535"),
        ("TOKENWORKS_GATEWAY_PORT", "http", "expected `int`"),
        ("TOKENWORKS_WORKERS", "0", ">= 1"),
        ("TOKENWORKS_LEASE_CAP_WORKER", "token 5", "not of the form unit=amount"),
        ("TOKENWORKS_LEASE_CAP_WORKER", "token=5 token=6", "'token' is named twice"),
        ("TOKENWORKS_LEASE_CAP_ACCOUNT", "token=1.5", "more decimals than token can hold"),
        ("TOKENWORKS_LEASE_CAP_ACCOUNT", "dollars=1", "'dollars' is not a unit"),
        ("TOKENWORKS_WORKERS", "", "expected `int`"),
        ("TOKENWORKS_DURABILITY", "never", "invalid enum value 'never'"),
        ("TOKENWORKS_EMBEDDED_ENGINE", "maybe", "expected `bool`"),
    ],
)
def test_a_bad_name_or_value_is_refused_with_its_variable(variable: str, text: str, said: str) -> None:
    with pytest.raises(SettingsFault) as fault:
        config.load({variable: text})
    assert str(fault.value).startswith(variable)
    assert said in str(fault.value)


@given(
    any_of.builds(
        replace,
        any_of.just(Settings()),
        data_dir=any_of.text(),
        gateway_port=any_of.integers(0, 65535),
        workers=any_of.integers(1, 64),
        nats_token=any_of.text(),
        embedded_engine=any_of.booleans(),
        log_format=any_of.sampled_from(["text", "json"]),
    )
)
def test_a_child_reads_what_its_parent_resolved(settings: Settings) -> None:
    assert config.load(config.environment(settings)) == settings
