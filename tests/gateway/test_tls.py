"""TLS on both sides: the customers' API with a certificate that is exchanged while it serves, and endpoints."""

import asyncio
import signal
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from certificates import Authority, authority
from gateway.keeping_clients import Keeping
from gateway.test_handover import started
from gateway_bench import bench, raw_request
from stand_in_office import StandInOffice, catalog, endpoint
from supplier import held, supplier, whole
from tokenworks.base import clock
from tokenworks.base.bus import Bus
from tokenworks.base.config import Settings
from tokenworks.base.tls import Certificate, TlsFault, certificate, to_endpoints, to_own_gateway
from tokenworks.core import wire


def files(folder: Path) -> tuple[Path, Path]:
    return folder / "gateway.pem", folder / "gateway.key"


def shown(address: tuple[str, int], secure: ssl.SSLContext) -> tuple[int, str | None, str | None]:
    """Serial number, TLS version and protocol of a new connection."""
    with (
        socket.create_connection(address, timeout=10) as plain,
        secure.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        seen = connection.getpeercert(binary_form=True)
        assert seen
        serial = x509.load_der_x509_certificate(seen).serial_number
        return serial, connection.version(), connection.selected_alpn_protocol()


async def until(look: Callable[[], object]) -> None:
    deadline_ns = clock.boot_ns() + 20 * clock.SECOND
    while not await asyncio.to_thread(look):
        assert clock.boot_ns() < deadline_ns


class Secure(msgspec.Struct, frozen=True):
    """A worker process behind TLS."""

    address: tuple[str, int]
    settings: Settings
    made: Authority
    serial: int
    listener: socket.socket
    process: asyncio.subprocess.Process


@asynccontextmanager
async def secure_worker(services: Settings, bus: Bus, folder: Path, url: str) -> AsyncGenerator[Secure]:
    made = authority(folder)
    cert, key = files(folder)
    serial = made.issue("127.0.0.1", cert, key)
    settings = msgspec.structs.replace(
        services,
        data_dir=str(folder),
        journal_segment_bytes=1 << 20,
        tls_cert_file=str(cert),
        tls_key_file=str(key),
        tls_handshake_ms=3_000,
    )
    office = StandInOffice()
    office.give(1_000_000)
    await office.serve_on(bus)
    await bus.put(wire.CATALOG_BUCKET, wire.CATALOG_KEY, msgspec.msgpack.encode(catalog(endpoint(url))))
    listener = socket.create_server(("127.0.0.1", 0))
    process = await started(settings, listener)
    yield Secure(listener.getsockname(), settings, made, serial, listener, process)
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    _, errors = await process.communicate()
    listener.close()
    assert (process.returncode, b"Traceback" in errors) == (0, False)


async def test_a_new_certificate_is_shown_and_no_connection_is_dropped(
    services: Settings, bus: Bus, tmp_path: Path
) -> None:
    async with supplier() as made, secure_worker(services, bus, tmp_path, made.url) as worker:
        trust = worker.made.trust
        trust.set_alpn_protocols(["h2", "http/1.1"])
        assert await asyncio.to_thread(shown, worker.address, trust) == (worker.serial, "TLSv1.3", "http/1.1")
        release = asyncio.Event()
        made.script(held(release, whole("a long story")))
        stream = Keeping(worker.address, raw_request(stream=True), worker.made.trust)
        running = asyncio.create_task(stream.ask())
        await made.call(0)
        kept = Keeping(worker.address, raw_request(), worker.made.trust)
        await kept.ask()
        serial = worker.made.issue("127.0.0.1", *files(tmp_path))
        await until(lambda: shown(worker.address, worker.made.trust)[0] == serial)
        release.set()
        assert b"story" in await running
        await kept.ask()
        assert (kept.connections, stream.connections) == (1, 1)
        # A file that is no certificate changes nothing.
        files(tmp_path)[0].write_text("rubbish")
        await kept.ask()
        assert (await asyncio.to_thread(shown, worker.address, worker.made.trust))[0] == serial
        for each in (stream, kept):
            await each.leave()


async def test_a_replaced_worker_serves_out_what_still_shakes_hands(
    services: Settings, bus: Bus, tmp_path: Path
) -> None:
    async with supplier() as made, secure_worker(services, bus, tmp_path, made.url) as worker:
        customers = [Keeping(worker.address, raw_request(), worker.made.trust) for _ in range(4)]
        await asyncio.gather(*(each.ask() for each in customers))
        successor = await started(worker.settings, worker.listener)
        enough = asyncio.Event()
        enough.set()
        load = [asyncio.create_task(each.go_on(enough, 20)) for each in customers]
        # Some of these are accepted by the old one, whose clients take their time until after it was told to go.
        late = [await connected(worker.address) for _ in range(6)]
        worker.process.send_signal(signal.SIGUSR2)
        await load[0]
        for each in late:
            reader, writer = await asyncio.open_connection(
                sock=each, ssl=worker.made.trust, server_hostname="127.0.0.1"
            )
            writer.write(raw_request().replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1))
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
            writer.close()
        await asyncio.gather(*load)
        for each in customers:
            await each.leave()
        await worker.process.wait()
        successor.send_signal(signal.SIGTERM)
        await successor.communicate()


