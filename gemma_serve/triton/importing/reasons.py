"""Why a setting of Triton's has no place in a profile."""

from __future__ import annotations

# Fields of ModelConfig.
FIELDS = {
    "runtime": "gemma-serve has one runtime, vLLM",
    "batch_input": "vLLM batches by itself and needs no tensor for it",
    "batch_output": "vLLM batches by itself and needs no tensor for it",
    "optimization": "vLLM chooses kernels and memory; gemma-serve check shows them",
    "sequence_batching": "no state is kept between requests; a chat sends its turns with each",
    "ensemble_scheduling": "one engine does the work of all steps",
    "default_model_filename": "no model file is run",
    "cc_model_filenames": "one checkpoint serves every GPU",
    "metric_tags": "series carry model and version; add labels in Prometheus",
    "model_warmup": "requests go through the whole path before the server is ready, always",
    "model_operations": "no operator libraries are loaded",
    "model_repository_agents": "no agent changes the repository; vLLM reads the checkpoint",
    "response_cache": "answers are not cached; vLLM caches prefixes by itself",
    "model_metrics": "the histograms of /metrics have their own buckets",
}
UNKNOWN_FIELD = "gemma-serve has nothing like it"

INSTANCE_GROUP = {
    "count": "one engine takes all requests and batches them by itself",
    "kind": "whether there is a GPU is found at the start",
    "gpus": "set CUDA_VISIBLE_DEVICES in the server's environment",
    "profile": "profiles are TensorRT's",
    "rate_limiter": "vLLM schedules by free KV cache; limits.max_queued_requests bounds the rest",
    "secondary_devices": "vLLM places the weights",
    "host_policy": "bind the process by numactl, or by engine: numa_bind",
    "passive": "there is one engine, and it is active",
    "name": "there is one engine",
}

DYNAMIC_BATCHING = {
    "preferred_batch_size": "vLLM batches continuously, token by token; engine: max_num_seqs "
    "bounds it",
    "max_queue_delay_microseconds": "vLLM waits for no batch to fill",
    "preserve_ordering": "each answer goes out when it is done",
    "priority_levels": "any priority is taken, lower first; there are no levels to declare",
    "priority_queue_policy": "there is one queue, in order of priority",
}

QUEUE_POLICY = {
    "timeout_action": "a request waits until its own timeout, or until limits.max_queued_requests",
    "default_timeout_microseconds": "only a request's own parameter timeout ends it, with 504",
    "allow_timeout_override": "a request's own parameter timeout always counts",
}

# Keys of `parameters` that Triton's python and vLLM backends read.
PARAMETERS = {
    "REPORT_CUSTOM_METRICS": "always on: vLLM's series are at /metrics",
    "ENABLE_VLLM_HEALTH_CHECK": "always on: readiness reads the engine's state",
    "GPU_DEVICE_IDS": "set CUDA_VISIBLE_DEVICES in the server's environment",
    "EXECUTION_ENV_PATH": "no model file is run, so no environment is unpacked for it",
    "FORCE_CPU_ONLY_INPUT_TENSORS": "text goes to the tokenizer, on the CPU",
    "TRITON_RELEASE_MUTABLE_TENSORS": "no tensors are passed between backends",
}
UNKNOWN_PARAMETER = "only the model file read it, and that is not run here"

# Keys of `parameters` of TensorRT-LLM's models.
TENSORRT_LLM_PARAMETERS = {
    "gpt_model_type": "vLLM always batches in flight",
    "gpt_model_path": "an engine built for TensorRT can't be served; vLLM reads the checkpoint",
    "encoder_model_path": "Gemma has no encoder",
    "max_beam_width": "vLLM's engine has no beam search; beam_width over 1 is refused",
    "batch_scheduler_policy": "vLLM's scheduler preempts and goes on, as max_utilization does",
    "max_tokens_in_paged_kv_cache": "vLLM sizes the KV cache; kv_cache_memory_gib sets it",
    "kv_cache_free_gpu_mem_fraction": "a share of what is free after loading; vLLM's "
    "engine: gpu_memory_utilization is a share of the whole GPU",
    "kv_cache_host_memory_bytes": "vLLM's is engine: kv_offloading_size",
    "max_attention_window_size": "the checkpoint says which layers slide, and how far",
    "sink_token_length": "Gemma has no sink tokens",
    "enable_kv_cache_reuse": "vLLM reuses prefixes by itself; engine: enable_prefix_caching",
    "enable_chunked_context": "vLLM chunks prefill by itself; engine: enable_chunked_prefill",
    "gpu_device_ids": "set CUDA_VISIBLE_DEVICES in the server's environment",
    "participant_ids": "vLLM starts its own workers",
    "decoding_mode": "the request says how to sample",
    "guided_decoding_backend": "vLLM chooses it; engine: structured_outputs_config",
    "lora_cache_optimal_adapter_size": "lora.max_lora_rank and lora.max_loras size the cache",
    "lora_cache_max_adapter_size": "lora.max_lora_rank and lora.max_loras size the cache",
    "lora_cache_gpu_memory_fraction": "lora.max_lora_rank and lora.max_loras size the cache",
    "lora_cache_host_memory_bytes": "lora.max_lora_rank and lora.max_loras size the cache",
    "tokenizer_dir": "the tokenizer comes with the checkpoint",
    "tokenizer_type": "the tokenizer says it itself",
    "add_special_tokens": "every prompt gets one BOS",
    "skip_special_tokens": "the text never has control tokens",
    "accumulate_tokens": "each event of a stream has the new text alone",
    "tensorrt_llm_model_name": "one engine does the work of all models",
}
TENSORRT_LLM_PARAMETER = "a setting of TensorRT-LLM's runtime; vLLM has its own"
UNFILLED = "the template's placeholder was never filled in, so it said nothing"
ALIAS = "the same engine answers under this name too, as the model that was imported"
PART = "part of the ensemble: no client sees it, and vLLM does its work"

