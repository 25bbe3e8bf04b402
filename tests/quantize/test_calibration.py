"""What calibration measures, and what a run that goes on may keep of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gemma_serve.errors import QuantizeError
from gemma_serve.quantize import calibrate, run
from tests.quantize.checkpoints import change_weights, copy_of, quantize, tensors_of

DOWN = "model.layers.0.mlp.down_proj.weight"
UP = "model.layers.0.mlp.up_proj.weight"


def spoil(source: Path, name: str, value: float) -> None:
    """Fill the last row of a weight."""

    def put(tensor_name: str, tensor: torch.Tensor) -> torch.Tensor:
        if tensor_name == name:
            tensor[-1] = value
        return tensor

    change_weights(source, put)


def recorded(tmp_path: Path) -> object:
    """The peaks that a run which stopped has left."""
    return json.loads((tmp_path / "out.partial" / ".quantize.json").read_text())["peaks"]


def assert_as_straight(source: Path, calibration_text: Path, tmp_path: Path) -> None:
    """What was resumed is what one run makes of the source as it is now."""
    quantize(source, tmp_path / "straight", "fp8-static", calibration_text=calibration_text)
    resumed, straight = tensors_of(tmp_path / "out"), tensors_of(tmp_path / "straight")
    assert resumed.keys() == straight.keys()
    for name in straight:
        assert torch.equal(resumed[name].float(), straight[name].float()), name


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_no_number(value: float, tiny_model: Path, calibration_text: Path, tmp_path: Path) -> None:
    """NaN and infinity are refused where they are met, and nothing of them is kept."""
    source = copy_of(tiny_model, tmp_path / "source")
    whole = (source / "model.safetensors").read_bytes()
    spoil(source, DOWN, value)

    for scheme in ("fp8-static", "kv-fp8"):
        with pytest.raises(QuantizeError, match=r"^Calibration met NaN or infinite values at 'l"):
            quantize(source, tmp_path / "out", scheme, calibration_text=calibration_text)
        assert recorded(tmp_path) is None

    (source / "model.safetensors").write_bytes(whole)
    quantize(source, tmp_path / "out", "fp8-static", calibration_text=calibration_text)
    assert_as_straight(source, calibration_text, tmp_path)


def test_nothing_but_zeros(tiny_model: Path, calibration_text: Path, tmp_path: Path) -> None:
    """No scale follows from a matrix that nothing enters."""
    source = change_weights(
        copy_of(tiny_model, tmp_path / "source"),
        lambda name, tensor: torch.zeros_like(tensor) if name == UP else tensor,
    )

    with pytest.raises(QuantizeError, match=r"nothing but zeros at 'layers\.0\.mlp\.down_proj', "):
        quantize(source, tmp_path / "out", "fp8-static", calibration_text=calibration_text)

    assert recorded(tmp_path) is None


def stop_after_calibration(
    source: Path, calibration_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C before the first shard."""

    def stop(*_given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run, "convert", stop)
        with pytest.raises(KeyboardInterrupt):
            quantize(source, tmp_path / "out", "fp8-static", calibration_text=calibration_text)
    assert recorded(tmp_path)


def test_other_weights_are_calibrated_anew(
    tiny_model: Path, calibration_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the weights changed since, no peak of theirs is used."""
    source = copy_of(tiny_model, tmp_path / "source")
    stop_after_calibration(source, calibration_text, tmp_path, monkeypatch)
    change_weights(source, lambda name, tensor: tensor * 4 if name == UP else tensor)

    quantize(source, tmp_path / "out", "fp8-static", calibration_text=calibration_text)

    assert_as_straight(source, calibration_text, tmp_path)


def test_same_weights_are_not(
    tiny_model: Path, calibration_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on with the same weights takes the peaks that it has."""

    def fail(*_given: object) -> None:
        raise AssertionError

    source = copy_of(tiny_model, tmp_path / "source")
    stop_after_calibration(source, calibration_text, tmp_path, monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(calibrate, "input_peaks", fail)
        quantize(source, tmp_path / "out", "fp8-static", calibration_text=calibration_text)

    assert_as_straight(source, calibration_text, tmp_path)
