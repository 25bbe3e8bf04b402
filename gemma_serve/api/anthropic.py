"""Anthropic's routes: messages and count_tokens."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from gemma_serve.api.fields import check_request
from gemma_serve.api.json_body import JsonRoute
from gemma_serve.api.respond import engine_of, respond, respond_in_turn, takes_requests
from gemma_serve.engine.vllm import (
    AnthropicCountTokensRequest,
    AnthropicMessagesRequest,
    with_cancellation,
)

inference = APIRouter(
    dependencies=[Depends(takes_requests)], route_class=JsonRoute, tags=["Anthropic"]
)


@inference.post("/v1/messages")
@with_cancellation
async def create_message(request: AnthropicMessagesRequest, raw_request: Request) -> Response:
    """Answer a conversation; `stream: true` for server-sent events."""
    check_request(engine_of(raw_request), request)
    messages = engine_of(raw_request).serving.anthropic_serving_messages
    call = messages.create_messages(request, raw_request)
    return await respond_in_turn(raw_request, call, request, exclude_none=True)


@inference.post("/v1/messages/count_tokens")
@with_cancellation
async def count_tokens(request: AnthropicCountTokensRequest, raw_request: Request) -> Response:
    """Prompt tokens of a conversation, without generating."""
    check_request(engine_of(raw_request), request)
    messages = engine_of(raw_request).serving.anthropic_serving_messages
    call = messages.count_tokens(request, raw_request)
    return await respond(raw_request, call, model=request.model, exclude_none=True)