# Arguments that vLLM had once. The installed vLLM is asked first.
_SPECULATIVE = "write it as speculative: {method, model, num_speculative_tokens}"
_SCHEDULER = "vLLM's scheduler has no such step any more"
REMOVED_ENGINE_ARGS = {
    "disable_log_requests": "vLLM logs no requests by default; triton.inference_trace logs ours",
    "max_log_len": "texts are never logged",
    "use_v2_block_manager": "vLLM has one block manager",
    "worker_use_ray": "vLLM calls it distributed_executor_backend: ray",
    "engine_use_ray": "the engine has a process of its own, without Ray",
    "swap_space": "vLLM does not swap the KV cache; it computes again",
    "preemption_mode": "vLLM does not swap the KV cache; it computes again",
    "num_scheduler_steps": _SCHEDULER,
    "multi_step_stream_outputs": _SCHEDULER,
    "scheduler_delay_factor": _SCHEDULER,
    "num_lookahead_slots": _SCHEDULER,
    "disable_async_output_proc": _SCHEDULER,
    "max_num_partial_prefills": _SCHEDULER,
    "max_long_partial_prefills": _SCHEDULER,
    "max_context_len_to_capture": "vLLM calls it max_cudagraph_capture_size and counts sequences",
    "max_seq_len_to_capture": "vLLM calls it max_cudagraph_capture_size and counts sequences",
    "device": "whether there is a GPU is found at the start",
    "task": "gemma-serve generates; vLLM calls it runner now",
    "guided_decoding_backend": "vLLM calls it structured_outputs_config: {backend: ...}",
    "tokenizer_pool_size": "tokenising has threads of its own",
    "tokenizer_pool_type": "tokenising has threads of its own",
    "tokenizer_pool_extra_config": "tokenising has threads of its own",
    "rope_scaling": "vLLM takes it in hf_overrides",
    "rope_theta": "vLLM takes it in hf_overrides",
    "speculative_model": _SPECULATIVE,
    "num_speculative_tokens": _SPECULATIVE,
    "ngram_prompt_lookup_max": _SPECULATIVE,
    "ngram_prompt_lookup_min": _SPECULATIVE,
    "enable_prompt_adapter": "vLLM has no prompt adapters any more",
    "max_prompt_adapters": "vLLM has no prompt adapters any more",
    "max_prompt_adapter_token": "vLLM has no prompt adapters any more",
    "lora_extra_vocab_size": "vLLM's adapters add no words any more",
    "enable_lora_bias": "vLLM's adapters have no bias any more",
    "long_lora_scaling_factors": "vLLM has no long LoRA any more",
    "qlora_adapter_name_or_path": "give the adapter in lora.adapters",
    "disable_mm_preprocessor_cache": "vLLM calls it mm_processor_cache_gb: 0",
    "override_pooler_config": "gemma-serve generates; it pools nothing",
    "override_neuron_config": "gemma-serve runs on CUDA and CPU",
    "calculate_kv_scales": "vLLM takes scales from the checkpoint, or 1",
    "disable_frontend_multiprocessing": "the engine has a process of its own, always",
    "cuda_graph_sizes": "vLLM calls it cudagraph_capture_sizes",
}
UNKNOWN_ENGINE_ARG = "the installed vLLM has no such argument"

# Keywords of from_pretrained and the like.
LOAD_KEYWORDS = {
    "device_map": "vLLM places the weights; tensor_parallel_size shares them among GPUs",
    "device": "whether there is a GPU is found at the start",
    "attn_implementation": "gemma-serve chooses vLLM's attention backend",
    "trust_remote_code": "no Gemma needs code from its repository",
    "low_cpu_mem_usage": "vLLM reads the weights as it needs them",
    "cache_dir": "set HF_HOME in the server's environment",
    "token": "set HF_TOKEN in the server's environment",
    "use_auth_token": "set HF_TOKEN in the server's environment",
    "load_in_8bit": "write dtype: fp8, or engine: quantization",
    "load_in_4bit": "write engine: quantization",
    "quantization_config": "write dtype: fp8, or engine: quantization",
    "local_files_only": "set HF_HUB_OFFLINE=1 in the server's environment",
    "max_memory": "vLLM sizes the KV cache; kv_cache_memory_gib sets it",
    "offload_folder": "vLLM's is engine: cpu_offload_gb",
}
UNKNOWN_LOAD_KEYWORD = "only transformers reads it"
CODE = (
    "gemma-serve does what it does with vLLM and does not run it: stop words, templates and checks "
    "of its own are gone; defaults that it gives to inputs go to triton.default_inputs"
)
