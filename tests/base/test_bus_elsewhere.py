"""The embedded NATS for other machines: on another address than loopback, with TLS from the first byte on."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from tokenworks.app.services import services
from tokenworks.base import bus as buses
from tokenworks.base import hosts
from tokenworks.base.bus import BusFault
from tokenworks.base.config import Settings
from tokenworks.base.processes import StartFault

TLS = Path(__file__).parent / "tls"
SECURE = {
    "nats_cert_file": str(TLS / "bus.pem"),
    "nats_key_file": str(TLS / "bus.key"),
    "nats_ca_file": str(TLS / "bus.pem"),
    "nats_tls_name": "bus.example",
}


@asynccontextmanager
async def nats(folder: Path, **given: str) -> AsyncGenerator[Settings]:
    """A bus alone: a URL of a database keeps PostgreSQL from being started."""
    wanted = replace(Settings(data_dir=str(folder), nats_port=0, database_url="postgresql://nowhere"), **given)
    async with services(wanted) as settings:
        yield settings


async def answers(settings: Settings) -> bool:
    connection = await buses.connect_as(settings, "test")
    try:
        await connection.subscribe("test.echo", _echo)
        return await connection.request("test.echo", b"hello") == b"hello"
    finally:
        await connection.close()


async def _echo(_subject: str, payload: bytes) -> bytes:
    return payload


async def test_it_listens_where_it_is_told(scratch: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with nats(scratch / "bus-host", nats_host="127.0.0.2") as settings:
        assert settings.nats_url == f"nats://127.0.0.2:{settings.nats_port}"
        assert await answers(settings)
        with pytest.raises(BusFault):
            await answers(replace(settings, nats_url=f"nats://127.0.0.1:{settings.nats_port}"))
    assert "open to other machines without TLS" in caplog.text
    with pytest.raises(StartFault, match="TOKENWORKS_NATS_HOST: this machine does not have the address"):
        async with nats(scratch / "bus-host", nats_host="192.0.2.1"):
            pass


async def test_with_a_certificate_nobody_talks_in_the_clear(scratch: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with nats(scratch / "bus-tls", nats_host="0.0.0.0", **SECURE) as settings:
        assert settings.nats_url == f"tls://127.0.0.1:{settings.nats_port}"
        assert await answers(settings)
        for wrong in (
            {"nats_tls_name": "other.example"},
            {"nats_ca_file": str(TLS / "other.pem")},
            {"nats_ca_file": ""},
            {"nats_token": "wrong"},
        ):
            with pytest.raises(BusFault, match="cannot be used"):
                await answers(replace(settings, **wrong))
        with pytest.raises(BusFault, match=r"TOKENWORKS_NATS_CA_FILE='nowhere\.pem' cannot be used"):
            await answers(replace(settings, nats_ca_file="nowhere.pem"))
    assert "without TLS" not in caplog.text


async def test_the_token_is_not_shown_to_a_server_without_tls() -> None:
    """Somebody between who answers in the clear hears the beginning of a handshake and nothing else."""
    heard: list[bytes] = []

    async def overhear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"auth_required":true}\r\n')
        while data := await reader.read(65536):
            heard.append(data)
        writer.close()

    server = await asyncio.start_server(overhear, hosts.LOOPBACK, 0)
    port = server.sockets[0].getsockname()[1]
    settings = Settings(nats_url=f"tls://127.0.0.1:{port}", nats_token="hush", **SECURE)
    with pytest.raises(BusFault):
        await answers(settings)
    server.close()
    assert heard
    assert b"hush" not in b"".join(heard)


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "nats://127.0.0.1:1"), ("::", "nats://[::1]:1"), ("10.0.0.7", "nats://10.0.0.7:1")],
)
def test_a_url_leads_there_from_here(host: str, url: str) -> None:
    assert hosts.url("nats", host, 1) == url
