"""
The prompt layer: what happens to a conversation before, and to its tokens after, the template.

Rules (`messages.py`), then images (`media.py`), then the guard (`guard.py`); `engine/vllm` calls it
for every protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gemma_serve import metrics
from gemma_serve.chat.guard import Guard
from gemma_serve.chat.media import ImageLoader, inline_images, load_images
from gemma_serve.chat.messages import Abilities, helpful, normalise
from gemma_serve.chat.size import text_chars, without_images
from gemma_serve.errors import PayloadTooLargeError, RequestError
from gemma_serve.gemma.tokens import control_tokens_of, stop_token_ids

if TYPE_CHECKING:
    from gemma_serve.gemma.architecture import Checkpoint
    from gemma_serve.profile.schema import Chat, Limits, Profile

# The rules that changed the prompt of the request at hand; its route puts a list there.
applied_rules: ContextVar[list[str] | None] = ContextVar("applied_rules", default=None)
# Who is told of each of its prompts' tokens; its route puts that there.
on_tokenised: ContextVar[Callable[[int], None] | None] = ContextVar("on_tokenised", default=None)
# Who is given the tokens themselves, where requests are recorded.
on_token_ids: ContextVar[Callable[[Sequence[int]], None] | None] = ContextVar(
    "on_token_ids", default=None
)


@dataclass(frozen=True)
class Prepared:
    """A conversation that is ready for the template."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    mark: str | None  # what the guard put into control tokens, if there were any
    continue_final_message: bool


@dataclass(frozen=True)
class PromptLayer:
    """The prompt layer of one model, as its profile sets it."""

    chat: Chat
    limits: Limits
    guard: Guard
    images: ImageLoader | None  # None: the model takes no images
    max_images: int
    stop_token_ids: list[int]

    async def prepare(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        abilities: Abilities,
        *,
        is_answered: bool = True,
    ) -> Prepared:
        """
        Apply the rules, take images in as bytes and break the control tokens that users typed.

        Args:
            is_answered: Whether the prompt ends where the model goes on.

        Raises:
            RequestError: a message, tool or image that can't be served.
            PayloadTooLargeError: more text than `limits.max_text_chars`.
        """
        self._check_counts(messages, tools)
        normal = normalise(messages, tools, abilities, self.chat, is_answered=is_answered)
        self._record(normal.rules)
        inlined = await inline_images(normal.messages, self.images, self.max_images)
        (guarded, guarded_tools), mark = self.guard.protect(
            (inlined, normal.tools), spares_thoughts=abilities.strips_thoughts
        )
        return Prepared(guarded, guarded_tools, mark, normal.continue_final_message)

    async def load_images(self, encoded: Sequence[str]) -> list[str]:
        """
        Images of a protocol without messages, in base64, as data: URLs of checked bytes.

        Raises:
            RequestError: an image that can't be served.
        """
        sources = [(f"data:image/*;base64,{text}", "image") for text in encoded]
        return await load_images(sources, self.images, self.max_images)

    def token_ids(self, ids: list[int]) -> list[int]:
        """
        Token ids of the completions API: one BOS first, all within the model's vocabulary.

        Raises:
            RequestError: an id that has no place in a prompt.
        """
        self.guard.check_ids(ids, param="prompt")
        return self.guard.one_bos(ids)

    def raw_text(self, text: str, *, has_images: bool = False) -> tuple[str, str | None]:
        """Text of the completions API, with the control tokens broken that can't stand in it."""
        return self.guard.protect_raw(text, has_images=has_images)

    def check_chars(self, chars: int, *, param: str) -> None:
        """
        Refuse more text in one request than the profile allows.

        Raises:
            PayloadTooLargeError: more than `limits.max_text_chars`.
        """
        limit = self.limits.max_text_chars
        if chars > limit:
            raise PayloadTooLargeError(
                f"The request has {chars} characters of text; at most {limit} are allowed "
                "(limits.max_text_chars), so send less.",
                param=param,
            )

    def check_images(self, text: str, ids: list[int], num_images: int) -> None:
        """
        Refuse a prompt that has no place for an image: by its template, or as raw text.

        vLLM would look for the place in the text, and forget what the guard has kept apart.

        Raises:
            RequestError: there are more or fewer places than images.
        """
        places = self.guard.num_media(text, ids)
        if places != num_images:
            raise RequestError(
                f"The prompt has a place for {places} of {num_images} images; send images in user "
                "messages, or with raw text write the image token once for each.",
                param="messages",
            )

    def hint(
        self, messages: Any, tools: list[dict[str, Any]] | None, abilities: Abilities
    ) -> str | None:
        """What to say after a template's refusal: the rules that are off and would have helped."""
        keys = [f"chat.{rule}" for rule in helpful(messages, tools, abilities, self.chat)]
        return f"The profile has {', '.join(keys)} off, which would have helped." if keys else None

    def unmark(self, conversation: list[Any], mark: str | None) -> list[Any]:
        """The conversation without marks, for answers that echo it."""
        return without(mark, conversation) if mark else conversation

    async def aclose(self) -> None:
        """Let go of connections and of the threads that decode images."""
        if self.images is not None:
            await self.images.aclose()

    def _check_counts(self, messages: Sequence[Any], tools: Sequence[Any] | None) -> None:
        for what, items, limit in (
            ("messages", messages, self.limits.max_messages),
            ("tools", tools or (), self.limits.max_tools),
        ):
            if len(items) > limit:
                raise RequestError(
                    f"The request has {len(items)} {what}; at most {limit} are allowed "
                    f"(limits.max_{what}), so send fewer.",
                    param=what,
                )
        parts = max((len(_content_parts(message)) for message in messages), default=0)
        if parts > self.limits.max_parts:
            raise RequestError(
                f"A message has {parts} parts of content; at most {self.limits.max_parts} are "
                "allowed (limits.max_parts), so send fewer.",
                param="messages",
            )
        chars = text_chars(list(map(without_images, messages))) + text_chars(tools)
        self.check_chars(chars, param="messages")

    def _record(self, rules: tuple[str, ...]) -> None:
        for rule in rules:
            metrics.PROMPT_RULES.labels(rule).inc()
        applied = applied_rules.get()
        if applied is not None:
            applied.extend(rule for rule in rules if rule not in applied)


def prompt_layer(
    profile: Profile,
    checkpoint: Checkpoint,
    tokenizer: Any,
    vocab_size: int,
    generation_config_eos: int | list[int] | None,
) -> PromptLayer:
    """
    Build the prompt layer of a model.

    Args:
        tokenizer: transformers' tokenizer of the model.
        vocab_size: Rows of the model's embedding; a tokenizer may know more tokens than that.
        generation_config_eos: What the checkpoint's generation_config.json stops at.
    """
    max_images = profile.max_images if checkpoint.is_multimodal else 0
    return PromptLayer(
        chat=profile.chat,
        limits=profile.limits,
        guard=Guard(control_tokens_of(tokenizer), vocab_size),
        images=ImageLoader(profile.images) if max_images else None,
        max_images=max_images,
        stop_token_ids=stop_token_ids(
            checkpoint.generation, tokenizer.get_vocab(), generation_config_eos
        ),
    )


def _content_parts(message: Any) -> Sequence[Any]:
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, list) else ()


def without(mark: str, value: Any) -> Any:
    """A copy of a value with the mark taken out of all its strings."""
    if isinstance(value, str):
        return value.replace(mark, "")
    if isinstance(value, dict):
        return {key: without(mark, item) for key, item in value.items()}
    if isinstance(value, list):
        return [without(mark, item) for item in value]
    return value
