"""Watches a running engine: is it there, does it get on, and what is kept of one that does not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma_serve import metrics
from gemma_serve.engine.nodes import MASTER_PORT, Absence, Ranks
from gemma_serve.engine.vitals import Workers
from gemma_serve.engine.watchdog import Progress, Sight, Watchdog
from gemma_serve.incident import incident_directory, without_secrets, write_incident

if TYPE_CHECKING:
    from gemma_serve.api.state import ServerState

POLL_S = 0.2
# How often the other hosts of a model are looked for.
NODES_S = 1.0
# As often as vLLM's own server does.
LOG_STATS_S = 10.0
# So many pings fit into `limits.stall_s`; under load the steps alone are signs enough.
PINGS_A_STALL = 5


class EngineWatch:
    """One running engine, looked at until it is lost."""

    def __init__(
        self, state: ServerState, events: Path, *, on_cpu: bool, say: Callable[[str], None]
    ) -> None:
        limits = state.profile.limits
        self.state, self.events, self.say = state, events, say
        self.engine = state.running_engine()
        self.watchdog = Watchdog(limits.stall_s, limits.wedge_s)
        self.ping_every_s = limits.stall_s / PINGS_A_STALL
        # On a GPU the time of a worker's CPU says nothing: it may spin while the GPU hangs.
        self.on_cpu, self.workers = on_cpu, Workers(events)
        self.ping: asyncio.Task[None] | None = None
        self.last_answer_s = time.monotonic()

    async def until_lost(self) -> None:
        """Watch until the engine is dead or wedged; say so, and keep what may tell why."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + LOG_STATS_S
        nodes = asyncio.create_task(self._watch_nodes())
        try:
            while self.state.alive:
                asleep_s = loop.time()
                await asyncio.sleep(POLL_S)
                self._look(lag_s=max(loop.time() - asleep_s - POLL_S, 0.0))
                if loop.time() >= due_s:
                    due_s += LOG_STATS_S
                    # vLLM logs, and so empties, its statistics.
                    await self.engine.log_stats()
        finally:
            nodes.cancel()
            if self.ping is not None:
                self.ping.cancel()
        if self.state.given_up:
            await self._keep_incident()
            self.say(
                f"The engine is wedged: no sign of life for {self.state.silent_s:.0f} s. "
                "Shutting down."
            )
        elif self.state.node_lost:
            self.say("A node of the model is gone. Shutting down.")
        else:
            self.say("The engine died; the lines above are vLLM's own. Shutting down.")

    async def _watch_nodes(self) -> None:
        settings = self.state.profile.engine
        if settings.get("nnodes", 1) == 1:
            return
        ranks = await asyncio.to_thread(Ranks, int(settings.get("master_port", MASTER_PORT)))
        absence = Absence()
        while not self.state.node_lost:
            await asyncio.sleep(NODES_S)
            missing = await asyncio.to_thread(ranks.one_is_gone)
            self.state.node_lost = absence.is_sure(missing=missing)

    def _look(self, lag_s: float) -> None:
        self._ping_if_due()
        state, before = self.state, self.state.progress
        state.progress = self.watchdog.look(self._sight())
        state.silent_s, state.event_loop_lag_s = self.watchdog.silent_s, lag_s
        state.given_up = state.progress is Progress.WEDGED
        metrics.EVENT_LOOP_LAG.observe(lag_s)
        metrics.ENGINE_SILENT.set(state.silent_s)
        metrics.ENGINE_STALLED.set(state.progress in (Progress.STALLED, Progress.WEDGED))
        if state.stalled and before is not Progress.STALLED:
            self.say(f"The engine has stalled: no sign of life for {state.silent_s:.0f} s.")
        elif before is Progress.STALLED and not state.stalled and not state.given_up:
            self.say("The engine gives signs of life again.")

    def _sight(self) -> Sight:
        last_sign_s = max(self.engine.steps.last_step_s, self.last_answer_s)
        # The kernel is asked about the workers only where their silence may come to matter.
        if is_long := self.watchdog.is_long:
            self.workers.sample()
        return Sight(
            now_s=time.monotonic(),
            last_sign_s=last_sign_s,
            requests=self.engine.num_requests(),
            waiting=self.engine.steps.waiting,
            computing=is_long and self.on_cpu and self.workers.computing,
            stopped=is_long and self.workers.stopped,
        )

    def _ping_if_due(self) -> None:
        if self.ping is not None and not self.ping.done():
            return
        if self.watchdog.silent_s >= self.ping_every_s:
            self.ping = asyncio.create_task(self._ping())

    async def _ping(self) -> None:
        sent_s = time.monotonic()
        self.watchdog.asked()
        # A dead engine, which is noticed elsewhere.
        with contextlib.suppress(Exception):
            await self.engine.ping()
            self.last_answer_s = time.monotonic()
            self.watchdog.answered(self.last_answer_s - sent_s)

    async def _keep_incident(self) -> None:
        directory = incident_directory(self.state.profile.observability.incident_dir)
        try:
            what = (directory, self.events, self._facts())
            folder = await asyncio.to_thread(write_incident, *what)
        except Exception as error:
            # Whatever it is, the end of the server does not wait for it.
            self.say(f"The incident can't be kept in {directory} ({error}).")
        else:
            self.say(f"What is known of it is in {folder}.")

    def _facts(self) -> dict[str, Any]:
        state, about = self.state, dict(self.state.about)
        settings = without_secrets(about.pop("settings", []))
        return {
            "reason": f"no sign of life from the engine for {state.silent_s:.1f} s",
            "slowest_step_s": self.watchdog.slowest_step_s,
            "server": about,
            "engine": self.engine.facts(),
            "schedulers": self.engine.steps.as_dicts(),
            "open_http_and_grpc_requests": state.open_requests,
            "requests": self.engine.open_requests(),
            "last_requests": list(state.last_requests),  # that are over
            "settings": settings,
        }
