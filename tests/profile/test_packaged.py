"""The profiles that come with gemma-serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemma_serve.engine.fields import installed_vllm
from gemma_serve.profile.chain import packaged_names
from gemma_serve.profile.load import ProfileSummary, list_profiles, load_profile
from gemma_serve.profile.source import PACKAGED_DIR

SCHEMA_LINE = "# yaml-language-server: $schema=../profile/profile.schema.json"


@pytest.fixture(scope="module")
def engine_fields(tmp_path_factory):
    """The fields of the installed vLLM's AsyncEngineArgs."""
    vllm = installed_vllm(tmp_path_factory.mktemp("fields"))
    if vllm is None:
        pytest.skip("vLLM is not installed")
    return vllm.fields


@pytest.mark.parametrize("name", packaged_names())
def test_it_loads_with_the_installed_vllm(name, engine_fields):
    """Every packaged profile loads, and its engine keys are fields of the installed vLLM."""
    loaded = load_profile(name, engine_fields=engine_fields)
    assert loaded.name == name
    assert loaded.profile.meta.description


@pytest.mark.parametrize("name", packaged_names())
def test_it_names_its_schema(name):
    """Editors find the schema from the first line."""
    file = PACKAGED_DIR / f"{name}.yaml"
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first == SCHEMA_LINE
    assert (file.parent / Path(first.partition("=")[2])).is_file()


def test_the_list_is_complete_and_honest():
    """All profiles are listed by name; none claims a GPU that it never ran on."""
    summaries = {summary.name: summary for summary in list_profiles()}
    assert list(summaries) == [
        "gemma-2-9b-it",
        "gemma-3-270m",
        "gemma-3-27b-it-fp8",
        "gemma-3-4b-it",
        "gemma-3n-E4B-it",
        "gemma-4-31B-it-fp8",
    ]
    assert summaries["gemma-3-27b-it-fp8"] == ProfileSummary(
        "gemma-3-27b-it-fp8",
        "google/gemma-3-27b-it",
        "fp8",
        1,
        "Gemma 3 27B with images, FP8 quantised at load, one 80 GB GPU (H100)",
        79.0,
        (),
    )
    assert [name for name, summary in summaries.items() if summary.tested_on] == ["gemma-3-270m"]


def test_the_default_profile():
    """The default serves the embedded model in bf16, eagerly, with 8,192 tokens."""
    profile = load_profile("gemma-3-270m").profile
    assert profile.model == "embedded/gemma-3-270m"
    assert (profile.dtype, profile.served_model_name) == ("bf16", "gemma-3-270m")
    assert profile.max_model_len == 8192
    assert profile.engine == {"enforce_eager": True}
