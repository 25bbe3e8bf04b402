"""The profiles that come with gemma-serve."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gemma_serve.engine.fields import installed_vllm
from gemma_serve.gemma.facts import known_ids
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


@pytest.mark.parametrize("name", packaged_names())
def test_its_choices_have_reasons(name):
    """Attention and parsers are explained in its comments, or where it says that they are."""
    lines = (PACKAGED_DIR / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comments = [line for line in lines if line.lstrip().startswith("#")]
    base = next((line.split()[1] for line in lines if line.startswith("extends:")), None)
    if base:
        assert f"# Attention and parsers: as in {base}." in comments
    elif name != "gemma-3-270m":
        assert any(line.startswith("# Attention:") for line in comments)
        assert any(line.startswith("# Parsers:") for line in comments)


@pytest.mark.parametrize("name", packaged_names())
def test_its_checkpoint_is_pinned(name):
    """To a commit; but for what is embedded, and the two whose commit nobody could tell us."""
    profile = load_profile(name).profile
    unknown = {"gemma-2-9b-it-fp8", "gemma-3-4b-it-qat-q4_0"}
    if name in unknown or profile.model.startswith("embedded/"):
        assert profile.revision is None
    else:
        assert re.fullmatch("[0-9a-f]{40}", profile.revision)


def test_every_official_size_has_two():
    """Each instruction-tuned size that the facts know, in bf16 and in FP8."""
    derived = re.compile(r"-qat-|^functiongemma|^translategemma")
    official = [
        model.removeprefix("google/") for model in known_ids() if model.startswith("google/gemma-")
    ]
    sizes = [name for name in official if name.endswith("-it") and not derived.search(name)]
    assert len(sizes) == 15
    expected = {*sizes, *(f"{name}-fp8" for name in sizes)}
    assert set(packaged_names()) == expected | {"gemma-3-270m", "gemma-3-4b-it-qat-q4_0"}
    summaries = {summary.name: summary for summary in list_profiles()}
    for name in sizes:
        assert (summaries[name].model, summaries[name].dtype) == (f"google/{name}", "bf16")
        assert summaries[f"{name}-fp8"].dtype == "fp8"
        if name != "gemma-2-9b-it":
            assert summaries[f"{name}-fp8"].model == f"google/{name}"


def test_the_list_is_honest():
    """Each names the memory of a GPU, and none claims one that it never ran on."""
    summaries = {summary.name: summary for summary in list_profiles()}
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
    without = [name for name, summary in summaries.items() if summary.gpu_memory_gib is None]
    assert without == ["gemma-3-270m"]


def test_the_triton_profile():
    """Gemma 3 1B stands in for a Triton server: the python backend's tensors, Triton's ports."""
    profile = load_profile("gemma-3-1b-it").profile
    assert profile.model == "google/gemma-3-1b-it"
    assert profile.triton.contract == "python-backend"
    server = profile.server
    assert (server.port, server.grpc_port, server.metrics_port) == (8000, 8001, 8002)


def test_the_pre_quantised_profile():
    """Gemma 2 9B comes in FP8, and asks for FLASHINFER."""
    profile = load_profile("gemma-2-9b-it-fp8").profile
    assert profile.model == "RedHatAI/gemma-2-9b-it-FP8"
    assert (profile.dtype, profile.attention_backend) == ("fp8", "FLASHINFER")


def test_the_qat_profile():
    """Gemma 3 4B trained for Q4_0 is served as it is published, in bf16."""
    profile = load_profile("gemma-3-4b-it-qat-q4_0").profile
    assert profile.model == "google/gemma-3-4b-it-qat-q4_0-unquantized"
    assert profile.dtype == "bf16"


def test_the_default_profile():
    """The default serves the embedded model in bf16, eagerly, with 8,192 tokens."""
    profile = load_profile("gemma-3-270m").profile
    assert profile.model == "embedded/gemma-3-270m"
    assert (profile.dtype, profile.served_model_name) == ("bf16", "gemma-3-270m")
    assert profile.max_model_len == 8192
    assert profile.engine == {"enforce_eager": True}
