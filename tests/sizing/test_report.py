"""What `gemma-serve plan` prints, writes and answers."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image
from rich.console import Console

from gemma_serve.errors import ProfileError, StartupError
from gemma_serve.plan import plan_size
from gemma_serve.sizing.chart import write_chart
from gemma_serve.sizing.report import report_json, report_of
from gemma_serve.sizing.table import print_plan
from tests.engine.derive import TWO_CORES, load
from tests.sizing.subjects import packaged, subject

BOUND_S = 120


def plan(*words: str) -> Any:
    """`gemma-serve plan WORDS`, to its end."""
    command = [sys.executable, "-m", "gemma_serve", "plan", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S, check=False)


def test_json_of_a_profile_that_fits() -> None:
    """One object with memory by part, vLLM's figures and the bounds; exit code 0."""
    done = plan("gemma-3-27b-it", "--gpu", "h100", "--input", "2000", "--output", "500", "--json")
    found = json.loads(done.stdout)

    assert (done.returncode, found["fits"], found["unfit"]) == (0, True, None)
    parts = {part["name"]: part["bytes"] for part in found["memory"]["parts"]}
    assert sum(parts.values()) == pytest.approx(found["memory"]["device_bytes"], abs=9)
    assert parts["KV cache"] == found["kv_cache"]["bytes"]
    assert (found["input_tokens"], found["output_tokens"]) == (2000, 500)
    assert 0 < found["concurrency"] <= 256
    assert found["kv_cache"]["size_tokens"] == pytest.approx(
        found["kv_cache"]["max_concurrency"] * 32_768, rel=0.01
    )
    assert "not run on a GPU" in found["roofline"]["how"]


def test_unfit_profile_is_exit_code_1_with_what_to_change() -> None:
    """The numbers and the settings, at the end of the table."""
    done = plan("gemma-3-27b-it", "--gpu", "l4")

    assert done.returncode == 1
    text = " ".join(done.stdout.split())
    assert "does not fit: google/gemma-3-27b-it needs 25.9 GiB for its weights" in text
    assert "dtype: fp8: 5.01 GiB of KV cache, 67,696 tokens" in text


def test_serve_refuses_before_anything_is_loaded(tmp_path: Path) -> None:
    """A KV cache for less than one request is one line, and vLLM is not even imported."""
    small = ("kv_cache_memory_gib=0.001", "server.port=0")
    options = [word for override in small for word in ("--set", override)]
    command = [sys.executable, "-m", "gemma_serve", "serve", "gemma-3-270m", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S, check=False)

    assert done.returncode == 3
    last = done.stderr.rstrip().rpartition("\n")[2]
    assert last.startswith(
        "gemma-serve: max_model_len 8192 needs 63.8 MiB for the KV cache of one "
    )
    assert "use kv_cache_memory_gib: 0.07." in last
    assert "Importing vLLM" not in done.stderr


def test_table_says_what_is_modelled() -> None:
    """What only a GPU could prove is marked; the recommended size has a star."""
    text = StringIO()
    print_plan(report_of(packaged("gemma-3-27b-it", "h100"), 1024, 256), Console(file=text))
    shown = text.getvalue()

    assert "simulated NVIDIA H100: not run on a GPU" in shown
    assert shown.count("modelled, not measured") >= 4
    assert "1 *" in shown
    assert "fits (modelled, not measured)" in shown


def test_table_says_why_there_are_no_bounds() -> None:
    """A CPU has no datasheet here."""
    text, asked = StringIO(), subject(TWO_CORES, model="embedded/gemma-3-270m")
    print_plan(report_of(asked, 100, 10), Console(file=text, width=200))

    assert "no upper bounds of speed: the bandwidth and FLOP/s of CPU are not known" in (
        text.getvalue()
    )


@pytest.mark.parametrize("model", ["embedded/gemma-3-270m", "."])
def test_nothing_to_fetch(model: str, tmp_path: Path) -> None:
    """--fetch asks the Hub; a model that is on this machine is not there."""
    loaded = load(tmp_path, model=model)

    with pytest.raises(ProfileError, match=rf"^--fetch asks .* model '{model}' is on this mach"):
        plan_size(loaded, "h100", print, fetch=True)


def test_chart_as_svg_has_every_part(tmp_path: Path) -> None:
    """A picture that parses, with each part's size in words."""
    report = report_of(packaged("gemma-4-26B-A4B-it", "h200"), 1024, 256)
    write_chart(report, tmp_path / "plan.svg")
    texts = [
        element.text or ""
        for element in ElementTree.parse(tmp_path / "plan.svg").iter()
        if element.tag.endswith("text")
    ]

    for part in report.parts():
        assert any(text.startswith(f"{part.name}: ") for text in texts), part.name


def test_chart_as_png_shows_the_kv_cache(tmp_path: Path) -> None:
    """The bar has its green where the cache is, as wide as its share of the memory."""
    report = report_of(packaged("gemma-3-1b-it", "h100"), 1024, 256)
    write_chart(report, tmp_path / "plan.png")
    with Image.open(tmp_path / "plan.png") as image:
        row = [image.getpixel((x, 92)) for x in range(image.width)]
    green = sum(pixel == (0x1A, 0x7F, 0x37) for pixel in row)

    share = report.sizing.kv_cache_bytes / report.sizing.memory_bytes
    assert green == pytest.approx(share * (960 - 48), abs=6)


def test_chart_of_another_kind_is_refused(tmp_path: Path) -> None:
    """The ending says the format; a directory that is not there is one line too."""
    report = report_of(packaged("gemma-3-1b-it", "h100"), 1024, 256)

    with pytest.raises(ProfileError, match=r"neither \.svg nor \.png; use one of the two"):
        write_chart(report, tmp_path / "plan.pdf")
    with pytest.raises(StartupError, match="can't be written"):
        write_chart(report, tmp_path / "missing" / "plan.svg")


def test_lora_and_drafts_are_named_as_not_counted() -> None:
    """What the profile adds and a plan knows nothing of is no silent zero."""
    asked = packaged("gemma-3-1b-it", "h100", {"speculative.method": "ngram"})

    assert report_json(report_of(asked, 10, 10))["not_counted"] == ["the drafts of speculative"]
