"""ModelStreamInfer: many requests in, their responses out as they come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb

from gemma_serve.api.kserve.grpc_errors import MAX_MESSAGE_CHARS, NobodyReadsError
from gemma_serve.api.kserve.grpc_inference import Inference
from gemma_serve.api.kserve.grpc_messages import write_response
from gemma_serve.api.kserve.grpc_unreadable import UNREADABLE
from gemma_serve.api.kserve.service import KServe
from gemma_serve.errors import GemmaServeError, InternalError, RequestError

logger = logging.getLogger("gemma_serve.triton")
# Requests of one stream that run at once; the rest waits in the connection.
MAX_STREAM_REQUESTS = 256


class InferStream:
    """One call of ModelStreamInfer; an error ends its request, not the stream."""

    def __init__(self, service: KServe, context: Any) -> None:
        self.service, self.context = service, context
        self.limits = service.state.profile.limits
        self.free = asyncio.Semaphore(MAX_STREAM_REQUESTS)
        self.writing = asyncio.Lock()  # gRPC takes one message at a time
        self.answering: set[asyncio.Task[None]] = set()

    async def answer_all(self, requests: AsyncIterator[Any]) -> None:
        """Answer until the client has said all; cancelled, until every request has left."""
        # The error is of a stream that `_end` has ended meanwhile, and gRPC knows it already.
        async with asyncio.TaskGroup() as group:
            with suppress(grpc.aio.BaseError):
                await self.free.acquire()  # first: what is not read waits in the connection
                async for request in requests:
                    task = group.create_task(self._answer(request))
                    self.answering.add(task)
                    task.add_done_callback(self.answering.discard)
                    await self.free.acquire()

    async def _answer(self, request: Any) -> None:
        try:
            if not self.context.done():
                await self._infer_or_refuse(request)
        except NobodyReadsError:
            await self._end()
        except grpc.aio.BaseError:
            pass  # nothing can be written any more, and gRPC cancels the stream
        finally:
            self.free.release()

    async def _end(self) -> None:
        """
        End the stream of a client that takes nothing of it, with all of its requests.

        Not by an exception out of `answer_all`: that would cancel its waiting for the next message,
        which gRPC then writes to memory that is free. So it waits on, for the client's end.
        """
        if self.context.done():
            return
        for task in self.answering - {asyncio.current_task()}:
            task.cancel()
        with suppress(grpc.aio.BaseError):
            # What is on its way comes first, should the client read again.
            await self.context.abort(
                grpc.StatusCode.CANCELLED,
                f"Nothing of the answers was read for {self.limits.write_timeout_s:g} s "
                "(limits.write_timeout_s); read them as they come.",
            )

    async def _infer_or_refuse(self, request: Any) -> None:
        if request is None:
            await self._refuse(pb.ModelInferRequest(), RequestError(UNREADABLE))
            return
        try:
            await self._infer(request)
        except (grpc.aio.BaseError, NobodyReadsError):
            raise
        except GemmaServeError as error:
            await self._refuse(request, error)
        except Exception:
            logger.exception("A streamed request failed.")
            await self._refuse(request, InternalError("The server failed on this request."))

    async def _infer(self, request: Any) -> None:
        # What is open is the request, not the stream, which its client may keep and say nothing.
        inference = Inference(self.service.state, self.context, in_stream=True)
        with inference.of(request) as read:
            async with aclosing(self.service.infer(read)) as responses:
                async for response in responses:
                    # From here, without a queue between: a slow reader is waited for.
                    said = pb.ModelStreamInferResponse(infer_response=write_response(response))
                    await self._write(said)

    async def _refuse(self, request: Any, error: GemmaServeError) -> None:
        whose = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
        message = error.message[:MAX_MESSAGE_CHARS]
        await self._write(pb.ModelStreamInferResponse(error_message=message, infer_response=whose))

    async def _write(self, response: Any) -> None:
        async with self.writing:
            try:
                async with asyncio.timeout(self.limits.write_timeout_s):
                    await self.context.write(response)
            except TimeoutError:
                raise NobodyReadsError from None
