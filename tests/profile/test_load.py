"""Reading profiles: the forms, extends, --set, precedence and origins."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemma_serve.errors import Mistake, ProfileError
from gemma_serve.profile.load import Origin, load_profile

EVERY_KEY = """
model: google/gemma-3-27b-it
dtype: fp8
tensor_parallel_size: 2
revision: main
tokenizer: google/gemma-3-27b-pt
served_model_name: [gemma, gemma-27b]
max_model_len: 32768
kv_cache_dtype: fp8
attention_backend: FLASHINFER
attention_policy: require
pipeline_parallel_size: 2
data_parallel_size: 2
distributed_executor_backend: ray
text_only: true
images_per_prompt: 0
kv_cache_memory_gib: 4
speculative: {method: ngram, num_speculative_tokens: 4}
lora: {adapters: {sql: /adapters/sql}, max_loras: 2, max_lora_rank: 32}
allow_other_models: true
chat:
  template: gemma3
  tool_call_parser: gemma4
  reasoning_parser: gemma4
  enable_thinking: false
  strict: true
  merge_system: user
  assistant_first: false
images: {fetch_urls: true, fetch_timeout_s: 2, max_bytes: 1000, max_soft_tokens: 70}
server:
  host: 0.0.0.0
  port: 0
  grpc_port: 8001
  metrics_port: 9090
  api_keys_file: /keys
  cors_allow_origins: [https://example.org]
  tls: {certfile: a.pem, keyfile: b.pem}
  docs: false
limits: {max_body_bytes: 1_000, max_queued_requests: 5, max_queued_tokens: 7, drain_s: 0}
slo: {ttft_ms: 200, itl_ms: 12.5}
observability: {otlp_traces_endpoint: http://otel:4317}
quality: {reference: bf16.npz, max_kl: 0.05}
triton: {contract: vllm-backend, default_inputs: {stream: false}}
meta: {description: text, min_vllm_version: 0.32.0, gpu_memory_gib: 80, tested_on: [2026-03-01]}
engine: {enforce_eager: false, seed: 0}
env: {VLLM_LOGGING_LEVEL: DEBUG}
"""


def test_three_lines_are_a_profile(load):
    """Model, dtype and tensor_parallel_size are enough; the rest is a default."""
    loaded = load("model: google/gemma-3-27b-it\ndtype: fp8\ntensor_parallel_size: 2\n")
    profile = loaded.profile
    assert (profile.model, profile.dtype, profile.tensor_parallel_size) == (
        "google/gemma-3-27b-it",
        "fp8",
        2,
    )
    assert profile.server.port == 8000
    assert loaded.name == "my"
    assert [path.name for path in loaded.files] == ["my.yaml"]


def test_every_optional_key_is_taken(load):
    """Every key of the schema but extends is read, and false and 0 stay what they are."""
    loaded = load(EVERY_KEY)
    said = loaded.profile.model_dump(exclude_unset=True)
    assert set(said) == set(type(loaded.profile).model_fields) - {"extends"}
    assert said["images_per_prompt"] == 0
    assert said["server"]["port"] == 0
    assert said["server"]["docs"] is False
    assert said["chat"]["enable_thinking"] is False
    assert said["limits"] == {
        "max_body_bytes": 1000,
        "max_queued_requests": 5,
        "max_queued_tokens": 7,
        "drain_s": 0.0,
    }
    assert said["engine"] == {"enforce_eager": False, "seed": 0}
    assert said["meta"]["tested_on"] == ["2026-03-01"]
    assert said["meta"]["min_vllm_version"] == "0.32.0"


def test_null_resets_to_the_default(load, write):
    """A null in a file undoes what the base said; its origin is the default again."""
    write(
        "model: m\ndtype: fp8\nserver: {port: 1}\nengine: {seed: 1, max_num_seqs: 4}", "base.yaml"
    )
    loaded = load("extends: base.yaml\ndtype: null\nserver:\nengine: {seed: null}")
    assert loaded.profile.dtype == "bf16"
    assert loaded.profile.server.port == 8000
    assert loaded.profile.engine == {"max_num_seqs": 4}
    assert loaded.origin("dtype") == Origin("default")


def test_null_deep_inside_an_engine_field_stays(load):
    """Inside the value of an engine field null is vLLM's own and is passed on."""
    loaded = load("model: m\nengine: {hf_overrides: {sliding_window: null}}")
    assert loaded.profile.engine == {"hf_overrides": {"sliding_window": None}}


def test_precedence_and_origins(load, write):
    """Defaults, then extends, then the file, then --set; each value knows which one it was."""
    write("model: base\ndtype: fp8\nserver:\n  host: 0.0.0.0\n  port: 1\n", "base.yaml")
    loaded = load("extends: base.yaml\nserver:\n  port: 2\nmax_model_len: 5", "max_model_len=6")
    server = loaded.profile.server
    assert (loaded.profile.model, loaded.profile.max_model_len) == ("base", 6)
    assert (server.host, server.port) == ("0.0.0.0", 2)
    assert {key: str(origin) for key, origin in loaded.origins.items()} == {
        "model": "base.yaml:1 (extends)",
        "dtype": "base.yaml:2 (extends)",
        "server.host": "base.yaml:4 (extends)",
        "server.port": "my.yaml:3",
        "max_model_len": "--set max_model_len=6",
        "extends": "my.yaml:1",
    }
    assert str(loaded.origin("tensor_parallel_size")) == "default"
    assert str(loaded.origin("server")) == "my.yaml:3"
    assert [path.name for path in loaded.files] == ["base.yaml", "my.yaml"]


def test_maps_merge_and_lists_replace(load, write):
    """Maps merge at every depth; a list or a scalar replaces what the base had."""
    write(
        "model: m\nserved_model_name: [a, b]\n"
        "engine: {compilation_config: {mode: 3, sizes: [1, 2]}}",
        "base.yaml",
    )
    loaded = load(
        "extends: base.yaml\nserved_model_name: [c]\nengine: {compilation_config: {sizes: [4]}}"
    )
    assert loaded.profile.served_model_name == ["c"]
    assert loaded.profile.engine == {"compilation_config": {"mode": 3, "sizes": [4]}}


def test_extends_chain_of_paths_and_a_packaged_name(write):
    """A path is relative to the file that extends it; a bare name is a packaged profile."""
    write("extends: gemma-3-270m\nmax_model_len: 10", "bases/low.yaml")
    write("extends: low.yaml\ntensor_parallel_size: 2", "bases/mid.yaml")
    loaded = load_profile(write("extends: bases/mid.yaml\nserver: {port: 9}"))
    assert loaded.profile.model == "embedded/gemma-3-270m"
    assert loaded.profile.engine == {"enforce_eager": True}
    assert [path.name for path in loaded.files] == [
        "gemma-3-270m.yaml",
        "low.yaml",
        "mid.yaml",
        "my.yaml",
    ]
    assert str(loaded.origin("max_model_len")) == "bases/low.yaml:2 (extends)"
    assert str(loaded.origin("model")).startswith("gemma-3-270m.yaml:")


def test_where_a_base_ran_is_not_inherited(load):
    """What extends a tested profile is not tested itself."""
    assert load_profile("gemma-3-270m").profile.meta.tested_on != []
    assert load("extends: gemma-3-270m").profile.meta.tested_on == []


def test_a_revision_is_of_one_model(write):
    """Who names another model, in a file or by --set, does not inherit the base's commit."""
    base = write("model: a/b\nrevision: v1", "base.yaml")
    same = write("extends: base.yaml\nmodel: a/b\ndtype: fp8", "same.yaml")
    other = write("extends: base.yaml\nmodel: a/c", "other.yaml")
    own = write("extends: base.yaml\nmodel: a/c\nrevision: v2", "own.yaml")
    assert [load_profile(file).profile.revision for file in (base, same, other, own)] == [
        *("v1", "v1", None, "v2")
    ]
    assert load_profile(base, ["model=a/c"]).profile.revision is None
    assert load_profile(base, ["model=a/c", "revision=v3"]).profile.revision == "v3"
    assert load_profile(base, ["revision=null"]).profile.revision is None


def test_extends_cycle_names_the_chain(write):
    """A circle of extends is an error that names every file of it."""
    write("extends: c.yaml", "b.yaml")
    write("model: m\nextends: a.yaml", "c.yaml")
    with pytest.raises(ProfileError) as caught:
        load_profile(write("extends: b.yaml", "a.yaml"))
    assert caught.value.mistakes == [
        Mistake(
            "extends goes in a circle: a.yaml -> b.yaml -> c.yaml -> a.yaml.", file="c.yaml", line=2
        )
    ]


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("dtype=fp8", "dtype", "fp8"),
        ("text_only=false", "text_only", False),
        ("images_per_prompt=0", "images_per_prompt", 0),
        ("max_model_len=null", "max_model_len", None),
        ("max_model_len=", "max_model_len", None),
        ("served_model_name=[a, b]", "served_model_name", ["a", "b"]),
        ("model=./dir=with=signs", "model", "./dir=with=signs"),
        ("engine.max_num_seqs=3", "engine", {"max_num_seqs": 3}),
        ('env.OMP_NUM_THREADS="2"', "env", {"OMP_NUM_THREADS": "2"}),
    ],
)
def test_set_reads_yaml_values(load, override, key, value):
    """The value of --set is YAML: words, numbers, false, null and lists."""
    loaded = load("model: m\ntext_only: true\nmax_model_len: 9\nimages_per_prompt: 3", override)
    assert getattr(loaded.profile, key) == value


