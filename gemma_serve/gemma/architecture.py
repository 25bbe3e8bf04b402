"""What a config.json says about the model: heads, windows, modalities, quantisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from gemma_serve.gemma.family import Family, Generation, family_of

ConfigSource = Literal["local", "hub cache", "packaged facts", "hub"]

# A config.json on the Hub leaves out its class's defaults (that of gemma-3-4b-it names no heads).
# Source: transformers 5.19, models/*/configuration_*.py; patterns as in their __post_init__.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma": {
        "vocab_size": 256_000,
        "hidden_size": 3072,
        "intermediate_size": 24_576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "max_position_embeddings": 8192,
    },
    "gemma2": {
        "vocab_size": 256_000,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 8192,
        "sliding_window": 4096,
        "sliding_window_pattern": 2,
        "attn_logit_softcapping": 50.0,
    },
    "gemma3_text": {
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
    },
    "gemma3n_text": {
        "num_hidden_layers": 35,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "max_position_embeddings": 32_768,
        "sliding_window": 512,
        "sliding_window_pattern": 5,
        "num_kv_shared_layers": 15,
        "vocab_size": 262_400,
        "hidden_size": 2048,
        "intermediate_size": 16_384,
        "hidden_size_per_layer_input": 256,
        "vocab_size_per_layer_input": 262_144,
    },
    "gemma4_text": {
        "vocab_size": 262_144,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 30,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "global_head_dim": 512,
        "max_position_embeddings": 131_072,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
    },
    "gemma4_unified_text": {
        "vocab_size": 262_144,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 30,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "global_head_dim": 512,
        "max_position_embeddings": 262_144,
        "sliding_window": 1024,
        "sliding_window_pattern": 6,
        "use_bidirectional_attention": "vision",
    },
}
_SLIDING, _FULL = "sliding_attention", "full_attention"
_WITH_TOWERS = ("gemma3", "gemma3n", "gemma4", "gemma4_unified")


@dataclass(frozen=True)
class Attention:
    """What one layer keeps of each token, and how many tokens it sees."""

    sliding_window: int | None  # None: the whole context
    num_key_value_heads: int
    head_dim: int


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's config.json and what follows from it."""

    model: str  # as the profile names it
    path: Path | None  # its directory, where the profile names one
    config: Mapping[str, Any]
    config_source: ConfigSource
    generation: Generation | None
    has_chat_template: bool | None  # None: not known without fetching more
    quant_method: str | None
    weight_bytes: int | None  # as stored
    generation_config: Mapping[str, Any] | None = None  # None: not known without fetching more
    added_tokens: Mapping[str, int] = field(default_factory=dict)  # empty: no tokenizer here
    commit: str | None = None  # of the Hub's repository, the one that is here; None: not known

    @cached_property
    def family(self) -> Family | None:
        """What kind of Gemma it is, by its files alone; None where it is not Gemma."""
        return family_of(
            self.config, self.generation_config or {}, self.added_tokens, self.has_chat_template
        )

    @cached_property
    def text(self) -> Mapping[str, Any]:
        """The config of the language model, defaults of its class included."""
        nested = self.config.get("text_config")
        text = nested if isinstance(nested, Mapping) else self.config
        model_type = str(text.get("model_type") or self._text_model_type)
        return _DEFAULTS.get(model_type, {}) | dict(text)

    @property
    def _text_model_type(self) -> str:
        model_type = str(self.config.get("model_type"))
        return f"{model_type}_text" if model_type in _WITH_TOWERS else model_type

    @property
    def architecture(self) -> str | None:
        """The first of `architectures`, by which vLLM chooses its model class."""
        return next(iter(self.config.get("architectures") or ()), None)

    @property
    def num_attention_heads(self) -> int | None:
        """Query heads of one layer; tensor parallelism divides them."""
        return self.text.get("num_attention_heads")

    @property
    def num_key_value_heads(self) -> int | None:
        """KV heads of one (sliding) layer."""
        heads: int | None = self.text.get("num_key_value_heads", self.num_attention_heads)
        return heads

    @property
    def num_hidden_layers(self) -> int | None:
        """Decoder layers; pipeline parallelism divides them."""
        return self.text.get("num_hidden_layers")

    @property
    def max_position_embeddings(self) -> int | None:
        """The longest context in tokens that the model was made for."""
        return self.text.get("max_position_embeddings")

    @property
    def attn_logit_softcapping(self) -> float | None:
        """The soft-cap on attention logits; only Gemma 2 has one."""
        return self.text.get("attn_logit_softcapping")

    @property
    def head_dims(self) -> frozenset[int]:
        """Every head size among the layers; Gemma 4's global layers have one of their own."""
        per_layer = self.text.get("per_layer_config") or {}
        layers = [layer.get("head_dim") for layer in per_layer.values()]
        sizes = [self.text.get("head_dim"), self.text.get("global_head_dim"), *layers]
        if not any(sizes) and self.num_attention_heads and self.text.get("hidden_size"):
            sizes = [self.text["hidden_size"] // self.num_attention_heads]
        return frozenset(size for size in sizes if size)

    @property
    def num_kv_cache_layers(self) -> int:
        """Layers with a KV cache of their own, the first ones; in 3n and 4 E the rest share it."""
        return (self.num_hidden_layers or 0) - int(self.text.get("num_kv_shared_layers") or 0)

    @cached_property
    def layer_types(self) -> tuple[str, ...]:
        """Of each layer: sliding_attention or full_attention."""
        count, every = self.num_hidden_layers or 0, self.text.get("sliding_window_pattern") or 1
        said = self.text.get("layer_types") or [
            _SLIDING if (layer + 1) % every else _FULL for layer in range(count)
        ]
        if self.generation == Generation.GEMMA_4 and said:
            said = [*said[:-1], _FULL]  # Source: transformers 5.19, configuration_gemma4.py
        return tuple(said)

    def attention_of(self, layer: int) -> Attention:
        """
        The attention of one layer.

        Source: Gemma4TextConfig, transformers 5.19, for the global layers of Gemma 4.
        """
        text, is_sliding = self.text, self.layer_types[layer] == _SLIDING
        heads = self.num_key_value_heads or 1
        head_dim = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
        if self.generation == Generation.GEMMA_4 and not is_sliding:
            head_dim = text.get("global_head_dim") or head_dim
            if text.get("attention_k_eq_v"):
                heads = text.get("num_global_key_value_heads") or heads
        # Its keys are indices as text, with leading zeros ("04").
        per_layer = (text.get("per_layer_config") or {}).items()
        own: Mapping[str, Any] = next((own for key, own in per_layer if int(key) == layer), {})
        return Attention(
            sliding_window=self.sliding_window if is_sliding else None,
            num_key_value_heads=own.get("num_key_value_heads", heads),
            head_dim=own.get("head_dim", head_dim),
        )

    @property
    def num_embedding_parameters(self) -> int:
        """Parameters of the token embeddings, and of those for each layer that 3n and 4 E have."""
        text = self.text
        shared = text.get("vocab_size", 0) * text.get("hidden_size", 0)
        of_one_layer = text.get("vocab_size_per_layer_input", text.get("vocab_size", 0)) * (
            text.get("hidden_size_per_layer_input") or 0
        )
        return int(shared + of_one_layer * (self.num_hidden_layers or 0))

    @property
    def sliding_window(self) -> int | None:
        """Tokens that a local layer sees; None where every layer sees all."""
        return self.text.get("sliding_window")

    @property
    def is_multimodal(self) -> bool:
        """Whether it takes more than text."""
        if (self.architecture or "").endswith("ForCausalLM"):
            return False
        if self.config.get("model_type") in ("gemma3", "gemma3n"):
            return True  # the towers are there even where the config leaves them to the defaults
        return bool(self.config.get("vision_config") or self.config.get("audio_config"))

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it takes besides text. Source: get_supported_mm_limits of vLLM 0.32's models."""
        if not self.is_multimodal:
            return ()
        audio = ("audio",) if self.config.get("audio_config") else ()
        match self.generation:
            case Generation.GEMMA_3N:
                return ("image", "audio")
            case Generation.GEMMA_4:
                return ("image", *audio, "video")
        return ("image",)

    @property
    def bidirectional_image_attention(self) -> bool:
        """
        Whether the tokens of an image see each other in both directions.

        Source: is_mm_prefix_lm in vLLM 0.32 transformers_utils/model_arch_config_convertor.py.
        """
        if not self.is_multimodal:
            return False
        if self.generation == Generation.GEMMA_4:
            return self.text.get("use_bidirectional_attention") == "vision"
        return bool(self.config.get("is_mm_prefix_lm", self.config.get("model_type") == "gemma3"))

    @property
    def is_fp8(self) -> bool:
        """Whether the weights are stored in FP8."""
        quantization = quantization_of(self.config)
        if self.quant_method == "modelopt":
            return str(quantization.get("quant_algo", "")).upper().startswith("FP8")
        groups = (quantization.get("config_groups") or {}).values()
        weights = [group.get("weights") or {} for group in groups if isinstance(group, Mapping)]
        return self.quant_method == "fp8" or any(
            spec.get("type") == "float" and spec.get("num_bits") == 8 for spec in weights
        )

    @property
    def is_block_fp8(self) -> bool:
        """Whether the weights are FP8 with a scale for each block, the one kind that CPUs run."""
        return self.quant_method == "fp8" and bool(
            quantization_of(self.config).get("weight_block_size")
        )

    @property
    def is_int4(self) -> bool:
        """Whether the weights are stored in four-bit integers."""
        quantization = quantization_of(self.config)
        groups = (quantization.get("config_groups") or {}).values()
        bits = [(group.get("weights") or {}).get("num_bits") for group in groups]
        return 4 in (quantization.get("bits"), quantization.get("w_bit"), *bits)

    @property
    def tool_call_parser(self) -> str | None:
        """vLLM's parser for the format that the checkpoint calls tools in."""
        return self.family.tool_call_parser if self.family else None


def quantization_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config.json that says how the weights are quantised, if they are."""
    nested = config.get("text_config") or {}
    return config.get("quantization_config") or nested.get("quantization_config") or {}
