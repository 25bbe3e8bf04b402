"""`quantize --quality`: what can't be measured is known first, and a card is filled in later."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemma_serve import measure_quality
from gemma_serve.cli import make
from gemma_serve.cli.quality import quality_compare
from gemma_serve.engine import platform
from gemma_serve.engine.platform import Platform
from gemma_serve.errors import QualityError, QuantizeError
from gemma_serve.quality.compare import Comparison, compare
from tests.engine.derive import TWO_CORES
from tests.quality.test_record import record
from tests.quantize.checkpoints import quantize

WITH_AMX = replace(TWO_CORES, amx=True, avx512=True)
NARROW = replace(TWO_CORES, name="Core2", amx=False, avx512=False)


def command(source: Path, destination: Path, scheme: str, **options: Any) -> None:
    """`gemma-serve quantize`, in this process."""
    make.quantize(str(source), destination, scheme, **options)


def on(machine: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine be another."""
    monkeypatch.setattr(platform, "detect_usable", lambda: machine)


@pytest.mark.parametrize(
    ("scheme", "machine", "why"),
    [
        ("fp8-dynamic", WITH_AMX, "out is stored in FP8 .compressed-tensors. without weight"),
        ("fp8-block", NARROW, "out is stored in block FP8, for which vLLM's CPU kernel needs AMX"),
    ],
)
def test_known_before(
    scheme: str,
    machine: Platform,
    why: str,
    blocky_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A result that this machine can't run is refused in one line, before anything is converted."""
    on(machine, monkeypatch)

    with pytest.raises(QuantizeError, match=rf"^--quality runs source and .*{why}") as caught:
        command(blocky_model, tmp_path / "out", scheme, quality=True)

    assert "\n" not in caught.value.message
    assert list(tmp_path.iterdir()) == []


def broken(*_given: object, **_options: object) -> Comparison:
    """An engine that does not start."""
    raise QualityError("No engine today.")


def test_filled_in_later(
    blocky_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was made is told though its quality failed; the same command measures that alone."""
    on(WITH_AMX, monkeypatch)
    monkeypatch.setattr(measure_quality, "compare_profiles", broken)
    out = tmp_path / "out"

    with pytest.raises(QuantizeError, match=r"out' is whole, but .* the same command .* No engine"):
        command(blocky_model, out, "fp8-block", quality=True, as_json=True)

    made = json.loads(capsys.readouterr().out)
    assert (made["destination"], "quality" in made, len(made["weights"])) == (str(out), False, 14)
    weights = out / "model.safetensors"
    before = weights.stat().st_mtime_ns

    def compared(*_given: object, **_options: object) -> Comparison:
        return compare(record(), record())

    monkeypatch.setattr(measure_quality, "compare_profiles", compared)
    command(blocky_model, out, "fp8-block", quality=True, as_json=True)

    filled = json.loads(capsys.readouterr().out)
    assert (filled["destination"], filled["quality"]["figures"]["kl_mean_nats"]) == (str(out), 0)
    assert weights.stat().st_mtime_ns == before
    assert "| KL divergence, mean | 0.0000 nats" in (out / "README.md").read_text()


def test_another_destination_is_not_filled_in(
    blocky_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another scheme, or nobody's: it is there already, and stays as it is."""
    on(WITH_AMX, monkeypatch)
    monkeypatch.setattr(measure_quality, "compare_profiles", broken)
    quantize(blocky_model, tmp_path / "out", "fp8-dynamic")
    (tmp_path / "mine").mkdir()

    for name in ("out", "mine"):
        with pytest.raises(QuantizeError, match="is there already"):
            command(blocky_model, tmp_path / name, "fp8-block", quality=True)


def test_options_without_effect(tmp_path: Path) -> None:
    """--quality-tokens without --quality, and --set beside a record, are refused."""
    with pytest.raises(QuantizeError, match=r"^--quality-tokens 9 bounds .*; add --quality, or"):
        command(tmp_path, tmp_path / "out", "fp8-block", quality_tokens=9)
    with pytest.raises(QualityError, match=r"^--set dtype=fp8 changes a profile, and 'b\.npz' is"):
        quality_compare(tmp_path / "a.npz", "b.npz", ["dtype=fp8"])
