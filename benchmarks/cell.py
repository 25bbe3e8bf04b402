"""
One cell: a workload offered to a server by one load, and everything that is said of it.

    prepare (what can the server do?) -> offer -> summarise -> check -> Run -> files
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from benchmarks.load.connection import Endpoint
from benchmarks.load.probe import abilities, about, first_model, scrape
from benchmarks.load.protocols import SALT_DIGITS, Extras, body
from benchmarks.load.runner import Offered, Progress, Sending, offer
from benchmarks.load.schedule import trace_times_s, units
from benchmarks.machine import CpuWatch, argv, conditions, undisturbed, utc_now, without_paths
from benchmarks.metrics.export import vllm_bench, write_requests, write_summary_csv
from benchmarks.metrics.server_side import server_side
from benchmarks.metrics.timeline import timeseries
from benchmarks.metrics.validity import check_run
from benchmarks.metrics.windows import summarise
from benchmarks.records import (
    TRITON_PROTOCOLS,
    Item,
    Load,
    MachineUse,
    PhaseSpan,
    Protocol,
    RequestRecord,
    Run,
    ServerSide,
    Slo,
    Target,
    TokenSource,
    TritonContract,
    WorkloadInfo,
)
from benchmarks.workload import Workload, write_workload

# Their requests are made to find what others left in the prefix cache.
SHARING = ("prefix", "multi_turn", "trace")
TOOL = {"name": "gemma-bench", "version": 1}


@dataclass(frozen=True)
class ServerMeter:
    """Figures of the server's processes, where the harness started them."""

    api_cpu_s: Callable[[], float | None]
    tree_cpu_s: Callable[[], float | None]
    api_rss_mib: Callable[[], float | None]
    ended: Callable[[], str | None]  # why, with its last words, where it ended by itself


@dataclass(frozen=True)
class Settings:
    """What stays the same over the cells of one command."""

    protocol: Protocol | None = None  # by the workload if not given
    model: str | None = None  # the server's first if not given
    contract: TritonContract = "python-backend"
    # The best that the server has if not given, and over Triton's protocols, which leave no choice.
    token_source: TokenSource | None = None
    slo: Slo | None = None
    cold: bool = True
    ignore_eos: bool = True
    stall_s: float = 120.0
    timeout_s: float = 600.0
    seed: int = 0
    keep_text: bool = False
    client_cpus: tuple[int, ...] | None = None  # cores of the client alone; all if not given


@dataclass(frozen=True)
class Prepared:
    """A server that was looked at, ready to be measured."""

    endpoint: Endpoint
    sending: Sending
    target: Target
    slo: Slo | None
    salts: bool
    meter: ServerMeter | None = None


@dataclass(frozen=True)
class CellResult:
    """A run, its requests and its workload."""

    run: Run
    records: list[RequestRecord]
    workload: Workload = field(repr=False)


def check_cell(workload: Workload, load: Load, settings: Settings) -> None:
    """
    Find out whether the requests can be sent like this, before a server is started for them.

    Raises:
        ValueError: the protocol has no place for a prompt, or the workload no times of its own.
    """
    if load.mode == "trace":
        trace_times_s(units(workload.items), load)
    protocol = protocol_of(workload, settings)
    for items in (workload.items, workload.warm_up):
        for unit in units(items):
            _check_turns(unit)
            for item in unit:
                body(protocol, "", item, Extras(), contract=settings.contract)


def _check_turns(turns: Sequence[Item]) -> None:
    if len(turns) > 1 and (ids := [item for item in turns if item.prompt_token_ids is not None]):
        raise ValueError(
            f"request {ids[0].index} of the workload is a turn of a conversation, in token ids, "
            "and the answers between its turns come as text; give its turns as text or messages"
        )


def protocol_of(workload: Workload, settings: Settings) -> Protocol:
    """The one that was asked for, else the one that has a place for the workload's prompts."""
    first = (workload.warm_up or workload.items)[0]
    return settings.protocol or ("openai-completions" if first.messages is None else "openai-chat")


