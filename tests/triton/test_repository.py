"""Reading a Triton model repository: directories, configurations, versions, model.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma_serve.errors import ProfileError
from gemma_serve.triton.repository import ModelDirectory, read_code, read_json, read_repository
from gemma_serve.triton.repository.files import MAX_FILE_BYTES, read_config
from gemma_serve.triton.repository.models import read_model
from tests.triton.repositories import (
    MODEL_PY,
    PYTHON_CONFIG,
    python_backend,
    tensorrt_llm,
    vllm_backend,
    write_files,
)

ONNX = 'platform: "onnxruntime_onnx"'


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in messages are relative to the working directory."""
    monkeypatch.chdir(tmp_path)


def refusal(path: Path) -> str:
    """Why a repository can't be read; of one broken model in it, why that can't."""
    try:
        broken = read_repository(path).broken
    except ProfileError as error:
        return str(error)
    [error] = broken.values()
    return str(error)


def model(root: Path, config: str, *versions: str) -> ModelDirectory:
    """A model of nothing but a configuration and versions."""
    write_files(root, {"m/config.pbtxt": config} | {f"m/{version}/": "" for version in versions})
    return read_model(root / "m")


@pytest.mark.parametrize("spelling", ["config.pbtxt", "config.pbxt"])
def test_both_spellings(tmp_path: Path, spelling: str) -> None:
    """Triton's config.pbtxt and the config.pbxt of the field are read by protobuf's own parser."""
    write_files(tmp_path, {f"gemma/{spelling}": PYTHON_CONFIG, "gemma/1/model.py": MODEL_PY})
    read = read_repository(tmp_path).models["gemma"]
    assert (read.config_name, read.backend, read.versions) == (spelling, "python", (1,))
    assert [tensor.name for tensor in read.config.input][:2] == ["text_input", "max_length"]


def test_one_model_directory_is_a_repository_of_it(tmp_path: Path) -> None:
    """The model's own directory may be named, by a link too, whose name is then the model's."""
    python_backend(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "gemma")
    assert list(read_repository(tmp_path / "gemma").models) == ["gemma"]
    assert list(read_repository(tmp_path / "link").models) == ["link"]


def test_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dot is the directory that it stands for."""
    monkeypatch.chdir(python_backend(tmp_path) / "gemma")
    assert list(read_repository(Path()).models) == ["gemma"]
    assert list(read_repository(Path("1/..")).models) == ["gemma"]


def test_linked_models(tmp_path: Path) -> None:
    """Kubernetes mounts models as links, beside hidden directories that are no models."""
    python_backend(tmp_path / "..data")
    write_files(tmp_path, {"repo/": "", ".git/config.pbtxt": ""})
    (tmp_path / "repo" / "gemma").symlink_to(tmp_path / "..data" / "gemma")
    write_files(tmp_path, {"repo/.hidden/config.pbtxt": "", "repo/notes.txt": ""})
    assert read_repository(tmp_path / "repo").names == ["gemma"]


def test_five_models(tmp_path: Path) -> None:
    """TensorRT-LLM's repository, with commas inside its messages."""
    repository = read_repository(tensorrt_llm(tmp_path))
    assert repository.names == [
        "ensemble",
        "postprocessing",
        "preprocessing",
        "tensorrt_llm",
        "tensorrt_llm_bls",
    ]
    steps = repository.models["ensemble"].config.ensemble_scheduling.step
    assert [step.model_name for step in steps][1] == "tensorrt_llm"


@pytest.mark.parametrize(("file", "backend"), [("model.json", "vllm"), ("model.py", "python")])
def test_backend_by_files(tmp_path: Path, file: str, backend: str) -> None:
    """Without a configuration, the files of the version say whose they are."""
    write_files(tmp_path, {f"m/1/{file}": "{}"})
    read = read_repository(tmp_path).models["m"]
    assert (read.config_name, read.backend) == (None, backend)


def test_versions(tmp_path: Path) -> None:
    """Versions are numbers; what is no number, or starts with 0, is none for Triton either."""
    read = model(tmp_path, ONNX, "1", "10", "9", "01", "0", "v2", "configs")
    assert read.versions == (1, 9, 10)


