"""
What our server costs beside vLLM's own: tokens/s, CPU a token and memory of the API process.

Both serve the tiny model with the same engine arguments and environment, one at a time, in turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._client import chat_body, prompts, run_wave
from benchmarks._machine import ROOT, RULE, Watch, conditions, measure_quiet
from benchmarks._paired import ratio, verdict
from benchmarks._servers import (
    Command,
    Running,
    free_port,
    gemma_serve,
    locked,
    running,
    vllm_server,
)

PROFILE = """\
model: {model}
served_model_name: tiny
max_model_len: 4096
kv_cache_memory_gib: 0.25
engine: {{enforce_eager: true}}
"""
METRICS = ("tokens_per_s", "api_cpu_us_per_token")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the record."""
    options, known = _options(argv), conditions()
    with tempfile.TemporaryDirectory() as scratch:
        model = options.model or _make_tiny(Path(scratch, "tiny"))
        profile = Path(scratch, "tiny.yaml")
        profile.write_text(PROFILE.format(model=model))
        port = free_port()
        sides = (gemma_serve(profile, port), vllm_server(profile, port))
        starts = []
        for number in range(options.rounds):
            with locked(options.lock):
                # ABBA: a machine that grows slower or faster favours neither side.
                for command in sides if number % 2 == 0 else sides[::-1]:
                    starts.append(_measure_start(command, port, number, options))
        record = _record(options, known, starts, sides, [str(model), scratch])
    print(_table(record))
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the record there")
    parser.add_argument("--model", type=Path, help="a checkpoint directory; default: made anew")
    parser.add_argument("--rounds", type=int, default=6, help="starts of each server")
    parser.add_argument("--waves", type=int, default=6, help="measured waves a cell and start")
    parser.add_argument("--streams", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--lock", type=Path, help="hold this file's flock during each round")
    return parser.parse_args(argv)


def _make_tiny(directory: Path) -> Path:
    code = "import sys; from pathlib import Path; from tests.tiny_gemma import make_tiny_gemma as m"
    words = [sys.executable, "-c", f"{code}; m(Path(sys.argv[1]))", str(directory)]
    subprocess.run(words, check=True, cwd=ROOT)
    return directory


def _measure_start(
    command: Command, port: int, number: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Start a server once and measure every cell."""
    with running(command, port) as server:
        start: dict[str, Any] = {"server": command.name, "round": number, "ready_s": server.ready_s}
        start["memory_after_load_mib"] = server.api_memory_mib()
        start["cells"] = [
            _measure_cell(server, streams, number, options) for streams in options.streams
        ]
        start["memory_after_waves_mib"] = server.api_memory_mib()
    cells = {cell["streams"]: cell["tokens_per_s"] for cell in start["cells"]}
    print(f"round {number}: {command.name}: tokens/s {cells}", file=sys.stderr)
    return start


def _measure_cell(
    server: Running, streams: int, number: int, options: argparse.Namespace
) -> dict[str, Any]:
    """One discarded wave, then as many as asked for on a quiet machine."""
    # The same prompts on both sides, and no prompt twice: the prefix cache treats them alike.
    seed = f"{number}/{streams}"
    _measure_wave(server, streams, f"{seed}/warm-up", options)
    waves = measure_quiet(
        lambda wave: _measure_wave(server, streams, f"{seed}/{wave}", options), options.waves
    )
    counted = [wave for wave in waves if wave["counts"]]
    tokens = sum(wave["output_tokens"] for wave in counted)
    return {
        "streams": streams,
        "tokens_per_s": round(statistics.median(wave["tokens_per_s"] for wave in counted), 1),
        "api_cpu_us_per_token": round(sum(w["api_cpu_s"] for w in counted) / tokens * 1e6, 2),
        "client_cpu_us_per_token": round(sum(w["client_cpu_s"] for w in counted) / tokens * 1e6, 2),
        "events_per_token": round(sum(wave["events"] for wave in counted) / tokens, 3),
        "waves": waves,
    }


def _measure_wave(
    server: Running, streams: int, seed: str, options: argparse.Namespace
) -> dict[str, Any]:
    bodies = [
        chat_body(server.model, prompt, options.max_tokens) for prompt in prompts(streams, seed)
    ]
    watch, began_cpu_s = Watch(server.tree_cpu_s), server.api_cpu_s()
    wave = run_wave(server.port, bodies)
    cpu_s, quiet = server.api_cpu_s() - began_cpu_s, watch.stop()
    return dataclasses.asdict(wave) | {
        "tokens_per_s": round(wave.tokens_per_s, 1),
        "api_cpu_s": round(cpu_s, 3),
        **quiet,
    }


def _record(
    options: argparse.Namespace,
    known: dict[str, Any],
    starts: list[dict[str, Any]],
    sides: Sequence[Command],
    private: Sequence[str],
) -> dict[str, Any]:
    return {
        "what": f"streaming chats of {options.max_tokens} tokens, ours against vLLM's own server",
        "conditions": known,
        "profile": PROFILE.format(model="<tiny model of tests/tiny_gemma.py>"),
        "commands": {side.name: _public(side, private) for side in sides},
        "peer_environment": dict(sides[1].environ),
        "method": _method(options),
        "summary": _summary(starts, options.streams),
        "starts": starts,
    }


def _public(command: Command, private: Sequence[str]) -> str:
    """The command without this machine's paths."""
    words = " ".join(command.words).replace(sys.executable, "python")
    for path in private:
        words = words.replace(path, "TINY" if path.endswith("tiny") else "SCRATCH")
    return words


def _method(options: argparse.Namespace) -> list[str]:
    return [
        f"{options.rounds} starts of each server, one at a time, in ABBA order",
        f"a cell is one discarded wave, then {options.waves} waves of all streams at once; "
        "its tokens/s is the median of its waves, its CPU a token the sum over them",
        "prompts: 24 random common words in a sentence, distinct, the same on both sides",
        "greedy, ignore_eos, fixed max_tokens; tokens from the usage in the stream's last event",
        "the peer has the environment and engine arguments of `gemma-serve check --json`; "
        "no access log, no request log on either side",
        "CPU: psutil user + system of the process that owns the port, without its engine",
        "memory: of the same process, after the start and before the first wave",
        "client: one asyncio process on the same cores; its CPU a token is in each cell",
        RULE,
    ]


def _summary(starts: list[dict[str, Any]], streams: Sequence[int]) -> list[dict[str, Any]]:
    rows = []
    for count in streams:
        for metric in METRICS:
            bar = {"at_least": 0.97} if metric == "tokens_per_s" else {"at_most": 1.10}
            values = {name: _cells(starts, name, count, metric) for name in ("gemma-serve", "vllm")}
            rows.append(_row(f"{metric} at {count} streams", values, bar))
    memory = {
        name: [s["memory_after_load_mib"]["rss"] for s in starts if s["server"] == name]
        for name in ("gemma-serve", "vllm")
    }
    return [*rows, _row("API process RSS after load, MiB", memory, {"at_most": 1.10})]


def _cells(starts: list[dict[str, Any]], name: str, streams: int, metric: str) -> list[float]:
    return [
        cell[metric]
        for start in starts
        if start["server"] == name
        for cell in start["cells"]
        if cell["streams"] == streams
    ]


def _row(metric: str, values: dict[str, list[float]], bar: dict[str, float]) -> dict[str, Any]:
    summary = ratio(values["gemma-serve"], values["vllm"])
    medians = {name: round(statistics.median(numbers), 2) for name, numbers in values.items()}
    return {
        "metric": metric,
        "median": medians,
        "ours_over_vllm": summary,
        "bar": bar,
        "verdict": verdict(summary, **bar),
    }


def _table(record: dict[str, Any]) -> str:
    lines = []
    for row in record["summary"]:
        ours, spread = row["ours_over_vllm"], row["ours_over_vllm"].get("interval_95")
        lines.append(
            f"{row['metric']}: {row['median']['gemma-serve']} / {row['median']['vllm']}, ratio "
            f"{ours['ratio']} (95 % {spread}, rounds {ours['min']}-{ours['max']}): {row['verdict']}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