def test_a_later_set_wins(load):
    """Of two --set options for one key the last one counts."""
    loaded = load("model: m", "server.port=1", "server.port=2")
    assert loaded.profile.server.port == 2
    assert str(loaded.origin("server.port")) == "--set server.port=2"


def test_all_mistakes_come_at_once_in_file_order(write):
    """Every mistake of base, file and options is reported, in that order, with its line."""
    write("model: m\nserver:\n  prt: 1\n", "base.yaml")
    path = write("tensor_parallel_size: two\nextends: base.yaml\ndtype: fp9\ndtyp: 1\n")
    with pytest.raises(ProfileError) as caught:
        load_profile(path, ["text_only=maybe", "novalue"])
    assert caught.value.mistakes == [
        Mistake("Unknown key 'server.prt'; the closest is 'server.port'.", "base.yaml", 3),
        Mistake("tensor_parallel_size must be an integer of at least 1, not 'two'.", "my.yaml", 1),
        Mistake("dtype must be bf16, fp8 or fp32, not 'fp9'; the closest is 'fp8'.", "my.yaml", 3),
        Mistake("Unknown key 'dtyp'; the closest is 'dtype'.", "my.yaml", 4),
        Mistake("text_only must be true or false, not 'maybe'.", "--set text_only=maybe"),
        Mistake(
            "--set takes key=value, not 'novalue'; for example --set dtype=fp8.", "--set novalue"
        ),
    ]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "dtype",
            "--set dtype: --set takes key=value, not 'dtype'; for example --set dtype=fp8.",
        ),
        (
            "a..b=1",
            "--set a..b=1: --set takes key=value, not 'a..b=1'; for example --set dtype=fp8.",
        ),
        ("=1", "--set =1: --set takes key=value, not '=1'; for example --set dtype=fp8."),
        (
            "model=[1",
            "--set model=[1: This is not valid YAML (expected ',' or ']', but got '<stream end>'); "
            "mend this line or the one above it.",
        ),
        (
            "extends=other",
            "--set extends=other: extends can't be set here; only a file extends another profile.",
        ),
        (
            "revision=1234567",
            "--set revision=1234567: revision must be a string, not 1234567; "
            "put it in quotes: --set 'revision=\"1234567\"'.",
        ),
        ("port=1", "--set port=1: Unknown key 'port'; it belongs under server: write server.port."),
        (
            "server.api_key=hush",
            "--set server.api_key: server.api_key would hold a secret; secrets come only from the "
            "environment variable GEMMA_SERVE_API_KEYS or from the file that server.api_keys_file "
            "names.",
        ),
    ],
)
def test_mistakes_in_set_name_the_option(mistakes, override, line):
    """A wrong --set is reported by its own text, a secret in it left out."""
    assert mistakes("model: m", override) == [line]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gema-3-270m",
            "No profile named 'gema-3-270m'; the closest is 'gemma-3-270m'; "
            "list them with: gemma-serve profiles.",
        ),
        ("zzz", "No profile named 'zzz'; list them with: gemma-serve profiles."),
        (
            "google/gemma",
            "No profile file at 'google/gemma'; name a YAML file or a packaged profile "
            "(list them with: gemma-serve profiles).",
        ),
        (
            "gemma-3-270m.yaml",
            "No profile file at 'gemma-3-270m.yaml'; the packaged profile 'gemma-3-270m' has no "
            "path; name a YAML file or a packaged profile (list them with: gemma-serve profiles).",
        ),
        ("./folder", "The profile './folder' is a directory; name a YAML file in it."),
        ("folder", "The profile 'folder' is a directory; name a YAML file in it."),
        (
            "x" * 5000,
            f"No profile named {'x' * 5000!r}; list them with: gemma-serve profiles.",
        ),
        ("a\0b", "No profile named 'a\\x00b'; list them with: gemma-serve profiles."),
        (
            "~nobody-here/a.yaml",
            "No profile file at '~nobody-here/a.yaml'; name a YAML file or a packaged profile "
            "(list them with: gemma-serve profiles).",
        ),
    ],
)
def test_no_such_profile(tmp_path, monkeypatch, name, message):
    """A name or path that is no profile is one sentence with the closest name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ProfileError) as caught:
        load_profile(name)
    assert str(caught.value) == message


def test_no_such_base_is_told_at_its_line(mistakes):
    """A base that is not there is a mistake of the line that names it, and the only one."""
    assert mistakes("dtype: bf16\nextends: nowhere.yaml") == [
        "my.yaml:2: No profile file at 'nowhere.yaml'; name a YAML file or a packaged profile "
        "(list them with: gemma-serve profiles)."
    ]


def test_a_file_that_may_not_be_read(write, monkeypatch):
    """A file that the system refuses to open is named with the system's reason."""
    # The process's own memory opens, and refuses to be read from its start, for root as well.
    memory = Path("/proc/self/mem")
    if not memory.exists():
        pytest.skip("needs Linux")
    write("")
    with pytest.raises(ProfileError, match=r"The profile can't be read: Input/output error\.$"):
        load_profile(str(memory))


def test_a_missing_key_is_told_in_the_file_also_with_set(mistakes):
    """What the file leaves out is a mistake of the file, whatever --set changed beside it."""
    assert mistakes("\nserver:\n  tls: {certfile: a}\nmodel: m", "server.port=1") == [
        "my.yaml:3: server.tls.keyfile is missing; it must be a string."
    ]
    assert mistakes("\n\ndtype: bf16", "server.port=1")[0].startswith(
        "my.yaml:3: model is missing;"
    )
    assert mistakes("model: m\nserver: {tls: {certfile: a}}", "server.tls.certfile=b") == [
        "my.yaml:2: server.tls.keyfile is missing; it must be a string."
    ]
