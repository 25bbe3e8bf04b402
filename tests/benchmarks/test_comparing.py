"""Two targets side by side: whose tokens may be held against each other, and what each is asked."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from pathlib import Path

import httpx
import pytest

from benchmarks.cell import Prepared, Settings
from benchmarks.comparing import Asked, _same_counting, _same_slo, compare_targets
from benchmarks.load.connection import Endpoint
from benchmarks.load.runner import Sending
from benchmarks.records import Load, Pair, Protocol, Run, Slo, Target, TokenSource
from benchmarks.servers import ServerError
from benchmarks.servers.commands import Command
from benchmarks.serving import Served, serving
from benchmarks.workload import materialise, parse_spec

URL = "http://127.0.0.1:9,model=m"


def prepared(protocol: Protocol, source: TokenSource) -> Prepared:
    """A server that was looked at."""
    endpoint = Endpoint("http://127.0.0.1:9")
    sending = Sending(endpoint, protocol, "m", token_source=source)
    target = Target(url=endpoint.url, protocol=protocol, model="m", label="m")
    return Prepared(endpoint, sending, target, None, True)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (("triton-generate", "event_counts"), ("openai-chat", "token_ids")),
        (("triton-grpc", "event_counts"), ("openai-chat", "continuous_usage")),
        (("triton-grpc", "event_counts"), ("openai-chat", "usage")),
        (("triton-grpc", "event_counts"), ("triton-generate", "event_counts")),
        (("triton-grpc", "events"), ("triton-generate", "events")),
        (("openai-chat", "usage"), ("openai-completions", "usage")),
    ],
)
def test_exact_counts_go_together(
    a: tuple[Protocol, TokenSource], b: tuple[Protocol, TokenSource]
) -> None:
    """The server's count of each response is as exact as its ids, or its usage."""
    _same_counting([prepared(*a), prepared(*b)])


@pytest.mark.parametrize(
    ("a", "b", "advice"),
    [
        (("triton-generate", "events"), ("openai-chat", "token_ids"), "contract=vllm-backend"),
        (("triton-grpc", "event_counts"), ("triton-generate", "events"), "contract=vllm-backend"),
        (("triton-grpc", "event_counts"), ("openai-chat", "events"), "contract=vllm-backend"),
        (("openai-chat", "token_ids"), ("openai-chat", "usage"), "--token-source usage"),
    ],
)
def test_other_pairs_are_refused_with_advice(
    a: tuple[Protocol, TokenSource], b: tuple[Protocol, TokenSource], advice: str
) -> None:
    """A ratio of two counters is no ratio of servers."""
    with pytest.raises(ValueError, match=f"would be counted by .*{advice}"):
        _same_counting([prepared(*a), prepared(*b)])


def promising(slo: Slo | None) -> Prepared:
    """A server with an SLO of its own, or none."""
    return dataclasses.replace(prepared("openai-chat", "token_ids"), slo=slo)


FAST, SLOW = Slo(ttft_ms=200), Slo(ttft_ms=500, tpot_ms=50)


@pytest.mark.parametrize(
    ("a", "b", "both"),
    [(None, None, None), (FAST, None, FAST), (None, FAST, FAST), (SLOW, SLOW, SLOW)],
)
def test_both_are_held_to_one_slo(a: Slo | None, b: Slo | None, both: Slo | None) -> None:
    """What one of the profiles promises is asked of both servers."""
    found = _same_slo([promising(a), promising(b)])

    assert [server.slo for server in found] == [both, both]


def test_two_slos_are_no_comparison() -> None:
    """Where the profiles promise different things, the one that is meant has to be given."""
    with pytest.raises(
        ValueError,
        match=r"A's profile promises ttft_ms=200 and B's ttft_ms=500,tpot_ms=50, .*; give --slo",
    ):
        _same_slo([promising(FAST), promising(SLOW)])


def test_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each start has servers of its own, and none is left at the end."""
    ports: list[int] = []

    async def null_command(_spec: object, port: int, _on_progress: object = None) -> Command:
        ports.append(port)
        words = [sys.executable, "-m", "benchmarks", "nullserver", "--port", str(port)]
        return Command([*words, "--ttft-ms", "2", "--itl-ms", "1"], "/v1/models")

    monkeypatch.setattr("benchmarks.servers.running.command", null_command)
    spec = parse_spec({"kind": "synthetic", "input": 5, "output": 4})
    asked = Asked(
        targets=("profile:a", "vllm:b"),
        materialise=lambda seed: materialise(spec, seed, 2, 0),
        load=Load(mode="closed", concurrency=1),
        settings=Settings(),
        directory=tmp_path,
        margin=0.03,
        alpha=0.05,
        looks=(6,),
        aa_pairs=0,
        starts=2,
    )

    record = asyncio.run(compare_targets(asked))
    pairs = record.metrics[0].pairs
    measured = [_port(tmp_path, directory) for p in pairs for directory in _directories(p)]

    assert (record.starts, [pair.start for pair in pairs]) == (2, [1, 1, 1, 2, 2, 2])
    # A and B of the first start, then those of the second.
    assert measured == [*ports[:2] * 3, *ports[2:] * 3]
    for port in ports:
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/v1/models")


def _directories(pair: Pair) -> tuple[str, str]:
    return str(pair.a_directory), str(pair.b_directory)


def _port(root: Path, directory: str) -> int:
    """Where a block's requests went."""
    run = Run.model_validate_json((root / directory / "run.json").read_text())
    return int(run.target.url.rpartition(":")[2])


def served(target: str, settings: Settings) -> Served:
    """A target that runs already, as the commands see it."""

    async def look() -> Served:
        async with serving(target, settings) as found:
            return found

    return asyncio.run(look())


def test_target_wins_over_the_options() -> None:
    """Protocol, contract and model behind a target are its own; the rest is the command line's."""
    settings = Settings(protocol="openai-chat", model="other", seed=7)
    one = served(f"{URL},protocol=triton-grpc,contract=vllm-backend,grpc_port=8001", settings)
    two = served("http://127.0.0.1:9,model=n", dataclasses.replace(settings, protocol=None))

    assert (one.settings.protocol, one.settings.contract) == ("triton-grpc", "vllm-backend")
    assert (one.settings.model, one.settings.seed) == ("m", 7)
    assert one.endpoint.grpc == "127.0.0.1:8001"
    assert one.label == "http://127.0.0.1:9,protocol=triton-grpc,contract=vllm-backend"
    assert (two.settings.protocol, two.settings.model, two.endpoint.grpc) == (None, "n", None)
    assert two.label == "http://127.0.0.1:9"


def test_options_hold_where_the_target_says_nothing() -> None:
    """--protocol and --triton-contract are for both sides, and stand in the label."""
    settings = Settings(protocol="triton-generate", contract="tensorrtllm")
    one = served(URL, settings)

    assert (one.settings.protocol, one.settings.contract) == ("triton-generate", "tensorrtllm")
    assert one.label == "http://127.0.0.1:9,protocol=triton-generate,contract=tensorrtllm"


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (f"{URL},protocol=triton-grpc", r"write ,grpc_port=8001 or ,grpc=HOST:PORT"),
        ("vllm:p,protocol=triton-generate", r"vllm's server does not speak triton-generate"),
    ],
)
def test_target_that_cannot_speak_so(target: str, sentence: str) -> None:
    """What is missing is said before anything is started."""
    with pytest.raises(ServerError, match=sentence):
        served(target, Settings())
