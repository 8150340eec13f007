"""Peers of the gateway: their configurations, their environments, and one that cannot be had."""

import json
import os
import re
from pathlib import Path

import pytest

from tokenworks.base.processes import StartFault
from tokenworks.bench import environments, field, figures, machine, peers
from tokenworks.bench.endpoint import MODEL
from tokenworks.bench.field import About, Where
from tokenworks.bench.figures import Run
from tokenworks.bench.peers import Peer, Place
from tokenworks.bench.proxy import Launch, Proxy
from tokenworks.cli.bench_gateway import peers_lines

PLACE = Place(folder=Path("/f"), programs=Path("/p/bin"), port=1_000, spare_port=1_001, endpoints=[2_001, 2_002])


def only_file(launch: Launch) -> str:
    (text,) = launch.files.values()
    return text


@pytest.mark.parametrize("peer", peers.ALL, ids=lambda peer: peer.name)
def test_a_peer_listens_where_it_should_and_knows_every_endpoint(peer: Peer) -> None:
    launch = peer.launch(PLACE)
    said = " ".join((*launch.argv, *launch.files.values()))
    assert launch.argv[0].startswith("/p/bin/")
    assert all(path.parent == PLACE.folder for path in launch.files)
    assert re.search(r"\b1000\b", said)
    assert all(re.search(rf"\b{port}\b", said) for port in PLACE.endpoints)
    assert peer.off
    assert peer.workers


@pytest.mark.parametrize("peer", [peer for peer in peers.ALL if peer.requirement], ids=lambda peer: peer.name)
def test_a_peer_comes_in_one_version_and_sees_none_of_our_settings(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENWORKS_DATA_DIR", "/elsewhere")
    assert re.fullmatch(r"[a-z-]+(\[[a-z]+\])?==[0-9.]+", peer.requirement)
    environ = peer.launch(PLACE).environ
    assert environ["HOME"] == "/f"
    assert not any(name.startswith("TOKENWORKS_") for name in environ)


@pytest.mark.parametrize(("unbuffered", "buffering"), [(True, "off"), (False, "on")])
def test_nginx_passes_streams_on_as_they_come(unbuffered: bool, buffering: str) -> None:
    place = Place(
        folder=PLACE.folder, programs=PLACE.programs, port=1, spare_port=2, endpoints=[3], unbuffered=unbuffered
    )
    text = only_file(peers.nginx(place))
    assert f"proxy_buffering {buffering};" in text
    assert "worker_processes 1;" in text
    assert text.count("{") == text.count("}")


def test_envoy_breaks_no_circuit_and_ends_no_stream() -> None:
    text = only_file(peers.envoy(PLACE))
    resources = json.loads(text)["static_resources"]
    (limits,) = resources["clusters"][0]["circuit_breakers"]["thresholds"]
    assert min(limit for limit in limits.values() if isinstance(limit, int)) >= 1_000_000
    assert '"timeout": "0s"' in text
    assert '"generate_request_id": false' in text


def test_litellm_knows_the_model_and_the_key_it_is_asked_with() -> None:
    launch = peers.litellm(PLACE)
    configuration = json.loads(only_file(launch))
    assert [model["model_name"] for model in configuration["model_list"]] == [MODEL, MODEL]
    assert configuration["general_settings"]["master_key"] == launch.key
    assert launch.environ["LITELLM_LOG"] == "ERROR"


def test_a_peer_with_a_key_of_its_own_is_asked_with_that() -> None:
    assert Proxy(name="p", port=1, pids=(), key="k").keys(["a", "b"]) == ["k"]
    assert Proxy(name="p", port=1, pids=(), key="").keys(["a", "b"]) == ["a", "b"]


@pytest.mark.parametrize("uv", [None, "/bin/uv"])
def test_an_environment_is_made_before_anything_is_installed_into_it(uv: str | None) -> None:
    made, installed = environments.commands(Path("/c/x"), "a==1", uv)
    assert "venv" in made
    assert made[-1] == "/c/x"
    assert "/c/x/bin/python" in installed
    assert installed[-1] == "a==1"


def test_an_environment_is_named_after_what_is_in_it() -> None:
    assert environments.folder_name("litellm[proxy]==1.0") == "litellm-proxy-1.0"
    assert environments.folder_name("a-b==2") == "a-b-2"


async def test_an_environment_that_is_complete_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a-1").mkdir()
    (tmp_path / "a-1" / "complete").touch()
    assert await environments.programs(tmp_path, "a==1") == tmp_path / "a-1" / "bin"


async def test_a_peer_that_cannot_be_had_or_started_is_left_out_with_the_reason(tmp_path: Path) -> None:
    def ends_at_once(place: Place) -> Launch:
        return Launch(argv=("/bin/sh", "-c", "echo no licence; exit 3"), environ={}, files={place.folder / "c": "x"})

    def unknown(place: Place) -> Launch:
        raise AssertionError(place)

    (tmp_path / "broken-1").mkdir()
    (tmp_path / "broken-1" / "complete").touch()
    chosen = (
        Peer(name="no-such-program", requirement="", workers="one", off=("TLS",), launch=unknown),
        Peer(name="broken", requirement="broken==1", workers="one", off=("TLS",), launch=ends_at_once),
    )
    told: list[str] = []
    where = Where(endpoints=[1], folder=tmp_path / "peers", cache=tmp_path)
    async with field.running(chosen, where, told.append) as found:
        assert (found.proxies, found.about) == ({}, {})
        assert found.left_out == {
            "no-such-program": "no-such-program is not installed here; on Debian: apt install no-such-program",
            "broken": "broken did not start: no licence",
        }
    assert told == ["Starting no-such-program", "Starting broken"]


async def test_what_cannot_be_installed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "uv"
    program.write_text("#!/bin/sh\necho no index here\nexit 2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(StartFault, match=r"^a==1 cannot be installed: no index here$"):
        await environments.programs(tmp_path / "cache", "a==1")
    assert not (tmp_path / "cache" / "a-1" / "complete").exists()


def test_the_table_says_what_each_peer_is_and_why_one_is_missing() -> None:
    about = About(version="1.2", workers="one worker", processes=1, threads=3, off=("TLS", "access log"))
    assert peers_lines({"envoy": about}, {"nginx": "it is not there"}) == [
        "envoy 1.2: one worker; threads: 3. Off: TLS, access log.",
        "[yellow]nginx is left out:[/] it is not there.",
    ]


def test_a_contender_is_the_median_of_its_runs() -> None:
    def run(number: float, office: float | None) -> Run:
        return Run(
            answers=1,
            cpu_us_per_request=number,
            office_cpu_us_per_request=office,
            rps=number,
            p50_ms=number,
            p99_ms=number,
            rss_mb=number,
        )

    ours = figures.together([run(1, 5), run(9, 7), run(2, 6)], metering=True)
    assert (ours.cpu_us_per_request, ours.office_cpu_us_per_request, ours.metering) == (2, 6, True)
    other = figures.together([run(1, None)], metering=False)
    assert (other.office_cpu_us_per_request, other.database_cpu_us_per_request) == (None, None)


def test_a_process_comes_before_its_children() -> None:
    assert machine.descendants(os.getpid())[0] == os.getpid()
    assert machine.threads(os.getpid()) >= 1
