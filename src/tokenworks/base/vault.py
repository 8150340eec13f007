"""The vault: secrets of others, sealed for the database and the bus, opened only where they are used.

AES-256-GCM under master keys that lie in a file of their own, never in the database, a backup or a log. A sealed text
names its key, so keys can change: the last in the file seals, the others still open. It is bound to what it belongs to,
so it cannot be moved to another place in the database. Which secrets there are is not known here.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tokenworks.base import ids

PREFIX = "sealed:v1:"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_HEAD = """# Master keys of Tokenworks: they open the keys of suppliers in the database.
# Keep a copy of this file apart from the backups. The last one seals; the others are kept to open what they sealed.
"""


class VaultFault(Exception):
    """A secret cannot be sealed or opened; the text names the file and the key that is missing or wrong."""


class Vault:
    """The master keys in one file, read when they are first needed and again when it has changed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._keys: dict[str, bytes] = {}
        self._read_at: tuple[int, int] | None = None

    @property
    def key_ids(self) -> list[str]:
        """All keys, the one that seals last."""
        return list(self._current())

    def ready(self) -> None:
        """What a start does: make the file with a first key, if there is none; a `VaultFault` if it cannot be used."""
        if not self._file.exists():
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write({})
        self._current()

    def add_key(self) -> str:
        """A new key, which seals from now on; gives its id."""
        return self._write(self._current())

    def seal(self, secret: str, about: str) -> str:
        """The sealed text of a secret that belongs to `about`. Nothing stays nothing."""
        if not secret:
            return ""
        key_id, key = list(self._current().items())[-1]
        nonce = secrets.token_bytes(_NONCE_BYTES)
        text = AESGCM(key).encrypt(nonce, secret.encode(), _bound(key_id, about))
        return f"{PREFIX}{key_id}:{base64.urlsafe_b64encode(nonce + text).decode()}"

    def open(self, sealed: str, about: str) -> str:
        """The secret again, or a `VaultFault`."""
        if not sealed:
            return ""
        key_id = key_of(sealed)
        key = self._current().get(key_id)
        if key is None:
            raise VaultFault(f"the master key {key_id} that sealed the secret of {about} is not in {self._file}")
        try:
            data = base64.urlsafe_b64decode(sealed.rpartition(":")[2])
            return AESGCM(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bound(key_id, about)).decode()
        except (InvalidTag, ValueError) as fault:
            raise VaultFault(
                f"the secret of {about} does not open: the master key {key_id} in {self._file} is another one, "
                "or the sealed text was changed"
            ) from fault

    def derived(self, purpose: str) -> list[bytes]:
        """A key of 64 bytes for a purpose from each master key, in their order; a `VaultFault` where there is none."""
        return [hmac.digest(key, purpose.encode(), hashlib.sha512) for key in self._current().values()]

    def has_changed(self) -> bool:
        """Whether the file is another one than was read."""
        return self._stamp() != self._read_at

    def _current(self) -> dict[str, bytes]:
        stamp = self._stamp()
        if stamp != self._read_at or not self._keys:
            self._keys = self._read()
            self._read_at = stamp
        return self._keys

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    def _read(self) -> dict[str, bytes]:
        try:
            if self._file.stat().st_mode & 0o077:
                raise VaultFault(f"{self._file} can be read by others than its owner; change its mode to 0600")
            text = self._file.read_text(encoding="utf-8")
        except FileNotFoundError as fault:
            raise VaultFault(f"there are no master keys: {self._file} is missing; put it back from its copy") from fault
        except OSError as fault:
            raise VaultFault(f"the master keys in {self._file} cannot be read: {fault.strerror}") from fault
        lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
        try:
            keys = {key_id: base64.urlsafe_b64decode(value) for key_id, value in lines}
        except (ValueError, binascii.Error) as fault:
            raise VaultFault(f"{self._file} has a line that is not a master key") from fault
        if not keys or any(len(key) != _KEY_BYTES for key in keys.values()):
            raise VaultFault(f"{self._file} has no master key, or one that is not {_KEY_BYTES} bytes long")
        return keys

    def _write(self, keys: dict[str, bytes]) -> str:
        key_id = ids.new("mk")
        lines = [f"{name} {base64.urlsafe_b64encode(key).decode()}\n" for name, key in keys.items()]
        lines.append(f"{key_id} {base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)).decode()}\n")
        fresh = self._file.with_name(f".{self._file.name}.new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(_HEAD + "".join(lines))
            file.flush()
            # What it seals may be committed to the database's disk at once; the key must not be lost before that.
            os.fsync(descriptor)
        fresh.replace(self._file)
        folder = os.open(self._file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return key_id


def is_sealed(text: str) -> bool:
    """Whether this is a sealed text, and not the secret itself."""
    return text.startswith(PREFIX)


def key_of(sealed: str) -> str:
    """The id of the master key that sealed it."""
    if not is_sealed(sealed):
        raise VaultFault("this is not a sealed text")
    return sealed.removeprefix(PREFIX).partition(":")[0]


def _bound(key_id: str, about: str) -> bytes:
    return f"{PREFIX}{key_id}:{about}".encode()
