"""
What a profile may say: every key, its type, its default and what it does.

The descriptions are the one text behind `gemma-serve schema`, the editors' hints and the docs.
`limits:` has a file of its own, `limits.py`. Reading files, `extends` and line numbers are
`load.py`'s business.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gemma_serve.profile.limits import Limits as Limits  # so that all sections are found here
from gemma_serve.profile.section import PositiveInt, Section

Port = Annotated[int, Field(ge=0, le=65535)]

# vLLM would take 999 in one request.
DEFAULT_IMAGES = 4
MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_BODY_BYTES_WITH_IMAGES = 64 * 1024 * 1024


class Chat(Section):
    """
    How messages become a prompt, and answers become tool calls and reasoning.

    The rules from `system_to_user` on mend what a Gemma template refuses or garbles. Each fires
    only where the template can't do it by itself, and is named in the x-gemma-serve-prompt header.
    """

    template: str | None = Field(
        None,
        description="A Jinja file, or the name of a packaged template (gemma1, gemma2, gemma3, "
        "gemma3_tools, gemma3n, gemma4, gemma4_large). "
        "Default: the checkpoint's own; a packaged one by generation where it has none.",
    )
    tool_call_parser: str | None = Field(
        None,
        description="vLLM's tool parser. Default: by generation (Gemma 3 and 3n: pythonic, "
        "Gemma 4: gemma4, FunctionGemma: functiongemma, else none).",
    )
    reasoning_parser: str | None = Field(
        None, description="vLLM's reasoning parser. Default: by generation (Gemma 4: gemma4)."
    )
    enable_thinking: bool | None = Field(
        None, description="The template's default for enable_thinking (Gemma 4)."
    )
    strict: bool = Field(
        False, description="Change nothing; the error names the rule that would have helped."
    )
    system_to_user: bool = Field(
        True, description="A leading system message opens the first user turn (Gemma 1, 2)."
    )
    merge_system: Literal["leading", "user", False] = Field(
        "leading",
        description="Further system messages join the leading one, or become user turns.",
    )
    developer_to_system: bool = Field(True, description="Role developer becomes system.")
    merge_turns: bool = Field(
        True, description="Turns of one role in a row are joined with an empty line."
    )
    assistant_first: Literal["user_turn", "drop", False] = Field(
        "user_turn",
        description="A conversation that opens with the assistant: an empty user turn is put "
        "before it, or it is dropped.",
    )
    tools_as_text: bool = Field(
        True,
        description="Tools, their calls and results are written as text where the template has "
        "no place for them.",
    )
    empty_content: bool = Field(
        True, description="Missing content becomes ''; an empty last assistant turn is dropped."
    )
    text_parts: bool = Field(
        True, description="Lists of text parts become one string where a string is wanted."
    )
    image_parts: bool = Field(
        True, description="Hugging Face image parts (url, image, base64) become image_url."
    )
    model_role: bool = Field(True, description="Role model becomes assistant.")
    prefill: bool = Field(True, description="A last assistant message is continued, not closed.")


class Images(Section):
    """What a request's images may be, and how the model sees them."""

    fetch_urls: bool = Field(
        False, description="Fetch images by https URL, from public addresses only."
    )
    fetch_timeout_s: Annotated[float, Field(gt=0)] = Field(
        5.0, description="Seconds that fetching one image may take in all."
    )
    max_bytes: PositiveInt = Field(10_000_000, description="Largest image as it is sent.")
    max_pixels: Annotated[int, Field(ge=1, le=178_956_970)] = Field(  # Pillow takes no more
        40_000_000, description="Largest width x height."
    )
    pan_and_scan: bool = Field(
        False, description="Gemma 3: also show the model crops of images that are not square."
    )
    max_soft_tokens: Literal[70, 140, 280, 560, 1120] | None = Field(
        None, description="Gemma 4: tokens that one image becomes. Default: the model's (280)."
    )


class Triton(Section):
    """
    What clients of a Triton server find here: KServe v2 with Triton's extensions.

    Over HTTP on `server.port` always; over gRPC on `server.grpc_port` where that is set.
    """

    contract: Literal["python-backend", "vllm-backend", "tensorrtllm"] = Field(
        "python-backend",
        description="Whose tensors the model takes and gives: a transformers python backend's, "
        "Triton's vLLM backend's, or TensorRT-LLM's.",
    )
    model_version: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")] = Field(
        "1", description="The version under which clients know the model."
    )
    default_inputs: dict[str, bool | int | float | str] = Field(
        default_factory=dict,
        description="Values of optional inputs that a request leaves out, such as max_length.",
    )
    default_priority_level: PositiveInt = Field(
        1, description="Triton's priority of a request that names none; lower goes first."
    )
    inference_trace: bool = Field(
        False, description="Log one line a request: id, tokens and times, never its text."
    )


