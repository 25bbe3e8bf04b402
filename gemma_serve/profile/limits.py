"""
What a profile may say under `limits:`: sizes, amounts, rates and times, each with its default.

Where a maximum is given, vLLM's own is: its kernels on a GPU have room for no more token ids, and
one request with more would end the engine for everybody (vllm-project/vllm#55164).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gemma_serve.profile.section import PositiveInt, PositiveSeconds, Section

AtMost128 = Annotated[int, Field(ge=1, le=128)]


class Limits(Section):
    """What the server takes on."""

    # Connections, and what comes through them before there is a request (`wire/`).
    max_connections: PositiveInt = Field(
        2048, description="Open connections of each HTTP port; more wait to be accepted."
    )
    max_header_bytes: PositiveInt = Field(64 * 1024, description="Headers in all; more is 431.")
    max_headers: PositiveInt = Field(100, description="Headers of one request; more is 431.")
    max_url_bytes: PositiveInt = Field(8 * 1024, description="Longest URL; more is 414.")
    max_chunks: PositiveInt = Field(65_536, description="Chunks of a chunked body; more is 413.")
    header_timeout_s: PositiveSeconds = Field(
        10.0, description="Seconds until the headers are whole, and of a TLS handshake; then 408."
    )
    body_timeout_s: PositiveSeconds = Field(
        30.0, description="Seconds until the body is whole, beside those of its size; then 408."
    )
    min_body_bytes_per_s: PositiveInt = Field(
        1024, description="Each so many bytes of a body give it one second more to arrive."
    )
    keep_alive_s: PositiveSeconds = Field(
        75.0, description="Seconds that an idle connection is kept after an answer."
    )
    write_timeout_s: PositiveSeconds = Field(
        60.0,
        description="Seconds that a client may take nothing of its answer; then it has left (on "
        "Linux).",
    )
    # Bodies (`api/limits.py`, `api/json_body.py`).
    max_body_bytes: PositiveInt | None = Field(
        None,
        description="Largest request body; more is 413. Default: 4 MiB, and 64 MiB where requests "
        "may carry images.",
    )
    max_held_bytes: PositiveInt = Field(
        1024 * 1024 * 1024,
        description="Bodies of all requests that arrive or are being answered; more is 503.",
    )
    max_json_depth: PositiveInt = Field(
        64, description="Objects and lists within one another in a JSON body."
    )
    max_json_nodes: PositiveInt = Field(
        50_000, description="Objects, lists, keys and strings of a JSON body."
    )
    # The queue, the time in it and after it, and keys among one another (`api/admission/`).
    max_queued_requests: PositiveInt | None = Field(
        None,
        description="Waiting and running sequences before 503 (vLLM: max_num_queued_reqs). "
        "Default: three batches, so that two wait for each that runs.",
    )
    max_queued_tokens: PositiveInt | None = Field(
        None,
        description="Prompt tokens before their first token, here and in the engine, before 503. "
        "Default: prefill rate x slo.ttft_ms where that is set, else none.",
    )
    max_wait_s: Annotated[float, Field(gt=0)] = Field(
        30.0, description="Seconds that a request waits for a place in the batch before 503."
    )
    max_ttft_s: Annotated[float, Field(gt=0)] = Field(
        120.0, description="Seconds to the first token of a stream before 504."
    )
    max_request_s: Annotated[float, Field(gt=0)] = Field(
        600.0,
        description="Seconds to the end of an answer before it is stopped, 504; clients may ask "
        "for less.",
    )
    key_tokens_per_minute: PositiveInt | None = Field(
        None, description="Prompt and answer tokens that one key may use in a minute before 429."
    )
    max_key_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9,
        description="Share of the batch that one key may have where there are several, so that "
        "the others' requests find a place at once.",
    )
    max_key_slowdown: Annotated[float, Field(gt=1)] = Field(
        1.25,
        description="How many times longer the engine's steps may take for what one key runs, "
        "while another sends that asks for at most half as much: fewer of its requests run at a "
        "time then. A large number bounds nothing.",
    )
    # One request (`engine/request_limits.py`, `chat/prompts.py`).
    max_tokens: PositiveInt | None = Field(
        None, description="Longest answer in tokens. Default: what is left of the context."
    )
    max_text_chars: PositiveInt = Field(
        4 * 1024 * 1024, description="Characters of text in one request, before tokenising."
    )
    max_messages: PositiveInt = Field(2048, description="Messages in one request.")
    max_tools: PositiveInt = Field(128, description="Tools in one request.")
    max_parts: PositiveInt = Field(64, description="Parts in the content of one message.")
    max_n: PositiveInt = Field(
        128, description="Answers to one prompt (n); never more than engine.max_num_seqs."
    )
    max_prompts: PositiveInt = Field(128, description="Prompts in one completion request.")
    max_stop_strings: PositiveInt = Field(
        4, description="Stop strings in one request; clients of TensorRT-LLM may send more."
    )
    max_word_chars: PositiveInt = Field(
        256, description="Characters of one stop string or bad word."
    )
    max_stop_token_ids: AtMost128 = Field(128, description="Stop token ids in one request.")
    max_biased_token_ids: Annotated[int, Field(ge=1, le=1024)] = Field(
        1024, description="Token ids in logit_bias, or in allowed_token_ids, of one request."
    )
    max_logprob_token_ids: AtMost128 = Field(
        128, description="Token ids whose log-probabilities one request names."
    )
    max_bad_words: AtMost128 = Field(128, description="Bad words in one request.")
    max_schema_bytes: PositiveInt = Field(
        64 * 1024, description="Largest JSON Schema, choice or grammar of a request."
    )
    max_schema_depth: Annotated[int, Field(ge=1, le=256)] = Field(
        32, description="Objects and lists within one another in a schema of a request."
    )
    max_regex_chars: PositiveInt = Field(
        4096, description="Characters of a regular expression that an answer has to match."
    )
    max_grammar_compile_s: Annotated[float, Field(gt=0, le=60)] = Field(
        20.0,
        description="Seconds of CPU that compiling one structured output may take; more is 400.",
    )
    # The end, and an engine that does not get on (`launcher.py`, `watch.py`).
    drain_s: Annotated[float, Field(ge=0)] = Field(
        30.0, description="Seconds that SIGTERM leaves to requests in flight."
    )
    stall_s: Annotated[float, Field(gt=0)] = Field(
        15.0,
        description="Seconds without a sign of life from the engine until /readyz is 503 stalled.",
    )
    wedge_s: Annotated[float, Field(gt=0)] = Field(
        60.0,
        description="Seconds without a sign of life until the engine counts as wedged: an incident "
        "is written, and the server exits with 1 for its supervisor to start it again.",
    )
