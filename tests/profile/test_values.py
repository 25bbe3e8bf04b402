"""Wrong values: the value, what is allowed, and how to write what was meant."""

from __future__ import annotations

import pytest

NAN = "exceed 65504, the largest number of fp16, and turn into NaN"
DTYPES = "dtype must be bf16, fp8 or fp32"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "tensor_parallel_size: two",
            "tensor_parallel_size must be an integer of at least 1, not 'two'.",
        ),
        (
            "tensor_parallel_size: 0",
            "tensor_parallel_size must be an integer of at least 1, not 0.",
        ),
        (
            "tensor_parallel_size: 2.0",
            "tensor_parallel_size must be an integer of at least 1, not 2.0.",
        ),
        (
            "tensor_parallel_size: true",
            "tensor_parallel_size must be an integer of at least 1, not true.",
        ),
        (
            "tensor_parallel_size: [2]",
            "tensor_parallel_size must be an integer of at least 1, not a list.",
        ),
        ("max_model_len: {a: 1}", "max_model_len must be an integer of at least 1, not a map."),
        (
            'tensor_parallel_size: "2"',
            "tensor_parallel_size must be an integer of at least 1, not '2'; remove the quotes.",
        ),
        ("server: {port: 70000}", "server.port must be an integer from 0 to 65535, not 70000."),
        ("server: {port: 22:22}", "server.port must be an integer from 0 to 65535, not '22:22'."),
        ("server: 5", "server must be a map, not 5."),
        ("text_only: maybe", "text_only must be true or false, not 'maybe'."),
        ('text_only: "yes"', "text_only must be true or false, not 'yes'; remove the quotes."),
        ("text_only: 'on'", "text_only must be true or false, not 'on'; remove the quotes."),
        (
            "chat: {reasoning_parser: off}",
            "chat.reasoning_parser must be a string, not off, which YAML reads as false; "
            'put it in quotes: "off".',
        ),
        ("revision: 123", 'revision must be a string, not 123; put it in quotes: "123".'),
        (
            "env: {OMP_NUM_THREADS: 2}",
            'env.OMP_NUM_THREADS must be a string, not 2; put it in quotes: "2".',
        ),
        (
            "served_model_name: 7",
            "served_model_name must be a string or a list of strings, not 7; "
            'put it in quotes: "7".',
        ),
        ("served_model_name: [a, null]", "served_model_name[1] must be a string, not null."),
        ("meta: {tested_on: H100}", "meta.tested_on must be a list of strings, not 'H100'."),
        ("slo: {ttft_ms: 0}", "slo.ttft_ms must be a number above 0, not 0."),
        ("limits: {drain_s: -1}", "limits.drain_s must be a number of at least 0, not -1."),
        ("limits: {drain_s: .inf}", "limits.drain_s must be a finite number, not .inf."),
        ("lora: {max_loras: 1}", "lora.adapters is missing; it must be a map of strings."),
        ("server: {tls: {certfile: a}}", "server.tls.keyfile is missing; it must be a string."),
        (
            "attention_policy: prefered",
            "attention_policy must be prefer or require, not 'prefered'; the closest is 'prefer'.",
        ),
        (
            "kv_cache_dtype: fp8_e4m3",
            "kv_cache_dtype must be auto or fp8, not 'fp8_e4m3'; the closest is 'fp8'.",
        ),
        ("dtype: fp9", f"{DTYPES}, not 'fp9'; the closest is 'fp8'."),
        ("dtype: int4", f"{DTYPES}, not 'int4'."),
        ("dtype: 8", f"{DTYPES}, not 8; write fp8."),
        ("dtype: BF16", f"{DTYPES}, not 'BF16'; the closest is 'bf16'."),
        ("dtype: bfloat16", f"{DTYPES}, not 'bfloat16'; write bf16."),
        ("dtype: float32", f"{DTYPES}, not 'float32'; write fp32."),
        ("dtype: float8", f"{DTYPES}, not 'float8'; write fp8."),
        ("dtype: fp16", f"dtype 'fp16' is refused: Gemma's activations {NAN}; write bf16."),
        ("dtype: float16", f"dtype 'float16' is refused: Gemma's activations {NAN}; write bf16."),
        ("dtype: half", f"dtype 'half' is refused: Gemma's activations {NAN}; write bf16."),
        (
            "engine: {dtype: half}",
            f"engine.dtype 'half' is refused: Gemma's activations {NAN}; "
            "write dtype: bf16 at the top instead.",
        ),
        (
            f"attention_policy: {'x' * 500}",
            f"attention_policy must be prefer or require, not '{'x' * 59}....",
        ),
    ],
)
def test_wrong_value(mistakes, line, message):
    """A wrong value is told with what is allowed and, where it is clear, what was meant."""
    assert mistakes(f"model: m\n{line}") == [f"my.yaml:2: {message}"]


@pytest.mark.parametrize("text", ["dtype: bf16", "dtype: bf16\nmodel:"])
def test_missing_model(mistakes, text):
    """A profile without a model, or with an empty one, is told what a model is."""
    line = 2 if "model" in text else 1
    assert mistakes(text) == [
        f"my.yaml:{line}: model is missing; name a Hugging Face id, a local directory or "
        "embedded/gemma-3-270m, for example 'model: google/gemma-3-27b-it'."
    ]


def test_empty_model(mistakes):
    """An empty string is no model."""
    assert mistakes('model: ""') == ["my.yaml:1: model must be a string that is not empty, not ''."]


@pytest.mark.parametrize("word", ["true", "yes", "on", "True"])
def test_yaml_words_for_true_are_booleans(load, word):
    """Unquoted yes and on are true where a boolean is wanted."""
    assert load(f"model: m\ntext_only: {word}").profile.text_only is True


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "many", "an integer, not 'many'."),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "2.0", "an integer, not 2.0."),
        ({"type": "boolean"}, '"true"', "true or false, not 'true'; remove the quotes."),
        ({"enum": ["auto", "slow"]}, "slo", "auto or slow, not 'slo'; the closest is 'slow'."),
        ({"type": ["string", "integer"]}, "[1]", "a string or an integer, not a list."),
        ({"type": "array", "items": {"type": "string"}}, "x", "a list of strings, not 'x'."),
    ],
)
def test_wrong_engine_value(mistakes, field, value, message):
    """With the fields of the installed vLLM at hand, engine values are checked too."""
    assert mistakes(f"model: m\nengine:\n  f: {value}", engine_fields={"f": field}) == [
        f"my.yaml:3: engine.f must be {message}"
    ]


def test_any_engine_value_where_vllm_says_nothing(write):
    """An empty schema takes anything."""
    from gemma_serve.profile.load import load_profile

    loaded = load_profile(write("model: m\nengine: {f: {a: [1]}}"), engine_fields={"f": {}})
    assert loaded.profile.engine == {"f": {"a": [1]}}
