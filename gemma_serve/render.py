"""`gemma-serve render`: the exact prompt of a conversation, without starting the engine."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gemma_serve.errors import RequestError
from gemma_serve.plan import plan_serve

if TYPE_CHECKING:
    from gemma_serve.engine.vllm import RenderedPrompt
    from gemma_serve.plan import Plan
    from gemma_serve.profile.load import LoadedProfile
    from gemma_serve.progress import Progress


def render(loaded: LoadedProfile, text: str, progress: Progress) -> RenderedPrompt:
    """
    Render a conversation as the server of this profile would.

    Args:
        text: JSON: a list of messages, or the body of a chat completion (messages, tools, ...).

    Raises:
        GemmaServeError: the profile, the model or the conversation can't be used.
    """
    body = _body(text)
    plan = plan_serve(loaded, progress.say)
    os.environ.update(plan.resolved.env_dict())
    with progress.doing("import"):
        # vLLM reads its environment when it is imported.
        from gemma_serve.engine import vllm  # noqa: F401
    with progress.doing("render"):
        return asyncio.run(_render(plan, body))


def _body(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f"The input is not JSON ({error}); send a list of messages, or the body of a chat "
            "completion."
        ) from None
    if isinstance(body, list):
        return {"messages": body}
    if isinstance(body, dict) and "messages" in body:
        return body
    raise RequestError(
        "The input has no messages; send a JSON list of messages, or the body of a chat completion."
    )


async def _render(plan: Plan, body: dict[str, Any]) -> RenderedPrompt:
    from gemma_serve.api.fields import check_fields
    from gemma_serve.engine.vllm import (
        PARSE_ERRORS,
        ChatRequest,
        render_chat,
        renderer_without_engine,
        translate,
    )

    try:
        request = ChatRequest.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RequestError(f"The conversation can't be read: {where}: {first['msg']}.") from None
    except PARSE_ERRORS as error:
        raise translate(error) from error
    resolved = plan.resolved
    renderer = await renderer_without_engine(
        resolved.engine_kwargs(), resolved.frontend_kwargs(), plan.loaded.profile, plan.checkpoint
    )
    check_fields(renderer.renderer.variables(renderer.chat_template), request)
    return await render_chat(renderer, request)


def print_rendered(rendered: RenderedPrompt) -> None:
    """Print a prompt for people: the text as it is, then what the engine gets."""
    print(rendered.prompt)
    print(f"\n--- {rendered.num_tokens} tokens: {rendered.token_ids}")
    print(f"--- stops at: {rendered.stop_token_ids}")
    print(f"--- rules: {', '.join(rendered.rules) or 'none'}")