@pytest.mark.parametrize(
    ("policy", "available", "served"),
    [
        ("", (10,), 10),
        ("version_policy { latest { num_versions: 2 } }", (9, 10), 10),
        ("version_policy { all {} }", (1, 9, 10), 10),
        ("version_policy { specific { versions: [ 1, 9, 77 ] } }", (1, 9), 9),
    ],
)
def test_version_policy(
    tmp_path: Path, policy: str, available: tuple[int, ...], served: int
) -> None:
    """The highest of those that the policy makes available is the one that is served."""
    read = model(tmp_path, policy, "1", "9", "10")
    assert (read.available, read.version) == (available, served)


def test_no_version(tmp_path: Path) -> None:
    """A model without versions, and a policy that names none of them, can't be served."""
    with pytest.raises(ProfileError) as caught:
        _ = model(tmp_path, ONNX).version
    assert str(caught.value) == (
        "The model 'm' has no version directory; Triton keeps one in m/1/."
    )
    with pytest.raises(ProfileError) as caught:
        _ = model(tmp_path, "version_policy { specific { versions: 3 } }", "1").version
    assert str(caught.value) == (
        "The version policy of 'm' names 3, and the versions there are 1; mend version_policy."
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nosuch", "There is no directory 'nosuch'; name a Triton model repository."),
        ("x" * 300, f"There is no directory {'x' * 300!r}; name a Triton model repository."),
        ("a\0b", "There is no directory 'a\\x00b'; name a Triton model repository."),
        (
            "s3://bucket/models",
            "'s3:/bucket/models' is no local directory; copy the model repository here first.",
        ),
        (
            "file",
            "'file' is a file; name the directory: a model repository holds MODEL/config.pbtxt "
            "and MODEL/1/.",
        ),
        (
            "empty",
            "There is no Triton model in 'empty': a model repository holds MODEL/config.pbtxt and "
            "MODEL/1/.",
        ),
        (
            "full/gemma/1",
            "There is no Triton model in '1': a model repository holds MODEL/config.pbtxt and "
            "MODEL/1/; this is a version of one, name 'gemma'.",
        ),
        ("circle", "There is no directory 'circle'; name a Triton model repository."),
    ],
)
def test_no_repository(tmp_path: Path, path: str, message: str) -> None:
    """What is no repository is one line that says what one is."""
    write_files(tmp_path, {"file": "", "empty/": ""})
    python_backend(tmp_path / "full")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert refusal(Path(path)) == message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            'name: "m"\nbackned: "python"\n',
            "m/config.pbtxt:2: This is no model configuration of Triton (Message type "
            '"inference.ModelConfig" has no field named "backned").',
        ),
        (
            'input [ { name: "a" data_type: TYPE_STRIN } ]',
            "m/config.pbtxt:1: This is no model configuration of Triton (Enum type "
            '"inference.DataType" has no value named TYPE_STRIN).',
        ),
        (
            'name: "m"\nmax_batch_size: ${triton_max_batch_size}\n',
            "m/config.pbtxt:2: The template has a placeholder that was never filled in; fill it "
            "with TensorRT-LLM's tools/fill_template.py, or by hand.",
        ),
        (
            b"\x7fELF\x02\x01\n\xff\xfe",
            "m/config.pbtxt:2: The byte 0xff is not UTF-8; save the file as UTF-8.",
        ),
        (
            b"#" * (MAX_FILE_BYTES + 1),
            "m/config.pbtxt: The file is larger than 1 MiB; is it the right one?",
        ),
    ],
)
def test_broken_configuration(tmp_path: Path, config: str | bytes, message: str) -> None:
    """A configuration that can't be read is one line with its place."""
    write_files(tmp_path, {"m/config.pbtxt": config, "m/1/": ""})
    assert refusal(tmp_path) == message


@pytest.mark.parametrize("text", ["\x00\x01\x02", "{" * 5000, "name: 'a", 'name: "\\xff"', "1: 2"])
def test_garbage_is_one_line(tmp_path: Path, text: str) -> None:
    """Whatever stands in the file, the message is one line, without control characters."""
    write_files(tmp_path, {"m/config.pbtxt": text, "m/1/": ""})
    message = refusal(tmp_path)
    assert message.startswith("m/config.pbtxt:")
    assert message.isprintable()
    assert len(message) < 300


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_no_regular_file(tmp_path: Path, kind: str) -> None:
    """A broken link, a pipe that would block and a directory are refused by name."""
    config = write_files(tmp_path, {"m/1/": ""}) / "m" / "config.pbtxt"
    if kind == "link":
        config.symlink_to("gone")
    elif kind == "pipe":
        os.mkfifo(config)
    else:
        config.mkdir()
    assert refusal(tmp_path) == (
        "m/config.pbtxt: This is no file that can be read; is it a broken link?"
    )


