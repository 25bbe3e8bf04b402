"""A server that the harness started and that ends by itself: what is left, and what is said."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import sys
import time
from pathlib import Path

import pytest

from benchmarks.cell import CellResult, Prepared, Settings, prepare, run_cell, write_cell
from benchmarks.records import Load, Run, Slo
from benchmarks.servers import ServerError
from benchmarks.servers.commands import Command
from benchmarks.serving import Served, of_target, serving
from benchmarks.workload import materialise, parse_spec
from tests.benchmarks.scripted import honest, scripted

LOAD = Load(mode="closed", concurrency=2)


async def null_command(_spec: object, port: int, _on_progress: object = None) -> Command:
    """In place of `commands.command`: a server that speaks the API, and says so in its log."""
    words = [sys.executable, "-m", "benchmarks", "nullserver", "--port", str(port)]
    return Command(words, "/v1/models")


async def killed_in_a_cell(served: Served) -> CellResult:
    """A cell whose server is killed after some answers."""
    spec = {"kind": "synthetic", "input": 5, "output": 8}
    workload = materialise(parse_spec(spec), 1, 40, 0)
    prepared = await prepare(served.endpoint, workload, served.settings, meter=served.meter)

    def kill(done: int, _total: int) -> None:
        tree = served.server.tree
        if done == 6 and tree is not None:
            tree.leader.kill()
            while tree.poll() is None:
                time.sleep(0.01)

    return await run_cell(prepared, workload, LOAD, served.settings, on_progress=kill)


def test_server_that_dies_in_a_cell_makes_it_invalid(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The run is kept, INVALID, with the server's last words; what needs it next is one line."""
    monkeypatch.setattr("benchmarks.servers.running.command", null_command)
    kept: list[CellResult] = []

    async def measure() -> None:
        async with serving("profile:x", Settings()) as served:
            kept.append(await killed_in_a_cell(served))
            assert served.server.api_rss_mib() is None
            await killed_in_a_cell(served)

    said = r"(?s)^profile:x ended with code -9 while it was needed; .*Null server at http"
    with pytest.raises(ServerError, match=said):
        asyncio.run(measure())
    write_cell(kept[0], tmp_path)
    run = Run.model_validate_json((tmp_path / "run.json").read_text())

    assert run.validity.verdict == "INVALID"
    first = run.validity.checks[0]
    assert (first.name, first.status) == ("server_process", "red")
    assert "ended with code -9" in first.message
    assert "Null server at" in first.message
    # Of what is gone there is no CPU time, and none is called foreign.
    assert {c.name: c.status for c in run.validity.checks}["foreign_cpu"] == "not_measured"
    assert run.server is None
    # One more may have been on its way.
    assert run.metrics.full_run.num_ok in (6, 7)
    assert len(kept[0].records) == 40


@pytest.mark.parametrize(
    ("given", "limits"),
    [(None, Slo(ttft_ms=500, tpot_ms=40)), (Slo(e2e_ms=9000), Slo(e2e_ms=9000))],
    ids=["of the profile", "given"],
)
def test_slo_of_the_profile_that_it_was_started_from(
    monkeypatch: pytest.MonkeyPatch, given: Slo | None, limits: Slo
) -> None:
    """A server that publishes no SLO is held to its profile's, unless another one is given."""

    async def promising(spec: object, port: int, _on_progress: object = None) -> Command:
        command = await null_command(spec, port)
        return dataclasses.replace(command, slo={"ttft_ms": 500, "itl_ms": 40})

    monkeypatch.setattr("benchmarks.servers.running.command", promising)
    workload = materialise(parse_spec({"kind": "synthetic", "input": 5, "output": 2}), 1, 2, 0)

    async def measure() -> Run:
        settings = Settings(slo=given)
        async with serving("vllm:x", settings) as served:
            prepared = await served.prepared(workload)
            return (await run_cell(prepared, workload, LOAD, settings)).run

    run = asyncio.run(measure())

    assert run.slo == limits
    assert run.metrics.full_run.goodput is not None
    assert run.metrics.full_run.goodput.slo == limits


def test_model_by_option_asks_no_server_for_it() -> None:
    """A server without /v1/models, as a real Triton is, needs no more than --model."""
    settings = Settings(model="m")
    spec, own = of_target("http://127.0.0.1:9", settings)

    assert (spec.model, own.model) == ("m", "m")
    assert of_target("http://127.0.0.1:9,model=n", settings)[1].model == "n"

    async def look() -> str:
        # Nobody listens there: whoever asked would be refused.
        async with serving("http://127.0.0.1:9", settings) as served:
            return served.server.model

    assert asyncio.run(look()) == "m"


def test_ipv6_address() -> None:
    """A target in brackets is asked for its model, what it says of itself, and an answer."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")

    async def look() -> Prepared:
        async with scripted(honest, "::1") as url, serving(url, Settings()) as served:
            spec = {"kind": "synthetic", "input": 5, "output": 2}
            workload = materialise(parse_spec(spec), 1, 4, 0)
            return await prepare(served.endpoint, workload, served.settings)

    found = asyncio.run(look())

    assert found.target.url.startswith("http://[::1]:")
    assert (found.target.model, found.sending.token_source) == ("scripted", "token_ids")
    assert "info" in found.target.server
