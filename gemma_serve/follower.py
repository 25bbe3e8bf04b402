"""
A node that answers no requests: it holds its part of a model for node 0, and ends with it.

One model over several hosts by vLLM's own start: the same profile on each, node 0 with
`launcher.py`, every other with `--set engine.node_rank=N` here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

from gemma_serve import log_sink
from gemma_serve.engine.failures import startup_error
from gemma_serve.engine.nodes import MASTER_PORT, Absence, is_connected_to_store
from gemma_serve.engine.processes import (
    adopt_orphans,
    deaf_to_ctrl_c,
    end_children,
    remove_abandoned_memory,
)
from gemma_serve.engine.timeline import read_events
from gemma_serve.notify import notify
from gemma_serve.plan import plan_serve
from gemma_serve.prepare import prepare_environment
from gemma_serve.profile.load import LoadedProfile
from gemma_serve.progress import Progress
from gemma_serve.rundir import run_directory
from gemma_serve.start_signals import StartSignals

# How often node 0 is looked for.
POLL_S = 1.0
# What the workers get to end by themselves before they are killed.
END_S = 2.0


def is_follower(loaded: LoadedProfile) -> bool:
    """Whether the profile makes this a node after the first."""
    return bool(loaded.profile.engine.get("node_rank", 0))


def run(loaded: LoadedProfile, progress: Progress) -> int:
    """
    Run this node's workers until a signal, or until node 0 or one of them is gone.

    Returns:
        The exit code: 0 after a signal, 1 otherwise, for a supervisor to start it again.

    Raises:
        GemmaServeError: the workers can't start; nothing is left running.
    """
    progress.wait_for_nobody()
    try:
        code, why = _run(loaded, progress)
        progress.say(why)
        return code
    finally:
        log_sink.wait_until_written()


def _run(loaded: LoadedProfile, progress: Progress) -> tuple[int, str]:
    signals = StartSignals()
    adopt_orphans()
    try:
        with run_directory() as folder:
            remove_abandoned_memory()
            plan = plan_serve(loaded, progress.say)
            events = prepare_environment(plan, folder, progress)
            with signals.obeyed(), progress.doing("import"):
                from gemma_serve.engine import vllm
            arguments = plan.resolved.engine_kwargs()
            try:
                return 1, _follow(partial(vllm.follow, arguments), loaded, progress)
            except Exception as error:
                raise startup_error(error, read_events(events)) from error
    except KeyboardInterrupt:
        return 0, "Stopped."


def _follow(
    start: Callable[[Callable[[], None]], None], loaded: LoadedProfile, progress: Progress
) -> str:
    """Run the workers to their end, whoever ends them; why it was."""
    engine = loaded.profile.engine
    port = int(engine.get("master_port", MASTER_PORT))
    leader = f"Node 0 at {engine.get('master_addr', '127.0.0.1')}:{port}"
    progress.say(f"Waiting for {leader}, and loading a part...")
    ready = threading.Event()
    # A thread of its own, which has to live on: the workers end with the one that started them.
    starter = ThreadPoolExecutor(1, thread_name_prefix="follow")
    working = starter.submit(deaf_to_ctrl_c, partial(start, ready.set))
    try:
        while not ready.wait(POLL_S) and not working.done():
            pass
        if ready.is_set():
            node = f"Node {engine['node_rank']} of {engine['nnodes']}"
            progress.say(f"{node} is ready (Ctrl-C stops)")
            notify("READY=1", f"STATUS={node} is ready")
        absence = Absence()
        while not working.done():
            # From here on systemd watches: a node that looks no more would not end with node 0.
            notify("WATCHDOG=1")
            if absence.is_sure(missing=not is_connected_to_store(port)):
                return f"{leader} is gone."
            time.sleep(POLL_S)
        working.result()
        return "A worker of this node has ended."
    finally:
        notify("STOPPING=1", "STATUS=Shutting down")
        end_children(END_S)
        # So that what vLLM says of their end comes before our last line.
        wait([working], END_S)
