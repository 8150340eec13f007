"""Every setting of Tokenworks, in one place: name, default, limits, meaning.

A setting `gateway_port` is read from the environment variable `TOKENWORKS_GATEWAY_PORT`. Processes started by
`tokenworks up` inherit the resolved settings through the same variables. This module reads the environment and
nothing else; it starts nothing and opens nothing.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tokenworks.core.amounts import AmountFault
from tokenworks.core.caps import parse_caps
from tokenworks.core.networks import NetworkFault, parse_networks

PREFIX = "TOKENWORKS_"

Port = Annotated[int, Meta(ge=0, le=65535)]
Positive = Annotated[int, Meta(ge=1)]


class SettingsFault(Exception):
    """A setting has a value it cannot have; the text names the variable, the value and what is allowed."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings. The second half are the named limits of queues, buffers, loops and retries."""

    data_dir: Annotated[str, Meta(description="folder that holds every file Tokenworks writes")] = "var"
    host: Annotated[str, Meta(description="address that gateway and office listen on")] = "127.0.0.1"
    gateway_port: Annotated[Port, Meta(description="port of the customers' API; 0 chooses a free one")] = 8700
    office_port: Annotated[Port, Meta(description="port of console and management API; 0 chooses a free one")] = 8701
    engine_port: Annotated[Port, Meta(description="port of the embedded engine; 0 chooses a free one")] = 8702
    nats_port: Annotated[Port, Meta(description="port of the embedded NATS server; 0 chooses a free one")] = 8703
    workers: Annotated[int, Meta(ge=1, le=64, description="gateway worker processes")] = 2
    clerks: Annotated[int, Meta(ge=1, le=8, description="processes of the office that post usage")] = 2
    gateway_name: Annotated[
        str,
        Meta(
            pattern=r"^([a-z0-9][a-z0-9.-]{0,40})?$",
            description="what this machine's workers are called; empty keeps a name of its own in the data folder",
        ),
    ] = ""
    tls_cert_file: Annotated[
        str, Meta(description="PEM certificate chain of the customers' API, read again when it changes; empty: plain")
    ] = ""
    tls_key_file: Annotated[str, Meta(description="PEM key of that certificate")] = ""
    database_url: Annotated[str, Meta(description="PostgreSQL 14+ URL; empty starts the embedded one")] = ""
    nats_url: Annotated[str, Meta(description="NATS URL; empty starts the embedded one")] = ""
    nats_token: Annotated[str, Meta(description="token presented to NATS; made by itself when embedded")] = ""
    nats_host: Annotated[
        str, Meta(description="address the embedded NATS listens on; another than 127.0.0.1 for other machines")
    ] = "127.0.0.1"
    nats_cert_file: Annotated[str, Meta(description="PEM certificate of the embedded NATS; empty goes without TLS")] = (
        ""
    )
    nats_key_file: Annotated[str, Meta(description="PEM key of that certificate")] = ""
    nats_ca_file: Annotated[
        str,
        Meta(
            description="PEM authority that the certificate of a `tls://` NATS must be from; empty trusts the system's"
        ),
    ] = ""
    nats_tls_name: Annotated[str, Meta(description="name in that certificate; empty is the host of the URL")] = ""
    admin_token: Annotated[str, Meta(description="token of the management API; made in the data folder if empty")] = ""
    embedded_engine: Annotated[bool, Meta(description="run the embedded llama.cpp engine with SmolLM2-135M")] = True
    engine_api_key: Annotated[str, Meta(description="key the embedded engine asks for; made by itself")] = ""
    demo_operator: Annotated[bool, Meta(description="seed the demonstration operator into an empty database")] = True
    master_key_file: Annotated[
        str, Meta(description="master keys that seal suppliers' secrets; empty is `secrets/master-keys` in `data_dir`")
    ] = ""
    endpoint_networks: Annotated[
        str, Meta(description="networks besides public ones that endpoints may be in, such as `10.0.0.0/8 fd00::/8`")
    ] = "127.0.0.0/8 ::1/128"
    endpoint_ca_file: Annotated[
        str, Meta(description="PEM authority to trust, besides the system's, of `https://` endpoints")
    ] = ""
    carrier_url: Annotated[str, Meta(description="carrier-billing API; empty uses the built-in sandbox carrier")] = ""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="least severe line logged")] = (
        "info"
    )
    log_format: Annotated[Literal["text", "json"], Meta(description="log lines for people or for machines")] = "text"

    durability: Annotated[
        Literal["interval", "every"],
        Meta(description="journal fsync: grouped every `journal_fsync_ms`, or before each answer's last byte"),
    ] = "interval"
    journal_fsync_ms: Annotated[Positive, Meta(description="longest time a journal entry waits for fsync")] = 10
    journal_segment_bytes: Annotated[
        int, Meta(ge=65536, le=1 << 30, description="size of one preallocated journal segment")
    ] = 16 << 20
    ship_interval_ms: Annotated[Positive, Meta(description="pause between two looks of the shipper at the journal")] = (
        20
    )
    ship_batch_bytes: Annotated[int, Meta(ge=65536, le=4 << 20, description="most journal bytes sent at once")] = (
        4 << 20
    )
    ship_confirm_ms: Annotated[
        Positive, Meta(description="longest time a worker with nothing to ship leaves the ledger unasked what it has")
    ] = 5_000
    journal_keep_ms: Annotated[
        int, Meta(ge=0, description="how long posted journals stay; longer than `backup_keep_ms`, see operations.md")
    ] = 259_200_000
    backup_dir: Annotated[
        str, Meta(description="folder of backups and log archive; empty is `backups` in `data_dir`")
    ] = ""
    backup_keep_ms: Annotated[
        Positive,
        Meta(description="how far back the database can be restored; older backups are removed by the next one"),
    ] = 172_800_000
    journal_keep_bytes: Annotated[
        int, Meta(ge=0, description="most bytes of posted journals that a worker keeps, running and finished ones each")
    ] = 4 << 30

    lease_use_ms: Annotated[Positive, Meta(description="how long a worker may reserve from a lease")] = 300_000
    lease_share_percent: Annotated[int, Meta(ge=1, le=100, description="largest slice as share of a large balance")] = 2
    lease_wait_ms: Annotated[
        int, Meta(ge=0, description="how long a request waits for slices held elsewhere before 429 balance_reserved")
    ] = 5_000
    lease_idle_ms: Annotated[Positive, Meta(description="time after which a slice that nobody uses goes back")] = (
        120_000
    )
    lease_recall_ms: Annotated[
        Positive, Meta(description="how long a worker keeps nothing free of an account whose slices were recalled")
    ] = 2_000
    lease_likely_tokens: Annotated[
        Positive, Meta(description="output a stream is taken to need before any answer of its account is known")
    ] = 1_024
    lease_step_tokens: Annotated[
        Positive, Meta(description="output tokens by which the reservation of a running stream grows at once")
    ] = 128
    lease_cap_worker: Annotated[
        str, Meta(description="most a worker holds unposted, by unit; a unit not named has no cap")
    ] = "token=10000000000 coin=100000000 point=100000000 CNY=100000 USD=15000 EUR=15000"
    lease_cap_account: Annotated[str, Meta(description="most that is out unposted of one billing account, by unit")] = (
        "token=2000000000 coin=20000000 point=20000000 CNY=20000 USD=3000 EUR=3000"
    )
    lease_grace_ms: Annotated[
        Positive, Meta(description="time for a late journal after use_until and the longest request, before reclaim")
    ] = 300_000
    standby_required: Annotated[
        bool, Meta(description="grant no lease while no synchronous standby of the database is attached")
    ] = False
    request_longest_ms: Annotated[Positive, Meta(description="longest life of one model request")] = 600_000

    hours_interval_ms: Annotated[
        Positive, Meta(description="pause between two times that sums by hour, of accounts and of usage, are kept up")
    ] = 60_000
    lake_dir: Annotated[str, Meta(description="folder of the usage lake; empty means `lake` in the data folder")] = ""
    lake_interval_ms: Annotated[
        int,
        Meta(ge=0, description="usage records go into the lake when such a time is over; 0: only when asked to"),
    ] = 3_600_000

    safety_keywords_file: Annotated[
        str, Meta(description="words and phrases, one on a line, that are neither read nor said; empty: none")
    ] = ""
    safety_url: Annotated[
        str, Meta(description="where to ask whether a text may pass, see safety.md; empty: nobody is asked")
    ] = ""
    safety_token: Annotated[str, Meta(description="token presented there as a bearer token")] = ""
    safety_models: Annotated[str, Meta(description="models that are judged, with spaces between; empty: all")] = ""
    safety_timeout_ms: Annotated[Positive, Meta(description="time the hook gets for one answer")] = 1_000
    safety_on_fault: Annotated[
        Literal["closed", "open"], Meta(description="what passes while the hook fails: nothing, or everything")
    ] = "closed"
    safety_window_chars: Annotated[
        Positive, Meta(description="characters of a stream the hook is asked about at once")
    ] = 240
    safety_window_ms: Annotated[
        Positive, Meta(description="time after which it is asked about fewer, when more of the stream comes")
    ] = 500

    body_bytes_max: Annotated[Positive, Meta(description="largest request body")] = 10 << 20
    header_bytes_max: Annotated[Positive, Meta(description="largest request line plus headers")] = 32 << 10
    answer_bytes_max: Annotated[Positive, Meta(description="largest unstreamed answer, or largest streamed event")] = (
        64 << 20
    )
    connections_max: Annotated[Positive, Meta(description="connections of customers to one worker at once")] = 20_000
    client_idle_ms: Annotated[
        Positive, Meta(description="time a client may send nothing, or read nothing, before it is cut")
    ] = 75_000
    tls_handshake_ms: Annotated[Positive, Meta(description="time a client gets to complete its TLS handshake")] = 10_000
    connect_timeout_ms: Annotated[Positive, Meta(description="time to connect to an endpoint")] = 3_000
    endpoint_silence_ms: Annotated[Positive, Meta(description="longest silence of an endpoint within an answer")] = (
        120_000
    )
    endpoint_hung_ms: Annotated[
        Positive,
        Meta(description="time without a byte to anybody after which streams leave an endpoint for one that is well"),
    ] = 5_000
    attempts_max: Annotated[
        int, Meta(ge=1, le=10, description="endpoints tried for one request before its first byte")
    ] = 3
    endpoint_rest_ms: Annotated[Positive, Meta(description="longest time a failing endpoint is left alone")] = 5_000
    queue_requests_max: Annotated[
        Positive, Meta(description="requests of a worker that wait for a place at the endpoints of one model")
    ] = 1_000
    queue_wait_ms: Annotated[
        Positive, Meta(description="longest time a request waits for a place at an endpoint before 429 overloaded")
    ] = 15_000
    queue_age_ms: Annotated[Positive, Meta(description="time of waiting that raises a request by one tier")] = 2_000
    endpoint_idle_connections: Annotated[Positive, Meta(description="idle connections kept to one endpoint")] = 256
    endpoint_idle_ms: Annotated[Positive, Meta(description="idle time before an endpoint's connection is closed")] = (
        4_000
    )
    pipelined_max: Annotated[
        Positive, Meta(description="requests a client may send ahead on a connection before reading from it pauses")
    ] = 16
    checkpoint_tokens: Annotated[
        Positive, Meta(description="output tokens of a stream between two journal checkpoints")
    ] = 64
    checkpoint_ms: Annotated[Positive, Meta(description="time of a stream between two journal checkpoints")] = 2_000
    write_buffer_bytes: Annotated[
        Positive, Meta(description="bytes waiting for a slow reader before its endpoint is paused")
    ] = 64 << 10
    key_cache_entries: Annotated[Positive, Meta(description="keys a worker remembers")] = 100_000
    key_stale_ms: Annotated[Positive, Meta(description="longest time a worker trusts a remembered key unasked")] = (
        300_000
    )
    limit_share_ms: Annotated[
        Positive, Meta(description="pause between two times that a worker tells the others what it counted of limits")
    ] = 50
    catalog_stale_ms: Annotated[
        Positive, Meta(description="longest time a worker serves from a catalog snapshot nobody confirmed")
    ] = 3_600_000
    bus_timeout_ms: Annotated[Positive, Meta(description="longest wait for an answer over NATS")] = 5_000
    start_timeout_ms: Annotated[Positive, Meta(description="time a child process gets until it is ready")] = 60_000
    spare_after_ms: Annotated[
        int, Meta(ge=0, description="time after which a loaded process waits to replace one that dies; 0 for none")
    ] = 2_000
    restart_pause_ms: Annotated[Positive, Meta(description="pause before a child that ended is started again")] = 200
    restart_pause_max_ms: Annotated[Positive, Meta(description="longest such pause; it doubles with each try")] = 5_000
    stop_timeout_ms: Annotated[Positive, Meta(description="time a child gets to end before it is killed")] = 15_000
    drain_ms: Annotated[Positive, Meta(description="time running requests get to finish when a worker stops")] = 20_000
    handover_ms: Annotated[
        Positive, Meta(description="time the streams of a worker get that was replaced by `restart workers`")
    ] = 600_000
    handover_idle_ms: Annotated[
        Positive, Meta(description="time its unused connections stay open; longer than clients keep them")
    ] = 6_000
    housekeeping_ms: Annotated[Positive, Meta(description="pause between two rounds of the office's chores")] = 5_000
    live_viewers_max: Annotated[Positive, Meta(description="browsers that look at the live page at once")] = 32
    live_queue_max: Annotated[
        Positive, Meta(description="events waiting for a slow browser before it must start anew")
    ] = 256
    live_read_pause_ms: Annotated[Positive, Meta(description="pause between two readings of the live page")] = 100
    live_verify_pause_ms: Annotated[Positive, Meta(description="pause between two verifications for the live page")] = (
        1_000
    )
    live_prompt_bytes_max: Annotated[Positive, Meta(description="longest prompt of the live page")] = 16 << 10
    live_answer_tokens: Annotated[Positive, Meta(description="longest answer the live page asks for")] = 256

    @property
    def data(self) -> Path:
        """The data folder as an absolute path."""
        return Path(self.data_dir).expanduser().absolute()

    @property
    def backups(self) -> Path:
        """Folder of the database's backups."""
        return Path(self.backup_dir).expanduser().absolute() if self.backup_dir else self.data / "backups"

    @property
    def lake(self) -> Path:
        """Folder of the usage lake."""
        return Path(self.lake_dir).expanduser().absolute() if self.lake_dir else self.data / "lake"

    @property
    def master_keys(self) -> Path:
        """File of the master keys."""
        if self.master_key_file:
            return Path(self.master_key_file).expanduser().absolute()
        return self.data / "secrets" / "master-keys"

    @property
    def journal_dir(self) -> Path:
        """Folder of the gateway workers' journals."""
        return self.data / "journal"


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from environment variables; an unknown `TOKENWORKS_*` name or a bad value is a fault."""
    source = os.environ if environ is None else environ
    given = {name: value for name, value in source.items() if name.startswith(PREFIX)}
    known = {variable(name): name for name in Settings.__struct_fields__}
    for name in given:
        if name not in known:
            raise SettingsFault(f"{name} is not a setting; `docs/settings.md` lists them all")
    fields: dict[str, Any] = {known[name]: value for name, value in given.items()}
    try:
        settings = msgspec.convert(fields, Settings, strict=False)
    except msgspec.ValidationError as fault:
        text, _, where = str(fault).partition(" - at `$.")
        name = variable(where.rstrip("`"))
        raise SettingsFault(f"{name}={given.get(name, '')!r}: {text.lower()}") from fault
    for field in ("lease_cap_worker", "lease_cap_account"):
        try:
            parse_caps(getattr(settings, field))
        except AmountFault as fault:
            raise SettingsFault(f"{variable(field)}={getattr(settings, field)!r}: {fault}") from fault
    if settings.safety_url and not settings.safety_url.startswith(("http://", "https://")):
        raise SettingsFault(f"{variable('safety_url')}={settings.safety_url!r}: begins with http:// or https://")
    try:
        parse_networks(settings.endpoint_networks)
    except NetworkFault as fault:
        raise SettingsFault(f"{variable('endpoint_networks')}={settings.endpoint_networks!r}: {fault}") from fault
    return settings


def environment(settings: Settings) -> dict[str, str]:
    """The environment variables that make a child process load exactly these settings."""
    values = msgspec.to_builtins(settings)
    return {
        variable(name): str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()
    }


def variable(field: str) -> str:
    """`gateway_port` → `TOKENWORKS_GATEWAY_PORT`."""
    return PREFIX + field.upper()
