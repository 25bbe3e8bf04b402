"""Request fields that vLLM takes and that must not get around the prompt layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from gemma_serve.engine.cache_salt import cache_salt
from gemma_serve.engine.vllm import Engine, check_values
from gemma_serve.errors import RequestError

# The first three are for engines of one cluster, which trust one another.
_REPLACES = "it would replace the prompt"
_NO_PLACE = "Gemma's chat templates have no place for it; a message may hold the text"
_BY_PROFILE = "the profile's `images` section says how images are treated"
REFUSED = {
    "kv_transfer_params": _REPLACES,
    "ec_transfer_params": _REPLACES,
    "prompt_embeds": _REPLACES,
    "documents": _NO_PLACE,
    "mm_processor_kwargs": _BY_PROFILE,
    "media_io_kwargs": _BY_PROFILE,
    # They reach the engine unchecked, kv_transfer_params among them.
    "vllm_xargs": "no extension of this server reads it",
}
WORD = re.compile(r"[\w-]{1,64}")


def check_request(engine: Engine, request: BaseModel) -> None:
    """
    Refuse a request of the OpenAI, Anthropic or vLLM APIs for what its fields say or how much.

    Raises:
        RequestError: with the field's name as `param`.
    """
    check_fields(engine.template_variables, request)
    if cache_salt.get() is not None:
        _refuse(request, "cache_salt", "each key's prompts have a salt of their own")
    engine.request_limits.check(request)


def check_fields(template_variables: frozenset[str], request: BaseModel) -> None:
    """
    Refuse fields and template variables that no client may set.

    Args:
        template_variables: Those that the chat template takes from a request.

    Raises:
        RequestError: such a field is set, or a variable that the chat template does not take.
    """
    for name, why in REFUSED.items():
        _refuse(request, name, why)
    # vLLM's own models of the Anthropic and Responses APIs; ours of the others have looked already.
    check_values({name: getattr(request, name, None) for name in ("stop", "stop_sequences")})
    check_template_variables(template_variables, getattr(request, "chat_template_kwargs", None))


def _refuse(request: BaseModel, name: str, why: str) -> None:
    if getattr(request, name, None) is not None:
        raise RequestError(f"The field {name!r} is not allowed: {why}; leave it out.", param=name)


def check_template_variables(allowed: frozenset[str], sent: Mapping[str, Any] | None) -> None:
    """
    Refuse variables of the chat template that no client may set.

    Raises:
        RequestError: the template takes no such variable, or its value could be text.
    """
    for name, value in (sent or {}).items():
        _check_variable(name, value, allowed)


def _check_variable(name: str, value: Any, allowed: frozenset[str]) -> None:
    param = "chat_template_kwargs"
    if name not in allowed:
        raise RequestError(
            f"The chat template takes no variable {name[:100]!r} from a request; "
            f"{', '.join(sorted(allowed))} are allowed.",
            param=param,
        )
    is_word = isinstance(value, str) and WORD.fullmatch(value)
    if not (is_word or isinstance(value, bool | int | float | None)):
        raise RequestError(
            f"The template variable {name!r} must be true, false, a number or a word.", param=param
        )
