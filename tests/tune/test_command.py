"""`gemma-serve tune` as a user types it, before anything is measured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gemma_serve.errors import ProfileError
from gemma_serve.profile.load import load_profile
from gemma_serve.tune.command import Request, against_of, prepare, print_tuned, tuned_json
from gemma_serve.tune.search import Found
from gemma_serve.tune.state import State, Trial
from gemma_serve.tune.write import tuned_profile
from tests.tune.conftest import FASTER, recorded

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


def found_with(attainment: float) -> Found:
    """A search whose one setting is kept by this part of the requests; before, by fewer."""
    compared = recorded(FASTER).model_copy(update={"attainment": attainment})
    kept = Trial(
        name="compile",
        before={},
        keys={"engine.enforce_eager": False},
        outcome="kept",
        reason="faster",
        compared=compared,
        directory="trial-01",
        seconds=400.0,
    )
    final = kept.model_copy(update={"name": "final: against vLLM defaults", "outcome": "measured"})
    about = {"load": {}, "slo": {"ttft_ms": 500.0, "attainment": 0.9}}
    return Found(State(about=about, trials=(kept, final)), dict(kept.keys), [kept], [], final)


def shown(found: Found) -> str:
    text = StringIO()
    prepared = prepare(Request(PROFILE, slo="ttft_ms=500"), quiet)
    print_tuned(prepared, found, Console(file=text, width=300))
    said = tuned_json(prepared, found)
    assert (said["missed_slo"] is None) == ("Beware" not in text.getvalue())
    return text.getvalue()


def test_slo_that_is_not_kept_is_said() -> None:
    """Each trial's part of the requests stands in the table, and a missed SLO in the last lines."""
    missed = "the SLO is kept by 40.0% of the requests, not by 90.0%"
    text = shown(found_with(0.4))
    assert len(re.findall(r" 40\.0% +faster", text)) == 2
    assert text.splitlines()[-2] == f"Beware: {missed}."
    profile = load_profile(PROFILE)
    written = tuned_profile(PROFILE, profile.files[-1], Path("tuned.yaml"), (), found_with(0.4))
    assert missed in " ".join(line.strip("# ") for line in written.splitlines())

    text = shown(found_with(0.95))
    assert len(re.findall(r" 95\.0% +faster", text)) == 2
    assert "Beware" not in text


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
