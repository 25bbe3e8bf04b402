"""
Structured outputs on their way to the engine: compiled apart first, for every protocol.

vLLM would compile them in the server's event loop, without a bound on regular expressions of less
than 5 s and on schemas of none (validate_xgrammar_grammar, from SamplingParams.verify, the request
models and the tool parsers). Here that check looks at a schema's words alone, and `add_request`,
through which every request goes, has the rest done by the compiling process.
"""

from __future__ import annotations

import json
from typing import Any

import xgrammar
from vllm import AsyncLLMEngine, SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import check_json_nesting
from vllm.v1.structured_output import backend_xgrammar
from vllm.v1.structured_output.request import get_structured_output_key
from vllm.v1.structured_output.utils import choice_as_grammar, grammar_is_likely_lark

from gemma_serve.engine.cache_salt import cache_salt
from gemma_serve.engine.grammar.checker import GrammarChecker
from gemma_serve.engine.grammar.process import Job, Setup
from gemma_serve.engine.vllm.work import work_of
from gemma_serve.engine.work import on_work

MEMORY_BYTES = 512 * 1024 * 1024


class CheckedEngine(AsyncLLMEngine):  # type: ignore[misc]  # vllm is not typed for us
    """vLLM's engine, with structured outputs compiled apart before they are taken."""

    grammars: GrammarChecker | None = None

    async def add_request(self, request_id: str, prompt: Any, params: Any, **options: Any) -> Any:
        """
        Check the structured output, salt the prefix cache for the key; then as vLLM does, and tell
        of the work.

        Raises:
            RequestError: the structured output can't be compiled within its bounds.
            UnavailableError: there was no turn to compile it.
        """
        wanted = getattr(params, "structured_outputs", None)
        if wanted is not None and not wanted.all_constraints_none() and self.grammars:
            check_words(params)
            await self.grammars.check(job_of(params))
        if (salt := cache_salt.get()) is not None:
            prompt["cache_salt"] = salt
        queue = await super().add_request(request_id, prompt, params, **options)
        if (tell := on_work.get()) is not None:
            tell(work_of(self.output_processor, queue.request_id))
        return queue


def install_grammar_checks(engine: CheckedEngine, cpu_s: float) -> None:
    """Compile structured outputs apart from now on, where the engine compiles with xgrammar."""
    config = engine.vllm_config.structured_outputs_config
    if config.backend != "xgrammar":
        return
    # Before there are requests: a vocabulary of 262,144 takes a second, and the loop would wait.
    vocab_size = engine.model_config.get_vocab_size()
    info = xgrammar.TokenizerInfo.from_huggingface(
        engine.renderer.get_tokenizer(), vocab_size=vocab_size
    )
    setup = Setup(
        tokenizer_info=info.serialize_json(),
        vocab_size=vocab_size,
        stop_token_ids=list(engine.renderer.prompts.stop_token_ids),
        any_whitespace=not config.disable_any_whitespace,
        cpu_s=cpu_s,
        memory_bytes=MEMORY_BYTES,
    )
    engine.grammars = GrammarChecker(setup)
    backend_xgrammar.validate_xgrammar_grammar = check_words


def check_words(params: SamplingParams) -> None:
    """
    What vLLM's own check finds without compiling; choices become a grammar, as there.

    Raises:
        VLLMValidationError: no JSON, nested too deep, or a word that xgrammar does not know.
    """
    wanted = params.structured_outputs
    if wanted is None:
        return
    if wanted.json_object is False:
        raise VLLMValidationError("json_object must be true; leave it out for any text.")
    if wanted.choice:
        wanted.grammar, wanted.choice = choice_as_grammar(wanted.choice), None
    check_json_nesting(wanted.structural_tag, structural_tag=True)
    check_json_nesting(wanted.json)
    if wanted.json:
        try:
            schema = json.loads(wanted.json) if isinstance(wanted.json, str) else wanted.json
        except ValueError:
            raise VLLMValidationError("The JSON Schema is no JSON.") from None
        if backend_xgrammar.has_xgrammar_unsupported_json_features(schema):
            raise VLLMValidationError(
                "The JSON Schema has words that this server can't enforce, such as multipleOf, "
                "uniqueItems, contains, or pattern with a length; leave them out."
            )


def job_of(params: SamplingParams) -> Job:
    """The structured output as the engine's backend will compile it."""
    option, text = get_structured_output_key(params.structured_outputs)
    kind = option.name.lower()
    if kind == "json_object":
        return Job("json_object", '{"type": "object"}')
    if kind == "grammar" and grammar_is_likely_lark(text):
        return Job("lark", text)
    return Job(kind, text)