def test_name_that_is_no_text(tmp_path: Path) -> None:
    """A directory whose name can't be written into a profile is refused."""
    write_files(tmp_path, {"a\nb/config.pbtxt": ONNX})
    assert refusal(tmp_path) == "The model directory 'a\\nb' has a name that is no text."


def test_a_broken_model_does_not_hide_the_others(tmp_path: Path) -> None:
    """Each model is read for itself."""
    write_files(tensorrt_llm(tmp_path), {"broken/config.pbtxt": "nonsense"})
    repository = read_repository(tmp_path)
    assert "ensemble" in repository.models
    assert list(repository.broken) == ["broken"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n"model": "a"\n"x": 1}', ":3: This is not valid JSON (Expecting ',' delimiter); "),
        ("", ":1: This is not valid JSON (Expecting value); mend it."),
        ("[1]", ": The JSON must be an object of arguments, not a list."),
        ("3", ": The JSON must be an object of arguments, not a single value."),
        ("[" * 100_000, ": The JSON is nested too deeply, or has a number too long."),
        ("1" * 5000, ": The JSON is nested too deeply, or has a number too long."),
    ],
)
def test_broken_json(tmp_path: Path, text: str, message: str) -> None:
    """JSON that can't be read is one line with file and line."""
    file = vllm_backend(tmp_path, text) / "vllm_model" / "1" / "model.json"
    with pytest.raises(ProfileError) as caught:
        read_json(file)
    assert str(caught.value).startswith(f"vllm_model/1/model.json{message}")


@given(
    st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
)
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Any bytes are a configuration, or refused on purpose."""
    file = tmp_path_factory.getbasetemp() / "config.pbtxt"
    file.write_bytes(data)
    message = ""
    try:
        read_config(file)
    except ProfileError as error:
        message = str(error)
    assert "\n" not in message


def test_code_loads() -> None:
    """Calls that load are found with their line, their model and their keywords."""
    facts = read_code(MODEL_PY)
    tokenizer, loaded = facts.loads
    assert (tokenizer.owner, tokenizer.model, tokenizer.is_model) == (
        "AutoTokenizer",
        "google/gemma-2-2b-it",
        False,
    )
    assert (loaded.line, loaded.owner, loaded.is_model) == (14, "AutoModelForCausalLM", True)
    assert loaded.keywords == {"torch_dtype": "torch.float16", "device_map": "auto"}
    assert [(each.name, each.value) for each in facts.constants] == [
        ("MODEL_ID", "google/gemma-2-2b-it")
    ]
    assert "wb" not in facts.strings


@pytest.mark.parametrize(
    ("code", "model"),
    [
        ("M.from_pretrained('a/b')", "a/b"),
        ("M.from_pretrained(pretrained_model_name_or_path='a/b')", "a/b"),
        ("self.name = 'a/b'\nM.from_pretrained(self.name)", "a/b"),
        ("x: str = 'a/b'\nM.from_pretrained(x)", "a/b"),
        ("M.from_pretrained(os.getenv('X', 'a/b'))", "a/b"),
        ("M.from_pretrained(os.environ.get('X') or 'a/b')", "a/b"),
        ("M.from_pretrained(params.get('model', 'a/b'))", "a/b"),
        ("pipeline('text-generation', model='a/b')", "a/b"),
        ("transformers.pipeline('text-generation', 'a/b')", "a/b"),
        ("LLM(model='a/b')", "a/b"),
        ("x = 'a/b'\nx = 'c/d'\nM.from_pretrained(x)", None),
        ("M.from_pretrained(os.path.join(root, 'weights'))", None),
        ("M.from_pretrained(f'a/{size}')", None),
        ("M.from_pretrained()", None),
        ("M.from_pretrained(3)", None),
    ],
)
def test_model_of_a_load(code: str, model: str | None) -> None:
    """The model's name is a string that stands in the file, or it is not known."""
    [load] = read_code(code).loads
    assert load.model == model


@pytest.mark.parametrize(
    "code",
    ["def f(:", "\0", "(" * 100_000, "print 'python 2'", "x = " + "-" * 50_000 + "1", "\ud800"],
)
def test_code_that_is_no_python(code: str) -> None:
    """What can't be parsed is refused on purpose, however deep it is."""
    with pytest.raises(ProfileError, match=r"^It is not valid Python \(.*\)\.$"):
        read_code(code)
