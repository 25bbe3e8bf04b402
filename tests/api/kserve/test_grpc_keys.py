"""KServe v2 over gRPC with API keys."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import pytest
import tritonclient.grpc as grpcclient
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.api.kserve.grpc_clients import GREEDY, SERVICE, WAIT_S, Stream, code_of
from tests.api.kserve.triton_clients import inputs_of
from tests.conftest import KEY, OTHER_KEY
from tests.servers import Server

Health = health_pb2_grpc.HealthStub


def test_keys(keyed_server: Server) -> None:
    """With keys set, every method but the probes wants one, as a bearer token or x-api-key."""
    with (
        grpcclient.InferenceServerClient(keyed_server.grpc_address) as client,
        grpc.insecure_channel(keyed_server.grpc_address) as channel,
    ):
        assert client.is_server_live()
        assert client.is_server_ready()
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        serving = health_pb2.HealthCheckResponse.SERVING
        assert Health(channel).Check(request, timeout=WAIT_S).status == serving
        watching = Health(channel).Watch(request, timeout=WAIT_S)
        assert next(watching).status == serving
        watching.cancel()

        known = (
            {"authorization": f"Bearer {KEY}"},
            {"authorization": f"bearer {OTHER_KEY}"},
            {"x-api-key": OTHER_KEY},
        )
        unknown = ({}, {"authorization": "Bearer guess"}, {"x-api-key": ""}, {"x-api-key": "b"})
        inputs = inputs_of(grpcclient, {**GREEDY, "max_new_tokens": 2})
        methods: list[Callable[..., Any]] = [
            client.get_server_metadata,
            partial(client.is_model_ready, "tiny"),
            partial(client.get_model_metadata, "tiny"),
            partial(client.get_model_config, "tiny"),
            client.get_inference_statistics,
            client.get_model_repository_index,
            partial(client.infer, "tiny", inputs),
        ]
        for method in methods:
            for headers in known:
                assert method(headers=headers)
            for headers in unknown:
                with pytest.raises(InferenceServerException, match="No API key") as caught:
                    method(headers=headers)
                assert code_of(caught.value) == "UNAUTHENTICATED"

        refused = Stream(client)
        _, error = refused.answers.get(timeout=WAIT_S)
        assert error is not None
        assert code_of(error) == "UNAUTHENTICATED"
        client.stop_stream()
        allowed = Stream(client, headers=known[0])
        allowed.send("1", {**GREEDY, "max_new_tokens": 2})
        assert list(allowed.until_final(1)) == ["1"]
        client.stop_stream()

        with keyed_server.client() as http:
            for path in ("/v2/health/live", "/v2/health/ready"):
                assert http.get(path).status_code == 200
            answer = http.get("/v2/models/tiny")
            assert (answer.status_code, list(answer.json())) == (401, ["error"])
            assert http.get("/v2", headers=known[2]).status_code == 200
        assert KEY not in keyed_server.output()
