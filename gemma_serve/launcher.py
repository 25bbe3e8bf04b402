"""
The whole program on one screen: profile -> environment -> engine -> app -> uvicorn, and back down.

vLLM, and what imports it, is imported inside `run`, after the environment is set.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from gemma_serve import log_sink, metrics
from gemma_serve.api.keys import KeyRing, followed
from gemma_serve.api.probes import starting_app
from gemma_serve.api.state import ServerState
from gemma_serve.engine.failures import startup_error
from gemma_serve.engine.heap import give_back_freed_memory
from gemma_serve.engine.processes import (
    adopt_orphans,
    deaf_to_ctrl_c,
    end_children,
    remove_abandoned_memory,
    shared_memory_below,
)
from gemma_serve.engine.timeline import Timeline, read_events, record_engine_phases
from gemma_serve.flight import open_recorder
from gemma_serve.listen import HttpServer, answered_meanwhile, open_ports
from gemma_serve.notify import notify, watchdog
from gemma_serve.plan import Plan, plan_serve
from gemma_serve.prepare import prepare_environment
from gemma_serve.profile.load import LoadedProfile
from gemma_serve.progress import Progress
from gemma_serve.quality.gate import Gate, read_gate
from gemma_serve.quality.gate import check as check_quality
from gemma_serve.rundir import run_directory
from gemma_serve.sizing import selfcheck
from gemma_serve.start_signals import StartSignals
from gemma_serve.watch import EngineWatch

if TYPE_CHECKING:
    from gemma_serve.api.kserve.service import KServe
    from gemma_serve.api.kserve_grpc import GrpcServer
    from gemma_serve.engine.vllm import Engine

# How often a start is looked at for new events, and a drain for its end.
POLL_S = 0.2
# After SIGTERM under load the port stays open for so long, also when all is answered sooner: who
# sends requests here may not know yet that they belong elsewhere, and is told so.
LISTEN_S = 5.0
# What an answer that is cut off gets to say so.
CUT_OFF_S = 1.0
# What vLLM's processes get to end by themselves before they are killed.
ENGINE_EXIT_S = 2.0
STOPPED = "Stopped before the server was ready."


def run(loaded: LoadedProfile, progress: Progress) -> int:
    """
    Serve a profile until a signal ends it.

    Returns:
        The exit code: 0 after a signal, 1 when the engine died.

    Raises:
        GemmaServeError: the server can't start; nothing is left running.
    """
    settings = loaded.profile.server
    progress.wait_for_nobody()
    timeline = Timeline(on_phase=progress.phase)
    signals = StartSignals()
    adopt_orphans()
    try:
        # Ports, certificate and keys first: whether they serve is known in milliseconds.
        with open_ports(settings) as ports, run_directory() as folder:
            remove_abandoned_memory()
            keys = KeyRing(settings.api_keys_file, os.environ)
            folders = [*(file.parent for file in reversed(loaded.files)), Path.cwd()]
            gate = read_gate(loaded.profile.quality, folders)
            flight = open_recorder(loaded.profile.observability)
            state = ServerState(loaded.profile, timeline, keys=keys, flight=flight)
            limits = loaded.profile.limits
            starting = answered_meanwhile(starting_app(state), ports, settings, limits)
            with signals.obeyed(), starting:
                plan = plan_serve(loaded, progress.say)
                events = prepare_environment(plan, folder, progress)
                with progress.doing("import"), timeline.phase("import"):
                    from gemma_serve.api.app import build_app, only_probes
                    from gemma_serve.api.kserve.service import KServe
                    from gemma_serve.api.kserve.statistics import TritonCounters
                    from gemma_serve.api.tracing import flush_spans

            state.about, state.is_multimodal = plan.about(), plan.checkpoint.is_multimodal
            metrics.INFO.info({name: str(value) for name, value in plan.facts().items()})
            for objective, seconds in loaded.profile.slo.seconds().items():
                metrics.SLO.labels(objective).set(seconds)
            kserve = KServe(state)
            counters = TritonCounters(kserve.statistics, kserve.version, kserve.models)
            metrics.register(counters)
            app = build_app(state, kserve)
            http = HttpServer(app, only_probes(app), ports, settings, limits)
            server = Server(plan, state, http, events, progress, kserve, keys, gate)
            code: int = uvloop.run(server.serve())
            flush_spans()
            return code
    except KeyboardInterrupt:
        progress.say(STOPPED)
        return 0
    finally:
        log_sink.wait_until_written()


@dataclass
class Server:
    """One run of the server, from the open port to the last process's end."""

    plan: Plan
    state: ServerState
    http: HttpServer
    events: Path
    progress: Progress
    kserve: KServe
    keys: KeyRing
    gate: Gate | None
    grpc: GrpcServer | None = None
    signals: list[int] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    # In a thread of its own, so that probes are answered and signals are heard. It has to live on:
    # vLLM's processes end with the thread that started them (`die_with_parent`).
    starter: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="start-engine")
    )
    starting: Future[Engine] | None = None
    worker_memory: frozenset[Path] = frozenset()

    async def serve(self) -> int:
        """Start, wait for a reason to end, and end everything."""
        async with watchdog(), followed(self.keys, self.progress.say):
            return await self._serve()

    async def _serve(self) -> int:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
            numbers.append(signal.SIGHUP)
        for number in numbers:
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        try:
            await self.http.start()
            await self._start_grpc()
            started = await self._unless_stopped(self._start())
            if started:
                # Now, while they live: those that are killed leave it behind.
                self.worker_memory = await asyncio.to_thread(shared_memory_below)
                await self._unless_stopped(self._watch().until_lost())
            code = 0 if self.state.alive else 1
        finally:
            await self._shut_down()
        if not started:
            # Last, below what vLLM's processes say of their end.
            self.progress.say(STOPPED)
        return code

    def _on_signal(self, number: int) -> None:
        self.signals.append(number)
        self.stop.set()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do the work until it is done (True) or a signal comes (False)."""
        working, stopped = asyncio.create_task(work), asyncio.create_task(self.stop.wait())
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not working.done():
            working.cancel()
            return False
        working.result()
        return True

    # --- start

    async def _start_grpc(self) -> None:
        port = self.plan.loaded.profile.server.grpc_port
        if port is None:
            return
        from gemma_serve.api.kserve_grpc import GrpcServer

        # gRPC's library takes its time to import, and not every server needs it.
        self.grpc = GrpcServer(self.kserve)
        bound = await self.grpc.start(port)
        self.progress.say(f"gRPC (KServe v2) at {self.plan.loaded.profile.server.host}:{bound}")

    async def _start(self) -> None:
        from gemma_serve.api.warm_up import warm_up
        from gemma_serve.engine import vllm

        engine_kwargs = self.plan.resolved.engine_kwargs()
        frontend_kwargs = self.plan.resolved.frontend_kwargs()
        timeline = self.state.timeline
        watching = asyncio.create_task(self._watch_events())
        try:
            with self.progress.doing("start"):
                what = (engine_kwargs, timeline, self.plan.loaded.profile, self.plan.checkpoint)
                self.starting = self.starter.submit(deaf_to_ctrl_c, partial(vllm.start, *what))
                engine = await asyncio.shield(asyncio.wrap_future(self.starting))
                self._record_phases()
                self.state.engine = engine
                await vllm.wire(engine, engine_kwargs, frontend_kwargs)
            with self.progress.doing("warm_up"), timeline.phase("warm_up"):
                await warm_up(self.http.app, engine.served_model_names()[0])
                await self._open_admission(engine)
            if self.gate is not None:
                with self.progress.doing("quality"), timeline.phase("quality"):
                    self.progress.say(await check_quality(engine, self.gate))
            # What is there now stays: the garbage collector need not look at it with every request.
            vllm.freeze_gc_heap()
            give_back_freed_memory()
        except Exception as error:
            raise startup_error(error, read_events(self.events)) from error
        finally:
            watching.cancel()
        self._ready(engine)

    async def _open_admission(self, engine: Engine) -> None:
        """Hold the limits from here on; those that follow from the engine's speed are measured."""
        from gemma_serve.api.admission import Capacity
        from gemma_serve.api.warm_up import measure_prefill, measure_steps

        rate, model = None, engine.served_model_names()[0]
        if self.state.admission.bounds.ttft_s is not None:
            num_tokens = min(engine.max_num_batched_tokens, engine.max_model_len // 4)
            rate = await measure_prefill(self.http.app, model, num_tokens)
        if self.state.admission.tenants.has_keys:
            await measure_steps(self.http.app, model, engine.max_num_seqs, engine.steps.times)
        capacity = Capacity(
            engine.max_num_seqs,
            engine.max_num_batched_tokens,
            engine.num_prefill_tokens,
            lambda: engine.steps.waiting,
            num_engines=engine.num_replicas,
            step_times=engine.steps.times,
        )
        self.state.admission.open(capacity, rate)

    async def _watch_events(self) -> None:
        while True:
            self._record_phases()
            await asyncio.sleep(POLL_S)

    def _record_phases(self) -> None:
        spawned_s = self.state.timeline.ended_s.get("config")
        if spawned_s is not None:
            record_engine_phases(self.state.timeline, read_events(self.events), spawned_s)

    def _ready(self, engine: Engine) -> None:
        timeline = self.state.timeline
        self._check_plan(engine)
        timeline.finish()
        self.state.become_ready()
        for phase, seconds in timeline.as_dict().items():
            metrics.STARTUP_PHASE.labels(phase).set(seconds)
        pages = self.plan.loaded.profile.server
        names = engine.served_model_names()
        if pages.playground:
            self.progress.say(f"Playground, to chat in a browser: {self.http.url}/playground")
        self.progress.ready(self.http.url, names, timeline, docs=pages.docs)
        if self.state.ready:
            notify("READY=1", f"STATUS=Serving {', '.join(names)} at {self.http.url}")

    def _check_plan(self, engine: Engine) -> None:
        """Hold the plan against what vLLM made of it: in the log, the series and /v1/info."""
        sizing = self.plan.sizing
        check = selfcheck.self_check(sizing, engine.facts()) if sizing else None
        if check is not None:
            selfcheck.export(check)
            self.state.self_check = check.as_dict()
            self.progress.say(check.line())

    # --- run

    def _watch(self) -> EngineWatch:
        on_cpu = self.plan.platform.kind == "cpu"
        return EngineWatch(self.state, self.events, on_cpu=on_cpu, say=self.progress.say)

    # --- end

    async def _shut_down(self) -> None:
        """In this order: refuse new requests, let open ones finish, close the port, end vLLM."""
        self.state.begin_draining()
        notify("STOPPING=1", f"STATUS=Shutting down (open requests: {self.state.open_requests})")
        await self._drain()
        await self._cut_off()
        if self.grpc is not None:
            await self.grpc.stop()
        # We have said how many are cut off; uvicorn would add a stack trace for each.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await self.http.stop()
        left = self.worker_memory | shared_memory_below()
        if self.state.engine is not None:
            await self.state.engine.aclose()
            await asyncio.to_thread(self.state.engine.shutdown, ENGINE_EXIT_S)
        await asyncio.to_thread(self._end_processes)
        for file in left:
            file.unlink(missing_ok=True)

    async def _drain(self) -> None:
        """Wait for open requests, up to limits.drain_s; a second signal ends the wait."""
        if not (self.state.open_requests and self.state.alive):
            return
        signals_before, loop = len(self.signals), asyncio.get_running_loop()
        began_s, drain_s = loop.time(), self.plan.loaded.profile.limits.drain_s
        # SIGINT comes from a person at the terminal, who sees that it ends.
        listen_s = LISTEN_S if self.signals == [signal.SIGTERM] else 0.0
        self.progress.say(f"Draining (open requests: {self.state.open_requests})...")
        while self.state.alive and (self.state.open_requests or loop.time() < began_s + listen_s):
            if loop.time() >= began_s + drain_s or len(self.signals) > signals_before:
                break
            await asyncio.sleep(POLL_S)
        if self.state.alive and self.state.open_requests:
            self.progress.say(f"Cut off (open requests: {self.state.open_requests}).")

    async def _cut_off(self) -> None:
        """End what is still open with an error that says why, and let that arrive."""
        if self.state.engine is None or not self.state.open_requests:
            return
        # Else those that wait would get the places of those that are given up.
        self.state.admission.close(self.state.unavailable)
        for _ in range(round(CUT_OFF_S / POLL_S)):
            # Again, for those that were on their way to the engine.
            self.state.engine.give_up_requests(self.state.unavailable())
            await asyncio.sleep(POLL_S)
            if not self.state.open_requests:
                return

    def _end_processes(self) -> None:
        """End what vLLM started; a start that was interrupted may still be starting more."""
        end_children(ENGINE_EXIT_S)
        while self.starting is not None and not self.starting.done():
            end_children(POLL_S)
