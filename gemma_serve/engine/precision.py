"""Precision of weights, activations and KV cache."""

from __future__ import annotations

from gemma_serve.engine.settings import Context, Derived, Setting
from gemma_serve.errors import ProfileError, StartupError
from gemma_serve.gemma.family import Generation

_BF16_CAPABILITY = (8, 0)
_FP8_CAPABILITY = (8, 9)  # FP8 tensor cores

# Left in bf16 when vLLM quantises online, as in the published FP8 checkpoints: what makes
# embeddings of images and audio, and what belongs to the embeddings for each layer (3n, 4 E), whose
# quality FP8 ruins. Token embeddings and MoE routers need no mention: vLLM leaves them alone.
_OF_IMAGES = ["*vision_tower*"]
_OF_IMAGES_SINCE_3N = ["*embed_vision*", "*vision_embedder*"]  # 4 12B has the latter for a tower
_OF_AUDIO = ["*audio_tower*", "*embed_audio*"]
_OF_LAYER_EMBEDDINGS = ["*per_layer_*"]
# AltUp's matrices of 4 x 4, too small for FP8 kernels, and LAuReL's of low rank.
_OF_GEMMA_3N = ["*altup*", "*laurel*"]


def precision_args(context: Context) -> Derived:
    """
    dtype, quantization and kv_cache_dtype.

    Raises:
        ProfileError: Two quantisations at once.
        StartupError: This machine can't compute in the precision that the profile asks for.
    """
    yield from _dtype(context)
    if method := _plugin_method(context):
        yield from _by_plugin(context, method)
    elif "quantization" not in context.profile.engine:
        yield from _quantization(context)
    yield from _kv_cache(context)


def _dtype(context: Context) -> Derived:
    wanted, capability = context.profile.dtype, context.platform.compute_capability
    if capability and capability < _BF16_CAPABILITY and wanted != "fp32":
        raise StartupError(
            f"dtype {wanted!r} needs compute capability 8.0 or newer and {context.platform.name} "
            f"has {capability[0]}.{capability[1]}; use dtype: fp32."
        )
    value = "float32" if wanted == "fp32" else "bfloat16"
    reason = {
        "bf16": "what Gemma was trained in",
        "fp8": "activations outside the FP8 layers stay bf16",
        "fp32": "as the profile asks; twice the memory of bf16",
    }[wanted]
    yield Setting("dtype", value, context.origin("dtype"), reason)
    if value == "bfloat16" and context.on_cpu and context.platform.avx512 is False:
        # Measured: benchmarks/results/2026-11-29/fp32-c8.json.
        yield (
            f"{context.platform.name} has no AVX-512, and computes bf16 the long way: dtype: fp32 "
            "takes twice the memory, and gave the 270M 2.7 times the tokens/s at 8 clients."
        )


def _quantization(context: Context) -> Derived:
    origin = context.origin("dtype")
    if method := context.checkpoint.quant_method:
        yield from _already_quantised(context, method)
    elif context.profile.dtype != "fp8":
        yield Setting("quantization", None, origin, "the weights are used as they are stored")
    elif context.on_cpu:
        raise StartupError(
            f"dtype 'fp8' can't quantise {context.checkpoint.model} on CPU, where only checkpoints "
            "in block FP8 (quant_method fp8 with weight_block_size) run; use dtype: bf16 with "
            "kv_cache_dtype: fp8."
        )
    else:
        yield from _online_fp8(context, origin)


def _plugin_method(context: Context) -> str | None:
    """The quantisation that a plugin of vLLM's brings, from the profile or the checkpoint."""
    asked = (context.checkpoint.quant_method, context.engine("quantization"))
    return next((method for method in ("gguf", "bitsandbytes") if method in asked), None)


def _by_plugin(context: Context, method: str) -> Derived:
    """
    What the plugins want: the method, and their own loader of weights.

    Source: vllm-gguf-plugin 0.0.5 plugin.py, vllm-bnb-plugin 0.0.3 README and __init__.py.
    """
    if context.profile.dtype == "fp8":
        raise ProfileError(
            f"dtype 'fp8' can't be joined with {method} weights, which are quantised already; "
            "use dtype: bf16."
        )
    if method == "gguf" and context.on_cpu:
        raise StartupError(
            f"{context.checkpoint.model} has GGUF weights, and vllm-gguf-plugin has kernels for "
            "GPUs alone; serve a directory of safetensors on CPU."
        )
    stored = context.checkpoint.quant_method == method
    origin = context.origin("model" if stored else "engine.quantization")
    reason = "as the weights are stored" if stored else "quantised to 4 bits while loading"
    yield Setting("quantization", method, origin, reason)
    yield Setting("load_format", method, origin, "the plugin's own loader of weights")
    if method == "gguf":
        reason = "config.json comes from the tokenizer's model, or from beside the weights"
        yield Setting("config_format", method, origin, reason)
    elif context.on_cpu:
        yield "vllm-bnb-plugin is made for GPUs; on CPU it has not been tried."


