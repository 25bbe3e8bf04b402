"""gRPC over TLS: the port's certificate, held against a client's authority; no engine needed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import tritonclient.grpc.aio as grpcclient
import trustme
from tritonclient.utils import InferenceServerException

from gemma_serve.api.kserve.service import KServe
from gemma_serve.api.kserve_grpc import GrpcServer
from gemma_serve.api.state import ServerState
from gemma_serve.engine.timeline import Timeline
from gemma_serve.profile.schema import Profile, Server, Tls


def serving_tls(directory: Path, authority: trustme.CA) -> GrpcServer:
    """The gRPC side of a server that is starting, with a certificate for 127.0.0.1."""
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(directory / "chain.pem", append=True)
    tls = Tls(certfile=str(directory / "chain.pem"), keyfile=str(directory / "key.pem"))
    profile = Profile(model="tiny", server=Server(host="127.0.0.1", tls=tls))
    return GrpcServer(KServe(ServerState(profile, Timeline())))


def test_tls(tmp_path: Path) -> None:
    """A client that trusts the authority is answered; one without TLS, or of another, is not."""
    authority, other = trustme.CA(), trustme.CA()
    for name, one in (("ours.pem", authority), ("other.pem", other)):
        one.cert_pem.write_to_path(tmp_path / name)

    async def ask(port: int, **options: object) -> bool:
        async with grpcclient.InferenceServerClient(f"127.0.0.1:{port}", **options) as client:
            return await client.is_server_live(client_timeout=5)

    async def check() -> None:
        server = serving_tls(tmp_path, authority)
        port = await server.start(0)
        try:
            assert await ask(port, ssl=True, root_certificates=str(tmp_path / "ours.pem"))
            for options in ({}, {"ssl": True, "root_certificates": str(tmp_path / "other.pem")}):
                with pytest.raises(InferenceServerException):
                    await ask(port, **options)
        finally:
            await server.stop()

    asyncio.run(check())