async def prepare(
    endpoint: Endpoint,
    workload: Workload,
    settings: Settings,
    *,
    label: str | None = None,
    meter: ServerMeter | None = None,
    promised: Mapping[str, Any] | None = None,
) -> Prepared:
    """
    Find out what the server is and can do.

    Args:
        promised: The `slo` of the profile that it was started from, where it does not publish it
            itself.

    Raises:
        ConnectionError: no server there.
        ValueError: it does not answer the workload's kind of request.
    """
    item = (workload.warm_up or workload.items)[0]
    protocol = protocol_of(workload, settings)
    model = settings.model or await first_model(endpoint)
    can = await abilities(endpoint, protocol, model, item, settings.contract)
    said = await about(endpoint)
    of_triton = protocol in TRITON_PROTOCOLS
    sending = Sending(
        endpoint=endpoint,
        protocol=protocol,
        model=model,
        token_source=(None if of_triton else settings.token_source) or can.token_source,
        ignore_eos=settings.ignore_eos and can.ignore_eos,
        contract=settings.contract,
        stall_s=settings.stall_s,
        timeout_s=settings.timeout_s,
        keep_text=settings.keep_text,
    )
    target = Target(
        url=endpoint.url,
        protocol=protocol,
        model=model,
        label=label or model,
        contract=settings.contract if of_triton else None,
        grpc=endpoint.grpc if protocol == "triton-grpc" else None,
        server=said,
    )
    published = (said.get("info") or {}).get("slo")  # of gemma-serve
    slo = settings.slo or _profile_slo(published or promised or {})
    return Prepared(endpoint, sending, target, slo, can.salts, meter)


def _profile_slo(found: Mapping[str, Any]) -> Slo | None:
    """A profile's `slo` in the harness's words: what it calls itl is of one request."""
    given = {"ttft_ms": found.get("ttft_ms"), "tpot_ms": found.get("itl_ms")}
    return Slo(**given) if any(given.values()) else None


async def run_cell(
    server: Prepared,
    workload: Workload,
    load: Load,
    settings: Settings,
    *,
    run_id: str | None = None,
    on_progress: Progress | None = None,
) -> CellResult:
    """
    Measure one cell.

    Raises:
        ConnectionError: the server is gone before the first request.
        ValueError: the workload does not go with the load or the protocol.
    """
    started_at = utc_now()
    run_id = run_id or f"{started_at.replace(':', '')}-{load.label().replace('/', '-')}"
    cold = settings.cold and not shares_prompts(workload)
    salt = run_id if server.salts else None
    sending = dataclasses.replace(server.sending, salt=salt, salt_each=cold)
    host, counters = conditions(), _Counters(server)
    with undisturbed(settings.client_cpus) as client:
        offered = await offer(
            sending,
            load,
            workload.items,
            workload.warm_up,
            seed=settings.seed,
            on_measured=counters.begin,
            on_progress=on_progress,
        )
    use = await counters.end()
    offered.health.foreign_cpu, offered.health.steal = use.foreign_cpu, use.steal
    metrics = summarise(offered.records, load, server.slo)
    side, reason = counters.differences(offered.records)
    run = Run(
        run_id=run_id,
        tool=TOOL | {"commit": host["commit"]},
        started_at=started_at,
        ended_at=utc_now(),
        argv=argv(),
        seed=settings.seed,
        workload=about_workload(workload, sending, cold=cold),
        load=load,
        target=server.target,
        host=host | client,
        phases=_phases(offered),
        validity=check_run(
            offered.records,
            load,
            offered.health,
            cold=cold,
            server=side,
            ignore_eos=sending.ignore_eos,
            ended=counters.ended,
        ),
        token_source=_worst_source(offered.records),
        slo=server.slo,
        metrics=metrics,
        server=side,
        server_reason=reason,
        machine=use,
        timeseries=timeseries(offered.records),
    )
    return CellResult(run, offered.records, workload)


def shares_prompts(workload: Workload) -> bool:
    """Whether its requests find blocks of others: by its kind, or as turns of one conversation."""
    return workload.spec.kind in SHARING or any(item.turn for item in workload.items)