class Lora(Section):
    """LoRA adapters that are loaded at start; clients choose one by its name as `model`."""

    adapters: dict[str, str] = Field(description="Served name -> directory of the adapter.")
    max_loras: PositiveInt = Field(1, description="Adapters that one batch may mix.")
    max_lora_rank: PositiveInt = Field(16, description="The largest rank among the adapters.")


class Tls(Section):
    """Certificate and key of the HTTP port."""

    certfile: str = Field(description="PEM file with the certificate chain.")
    keyfile: str = Field(description="PEM file with the private key.")


class Server(Section):
    """The HTTP port."""

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: Port = Field(8000, description="TCP port; 0 takes a free one and prints it.")
    grpc_port: Port | None = Field(
        None, description="Serve KServe v2 over gRPC here; Triton's is 8001."
    )
    metrics_port: Port | None = Field(
        None, description="Serve /metrics here too, without keys; Triton's is 8002."
    )
    probe_port: Port | None = Field(
        None,
        description="Serve /livez, /readyz, /startupz and /health there too, without keys and over "
        "plain HTTP: they answer while other clients hold every connection of `port`.",
    )
    api_keys_file: str | None = Field(
        None,
        description="File with one key a line (# starts a comment). "
        "GEMMA_SERVE_API_KEYS (comma-separated) adds to it.",
    )
    shared_prefix_cache: bool = Field(
        False,
        description="Let all keys find one another's prompts in the prefix cache. Faster where "
        "they share long beginnings; how fast an answer comes tells what others have sent.",
    )
    cors_allow_origins: list[str] = Field(
        default_factory=list, description="Origins that browsers may call from; none by default."
    )
    tls: Tls | None = Field(None, description="Serve HTTPS.")
    docs: bool = Field(True, description="Serve /docs and /openapi.json.")
    playground: bool = Field(
        False,
        description="Serve the chat page at /playground. It loads without a key; its calls do not.",
    )


class Slo(Section):
    """The latency that is promised; published at /v1/info for the benchmark harness."""

    ttft_ms: Annotated[float, Field(gt=0)] | None = Field(None, description="Time to first token.")
    itl_ms: Annotated[float, Field(gt=0)] | None = Field(None, description="Inter-token latency.")

    def seconds(self) -> dict[str, float]:
        """What is promised, in seconds by objective: ttft, itl."""
        promised_ms = {"ttft": self.ttft_ms, "itl": self.itl_ms}
        return {name: ms / 1000 for name, ms in promised_ms.items() if ms is not None}


class Observability(Section):
    """What the server tells others of its requests, beside /metrics."""

    otlp_traces_endpoint: str | None = Field(
        None,
        description="Send traces to this OpenTelemetry collector, such as http://otel:4317 (OTLP "
        "over gRPC; over HTTP with env.OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: http/protobuf).",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="text: lines for people, on stderr; json: one object a line, on stdout."
    )
    log_file: str | None = Field(None, description="Write the log to this file too.")
    log_file_mib: PositiveInt = Field(50, description="Size at which the file is renamed to .1.")
    log_file_backups: Annotated[int, Field(ge=1)] = Field(
        5, description="Renamed files that are kept."
    )
    access_log: bool = Field(
        False, description="Log one line a request: route, status, time, tokens; never its text."
    )
    flight_recorder: str | None = Field(
        None,
        description="Write when requests came, their lengths, how they ended, and salted hashes of "
        "their prompts' blocks to this file, a Mooncake trace that 'python -m benchmarks' replays.",
    )
    flight_recorder_mib: PositiveInt = Field(
        16, description="Size of that file and of the one before it (.1), together."
    )
    incident_dir: str | None = Field(
        None,
        description="Where a wedged engine's incident is written, the newest ten. "
        "Default: incidents/ in the user's state directory (XDG_STATE_HOME).",
    )


class Quality(Section):
    """A check before the server is ready: a short text, scored and held to a recorded reference."""

    reference: str = Field(
        description="The file that 'gemma-serve quality record' wrote; beside the profile, or a "
        "path."
    )
    max_kl: Annotated[float, Field(gt=0)] = Field(
        description="Largest mean KL divergence per token from the reference, in nats."
    )
    action: Literal["refuse", "warn"] = Field(
        "refuse", description="Beyond max_kl: end with an error, or say so and serve."
    )
    max_tokens: PositiveInt = Field(1024, description="Tokens that are scored, of all languages.")


