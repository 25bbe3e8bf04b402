"""The exact prompt of a chat, without generating: on a running engine, or without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field
from starlette.datastructures import State
from vllm import AsyncEngineArgs
from vllm.entrypoints.launchers.render.app_state import init_render_app_state
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.renderers.online_renderer import OnlineRenderer
from vllm.usage.usage_lib import UsageContext

from gemma_serve.chat.prompts import applied_rules
from gemma_serve.engine.vllm.engine import forces_tools, serving_arguments, with_config_objects
from gemma_serve.engine.vllm.errors import refusal, translate
from gemma_serve.engine.vllm.protocol import ChatRequest
from gemma_serve.engine.vllm.renderer import install_renderer

if TYPE_CHECKING:
    from gemma_serve.gemma.checkpoint import Checkpoint
    from gemma_serve.profile.schema import Profile


class RenderedPrompt(BaseModel):
    """What the model would get, and where it would stop."""

    prompt: str = Field(description="The text that the template gave.")
    token_ids: list[int] = Field(description="What the engine gets; an image is many tokens.")
    num_tokens: int
    stop_token_ids: list[int] = Field(description="The answer ends at any of these.")
    rules: list[str] = Field(description="The rules that changed the conversation.")


async def render_chat(renderer: OnlineRenderer, request: ChatRequest) -> RenderedPrompt:
    """
    Render a chat as a completion of it would.

    Raises:
        GemmaServeError: what a completion would raise.
    """
    rules = applied_rules.get()
    if rules is None:
        applied_rules.set(rules := [])
    try:
        # Images are not to be remembered: the engine never sees them.
        result = await renderer.render_chat(request, skip_mm_cache=True)
    except Exception as error:
        raise translate(error) from error
    if isinstance(result, ErrorResponse):
        raise refusal(result)
    _, (engine_input,) = result
    token_ids = list(engine_input["prompt_token_ids"])
    return RenderedPrompt(
        prompt=engine_input["prompt"],
        token_ids=token_ids,
        num_tokens=len(token_ids),
        stop_token_ids=renderer.renderer.prompts.stop_token_ids,
        rules=rules,
    )


async def renderer_without_engine(
    engine_kwargs: Mapping[str, Any],
    frontend_kwargs: Mapping[str, Any],
    profile: Profile,
    checkpoint: Checkpoint,
) -> OnlineRenderer:
    """vLLM's renderer as the server would have it; loads the tokenizer and no weights."""
    install_renderer(profile, checkpoint)
    args = AsyncEngineArgs(**with_config_objects(engine_kwargs))
    config = args.create_engine_config(UsageContext.OPENAI_API_SERVER)
    state = State()
    await init_render_app_state(config, state, serving_arguments(engine_kwargs, frontend_kwargs))
    online: OnlineRenderer = state.online_renderer
    online.renderer.forces_tools = forces_tools(online.parser)
    return online