class _Counters:
    """The server's own counters and the processors', at the measured part's two ends."""

    def __init__(self, server: Prepared) -> None:
        self.server = server
        self.before: str | None = None
        self.after: str | None = None
        self.cpu_before: tuple[float, float] | None = None
        self.cpu_after: tuple[float, float] | None = None
        self.watch: CpuWatch | None = None
        self.ended: str | None = None

    async def begin(self) -> None:
        """When the first measured request is sent."""
        meter = self.server.meter
        self.watch = CpuWatch(meter.tree_cpu_s if meter else None)
        self.cpu_before = self._cpu_s()
        self.before = await scrape(self.server.endpoint)

    async def end(self) -> MachineUse:
        """When the last answer is there; what the processors did meanwhile."""
        self.cpu_after = self._cpu_s()
        use = self.watch.stop() if self.watch else MachineUse()
        self.after = await scrape(self.server.endpoint)
        self.ended = self.server.meter.ended() if self.server.meter else None
        # What is gone has no CPU time: all of it would be called foreign.
        return use.model_copy(update={"foreign_cpu": None}) if self.ended else use

    def _cpu_s(self) -> tuple[float, float] | None:
        meter = self.server.meter
        api_s, tree_s = (meter.api_cpu_s(), meter.tree_cpu_s()) if meter else (None, None)
        return None if api_s is None or tree_s is None else (api_s, tree_s)

    def differences(self, records: list[RequestRecord]) -> tuple[ServerSide | None, str | None]:
        """What the counters say; or why they say nothing."""
        found: ServerSide | None = None
        if self.before is not None and self.after is not None:
            found = server_side(self.before, self.after, records)
        if self.cpu_before and self.cpu_after and self.server.meter and not self.ended:
            found = (found or ServerSide()).model_copy(
                update={
                    "api_cpu_s": self.cpu_after[0] - self.cpu_before[0],
                    "tree_cpu_s": self.cpu_after[1] - self.cpu_before[1],
                    "api_rss_mib": self.server.meter.api_rss_mib(),
                }
            )
        return (
            found,
            None
            if found
            else "the server has no counters of vLLM's at /metrics, or they began anew",
        )


def about_workload(workload: Workload, sending: Sending, *, cold: bool) -> WorkloadInfo:
    """The workload's part of a record."""
    added = ""
    if sending.salts_text:
        added = (
            f"; each prompt after {SALT_DIGITS} digits of its own, as {sending.protocol} has no "
            "cache salt"
        )
    if sending.protocol == "openai-completions" and any(item.turn for item in workload.items):
        added += "; a turn's prompt is all that was said before and the turn, line by line"
    return WorkloadInfo(
        kind=workload.spec.kind,
        sha256=workload.sha256,
        num_requests=len(workload.items),
        num_warm_up=len(workload.warm_up),
        description=workload.description + added,
        cache="cold" if cold else "warm",
        ignore_eos=sending.ignore_eos,
    )


def _phases(offered: Offered) -> list[PhaseSpan]:
    counts = {
        phase: sum(record.phase == phase for record in offered.records)
        for phase in ("warm_up", "measured")
    }
    return [
        PhaseSpan(name=name, began_s=began_s, ended_s=ended_s, num_requests=counts.get(name, 0))
        for name, (began_s, ended_s) in offered.phases.items()
    ]


def _worst_source(records: list[RequestRecord]) -> TokenSource | None:
    """One answer without a usage makes the whole run's token count one of events."""
    found = {record.token_source for record in records if record.token_source}
    order: tuple[TokenSource, ...] = get_args(TokenSource)[::-1]
    return next((source for source in order if source in found), None)


def write_cell(result: CellResult, directory: Path) -> None:
    """run.json, requests.jsonl, workload.jsonl, vllm_bench.json and summary.csv."""
    directory.mkdir(parents=True, exist_ok=True)
    run = result.run
    text = without_paths(run.model_dump_json(by_alias=True, indent=1))
    (directory / "run.json").write_text(text + "\n")
    write_requests(result.records, directory / "requests.jsonl")
    write_workload(result.workload, directory / "workload.jsonl")
    bench = json.dumps(vllm_bench(run, result.records), indent=1)
    (directory / "vllm_bench.json").write_text(bench + "\n")
    write_summary_csv(run, directory / "summary.csv")
