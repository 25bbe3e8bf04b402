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
        (
            "http://h:1,protocol=triton-generate,contract=vllm-backend",
            TargetSpec("url", "http://h:1", protocol="triton-generate", contract="vllm-backend"),
        ),
        (
            "https://h:1/api,key=s,protocol=triton-grpc,grpc_port=8001",
            TargetSpec(
                "url", "https://h:1/api", api_key="s", protocol="triton-grpc", grpc="h:8001"
            ),
        ),
        ("http://h:1,grpc=g:2", TargetSpec("url", "http://h:1", grpc="g:2")),
        ("http://[::1]:1,grpc_port=2", TargetSpec("url", "http://[::1]:1", grpc="[::1]:2")),
        ("profile:gemma-3-270m", TargetSpec("profile", "gemma-3-270m")),
        (
            "profile:p.yaml,--set kv_cache_dtype=fp8, --set=engine.x=[1,2]",
            TargetSpec("profile", "p.yaml", ("kv_cache_dtype=fp8", "engine.x=[1,2]")),
        ),
        ("vllm:p,--set a.b=c=d", TargetSpec("vllm", "p", ("a.b=c=d",))),
        (
            "profile:p,protocol=triton-grpc, contract=vllm-backend,--set a=[1,2],--set b=c",
            TargetSpec(
                "profile",
                "p",
                ("a=[1,2]", "b=c"),
                protocol="triton-grpc",
                contract="vllm-backend",
            ),
        ),
        (
            "vllm:p,--set a=b,protocol=openai-completions",
            TargetSpec("vllm", "p", ("a=b",), protocol="openai-completions"),
        ),
        (
            "transformers:/models/x,protocol=openai-chat",
            TargetSpec("transformers", "/models/x", protocol="openai-chat"),
        ),
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
        ("http://[::1", "target 'http://[::1' is no server's address; write it like http://127"),
        ("http://h:99999", "target 'http://h:99999' is no server's address"),
        ("http://h:x,grpc_port=1", "target 'http://h:x' is no server's address"),
        ("http://h:1,token=x", "a running server has no option 'token'; give model, key, protocol"),
        ("http://h:1,protocol=grpc", "protocol 'grpc' is unknown; use openai-chat, openai-comp"),
        ("http://h:1,contract=vllm", "contract 'vllm' is unknown; use python-backend, vllm-b"),
        ("http://h:1,grpc_port=x", "'h:x' is no address of gRPC; write ,grpc_port=8001 or ,grpc="),
        ("http://h:1,grpc=8001", "'8001' is no address of gRPC; write ,grpc_port=8001"),
        ("profile:p,protocol=chat", "protocol 'chat' is unknown; use openai-chat"),
        ("profile:p,protcol=x", "a server that is started has no option 'protcol'; give protocol"),
        ("vllm:p,key=x,--set a=b", "a server that is started has no option 'key'"),
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
    spoken = "http://h:1,protocol=triton-grpc,contract=vllm-backend"
    assert parse_target(f"{spoken},key=secret,grpc_port=2").label == spoken
