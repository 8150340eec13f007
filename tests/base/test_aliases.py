"""Aliases: the same for the same, of no use to anybody else, and good as long as their master key is there."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.base.aliases import Aliases
from tokenworks.base.vault import Vault, VaultFault


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    made = Vault(tmp_path / "master-keys")
    made.ready()
    return made


def test_an_alias_opens_for_whom_it_was_told_and_says_nothing(vault: Vault) -> None:
    aliases = Aliases(vault, "responses")
    alias = aliases.of("resp_1", "ba_1")
    assert alias == Aliases(vault, "responses").of("resp_1", "ba_1")
    assert aliases.name_of(alias, "ba_1") == "resp_1"
    assert aliases.name_of(alias, "ba_2") is None
    assert Aliases(vault, "others").name_of(alias, "ba_1") is None
    assert "resp" not in alias
    assert aliases.of("resp_2", "ba_1") != alias


@given(st.text(max_size=80))
def test_what_is_made_up_opens_nothing(made_up: str) -> None:
    vault = _known_vault()
    aliases = Aliases(vault, "responses")
    assert aliases.name_of(made_up, "ba_1") is None
    assert aliases.name_of(aliases.of(made_up, "ba_1"), "ba_1") == made_up


@given(st.integers(0, 300), st.integers(1, 255))
def test_one_changed_bit_is_enough(place: int, change: int) -> None:
    aliases = Aliases(_known_vault(), "responses")
    alias = aliases.of("endpoint\nresp_1", "ba_1")
    place %= len(alias) - 1
    letter = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[change % 64]
    changed = f"{alias[:place]}{letter}{alias[place + 1 :]}"
    assert (aliases.name_of(changed, "ba_1") is None) == (changed != alias)


def test_it_opens_as_long_as_its_master_key_is_there(vault: Vault, tmp_path: Path) -> None:
    file = tmp_path / "master-keys"
    before = Aliases(vault, "responses").of("resp_1", "ba_1")
    vault.add_key()
    after = Aliases(vault, "responses")
    assert after.of("resp_1", "ba_1") != before
    assert after.name_of(before, "ba_1") == "resp_1"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([line for line in lines if line.startswith("#")] + lines[-1:]))
    assert Aliases(Vault(file), "responses").name_of(before, "ba_1") is None
    file.unlink()
    with pytest.raises(VaultFault):
        Aliases(Vault(file), "responses")


class _Known(Vault):
    """A vault with a key that is always the same."""

    def derived(self, purpose: str) -> list[bytes]:
        return [purpose.encode().ljust(64, b"k")]


def _known_vault() -> Vault:
    return _Known(Path("nowhere"))
