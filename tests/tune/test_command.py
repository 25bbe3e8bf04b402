"""`gemma-serve tune` as a user types it, before anything is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gemma_serve.errors import ProfileError
from gemma_serve.tune.command import Request, against_of, prepare

PROFILE = "gemma-3-270m"


def quiet(_line: str) -> None:
    """Says nothing."""


def slo_of(**given: Any) -> Any:
    return prepare(Request(PROFILE, **given), quiet).method.slo


def test_dry_run_lists_the_trials(tmp_path: Path) -> None:
    """--dry-run --json: every trial with its keys and reason, the base, and the estimate."""
    words = [sys.executable, "-m", "gemma_serve", "tune", PROFILE, "--dry-run", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=True)
    said = json.loads(done.stdout)
    # After fp32, on a CPU without AVX-512.
    assert {
        "setting": "compile",
        "keys": {"engine.enforce_eager": False},
        "why": "compiled kernels; the start takes longer, once",
    } in said["trials"][:2]
    assert said["vllm_defaults"]["env.VLLM_CPU_OMP_THREADS_BIND"] == "auto"
    assert "settings to try; a comparison takes about" in said["estimate"]
    assert list(tmp_path.iterdir()) == []


def test_slo_of_the_command_line_wins(tmp_path: Path) -> None:
    """--slo replaces the profile's own limits, which count without it."""
    own = ("slo.ttft_ms=900", "slo.itl_ms=80")
    assert slo_of(overrides=own) == {"ttft_ms": 900.0, "itl_ms": 80.0}
    assert slo_of(overrides=own, slo="itl_ms=50") == {"itl_ms": 50.0}
    assert slo_of() == {}


@pytest.mark.parametrize("part", ["ttft=500", "ttft_ms", "itl_ms=fast", "ttft_ms=-1", "itl_ms=inf"])
def test_wrong_slo(part: str) -> None:
    """A limit that can't be read is named, with how to write one."""
    with pytest.raises(ProfileError) as caught:
        slo_of(slo=f"itl_ms=20,{part}")
    assert caught.value.message == (
        f"--slo 'itl_ms=20,{part}' can't be read at {part!r}; write milliseconds, for example "
        "--slo ttft_ms=500,itl_ms=50."
    )


def test_wrong_base() -> None:
    """--against takes three words."""
    assert against_of("base") == "base"
    with pytest.raises(ProfileError) as caught:
        against_of("triton")
    assert caught.value.message == "--against 'triton' is unknown; use vllm, base, none."


def test_file_of_the_user_is_not_replaced(tmp_path: Path) -> None:
    """A profile that no search wrote stays as it is; the search does not even begin."""
    file = tmp_path / "mine.yaml"
    file.write_text("extends: gemma-3-270m\n")
    words = [sys.executable, "-m", "gemma_serve", "tune", PROFILE, "--out", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{str(file)!r} is there already; name another file with --out" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
