"""The vault: what is sealed opens under its key, for its owner, and nothing else; master keys stay in their file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.base.vault import Vault, VaultFault, is_sealed, key_of

SECRET = "sk-live-0123456789"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secrets" / "master-keys"


@pytest.fixture
def vault(file: Path) -> Vault:
    made = Vault(file)
    made.ready()
    return made


def test_the_first_start_makes_one_key_that_only_its_owner_can_read(file: Path, vault: Vault) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    before = file.read_text()
    Vault(file).ready()
    assert file.read_text() == before
    assert len(vault.key_ids) == 1


def test_sealed_and_opened(vault: Vault) -> None:
    sealed = vault.seal(SECRET, "e1")
    assert is_sealed(sealed)
    assert SECRET not in sealed
    assert key_of(sealed) == vault.key_ids[0]
    assert vault.open(sealed, "e1") == SECRET
    assert vault.seal(SECRET, "e1") != sealed
    assert (vault.seal("", "e1"), vault.open("", "e1")) == ("", "")


def test_a_sealed_text_belongs_to_one_owner(vault: Vault) -> None:
    with pytest.raises(VaultFault, match="the secret of e2 does not open"):
        vault.open(vault.seal(SECRET, "e1"), "e2")


@given(place=st.integers(0, 200), bit=st.integers(0, 7))
def test_no_changed_text_opens(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    vault = Vault(tmp_path_factory.mktemp("vault") / "master-keys")
    vault.ready()
    sealed = vault.seal(SECRET, "e1").encode()
    place %= len(sealed)
    changed = bytearray(sealed)
    changed[place] ^= 1 << bit
    try:
        opened = vault.open(changed.decode("latin-1"), "e1")
    except VaultFault:
        return
    # The last letter of base64 has bits that mean nothing.
    assert opened == SECRET


def test_a_new_key_seals_and_the_old_one_still_opens(file: Path, vault: Vault) -> None:
    old = vault.seal(SECRET, "e1")
    other = Vault(file)
    assert other.open(old, "e1") == SECRET
    new_id = vault.add_key()
    assert file.stat().st_mode & 0o777 == 0o600
    sealed = vault.seal(SECRET, "e1")
    assert key_of(sealed) == new_id
    assert vault.open(old, "e1") == SECRET
    assert other.has_changed()
    assert other.open(sealed, "e1") == SECRET
    assert not other.has_changed()


def test_a_missing_key_is_named(vault: Vault, tmp_path: Path) -> None:
    sealed = vault.seal(SECRET, "e1")
    other = Vault(tmp_path / "other")
    other.ready()
    with pytest.raises(VaultFault, match=f"the master key {key_of(sealed)} that sealed the secret of e1 is not in"):
        other.open(sealed, "e1")


def test_a_wrong_key_under_the_same_name_is_told(file: Path, vault: Vault) -> None:
    sealed = vault.seal(SECRET, "e1")
    name = vault.key_ids[0]
    file.write_text(f"{name} {'A' * 43}=\n")
    with pytest.raises(VaultFault, match="is another one, or the sealed text was changed"):
        Vault(file).open(sealed, "e1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no master key"),
        ("mk_1 short\n", "not a master key|no master key"),
        ("mk_1\n", "not a master key"),
        ("mk_1 QUJD\n", "32 bytes"),
    ],
)
def test_a_file_that_holds_no_key(file: Path, vault: Vault, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(VaultFault, match=said):
        vault.ready()


def test_a_file_that_others_can_read_is_not_used(file: Path, vault: Vault) -> None:
    file.chmod(0o640)
    with pytest.raises(VaultFault, match="change its mode to 0600"):
        Vault(file).ready()
    assert SECRET not in str(vault)


def test_without_the_file_nothing_opens(file: Path, vault: Vault) -> None:
    sealed = vault.seal(SECRET, "e1")
    file.unlink()
    with pytest.raises(VaultFault, match="is missing; put it back from its copy"):
        vault.open(sealed, "e1")
