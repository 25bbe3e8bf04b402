"""The workers of a node that answers no requests, as `vllm serve --headless` runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vllm import AsyncEngineArgs
from vllm.usage.usage_lib import UsageContext
from vllm.v1.executor.multiproc_executor import MultiprocExecutor

from gemma_serve.engine.vllm.engine import with_config_objects


def follow(engine_kwargs: Mapping[str, Any], on_ready: Callable[[], None]) -> None:
    """
    Start this node's workers for node 0, and return when one of them has ended.

    Raises:
        Exception: whatever vLLM raises.
    """
    args = AsyncEngineArgs(**with_config_objects(engine_kwargs))
    context = UsageContext.OPENAI_API_SERVER
    config = args.create_engine_config(usage_context=context, headless=True)
    executor = MultiprocExecutor(config, monitor_workers=False)
    on_ready()
    executor.start_worker_monitor(inline=True)
