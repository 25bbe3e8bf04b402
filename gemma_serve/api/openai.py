"""OpenAI's routes (chat, completions, responses, models) and vLLM's (tokenize, detokenize)."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from gemma_serve.api.fields import check_request
from gemma_serve.api.json_body import JsonRoute
from gemma_serve.api.respond import (
    engine_of,
    respond,
    respond_in_turn,
    server_state,
    takes_requests,
)
from gemma_serve.engine.vllm import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    ResponsesRequest,
    TokenizeRequest,
    render_chat,
    with_cancellation,
)

inference = APIRouter(dependencies=[Depends(takes_requests)], route_class=JsonRoute)
router = APIRouter()


@inference.post("/v1/chat/completions", tags=["OpenAI"])
@with_cancellation
async def create_chat_completion(request: ChatRequest, raw_request: Request) -> Response:
    """Answer a chat; `stream: true` for server-sent events."""
    check_request(engine_of(raw_request), request)
    chat = engine_of(raw_request).serving.openai_serving_chat
    call = chat.create_chat_completion(request, raw_request)
    return await respond_in_turn(raw_request, call, request)


@inference.post("/v1/chat/completions/render", tags=["OpenAI"])
@with_cancellation
async def render_chat_completion(request: ChatRequest, raw_request: Request) -> Response:
    """The exact prompt of a chat: text, token ids, stop ids, rules applied; generates nothing."""
    engine = engine_of(raw_request)
    check_request(engine, request)
    engine.check_model(request.model)
    call = render_chat(engine.serving.online_renderer, request)
    return await respond(raw_request, call, model=request.model)


@inference.post("/v1/completions", tags=["OpenAI"])
@with_cancellation
async def create_completion(request: CompletionRequest, raw_request: Request) -> Response:
    """Continue raw text or token ids."""
    engine = engine_of(raw_request)
    check_request(engine, request)
    request.allow_tokens(engine.max_model_len)
    completion = engine.serving.openai_serving_completion
    call = completion.create_completion(request, raw_request)
    return await respond_in_turn(raw_request, call, request)


@inference.post("/v1/responses", tags=["OpenAI"])
@with_cancellation
async def create_response(request: ResponsesRequest, raw_request: Request) -> Response:
    """Answer through the Responses API."""
    check_request(engine_of(raw_request), request)
    responses = engine_of(raw_request).serving.openai_serving_responses
    call = responses.create_responses(request, raw_request)
    return await respond_in_turn(raw_request, call, request, by_alias=True)


@inference.post("/tokenize", tags=["vLLM"])
@with_cancellation
async def tokenize(request: TokenizeRequest, raw_request: Request) -> Response:
    """Token ids of a text or of a chat, as the model would get them."""
    check_request(engine_of(raw_request), request)
    tokenization = engine_of(raw_request).serving.serving_tokenization
    call = tokenization.create_tokenize(request, raw_request)
    return await respond(raw_request, call, model=request.model)


@inference.post("/detokenize", tags=["vLLM"])
@with_cancellation
async def detokenize(request: DetokenizeRequest, raw_request: Request) -> Response:
    """Text of token ids."""
    check_request(engine_of(raw_request), request)
    tokenization = engine_of(raw_request).serving.serving_tokenization
    call = tokenization.create_detokenize(request, raw_request)
    return await respond(raw_request, call, model=request.model)


@router.get("/v1/models", tags=["OpenAI"])
async def list_models(raw_request: Request) -> Response:
    """The served names, adapters included."""
    if not server_state(raw_request).ready:
        raise server_state(raw_request).unavailable()
    models = engine_of(raw_request).serving.openai_serving_models
    return await respond(raw_request, models.show_available_models(), model=None)