class Meta(Section):
    """About the profile itself; nothing here changes how the model is served."""

    description: str | None = Field(
        None, description="What it is for; gemma-serve profiles lists it."
    )
    min_vllm_version: str | None = Field(
        None, description="Oldest vLLM that may serve this profile; checked before the start."
    )
    gpu_memory_gib: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Memory of one GPU that this profile was written for."
    )
    tested_on: list[str] = Field(
        default_factory=list, description="Machines on which it was really run, with dates."
    )
    evidence: dict[str, Any] | None = Field(
        None, description="What was measured for it; gemma-serve tune writes it."
    )


class Profile(Section):
    """One YAML file: what to serve, and how."""

    model: str = Field(
        description="Hugging Face id, local directory, or embedded/gemma-3-270m; GGUF as a file or "
        "as owner/name:Q4_K_M, with vllm-gguf-plugin.",
        min_length=1,
    )
    dtype: Literal["bf16", "fp8", "fp32"] = Field(
        "bf16", description="Precision of the weights. fp16 is refused: Gemma overflows in it."
    )
    tensor_parallel_size: PositiveInt = Field(1, description="GPUs that share each layer.")

    revision: str | None = Field(
        None,
        description="Branch, tag or commit of the checkpoint. A profile that names another model "
        "does not inherit it.",
    )
    tokenizer: str | None = Field(None, description="Tokenizer of another repository or directory.")
    served_model_name: str | list[str] | None = Field(
        None, description="Name or names that clients use. Default: `model`."
    )
    max_model_len: PositiveInt | None = Field(
        None, description="Longest prompt + answer in tokens. Default: the model's own."
    )
    kv_cache_dtype: Literal["auto", "fp8"] = Field("auto", description="Precision of the KV cache.")
    attention_backend: str | None = Field(
        None, description="FLASHINFER, auto, or any vLLM name. Default: FLASHINFER on CUDA."
    )
    attention_policy: Literal["prefer", "require"] = Field(
        "prefer",
        description="Where the backend is invalid: prefer = fall back to auto and say why; "
        "require = refuse to start.",
    )
    pipeline_parallel_size: PositiveInt = Field(1, description="Groups of layers, one a GPU.")
    data_parallel_size: PositiveInt = Field(1, description="Replicas of the engine on this host.")
    distributed_executor_backend: Literal["mp", "ray"] | None = Field(
        None, description="Who starts the workers. Default: vLLM's choice."
    )
    text_only: bool = Field(False, description="Leave the image and audio towers out.")
    images_per_prompt: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Images that one request may carry. Default: 4; 0 refuses images."
    )
    kv_cache_memory_gib: Annotated[float, Field(gt=0)] | None = Field(
        None, description="KV cache memory. Default on CPU: a quarter of free memory, 1 to 4 GiB."
    )
    speculative: dict[str, Any] | None = Field(
        None, description="vLLM's speculative_config: method, model, num_speculative_tokens."
    )
    lora: Lora | None = None
    allow_other_models: bool = Field(False, description="Serve a model that is not Gemma.")

    chat: Chat = Chat()
    images: Images = Images()
    server: Server = Server()
    limits: Limits = Limits()
    slo: Slo = Slo()
    quality: Quality | None = None
    triton: Triton = Triton()
    observability: Observability = Observability()
    meta: Meta = Meta()

    engine: dict[str, Any] = Field(
        default_factory=dict,
        description="Any field of vLLM's AsyncEngineArgs, checked by name and type; "
        "wins over what this profile would derive.",
    )
    env: dict[str, str] = Field(
        default_factory=dict, description="Environment variables set before vLLM is imported."
    )
    extends: str | None = Field(
        None, description="Another profile, by name or path, that this one changes."
    )

    @property
    def otlp_traces_endpoint(self) -> str | None:
        """Where traces go; None leaves requests untraced."""
        said: str | None = self.engine.get("otlp_traces_endpoint")
        return said or self.observability.otlp_traces_endpoint

    @property
    def max_images(self) -> int:
        """Images that one request may carry to a model that sees."""
        if self.text_only:
            return 0
        return DEFAULT_IMAGES if self.images_per_prompt is None else self.images_per_prompt

    def max_body_bytes(self, *, is_multimodal: bool) -> int:
        """The largest request body: of text, or where the model sees, with images."""
        may_carry_images = is_multimodal and self.max_images > 0
        default = MAX_BODY_BYTES_WITH_IMAGES if may_carry_images else MAX_BODY_BYTES
        return self.limits.max_body_bytes or default
