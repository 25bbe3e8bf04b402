"""
Record what engines make of their KV cache: python -m tests.sizing.make_golden [STYLE ...]

Starts a server for each style and case, one at a time (about 20 s each), and writes what vLLM
reports to golden/engines.json: read the difference before you commit it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from tests.servers import serving
from tests.sizing.styles import STYLES

GOLDEN = Path(__file__).parent / "golden" / "engines.json"
EMBEDDED = "embedded-270m"
TINY_GIB = 0.125
CASES: dict[str, list[dict[str, Any]]] = {
    style: [{"max_model_len": 8192, "kv_cache_memory_gib": TINY_GIB}] for style in STYLES
} | {
    EMBEDDED: [{"max_model_len": 2048, "kv_cache_memory_gib": 2.0}],
}
CASES["dense-sliding"] += [
    {"max_model_len": 4096, "kv_cache_memory_gib": TINY_GIB, "kv_cache_dtype": "fp8"},
    {"max_model_len": 4096, "kv_cache_memory_gib": TINY_GIB, "tensor_parallel_size": 2},
]
FIGURES = ("num_kv_cache_blocks", "kv_cache_tokens", "kv_cache_max_concurrency")


def record(style: str, keys: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Serve one style, and return what its engine says."""
    profile: dict[str, Any] = {"model": "embedded/gemma-3-270m"} | keys
    config: dict[str, Any] | None = None
    if style != EMBEDDED:
        model = STYLES[style](directory / style)
        profile["model"], profile["served_model_name"] = str(model), style
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    profile["engine"] = {"enforce_eager": True}
    file = directory / "profile.yaml"
    file.write_text(yaml.safe_dump(profile), encoding="utf-8")
    started = serving(file, ["server.port=0"], directory / "log", dict(os.environ))
    with started as server, server.client() as client:
        info = client.get("/v1/info").json()
    engine = info["engine"]
    return {
        "style": style,
        "keys": keys,
        "config": config,
        "engine": {figure: engine[figure] for figure in FIGURES},
        "conditions": {
            "date": datetime.now(UTC).date().isoformat(),
            "vllm": engine["vllm_version"],
            "device": "CPU, 2 cores",
            "block_tokens": engine["kv_cache_block_tokens"],
            "max_num_batched_tokens": engine["max_num_batched_tokens"],
        },
    }


def main(styles: list[str]) -> None:
    """Record the named styles, or all, and keep the others as they are."""
    kept = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else []
    chosen = styles or list(CASES)
    found = [case for case in kept if case["style"] not in chosen]
    for style in chosen:
        for keys in CASES[style]:
            with tempfile.TemporaryDirectory() as directory:
                found.append(record(style, keys, Path(directory)))
            print(json.dumps(found[-1]["engine"]), style, keys, flush=True)
            GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
