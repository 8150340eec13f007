"""A canned office on a real port, and Debian's Chromium to look at it."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from playwright.async_api import Browser, Page, async_playwright

from console.canned import CannedOffice, Served

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Announcing(uvicorn.Server):
    """Says when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serving = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.serving.set()


@asynccontextmanager
async def serving(app: FastAPI, listener: socket.socket) -> AsyncGenerator[None]:
    """The application behind a listening socket, until the block ends."""
    config = uvicorn.Config(app, log_level="error", ws="none", lifespan="on", timeout_graceful_shutdown=2)
    server = Announcing(config)
    running = asyncio.create_task(server.serve([listener]))
    await asyncio.wait({running, asyncio.create_task(server.serving.wait())}, return_when=asyncio.FIRST_COMPLETED)
    yield
    server.should_exit = True
    await running


@pytest.fixture
async def listener() -> socket.socket:
    """A free port on loopback."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return bound


@pytest.fixture
async def office(listener: socket.socket) -> AsyncGenerator[Served]:
    """The canned office, served."""
    canned = CannedOffice()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with serving(canned.app(url), listener), httpx2.AsyncClient(base_url=url, verify=False) as http:
        yield Served(canned, url, http)
        canned.gate.set()
        canned.drop_viewers()


@pytest.fixture(scope="session")
async def chromium() -> AsyncGenerator[Browser]:
    """One browser for the session."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture
async def page(chromium: Browser) -> AsyncGenerator[Page]:
    """A fresh page in a fresh profile. Any script error fails the test."""
    context = await chromium.new_context(
        viewport={"width": 1280, "height": 800}, timezone_id="Asia/Shanghai", reduced_motion="reduce"
    )
    fresh = await context.new_page()
    errors: list[str] = []
    fresh.on("pageerror", lambda error: errors.append(str(error)))
    yield fresh
    await context.close()
    assert errors == []
