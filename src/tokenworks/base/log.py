"""Log lines: one per happening, `key=value` for people or JSON for machines. Secrets and prompts are never logged."""

import json
import logging
import sys
from typing import Any

from tokenworks.base import clock
from tokenworks.base.config import Settings

_RESERVED = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up(settings: Settings, process: str) -> None:
    """Send all log lines of this process to standard error in the format asked for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(process) if settings.log_format == "json" else _Text(process))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for noisy in ("httpx2", "httpcore2", "uvicorn", "nats"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def get(name: str) -> logging.Logger:
    """The logger of a module; details go in as `extra={...}` and come out as fields."""
    return logging.getLogger(name)


def _details(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _RESERVED}


class _Text(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        at = clock.iso(int(record.created * clock.SECOND))[11:23]
        details = "".join(f" {name}={value}" for name, value in _details(record).items())
        trace = "\n" + self.formatException(record.exc_info) if record.exc_info else ""
        return f"{at} {record.levelname.lower():<7} {self._process:<9} {record.getMessage()}{details}{trace}"


class _Json(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": clock.iso(int(record.created * clock.SECOND)),
            "level": record.levelname.lower(),
            "process": self._process,
            "message": record.getMessage(),
            **_details(record),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)
