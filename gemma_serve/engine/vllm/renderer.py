"""
vLLM's renderer with Gemma's prompt layer around it: the one way from messages to token ids.

Chat completions, responses, Anthropic messages, tokenize and render all come through here, so no
protocol can get around the rules, the guard or the checks on images.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import jinja2.meta
import jinja2.sandbox
from vllm.config import VllmConfig
from vllm.exceptions import VLLMValidationError
from vllm.renderers import ChatParams, TokenizeParams
from vllm.renderers.hf import HfRenderer, resolve_chat_template
from vllm.renderers.registry import RENDERER_REGISTRY

from gemma_serve import metrics
from gemma_serve.chat.abilities import abilities_of
from gemma_serve.chat.messages import Abilities
from gemma_serve.chat.parts import as_string
from gemma_serve.chat.prompts import on_token_ids, on_tokenised, prompt_layer
from gemma_serve.errors import RequestError

if TYPE_CHECKING:
    from gemma_serve.chat.prompts import Prepared
    from gemma_serve.gemma.checkpoint import Checkpoint
    from gemma_serve.profile.schema import Profile

# Where a prompt carries the guard's mark from rendering to tokenising.
MARK = "gemma_serve_mark"
# ... and whether it is a whole prompt, which begins with a BOS, or a piece of text.
WHOLE = "gemma_serve_whole"
# What a template is given by transformers, and no request may replace.
RESERVED = {"messages", "tools", "documents", "raise_exception", "strftime_now"}
# Of a template that can't be found nothing is known; vLLM refuses the request by itself.
NO_TEMPLATE = Abilities(*[False] * len(dataclasses.fields(Abilities)))


def install_renderer(profile: Profile, checkpoint: Checkpoint) -> None:
    """Have vLLM build `GemmaRenderer` where it would build its Hugging Face renderer."""
    GemmaRenderer.profile, GemmaRenderer.checkpoint = profile, checkpoint
    # Its `register` would warn that this replaces what was there, which is the point.
    RENDERER_REGISTRY.renderers["hf"] = (__name__, GemmaRenderer.__name__)


class GemmaRenderer(HfRenderer):  # type: ignore[misc]  # vllm is not typed for us
    """Renders and tokenises as vLLM does, with `chat/` before, between and after."""

    # vLLM builds the renderer, and gives it nothing but its own config and tokenizer.
    profile: ClassVar[Profile]
    checkpoint: ClassVar[Checkpoint]

    def __init__(self, config: VllmConfig, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        model = config.model_config
        eos = model.try_get_generation_config().get("eos_token_id")
        self.prompts = prompt_layer(
            self.profile, self.checkpoint, tokenizer, model.get_vocab_size(), eos
        )
        # Whether tool_choice required, or a tool by name, can be enforced; `wire` finds out.
        self.forces_tools = True
        self._abilities: dict[str | None, Abilities] = {}

    # --- messages to text

    async def render_messages_async(
        self, messages: list[dict[str, Any]], params: ChatParams
    ) -> tuple[list[Any], Any]:
        """
        Normalise, take images in, break control tokens; then Gemma's template.

        Raises:
            RequestError: a message that can't be served, or that the template refuses.
        """
        began_s = time.perf_counter()
        if not self.forces_tools:
            _check_tool_choice(params.tool_choice)
        kwargs = params.chat_template_kwargs
        tools = kwargs.get("tools")
        abilities = self.abilities(params.chat_template, tools)
        is_answered = kwargs.get("add_generation_prompt", True) or kwargs.get(
            "continue_final_message", False
        )
        prepared = await self.prompts.prepare(messages, tools, abilities, is_answered=is_answered)
        try:
            conversation, prompt = await super().render_messages_async(
                prepared.messages, _with_prepared(params, prepared, abilities)
            )
        except VLLMValidationError as error:
            hint = self.prompts.hint(messages, tools, abilities)
            if not hint:
                raise
            raise RequestError(f"{error} {hint}", param="messages") from error
        prompt[MARK] = prepared.mark
        metrics.TEMPLATE_RENDER.observe(time.perf_counter() - began_s)
        return _echoed(self.prompts.unmark(conversation, prepared.mark)), prompt

    def variables(self, template: str | None) -> frozenset[str]:
        """The variables that a request may set in the template."""
        source = resolve_chat_template(
            self.tokenizer, chat_template=template, tools=None, model_config=self.model_config
        )
        syntax = jinja2.sandbox.SandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
        parsed = syntax.parse(source or "")
        names = jinja2.meta.find_undeclared_variables(parsed)
        return frozenset(
            name for name in names if name not in RESERVED and not name.endswith("_token")
        )

    def abilities(self, template: str | None, tools: Any) -> Abilities:
        """What the template that vLLM would take can do by itself; tried once a template."""
        source = resolve_chat_template(
            self.tokenizer, chat_template=template, tools=tools, model_config=self.model_config
        )
        if source not in self._abilities:
            self._abilities[source] = abilities_of(self._try(source)) if source else NO_TEMPLATE
        return self._abilities[source]

    def _try(self, source: str) -> Callable[[list[dict[str, Any]], Any], str]:
        def render(messages: list[dict[str, Any]], tools: Any) -> str:
            text: str = self.tokenizer.apply_chat_template(
                messages, tools=tools, chat_template=source, tokenize=False
            )
            return text

        return render

    # --- text to token ids

    async def render_cmpl_async(
        self,
        prompts: Sequence[Any],
        tok_params: TokenizeParams | None = None,
        **options: Any,
    ) -> Any:
        """Raw prompts, text or token ids, of the completions API and of /tokenize."""
        # Only /tokenize skips the cache; without special tokens, it asks for the ids of a piece.
        wants_piece = tok_params is not None and not tok_params.add_special_tokens
        whole = not (wants_piece and options.get("skip_mm_cache"))
        chars = sum(len(prompt.get("prompt") or "") for prompt in prompts)
        self.prompts.check_chars(chars, param="prompt")
        checked = [self._checked(prompt, whole) for prompt in prompts]
        return await super().render_cmpl_async(checked, tok_params, **options)

    def _checked(self, prompt: Any, whole: bool) -> Any:
        if "prompt_token_ids" in prompt:
            ids = self.prompts.token_ids(prompt["prompt_token_ids"])
            return {**prompt, "prompt_token_ids": ids}
        has_images = bool(prompt.get("multi_modal_data"))
        text, mark = self.prompts.raw_text(prompt["prompt"], has_images=has_images)
        return {**prompt, "prompt": text, MARK: mark, WHOLE: whole}

    def _tokenize_prompt(self, prompt: Any, params: TokenizeParams) -> Any:  # noqa: ARG002
        """Tokenise around the guard's marks, with one BOS; runs in vLLM's tokenizer pool."""
        # Not to `params`: cut off at the context's length, a prompt could not be refused with its
        # real length, and special tokens are the guard's business.
        rest = dict(prompt)
        mark, whole, text = rest.pop(MARK, None), rest.pop(WHOLE, True), rest["prompt"]
        ids = self.prompts.guard.encode(text, mark, self._encode)
        self.prompts.check_images(text, ids, _num_items(rest.get("multi_modal_data")))
        rest["prompt"] = text.replace(mark, "") if mark else text
        return self._build_tokens_prompt(self.prompts.guard.one_bos(ids) if whole else ids, rest)

    async def _tokenize_singleton_prompt_async(self, prompt: Any, params: TokenizeParams) -> Any:
        if prompt.get("multi_modal_data"):
            params = _without_truncation(params)
        done = await super()._tokenize_singleton_prompt_async(prompt, params)
        if params.truncate_prompt_tokens and (ids := done.get("prompt_token_ids")):
            # Cut from the left, a prompt has lost its BOS; its end is where the model goes on.
            done["prompt_token_ids"] = self.prompts.guard.bos_in_place(ids)
        if (tell := on_tokenised.get()) is not None:
            tell(len(done.get("prompt_token_ids", ())))
        if (give := on_token_ids.get()) is not None:
            give(done.get("prompt_token_ids", ()))
        return done

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _check_tool_choice(choice: Any) -> None:
    if choice in (None, "none", "auto"):
        return
    shown = repr(choice) if isinstance(choice, str) else "of one function"
    raise RequestError(
        f"tool_choice {shown} can't be enforced: vLLM has no grammar for this model's tool calls; "
        "use 'auto' or 'none'.",
        param="tool_choice",
    )


def _without_truncation(params: TokenizeParams) -> TokenizeParams:
    """
    The parameters for a prompt with images, which vLLM fails on if the cut takes one's place away.

    Raises:
        RequestError: the client says how many tokens are to be left; -1 is the context's length.
    """
    if params.truncate_prompt_tokens not in (None, -1):
        raise RequestError(
            f"A prompt with images can't be cut to truncate_prompt_tokens "
            f"{params.truncate_prompt_tokens}; leave it out.",
            param="truncate_prompt_tokens",
        )
    return dataclasses.replace(params, truncate_prompt_tokens=None)


def _num_items(media: Any) -> int:
    return sum(len(items) for items in media.values()) if media else 0


def _echoed(conversation: list[Any]) -> list[Any]:
    """The conversation for `echo`, whose last content vLLM streams as one text and no other way."""
    if not conversation:
        return conversation
    text = as_string(conversation[-1].get("content"))
    return [*conversation[:-1], {**conversation[-1], "content": text or ""}]


def _with_prepared(params: ChatParams, prepared: Prepared, abilities: Abilities) -> ChatParams:
    """The template's variables, as the normaliser left them, and strings as strings."""
    kwargs = params.chat_template_kwargs | {"tools": prepared.tools}
    if prepared.continue_final_message:
        kwargs |= {"add_generation_prompt": False, "continue_final_message": True}
    changed: dict[str, Any] = {"chat_template_kwargs": kwargs}
    # For a template that can read parts, vLLM makes parts of strings, and Gemma 4's puts a space
    # behind each of them. As in transformers, a string is to stay one.
    has_parts = any(isinstance(message.get("content"), list) for message in prepared.messages)
    if abilities.strings and not has_parts:
        changed["chat_template_content_format"] = "string"
    return dataclasses.replace(params, **changed)
