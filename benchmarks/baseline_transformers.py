"""
Gemma 3 270M: many streams through our server against transformers.generate, one at a time.

The second is what a plain Python model server does. Both use the same checkpoint, bf16, all cores,
greedy, and the same number of tokens; they run in turns, never together.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._client import chat_body, prompts, run_wave
from benchmarks._machine import RULE, Watch, conditions, measure_quiet
from benchmarks._paired import ratio, verdict
from benchmarks._servers import Running, free_port, gemma_serve, get_json, locked, running

BAR = 20.0


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the record."""
    options, known = _options(argv), conditions()
    rounds = [_measure_round(number, options) for number in range(options.rounds)]
    record = _record(options, known, rounds)
    print(_table(record))
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.baseline_transformers", description=__doc__
    )
    parser.add_argument("--json", type=Path, help="write the record there")
    parser.add_argument("--profile", default="gemma-3-270m")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--waves", type=int, default=2, help="measured waves a round")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--requests", type=int, default=3, help="of transformers, a round")
    parser.add_argument("--lock", type=Path, help="hold this file's flock during each round")
    return parser.parse_args(argv)


def _measure_round(number: int, options: argparse.Namespace) -> dict[str, Any]:
    """The server, then transformers on the first prompts of the same waves."""
    with locked(options.lock):
        ours, model = _measure_server(number, options)
        theirs = _measure_transformers(model, number, options)
    print(f"round {number}: {ours['tokens_per_s']} / {theirs['tokens_per_s']}", file=sys.stderr)
    return {"round": number, "gemma-serve": ours, "transformers": theirs}


def _measure_server(number: int, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """One start: a wave to warm up, then those that count; and the checkpoint's directory."""
    port = free_port()
    with running(gemma_serve(options.profile, port), port) as server:
        _measure_wave(server, f"{number}/warm-up", options)
        waves = measure_quiet(
            lambda wave: _measure_wave(server, f"{number}/{wave}", options), options.waves
        )
        info = get_json(port, "/v1/info")
        memory = server.api_memory_mib()
    measured = _speed(waves) | {"ready_s": server.ready_s, "api_memory_mib": memory, "runs": waves}
    return measured, next(row["value"] for row in info["settings"] if row["key"] == "model")


def _measure_wave(server: Running, seed: str, options: argparse.Namespace) -> dict[str, Any]:
    model = server.model
    bodies = [
        chat_body(model, prompt, options.max_tokens) for prompt in prompts(options.streams, seed)
    ]
    watch = Watch(server.tree_cpu_s)
    wave = run_wave(server.port, bodies)
    return dataclasses.asdict(wave) | watch.stop()


def _measure_transformers(model: str, number: int, options: argparse.Namespace) -> dict[str, Any]:
    """One process that loads the model and answers prompts of the server's first wave."""
    task = {
        "model": model,
        "prompts": prompts(options.streams, f"{number}/0"),
        "requests": options.requests,
        "max_tokens": options.max_tokens,
        "threads": len(os.sched_getaffinity(0)),
    }
    words = [sys.executable, "-m", "benchmarks._generate"]
    worker = subprocess.run(
        words, input=json.dumps(task), stdout=subprocess.PIPE, text=True, check=True
    )
    requests = json.loads(worker.stdout)
    return _speed(requests) | {"runs": requests}


def _speed(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Tokens over seconds, of the runs that count."""
    counted = [run for run in runs if run["counts"]]
    tokens = sum(run["output_tokens"] for run in counted)
    prompt_tokens = sum(run["prompt_tokens"] for run in counted)
    return {
        "tokens_per_s": round(tokens / sum(run["seconds"] for run in counted), 2),
        "prompt_tokens_per_output_token": round(prompt_tokens / tokens, 3),
    }


def _record(
    options: argparse.Namespace, known: dict[str, Any], rounds: list[dict[str, Any]]
) -> dict[str, Any]:
    speeds = {
        name: [one[name]["tokens_per_s"] for one in rounds]
        for name in ("gemma-serve", "transformers")
    }
    summary = ratio(speeds["gemma-serve"], speeds["transformers"])
    return {
        "what": f"{options.profile}: {options.streams} streams against one request at a time",
        "conditions": known,
        "commands": {
            "gemma-serve": f"python -m gemma_serve serve {options.profile}",
            "transformers": "python -m benchmarks._generate",
        },
        "method": _method(options),
        "median_tokens_per_s": {name: statistics.median(speeds[name]) for name in speeds},
        "ours_over_transformers": summary,
        "bar": {"at_least": BAR},
        "verdict": verdict(summary, at_least=BAR),
        "rounds": rounds,
    }


def _method(options: argparse.Namespace) -> list[str]:
    return [
        f"{options.rounds} rounds: our server, ended, then transformers in a process of its own",
        f"server: a discarded wave, then {options.waves} of {options.streams} chats at once",
        f"transformers: a discarded request, then {options.requests} of the same prompts, bf16, "
        "its default attention and cache, one thread a core",
        f"greedy, {options.max_tokens} output tokens each whatever the end-of-text token, the same "
        "chat template; tokens/s is tokens over seconds with prefill and tokenising on both sides",
        RULE,
    ]


def _table(record: dict[str, Any]) -> str:
    medians, ours = record["median_tokens_per_s"], record["ours_over_transformers"]
    return (
        f"tokens/s {medians['gemma-serve']} / {medians['transformers']}, ratio {ours['ratio']} "
        f"(95 % {ours.get('interval_95')}, rounds {ours['min']}-{ours['max']}): {record['verdict']}"
    )


if __name__ == "__main__":
    main()
