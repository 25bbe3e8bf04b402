"""What a target names, and what is said of one that names nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.servers import ServerError, TargetSpec, parse_target


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("http://h:1", TargetSpec("url", "http://h:1")),
        ("https://h/api/", TargetSpec("url", "https://h/api")),
        ("http://h:1,model=a/b", TargetSpec("url", "http://h:1", model="a/b")),
        ("http://h:1,key=s,model=m", TargetSpec("url", "http://h:1", model="m", api_key="s")),
        ("profile:gemma-3-270m", TargetSpec("profile", "gemma-3-270m")),
        (
            "profile:p.yaml,--set kv_cache_dtype=fp8, --set=engine.x=[1,2]",
            TargetSpec("profile", "p.yaml", ("kv_cache_dtype=fp8", "engine.x=[1,2]")),
        ),
        ("vllm:p,--set a.b=c=d", TargetSpec("vllm", "p", ("a.b=c=d",))),
        ("transformers:/models/x", TargetSpec("transformers", "/models/x")),
        ("llama-cpp:gemma-3-270m", TargetSpec("llama-cpp", "gemma-3-270m")),
    ],
)
def test_forms(text: str, spec: TargetSpec) -> None:
    """Each form of a target is read, lists in settings included."""
    assert parse_target(text) == spec


def test_gguf_file(tmp_path: Path) -> None:
    """A GGUF file is named by its path."""
    gguf = tmp_path / "model.gguf"
    gguf.touch()

    assert parse_target(f"llama-cpp:{gguf},--set n_ctx=512").settings == ("n_ctx=512",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("localhost:8000", "target 'localhost:8000' is none that the harness knows; give http://"),
        ("gemma-3-270m", "target 'gemma-3-270m' is none that the harness knows"),
        ("url:x", "target 'url:x' is none that the harness knows"),
        ("profile:", "target 'profile:' names nothing behind its colon"),
        ("http://", "target 'http://' is no server's address; write it like http://127.0.0.1:8000"),
        ("http://h:1,token=x", "a running server has no option 'token'; give model or key"),
        ("profile:p,--set port", "--set 'port' is no setting; give KEY=VALUE"),
        ("transformers:p,--set a=b", "transformers takes no --set"),
        ("llama-cpp:/no/such.gguf", "there is no file '/no/such.gguf'; give a GGUF file's path"),
    ],
)
def test_errors(text: str, sentence: str) -> None:
    """What is no target is refused in one sentence that says what is allowed."""
    with pytest.raises(ServerError) as error:
        parse_target(text)

    assert sentence in str(error.value)


def test_label_has_no_key() -> None:
    """The label, which goes into files, tells the settings and not the key."""
    assert parse_target("http://h:1,key=secret").label == "http://h:1"
    assert parse_target("vllm:p,--set a=b").label == "vllm:p,--set a=b"
