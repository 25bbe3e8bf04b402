"""The ports: taken in time, refused with the reason, given back."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gemma_serve.errors import ProfileError, StartupError
from gemma_serve.listen import HttpServer, check_tls, listen, open_ports
from gemma_serve.profile.schema import Limits, Server, Tls

NOBODY = 65534


def refusal(host: str, port: int) -> str:
    """The sentence that this address is refused with."""
    with pytest.raises(StartupError) as caught:
        listen(host, port, "server.port")
    return caught.value.message


def test_port_is_ours_from_the_first_moment() -> None:
    """A second program is refused at once: to bind alone would let both go on."""
    with listen("127.0.0.1", 0, "server.port") as first:
        port = first.getsockname()[1]

        assert refusal("127.0.0.1", port) == (
            f"Port {port} on 127.0.0.1 is taken by process {os.getpid()} "
            f"({psutil.Process().name()}); stop that program or choose another server.port."
        )


def test_connections_wait_for_the_server() -> None:
    """A client that comes early is not refused, it waits."""
    with (
        listen("127.0.0.1", 0, "server.port") as listening,
        socket.create_connection(listening.getsockname(), timeout=5) as client,
    ):
        assert client.getpeername() == listening.getsockname()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "a" * 70, "", "::2"])
def test_host_that_is_not_of_this_machine(host: str) -> None:
    """Unknown names, other machines' addresses and what is no name at all get one sentence."""
    assert refusal(host, 0) == (
        f"server.host {host!r} is no address of this machine; use 127.0.0.1 or 0.0.0.0."
    )


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """As a user who is not root: Linux takes root's capabilities away with its effective id."""
    before = os.geteuid()
    os.seteuid(before or NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def test_port_that_needs_rights() -> None:
    """A port below 1024 is refused with the ports that are free to use."""
    with without_rights():
        sentence = refusal("127.0.0.1", 1)
    assert sentence == (
        "Port 1 needs more rights than this user has; use server.port 1024 or higher."
    )


def test_ports_are_given_back() -> None:
    """After the with block, and when the second port is refused, another program gets them."""
    with open_ports(Server(port=0, metrics_port=0, probe_port=0)) as ports:
        assert ports.metrics is not None
        assert ports.probe is not None
        numbers = [ports.http.getsockname()[1], ports.metrics.getsockname()[1]]
    with listen("127.0.0.1", numbers[1], "server.port") as taken:
        settings = Server(port=numbers[0], metrics_port=taken.getsockname()[1])
        with (
            pytest.raises(StartupError, match=r"another server\.metrics_port\.$"),
            open_ports(settings),
        ):
            pass
        listen("127.0.0.1", numbers[0], "server.port").close()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:{port}"),
        ("0.0.0.0", "http://127.0.0.1:{port}"),
        ("localhost", "http://localhost:{port}"),
        ("::1", "http://[::1]:{port}"),
    ],
)
def test_url_is_one_that_a_client_here_can_use(host: str, url: str) -> None:
    """The printed address is reachable: no wildcard, IPv6 in brackets."""
    with open_ports(Server(port=0)) as ports:
        port = ports.http.getsockname()[1]
        server = HttpServer(None, None, ports, Server(host=host), Limits())

        assert server.url == url.format(port=port)


# --- certificates


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with cert.pem, its key.pem, a locked.pem that needs a password, and other.pem."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates and is not installed")
    directory = tmp_path_factory.mktemp("tls")
    new = "openssl req -x509 -newkey rsa:2048 -days 2 -subj /CN=localhost"
    for command in (
        f"{new} -nodes -keyout key.pem -out cert.pem",
        f"{new} -nodes -keyout other.pem -out /dev/null",
        "openssl rsa -aes256 -passout pass:word -in key.pem -out locked.pem",
    ):
        subprocess.run(command.split(), cwd=directory, check=True, capture_output=True)
    return directory


def test_certificate_with_its_key(certificate: Path) -> None:
    """A PEM certificate with its key is taken."""
    check_tls(Tls(certfile=f"{certificate}/cert.pem", keyfile=f"{certificate}/key.pem"))


@pytest.mark.parametrize("key", ["other.pem", "locked.pem", "cert.pem"])
def test_key_that_does_not_belong(certificate: Path, key: str) -> None:
    """Another key, an encrypted one, or no key at all is refused, and nobody is asked anything."""
    with pytest.raises(ProfileError) as caught:
        check_tls(Tls(certfile=f"{certificate}/cert.pem", keyfile=f"{certificate}/{key}"))

    assert caught.value.message.startswith(
        f"server.tls.certfile '{certificate}/cert.pem' and server.tls.keyfile "
        f"'{certificate}/{key}' are no certificate with its unencrypted key ("
    )
    assert caught.value.message.endswith("); give PEM files that belong together.")


def test_key_file_that_is_missing(certificate: Path) -> None:
    """The file that can't be read is the one that is named."""
    with pytest.raises(ProfileError) as caught:
        check_tls(Tls(certfile=f"{certificate}/cert.pem", keyfile="/no/such/key.pem"))

    assert caught.value.message == (
        "server.tls.keyfile '/no/such/key.pem' can't be read (No such file or directory); "
        "give a PEM file."
    )
