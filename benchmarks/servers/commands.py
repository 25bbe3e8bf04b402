"""From a target to the command that starts it; asks `gemma-serve check` what a profile means."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.records import TRITON_PROTOCOLS
from benchmarks.servers import llamacpp
from benchmarks.servers.errors import ServerError
from benchmarks.servers.targets import TargetSpec
from benchmarks.servers.venvs import Progress

ROOT = Path(__file__).parent.parent.parent
# The only file of the model that comes with gemma-serve is made by it, in the user's cache.
PREPARE = (
    "from gemma_serve.gemma import embedded; import sys;"
    "print(embedded.prepare(say=lambda line: print(line, file=sys.stderr)))"
)
EMBEDDED = "embedded/"
# What a profile promises, as its own keys say it: ttft_ms, itl_ms.
ProfileSlo = Mapping[str, float | None]
NO_SLO: ProfileSlo = {}


@dataclass(frozen=True)
class Command:
    """How a server is started, and which path answers 200 when it is ready."""

    words: Sequence[str]
    ready_path: str
    environ: Mapping[str, str] = field(default_factory=dict)
    slo: ProfileSlo = field(default_factory=dict)  # where the server does not publish it itself


async def command(spec: TargetSpec, port: int, on_progress: Progress | None = None) -> Command:
    """
    The command of a target that is to be started.

    Raises:
        ServerError: the profile or what it needs is not there.
    """
    if spec.kind == "llama-cpp":
        words = await llamacpp.command(spec.what, spec.settings, port, on_progress)
        return Command(words, "/v1/models")
    makers: dict[str, Callable[[TargetSpec, int], Any]] = {
        "profile": _gemma_serve,
        "vllm": _vllm,
        "transformers": _transformers,
    }
    made: Command = await makers[spec.kind](spec, port)
    return made


async def _gemma_serve(spec: TargetSpec, port: int) -> Command:
    settings = list(spec.settings)
    if spec.protocol in TRITON_PROTOCOLS and spec.contract is not None:
        settings.append(f"triton.contract={spec.contract}")
    if spec.grpc is not None:
        settings.append(f"server.grpc_port={spec.grpc.rpartition(':')[2]}")
    settings.append(f"server.port={port}")
    words = [sys.executable, "-m", "gemma_serve", "serve", spec.what, *_sets(settings)]
    return Command(words, "/readyz")


async def _vllm(spec: TargetSpec, port: int) -> Command:
    """
    vLLM's own server with the environment and the engine arguments that `gemma-serve check` shows.

    Its access log is off and uvicorn logs warnings only, as in ours; neither server logs requests
    unless asked to.
    """
    shown = await _check(spec)
    environ = {setting["key"]: setting["value"] for setting in shown["env"]}
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    words += ["--host", "127.0.0.1", "--port", str(port)]
    words += ["--disable-uvicorn-access-log", "--uvicorn-log-level", "warning"]
    for setting in shown["engine_args"] + shown["frontend_args"]:
        value = setting["value"]
        words += _flag(setting["key"], await _local(value) if _is_embedded(value) else value)
    return Command(words, "/health", environ, shown["slo"])


async def _transformers(spec: TargetSpec, port: int) -> Command:
    model, slo = spec.what, NO_SLO
    if not _is_directory(model):
        shown = await _check(spec)
        model, slo = await _profile_model(shown), shown["slo"]
    words = [sys.executable, "-m", "benchmarks.servers.transformers_server", model]
    return Command([*words, "--port", str(port)], "/health", {"PYTHONPATH": str(ROOT)}, slo)


def _is_directory(path: str) -> bool:
    return Path(path).is_dir()


async def _profile_model(shown: Mapping[str, Any]) -> str:
    model = next(row["value"] for row in shown["engine_args"] if row["key"] == "model")
    return await _local(model) if _is_embedded(model) else str(model)


def _is_embedded(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(EMBEDDED)


async def _local(_model: str) -> str:
    return (await _output([sys.executable, "-c", PREPARE])).splitlines()[-1]


async def _check(spec: TargetSpec) -> dict[str, Any]:
    words = [sys.executable, "-m", "gemma_serve", "check", spec.what, "--json"]
    shown: dict[str, Any] = json.loads(await _output([*words, *_sets(spec.settings)]))
    return shown


def _sets(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


async def _output(words: Sequence[str]) -> str:
    """What a command prints; its own last line where it fails."""
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    out, err = await process.communicate()
    if process.returncode != 0:
        said = err.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise ServerError(said[-1])
    return out.decode()


def _flag(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if value is None or value == {}:
        return []
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", json.dumps(value) if isinstance(value, dict | list) else str(value)]
