"""Scored by a real engine: a model against itself, and against one whose weights were spoiled."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from gemma_serve.quality.record import read_record, write_record
from tests.conftest import TINY, ServeProfile

pytestmark = pytest.mark.engine

END_S = 120
MAX_KL = "quality.max_kl=0.001"


def quality(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `gemma-serve quality ...`."""
    command = [sys.executable, "-m", "gemma_serve", "quality", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=END_S, check=False)


@pytest.fixture(scope="module")
def reference(tiny_profile: Path, engine_slot) -> Path:
    """Two windows of the tiny model, recorded beside its profile."""
    engine_slot.close()
    path = tiny_profile.parent / "tiny.npz"
    made = quality("record", tiny_profile, "--output", path, "--max-tokens", "1024")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith(f"Recorded 1,022 tokens of {tiny_profile.parent}")
    return path


@pytest.fixture(scope="module")
def spoiled(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny model whose embeddings are eight times too large, and its profile."""
    copy = tmp_path_factory.mktemp("spoiled") / "model"
    shutil.copytree(tiny_model, copy)
    weights = load_file(copy / "model.safetensors")
    # Not a matrix of a layer: the norms behind those undo a factor on all of it.
    weights["model.embed_tokens.weight"] *= 8
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    profile = copy.parent / "spoiled.yaml"
    profile.write_text(yaml.safe_dump({"model": str(copy), **TINY}))
    return profile


def test_record(reference: Path, tiny_model: Path) -> None:
    """A record holds what every token got, the most likely ones, and greedy continuations."""
    record = read_record(reference)
    scores = record.scores
    assert record.texts == ("en", "code")
    assert record.about["model"] == str(tiny_model)
    assert record.about["kv_cache_dtype"] == "auto"
    assert scores.top_ids.shape == (2, 511, 64)
    assert scores.continuations.shape == (2, 64)
    # Sorted, negative, of at most 1 in sum; a random model finds nothing likely.
    assert (scores.top_logprobs[..., :-1] >= scores.top_logprobs[..., 1:]).all()
    assert (scores.target_logprobs < 0).all()


def test_serves_within_the_bound(
    serve_profile: ServeProfile, tiny_profile: Path, reference: Path
) -> None:
    """The same model has no divergence from its reference: it serves, and the metric says so."""
    overrides = ["quality.reference=tiny.npz", MAX_KL]
    with serve_profile(tiny_profile, overrides) as server, server.client() as client:
        assert "Quality: mean KL divergence of 0.0000 nats a token" in server.output()
        assert 'gemma_serve_quality_kl_nats{model="tiny"}' in client.get("/metrics").text
        assert "quality" in client.get("/v1/info").json()["startup_seconds"]
        # What is asked of the engine at the start, clients may not ask.
        body = {"model": "tiny", "prompt": "a", "logprobs": 64, "max_tokens": 1}
        assert client.post("/v1/completions", json=body).status_code == 400


def test_compare_two_records(reference: Path, tmp_path: Path) -> None:
    """The exit code says on which side of the bound a candidate is; no engine is needed."""
    record = read_record(reference)
    lower = record.scores.top_logprobs - np.float32(1)
    other = replace(record, scores=replace(record.scores, top_logprobs=lower))
    write_record(other, tmp_path / "other.npz")

    same = quality("compare", reference, reference, "--max-kl", "0")
    assert same.returncode == 0, same.stderr
    compared = quality("compare", reference, tmp_path / "other.npz", "--max-kl", "0.0001", "--json")
    assert compared.returncode == 1, compared.stderr
    report = json.loads(compared.stdout)
    assert report["within"] is False
    assert report["figures"]["kl_mean_nats"] > 0.0001
    unlike = quality("compare", reference, tmp_path / "none.npz", "--max-kl", "1")
    assert unlike.returncode == 2
    assert unlike.stderr.startswith("gemma-serve: No quality record at ")


def test_refuses_beyond_the_bound(reference: Path, spoiled: Path) -> None:
    """Such a model is not served: one line, exit code 3, and never ready."""
    words = [f"quality.reference={reference}", MAX_KL, "server.port=0"]
    options = [word for override in words for word in ("--set", override)]
    command = [sys.executable, "-m", "gemma_serve", "serve", spoiled, *options]
    served = subprocess.run(command, capture_output=True, text=True, timeout=END_S, check=False)
    assert served.returncode == 3, served.stderr
    assert "Serving" not in served.stderr
    assert served.stderr.splitlines()[-1].startswith(
        "gemma-serve: The quality check found a mean KL divergence of "
    )
