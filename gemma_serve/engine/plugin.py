"""
What gemma-serve adds to each of vLLM's processes, through the entry point `vllm.general_plugins`.

vLLM's engine and workers are processes of their own; what they are busy with while they start, and
why they failed, stands only in their logs. The plugin turns those log records into events: one JSON
line each, in the file that `GEMMA_SERVE_EVENTS` names. It also ties each process to the life of the
one that started it, keeps torch's store from listening on every interface, lets other processes run
while it waits, keeps a CPU from sorting vocabularies, and has the process write its stacks beside
the events when it is asked for them.
Without the variable it does nothing, so that another vLLM in the same environment is left alone.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import signal
import time
from importlib import import_module
from multiprocessing import parent_process
from pathlib import Path
from typing import TextIO

from gemma_serve.engine.cpu_sampling import sort_only_the_top_k
from gemma_serve.engine.loopback_store import keep_on_loopback
from gemma_serve.engine.processes import die_with_parent
from gemma_serve.engine.waiting import sleep_instead_of_yielding

EVENTS_VARIABLE = "GEMMA_SERVE_EVENTS"

# Format string of a vLLM 0.32 log record -> the event it marks; tests/engine/test_plugin.py holds
# each of them against the installed vLLM.
MARKERS = {
    "Starting to load model %s...": "load_started",
    "Loading weights took %.2f seconds": "weights_loaded",
    "%storch.compile took %.2f s in total": "compiled",
    "Warming up model for the compilation...": "compile_started",
    "Warming up done.": "compile_finished",
    "%s KV cache size: %s tokens, Maximum concurrency for %s tokens per request: %.2fx": "kv_cache",
    "EngineCore failed to start.": "failed",
    "WorkerProc failed to start.": "failed",
}
# Neither vLLM nor Python uses it; without a handler it would end a process.
STACKS_SIGNAL = signal.SIGUSR2
ENGINE_READY_PREFIX = "init engine (profile, create kv cache, warmup model) took"


class EventHandler(logging.Handler):
    """Appends the marked records to the events file; everything else passes it by."""

    def __init__(self, path: str) -> None:
        super().__init__(logging.INFO)
        self.path = path

    def emit(self, record: logging.LogRecord) -> None:
        event = event_of(record)
        if event is None:
            return
        # The file is gone once the launcher is, and a cleaner of /tmp may take it: vLLM must not
        # notice.
        with contextlib.suppress(OSError), open(self.path, "a", encoding="utf-8") as file:
            # One write of less than a page to a file opened for appending is not torn by another
            # process.
            file.write(json.dumps(event) + "\n")


def event_of(record: logging.LogRecord) -> dict[str, object] | None:
    """The event that a log record marks, or None."""
    message = str(record.msg)
    name = "engine_ready" if message.startswith(ENGINE_READY_PREFIX) else MARKERS.get(message)
    if name is None:
        return None
    event: dict[str, object] = {"event": name, "time_s": time.time(), "pid": os.getpid()}
    if record.args:
        event["args"] = [
            arg if isinstance(arg, int | float) else str(arg)[:200]
            for arg in (record.args if isinstance(record.args, tuple) else (record.args,))
        ]
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        event["error_type"] = type(error).__name__
        event["error"] = str(error)[:1500]
    return event


# faulthandler writes to a file that has to stay open.
_stacks: list[TextIO] = []


def register() -> None:
    """Called by vLLM in each process; the server's own needs nothing, the launcher is there."""
    path = os.environ.get(EVENTS_VARIABLE)
    if path and parent_process() is not None:
        die_with_parent()
        keep_on_loopback()
        if computes_on_cpu():
            sleep_instead_of_yielding()
            sort_only_the_top_k()
        write_stacks_when_asked(stacks_file(path, os.getpid()))
        listen(path)


def computes_on_cpu() -> bool:
    """
    Whether torch is built for a CPU.

    vLLM has kernels of its own for sampling on GPUs, and beside one nobody has measured the sleep.
    """
    version = import_module("torch").version
    return version.cuda is None and version.hip is None


def stacks_file(events: str | Path, pid: int) -> Path:
    """Where a process writes its stacks; the file is there as soon as it may be asked."""
    return Path(events).with_name(f"stacks-{pid}.txt")


def write_stacks_when_asked(path: Path) -> None:
    """Write the Python stacks of all threads at STACKS_SIGNAL, also where it hangs in C."""
    if _stacks:
        return
    with contextlib.suppress(OSError):
        file = path.open("w", encoding="utf-8")
        faulthandler.register(STACKS_SIGNAL, file=file, all_threads=True)
        _stacks.append(file)


def listen(path: str) -> None:
    """Write the events of this process's vLLM log to `path`; once, however often it is called."""
    logger = logging.getLogger("vllm")
    if any(isinstance(handler, EventHandler) for handler in logger.handlers):
        return
    # The markers are INFO records: let them be made, and keep the operator's level on the handlers
    # that print.
    for handler in logger.handlers:
        handler.setLevel(max(handler.level, logger.level))
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    logger.addHandler(EventHandler(path))