async def connected(address: tuple[str, int]) -> socket.socket:
    made = await asyncio.to_thread(socket.create_connection, address)
    made.setblocking(False)
    return made


async def test_who_does_not_shake_hands_or_speaks_plainly_is_let_go(
    services: Settings, bus: Bus, tmp_path: Path
) -> None:
    async with supplier() as made, secure_worker(services, bus, tmp_path, made.url) as worker:
        for said in (b"", raw_request(), b"\x16\x03\x01\x02\x00\x01"):
            reader, writer = await asyncio.open_connection(*worker.address)
            writer.write(said)
            async with asyncio.timeout(10):
                with suppress(ConnectionError):
                    assert b"HTTP/1.1" not in await reader.read()
            writer.close()


async def test_an_endpoint_behind_tls_is_used_if_its_certificate_is_trusted(tmp_path: Path) -> None:
    made, other = authority(tmp_path / "ca"), authority(tmp_path / "other", "Others")
    server = Certificate(*map(str, served(made, tmp_path, "127.0.0.1"))).context
    async with supplier(server) as vendor:
        for number, (trusted, status) in enumerate(((str(made.file), 200), (str(other.file), 503), ("", 503))):
            async with bench(tmp_path / f"gw{number}", endpoint_ca_file=trusted) as gateway:
                gateway.use(catalog(endpoint(vendor.url)))
                assert (await gateway.ask()).status_code == status
                if status == 200:
                    _, events = await gateway.ask_stream()
                    assert events[-1] == "[DONE]"
                    assert vendor.connections == 1


async def test_the_certificate_of_an_endpoint_must_be_for_its_name(tmp_path: Path) -> None:
    made = authority(tmp_path / "ca")
    server = Certificate(*map(str, served(made, tmp_path, "engine.example"))).context

    async def resolve(host: str, port: int) -> list[str]:
        del host, port
        return ["127.0.0.1"]

    async with (
        supplier(server) as vendor,
        bench(tmp_path / "gw", endpoint_ca_file=str(made.file), resolve=resolve) as gateway,
    ):
        for host, status in (("other.example", 503), ("engine.example", 200)):
            gateway.use(catalog(endpoint(vendor.url.replace("127.0.0.1", host), f"ep_{host}")))
            assert (await gateway.ask()).status_code == status


def served(made: Authority, folder: Path, host: str) -> tuple[Path, Path]:
    made.issue(host, folder / "server.pem", folder / "server.key")
    return folder / "server.pem", folder / "server.key"


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    made, (cert, key) = authority(tmp_path), files(tmp_path)
    made.issue("a.example", cert, key)
    assert certificate(Settings()) is None
    assert certificate(Settings(tls_cert_file=str(cert), tls_key_file=str(key)))
    made.issue("b.example", tmp_path / "b.pem", tmp_path / "b.key")
    for given, said in (
        ({"tls_cert_file": str(cert)}, "set together or not at all"),
        ({"tls_cert_file": str(tmp_path / "none"), "tls_key_file": str(key)}, "cannot be read: No such file"),
        ({"tls_cert_file": str(cert), "tls_key_file": str(tmp_path / "b.key")}, "key values mismatch"),
    ):
        with pytest.raises(TlsFault, match=said):
            certificate(Settings(**given))
    for file, said in ((str(key), "holds no certificate"), ("/nowhere", "cannot be read")):
        with pytest.raises(TlsFault, match=said):
            to_endpoints(Settings(endpoint_ca_file=file))
    assert to_own_gateway().verify_mode is ssl.CERT_NONE