def _already_quantised(context: Context, method: str) -> Derived:
    checkpoint, wants_fp8 = context.checkpoint, context.profile.dtype == "fp8"
    if context.on_cpu and checkpoint.is_fp8 and not checkpoint.is_block_fp8:
        raise StartupError(
            f"{checkpoint.model} is stored in FP8 ({method}) without weight blocks, which vLLM "
            "can't run on CPU; serve a checkpoint in bf16 or in block FP8."
        )
    if context.on_cpu and checkpoint.is_block_fp8 and context.platform.amx is False:
        raise StartupError(
            f"{checkpoint.model} is stored in block FP8, for which vLLM's CPU kernel needs AMX "
            f"(Intel Sapphire Rapids or newer), and {context.platform.name} has none; serve a "
            "checkpoint in bf16."
        )
    if context.on_cpu and checkpoint.is_int4 and context.platform.avx512 is False:
        raise StartupError(
            f"{checkpoint.model} has 4-bit weights, for which vLLM's CPU kernel needs AVX-512, and "
            f"{context.platform.name} has none; serve the checkpoint that it was made of."
        )
    reason = f"the checkpoint is already quantised ({method}); vLLM reads how from it"
    yield Setting("quantization", None, context.origin("dtype"), reason)
    if wants_fp8 and not checkpoint.is_fp8:
        yield f"dtype fp8 changes nothing: the checkpoint is already quantised ({method}), not FP8."
    if context.on_cpu and checkpoint.is_int4 and context.platform.amx is not False:
        yield (
            "With AMX, vLLM runs 4-bit weights with int8 activations; "
            "env: {VLLM_CPU_INT4_W4A8: '0'} keeps them in bf16."
        )


def _online_fp8(context: Context, origin: str) -> Derived:
    capability = context.platform.compute_capability or (0, 0)
    if capability >= _FP8_CAPABILITY:
        method, reason = "fp8_per_channel", "quantised while loading; a scale for each channel"
    else:
        method = "fp8_per_tensor"
        reason = "quantised while loading; without FP8 cores only the weights are FP8"
    yield Setting("quantization", method, origin, reason)
    if kept := _kept_in_bf16(context):
        reason = "what stays bf16, for quality, as in the published FP8 checkpoints"
        yield Setting("quantization_config", {"ignore": kept}, origin, reason)


def _kept_in_bf16(context: Context) -> list[str]:
    checkpoint, kept = context.checkpoint, list[str]()
    is_3n = checkpoint.generation == Generation.GEMMA_3N
    if "image" in checkpoint.modalities:
        kept += _OF_IMAGES
        if checkpoint.generation in (Generation.GEMMA_3N, Generation.GEMMA_4):
            kept += _OF_IMAGES_SINCE_3N
    if "audio" in checkpoint.modalities:
        kept += _OF_AUDIO
    if is_3n or checkpoint.text.get("hidden_size_per_layer_input"):
        kept += _OF_LAYER_EMBEDDINGS
    return kept + _OF_GEMMA_3N if is_3n else kept


def _kv_cache(context: Context) -> Derived:
    wanted, platform = context.profile.kv_cache_dtype, context.platform
    if wanted == "fp8" and context.on_cpu and platform.avx512 is False and platform.amx is False:
        raise StartupError(
            "kv_cache_dtype 'fp8' needs AVX-512 or AMX on CPU (vLLM's kernels), and "
            f"{platform.name} has neither; use kv_cache_dtype: auto."
        )
    reason = "as the checkpoint computes" if wanted == "auto" else "half the bytes a token of bf16"
    yield Setting("kv_cache_dtype", wanted, context.origin("kv_cache_dtype"), reason)
    hybrid = context.checkpoint.generation is not None and context.checkpoint.sliding_window
    if wanted == "fp8" and hybrid and "kv_cache_dtype_skip_layers" not in context.profile.engine:
        yield (
            "engine: {kv_cache_dtype_skip_layers: [sliding_window]} keeps the local layers' KV "
            "cache in bf16: more accurate, and they hold few tokens."
        )
