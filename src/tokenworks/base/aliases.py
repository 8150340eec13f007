"""Aliases: names that others gave, told to customers so that nobody else can use them, and kept nowhere.

An alias is the name itself, encrypted and authenticated (AES-SIV, RFC 5297) under a key derived from a master key, and
bound to whom it was told. The same name has the same alias, so what is fetched is called as when it was made. It opens
as long as its master key is in the file. What the names are of is not known here.
"""

import base64
import binascii

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from tokenworks.base.vault import Vault

_TAG_BYTES = 16


class Aliases:
    """Aliases for one purpose: those for another do not open."""

    def __init__(self, vault: Vault, purpose: str) -> None:
        """Take the master keys as they are now; raises `VaultFault` where there are none."""
        self._ciphers = [AESSIV(key) for key in reversed(vault.derived(purpose))]

    def of(self, name: str, about: str) -> str:
        """The alias of a name, for `about` alone."""
        sealed = self._ciphers[0].encrypt(name.encode(), [about.encode()])
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def name_of(self, alias: str, about: str) -> str | None:
        """The name again. None: it was told to somebody else, or is made up, or its master key is gone."""
        try:
            sealed = base64.b64decode(f"{alias}{'=' * (-len(alias) % 4)}", b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        if len(sealed) < _TAG_BYTES:
            return None
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(sealed, [about.encode()]).decode()
            except InvalidTag:
                continue
        return None
