"""
What environment variables do for the speed of our server on a CPU: one start each, in turns.

Example: python -m benchmarks.environments --profile gemma-3-270m --streams 1 16
    --variant default --variant passive OMP_WAIT_POLICY=PASSIVE
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._client import chat_body, prompts, run_wave
from benchmarks._machine import RULE, Watch, conditions, measure_quiet
from benchmarks._paired import ratio
from benchmarks._servers import Running, free_port, gemma_serve, locked, running


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the record."""
    options, known = _options(argv), conditions()
    variants = {name: _environ(settings) for name, *settings in options.variant}
    starts = []
    for number in range(options.rounds):
        with locked(options.lock):
            # Forwards and backwards: a machine that grows slower favours no variant.
            for name in list(variants) if number % 2 == 0 else list(variants)[::-1]:
                starts.append(_measure_start(name, variants[name], number, options))
    record = {
        "what": f"{options.profile_name or options.profile}: tokens/s by environment variables",
        "conditions": known,
        "variants": {name: _public(environ) for name, environ in variants.items()},
        "method": [
            f"{options.rounds} starts of each, a discarded wave a cell, then {options.waves} waves "
            f"of greedy streaming chats of {options.max_tokens} tokens; a cell is their median",
            RULE,
        ],
        "summary": _summary(starts, list(variants), options.streams),
        "starts": starts,
    }
    print(json.dumps(record["summary"], indent=1))
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.environments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, help="write the record there")
    parser.add_argument("--profile", default="gemma-3-270m")
    parser.add_argument("--profile-name", help="what the record calls a profile that is a path")
    parser.add_argument(
        "--variant",
        nargs="+",
        action="append",
        required=True,
        metavar=("NAME", "KEY=VALUE"),
        help="repeat it; the first one is what the others are compared with",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--waves", type=int, default=3)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 32])
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--lock", type=Path, help="hold this file's flock during each round")
    return parser.parse_args(argv)


def _environ(settings: Sequence[str]) -> dict[str, str]:
    return dict(setting.split("=", 1) for setting in settings)


def _public(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables without this machine's directories."""
    return {
        key: ":".join(Path(part).name for part in value.split(":")) if "/" in value else value
        for key, value in environ.items()
    }


def _measure_start(
    name: str, environ: Mapping[str, str], number: int, options: argparse.Namespace
) -> dict[str, Any]:
    port = free_port()
    with running(gemma_serve(options.profile, port, environ), port) as server:
        cells = {
            streams: _measure_cell(server, streams, f"{number}/{streams}", options)
            for streams in options.streams
        }
    speeds = {streams: cell["tokens_per_s"] for streams, cell in cells.items()}
    print(f"round {number}: {name}: {speeds}", file=sys.stderr)
    return {"variant": name, "round": number, "ready_s": server.ready_s, "cells": cells}


def _measure_cell(
    server: Running, streams: int, seed: str, options: argparse.Namespace
) -> dict[str, Any]:
    def measure(wave_number: int) -> dict[str, Any]:
        chosen = prompts(streams, f"{seed}/{wave_number}")
        bodies = [chat_body(model, prompt, options.max_tokens) for prompt in chosen]
        watch, began_cpu_s = Watch(server.tree_cpu_s), server.tree_cpu_s()
        wave = run_wave(server.port, bodies)
        return dataclasses.asdict(wave) | {
            "tokens_per_s": wave.tokens_per_s,
            "cpu_s": round(server.tree_cpu_s() - began_cpu_s, 3),
            **watch.stop(),
        }

    model = server.model
    measure(-1)
    waves = measure_quiet(measure, options.waves)
    counted = [wave for wave in waves if wave["counts"]]
    return {
        "tokens_per_s": round(statistics.median(wave["tokens_per_s"] for wave in counted), 2),
        "waves": waves,
    }


def _summary(
    starts: list[dict[str, Any]], names: Sequence[str], streams: Sequence[int]
) -> list[dict[str, Any]]:
    def speeds(name: str, count: int) -> list[float]:
        chosen = [start for start in starts if start["variant"] == name]
        return [start["cells"][count]["tokens_per_s"] for start in chosen]

    return [
        {
            "streams": count,
            "variant": name,
            "tokens_per_s": statistics.median(speeds(name, count)),
            f"over_{names[0]}": ratio(speeds(name, count), speeds(names[0], count)),
        }
        for count in streams
        for name in names
    ]


if __name__ == "__main__":
    main()
