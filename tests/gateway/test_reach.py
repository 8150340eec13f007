"""Where gateways connect to: allowed addresses only, judged at each connection, whatever a name said before."""

from collections.abc import Sequence
from pathlib import Path

from gateway_bench import bench
from stand_in_office import catalog, endpoint
from tokenworks.base.vault import Vault
from tokenworks.gateway.pools import resolve


class Names:
    """A resolver whose answers change."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = [list(each) for each in answers]
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        del host, port
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


async def test_loopback_is_refused_unless_allowed(tmp_path: Path) -> None:
    async with bench(tmp_path, endpoint_networks="10.0.0.0/8", embedded_engine=False) as gateway:
        answer = await gateway.ask()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "endpoint_unavailable")
        assert gateway.supplier.connections == 0
        assert gateway.closings()[0].charges == ()


async def test_the_embedded_engine_needs_no_setting(tmp_path: Path) -> None:
    async with bench(tmp_path) as gateway:
        port = int(gateway.supplier.url.rpartition(":")[2].partition("/")[0])
        async with bench(tmp_path / "2", endpoint_networks="", engine_port=port) as strict:
            strict.use(catalog(endpoint(gateway.supplier.url)))
            assert (await strict.ask()).status_code == 200


async def test_the_address_that_was_judged_is_the_one_connected_to(tmp_path: Path) -> None:
    """A name that is good when it is judged and bad when it is asked again: it is not asked again."""
    names = Names(["127.0.0.1"], ["127.0.0.66"])
    networks = "127.0.0.1"
    async with bench(tmp_path, endpoint_networks=networks, embedded_engine=False, resolve=names) as gateway:
        url = gateway.supplier.url.replace("127.0.0.1", "rebinding.example")
        gateway.use(catalog(endpoint(url)))
        assert (await gateway.ask()).status_code == 200
        assert names.asked == 1
        assert gateway.supplier.calls[0].headers["host"].startswith("rebinding.example:")
        # The kept connection serves on; a new one is judged anew.
        gateway.tick(17)
        assert (await gateway.ask()).status_code == 503
        assert (names.asked, gateway.supplier.connections) == (2, 1)


async def test_of_several_addresses_only_allowed_ones_are_tried(tmp_path: Path) -> None:
    names = Names(["169.254.169.254", "127.0.0.1"])
    async with bench(tmp_path, resolve=names) as gateway:
        gateway.use(catalog(endpoint(gateway.supplier.url.replace("127.0.0.1", "mixed.example"))))
        assert (await gateway.ask()).status_code == 200


async def test_the_next_address_is_tried_where_one_does_not_answer(tmp_path: Path) -> None:
    names = Names(["127.0.0.2", "127.0.0.1"])
    async with bench(tmp_path, resolve=names) as gateway:
        gateway.use(catalog(endpoint(gateway.supplier.url.replace("127.0.0.1", "two.example"))))
        assert (await gateway.ask()).status_code == 200
    assert await resolve("127.0.0.1", 80) == ["127.0.0.1"]


async def test_sealed_keys_are_opened_and_what_does_not_open_is_not_used(tmp_path: Path) -> None:
    vault, elsewhere = Vault(tmp_path / "keys"), Vault(tmp_path / "other-keys")
    vault.ready()
    elsewhere.ready()
    async with bench(tmp_path / "gw", vault=vault) as gateway:
        url = gateway.supplier.url
        gateway.use(catalog(endpoint(url, api_key=vault.seal("sk-of-supplier", "ep_1")), version=2))
        assert (await gateway.ask()).status_code == 200
        assert gateway.supplier.calls[0].headers["authorization"] == "Bearer sk-of-supplier"
        locked = catalog(endpoint(url, api_key=elsewhere.seal("sk-of-supplier", "ep_1")), version=3)
        gateway.use(locked)
        assert (await gateway.ask()).status_code == 503
        # The operator brings the file: the same catalog is good now, without anybody sending it again.
        gateway.use(locked)
        assert (await gateway.ask()).status_code == 503
        (tmp_path / "other-keys").replace(tmp_path / "keys")
        gateway.use(locked)
        assert (await gateway.ask()).status_code == 200
