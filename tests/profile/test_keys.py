"""Unknown keys, and the right word for each."""

from __future__ import annotations

import pytest

from gemma_serve.profile.json_schema import profile_schema
from gemma_serve.profile.keys import ALIASES, all_keys

FIELDS = {
    "max_num_seqs": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    "swap_space": {"type": "number"},
    "attention_config": {
        "type": "object",
        "properties": {"backend": {}},
        "additionalProperties": False,
    },
}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "tensor_paralel_size: 2",
            "Unknown key 'tensor_paralel_size'; the closest is 'tensor_parallel_size'.",
        ),
        (
            "tensor-parallel-size: 2",
            "Unknown key 'tensor-parallel-size'; write tensor_parallel_size.",
        ),
        ("DTYPE: fp8", "Unknown key 'DTYPE'; write dtype."),
        ("tp: 2", "Unknown key 'tp'; write tensor_parallel_size."),
        ("tensor_parallel: 2", "Unknown key 'tensor_parallel'; write tensor_parallel_size."),
        (
            "quantization: fp8",
            "Unknown key 'quantization'; write dtype: fp8, or engine.quantization for a method of "
            "vLLM.",
        ),
        (
            "gpu_memory_utilization: 0.9",
            "Unknown key 'gpu_memory_utilization'; it is an engine field of vLLM: "
            "write engine.gpu_memory_utilization.",
        ),
        (
            "max-num-seqs: 9",
            "Unknown key 'max-num-seqs'; it is an engine field of vLLM: write engine.max_num_seqs.",
        ),
        ("port: 1", "Unknown key 'port'; it belongs under server: write server.port."),
        (
            "certfile: a",
            "Unknown key 'certfile'; it belongs under server.tls: write server.tls.certfile.",
        ),
        (
            "server.port: 1",
            "Unknown key 'server.port'; write port under server: (dots are for --set).",
        ),
        ("server: {prt: 1}", "Unknown key 'server.prt'; the closest is 'server.port'."),
        ("server: {dtype: fp8}", "Unknown key 'server.dtype'; write dtype at the top."),
        ("slo: {xyz: 1}", "Unknown key 'slo.xyz'; slo takes itl_ms, ttft_ms."),
        ("xyzzy: 1", "Unknown key 'xyzzy'; see all keys with: gemma-serve schema."),
        (
            "tensor_paralel_size: null",
            "Unknown key 'tensor_paralel_size'; the closest is 'tensor_parallel_size'.",
        ),
        (
            "env: {A=B: x}",
            "'A=B' can't name an environment variable; use letters, digits and '_'.",
        ),
    ],
)
def test_unknown_key(mistakes, line, message):
    """An unknown key is told with the word or the place that is right."""
    assert mistakes(f"model: m\n{line}") == [f"my.yaml:2: {message}"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "engine: {max_num_seq: 1}",
            "Unknown key 'engine.max_num_seq'; the closest is 'engine.max_num_seqs'.",
        ),
        (
            "engine: {zzz: 1}",
            "Unknown key 'engine.zzz'; vLLM's AsyncEngineArgs has no such field.",
        ),
        (
            "engine: {port: 1}",
            "Unknown key 'engine.port'; it belongs under server: write server.port.",
        ),
        (
            "engine: {attention_config: {backends: x}}",
            "Unknown key 'engine.attention_config.backends'; "
            "the closest is 'engine.attention_config.backend'.",
        ),
        (
            "swap_space: 1",
            "Unknown key 'swap_space'; it is an engine field of vLLM: write engine.swap_space.",
        ),
    ],
)
def test_unknown_engine_key(mistakes, line, message):
    """With the fields of the installed vLLM at hand, engine keys are checked by name."""
    assert mistakes(f"model: m\n{line}", engine_fields=FIELDS) == [f"my.yaml:2: {message}"]


def test_without_vllm_engine_keys_are_left_alone(load):
    """Where no fields are given, any key may stand under engine."""
    assert load("model: m\nengine: {zzz: 1}").profile.engine == {"zzz": 1}


@pytest.mark.parametrize(
    "line",
    [
        "api_key: hush",
        "server: {api_keys: [hush]}",
        "env: {VLLM_API_KEY: hush}",
        "engine: {kv_transfer_config: {apiKey: hush}}",
    ],
)
def test_keys_are_never_in_a_profile(mistakes, line):
    """An API key anywhere in a profile is refused, and not printed."""
    (told,) = mistakes(f"model: m\n{line}")
    assert told.endswith(
        " would hold a secret; secrets come only from the environment variable "
        "GEMMA_SERVE_API_KEYS or from the file that server.api_keys_file names."
    )
    assert "hush" not in told


@pytest.mark.parametrize("line", ["env: {HF_TOKEN: hush}", "engine: {hf_token: hush}"])
def test_tokens_are_never_in_a_profile(mistakes, line):
    """A token belongs into the environment of the server."""
    (told,) = mistakes(f"model: m\n{line}")
    assert told.endswith(
        "would hold a secret; set HF_TOKEN in the environment of the server, not in a profile."
    )


def test_aliases_lead_to_real_keys():
    """Every alias names a key that exists, and none is a key itself."""
    assert set(ALIASES.values()) <= set(all_keys())
    assert not set(ALIASES) & set(profile_schema()["properties"])
