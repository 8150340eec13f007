"""TLS: the certificate that customers are shown, exchanged while connections run, and whom gateways trust.

A certificate is read again when its files change: new connections get the new one, those there are go on. What does not
load is told and not used. Who listens, and who connects where, is decided elsewhere.
"""

import ssl
from pathlib import Path

from tokenworks.base import log
from tokenworks.base.config import Settings

_PROTOCOLS = ["http/1.1"]

_log = log.get(__name__)


class TlsFault(Exception):
    """A certificate, key or authority cannot be used; the text names the file and says why."""


class Certificate:
    """The certificate in use. `context` stays the same for the life of the process; what it shows may change."""

    def __init__(self, cert_file: str, key_file: str) -> None:
        self._cert, self._key = Path(cert_file), Path(key_file)
        self._stamp = self._files()
        self.context = self._current = self._load()
        self.context.sni_callback = self._show

    def refresh(self) -> None:
        """Read the files if they have changed; called now and then."""
        stamp = self._files()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._current = self._load()
        except TlsFault as fault:
            # Perhaps only one of the two files is new yet; the other's change brings us here again.
            _log.error("the certificate stays as it was: %s", fault)
        else:
            _log.info("a new certificate is in use", extra={"file": self._cert})

    def _show(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Called in each handshake, with or without a name."""
        del name, context
        if self._current is not self.context:
            connection.context = self._current

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(_PROTOCOLS)
        try:
            context.load_cert_chain(self._cert, self._key)
        except ssl.SSLError as fault:
            raise TlsFault(f"{self._cert} and {self._key} are no certificate with its key: {_reason(fault)}") from fault
        except OSError as fault:
            raise TlsFault(f"{self._cert} or {self._key} cannot be read: {fault.strerror}") from fault
        return context

    def _files(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_stamp(file) for file in (self._cert, self._key))


def certificate(settings: Settings) -> Certificate | None:
    """What the gateway shows to customers; None where it speaks plain HTTP."""
    if not settings.tls_cert_file and not settings.tls_key_file:
        return None
    if not settings.tls_cert_file or not settings.tls_key_file:
        raise TlsFault("TOKENWORKS_TLS_CERT_FILE and TOKENWORKS_TLS_KEY_FILE are set together or not at all")
    return Certificate(settings.tls_cert_file, settings.tls_key_file)


def to_endpoints(settings: Settings) -> ssl.SSLContext:
    """Whom gateways trust as endpoints: the system's authorities, and the one that is named."""
    context = ssl.create_default_context()
    if settings.endpoint_ca_file:
        _trust(context, settings.endpoint_ca_file, "TOKENWORKS_ENDPOINT_CA_FILE")
    return context


def to_own_gateway() -> ssl.SSLContext:
    """For a client on this machine that talks to the socket of its own parent, whatever name the certificate is for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _trust(context: ssl.SSLContext, file: str, variable: str) -> None:
    try:
        context.load_verify_locations(cafile=file)
    except ssl.SSLError as fault:
        raise TlsFault(f"{variable}: {file} holds no certificate: {_reason(fault)}") from fault
    except OSError as fault:
        raise TlsFault(f"{variable}: {file} cannot be read: {fault.strerror}") from fault


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _reason(fault: ssl.SSLError) -> str:
    return (fault.reason or str(fault)).lower().replace("_", " ")
