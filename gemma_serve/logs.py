"""
What is written to the log, and how: text or JSON, with the id of the request that a line is of.

One configuration for all processes: the launcher writes it to a file and names that in
VLLM_LOGGING_CONFIG_PATH, which vLLM reads in its own processes too. Prompts are in no line;
vLLM's `enable_log_requests` would put them there.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import time
from contextvars import ContextVar
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma_serve import log_sink

if TYPE_CHECKING:
    from gemma_serve.profile.schema import Observability

CONFIG_VARIABLE = "VLLM_LOGGING_CONFIG_PATH"
# What is known of the request at hand; a route's tasks share their request's one.
request_facts: ContextVar[dict[str, Any] | None] = ContextVar("request_facts", default=None)
# Of a line; a traceback's end says more than its beginning.
MAX_TRACE_CHARS = 20_000
MIB = 1024 * 1024


def note(**facts: Any) -> None:
    """Keep something of the request at hand for its line in the access log."""
    known = request_facts.get()
    if known is not None:
        known.update(facts)


def request_id() -> str | None:
    """The id of the request at hand, if there is one."""
    known = request_facts.get()
    return known.get("request_id") if known else None


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; whatever is no JSON in it as text."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": _process(record),
            "pid": record.process,
            "message": record.getMessage(),
        }
        line |= {"request_id": id_} if (id_ := request_id()) else {}
        line |= getattr(record, "fields", {})
        if trace := _trace(self, record):
            line["trace"] = trace
        return json.dumps(line, default=str)  # ASCII: no control character stays one


class TextFormatter(logging.Formatter):
    """A line for people; control characters in it are escaped, so that nobody writes a second."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, process, message, and what belongs to it."""
        fields = getattr(record, "fields", {})
        id_ = {"request_id": request_id()} if request_id() and "request_id" not in fields else {}
        words = [
            _time(record),
            record.levelname,
            f"{_process(record)}[{record.process}]",
            record.name,
            escaped(record.getMessage()),
            *(f"{name}={escaped(str(value))}" for name, value in (id_ | fields).items()),
        ]
        trace = _trace(self, record)
        return " ".join(words) + (f"\n{_escaped_lines(trace)}" if trace else "")


def escaped(text: str) -> str:
    """The text with its control characters, line ends among them, as Python writes them."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _escaped_lines(text: str) -> str:
    return "\n".join(f"  {escaped(line)}" for line in text.split("\n"))


def _time(record: logging.LogRecord) -> str:
    """UTC, to the millisecond, as ISO 8601 has it."""
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _process(record: logging.LogRecord) -> str:
    # vLLM's record factory knows its processes by name.
    name = getattr(record, "vllm_process_name", record.processName)
    return "server" if name in (None, "MainProcess") else str(name)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if not record.exc_info:
        return ""
    return formatter.formatException(record.exc_info)[-MAX_TRACE_CHARS:]


def log_file(path: str, max_bytes: int, backups: int) -> logging.Handler:
    """
    A file that several processes append to: the server renames it when it is full, vLLM's follow.

    `logging` makes it of the configuration's words.
    """
    if parent_process() is not None:
        return _FollowedFile(path, encoding="utf-8")
    return RotatedFile(path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8")


class _Counted(logging.Handler):
    """What can't be written, as to a disk that is full, is counted: it must not flood stderr."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802
        log_sink.count_dropped()


class RotatedFile(_Counted, logging.handlers.RotatingFileHandler):
    """A file that becomes `.1`, `.2` ... when it is full."""


class _FollowedFile(_Counted, logging.handlers.WatchedFileHandler):
    pass


def config(settings: Observability, vllm_level: str) -> dict[str, Any]:
    """
    The configuration of `logging`, for every process.

    Args:
        settings: The profile's.
        vllm_level: VLLM_LOGGING_LEVEL; lines of gemma-serve itself are written from INFO on.
    """
    formatter, stream = (
        (JsonFormatter, "STDOUT") if settings.log_format == "json" else (TextFormatter, "STDERR")
    )
    handlers: dict[str, Any] = {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "stream": f"ext://{log_sink.__name__}.{stream}",
        }
    }
    if settings.log_file is not None:
        handlers["file"] = {
            "()": f"{__name__}.{log_file.__name__}",
            "formatter": "line",
            "path": str(Path(settings.log_file).expanduser().absolute()),
            "max_bytes": settings.log_file_mib * MIB,
            "backups": settings.log_file_backups,
        }
    to = {"handlers": list(handlers), "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": f"{__name__}.{formatter.__name__}"}},
        "handlers": handlers,
        "loggers": {
            "vllm": {"level": vllm_level, **to},
            "uvicorn": {"level": "WARNING", **to},
            "gemma_serve": {"level": "INFO", **to},
        },
    }
