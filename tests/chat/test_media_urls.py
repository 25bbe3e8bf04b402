"""Where an image may be fetched from, and what its server may do (class G2)."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

import httpcore
import pytest

from gemma_serve.chat.media import Fetcher, ImageLoader
from gemma_serve.chat.media.address import is_public, resolve
from gemma_serve.chat.media.fetch import MAX_URL_CHARS
from gemma_serve.errors import RequestError
from gemma_serve.profile.schema import Images
from tests.chat import evil_server as evil
from tests.chat.evil_images import picture, saved
from tests.chat.evil_server import HOST, PUBLIC, Answer, Detour, evil_server, respond

SETTINGS = Images(fetch_urls=True, fetch_timeout_s=5, max_bytes=100_000)
PICTURE = saved(picture(), "PNG")
GOOD = respond(PICTURE, "Content-Type: image/png")

# What public names of an attacker, and private names of ours, may resolve to.
PRIVATE_NAMES = {
    "localhost": ["127.0.0.1", "::1"],
    "localhost.localdomain": ["127.0.0.1"],
    "127.0.0.1.nip.io": ["127.0.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
    "metadata": ["169.254.169.254"],
    "instance-data": ["169.254.169.254"],
    "instance-data.ec2.internal": ["169.254.169.254"],
    "kubernetes.default.svc": ["10.96.0.1"],
    "db.internal": ["10.0.0.5"],
    "router.lan": ["192.168.1.1"],
    "docker-host": ["172.17.0.1"],
    "mixed.example": [PUBLIC, "127.0.0.1"],
    "mixed-v6.example": ["2606:2800:21f:cb07::1", "fd00::1"],
    "last.example": [PUBLIC, "2606:2800:21f:cb07::1", "10.0.0.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "mapped-private.example": ["::ffff:10.0.0.1"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "nat64-metadata.example": ["64:ff9b::a9fe:a9fe"],
    "nat64-local.example": ["64:ff9b:1::a00:1"],
    "sixtofour.example": ["2002:7f00:1::"],
    "teredo.example": ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "compatible.example": ["::7f00:1"],
    "link-local.example": ["fe80::1%lo"],
    "site-local.example": ["fec0::1"],
    "ula-metadata.example": ["fd00:ec2::254"],
    "multicast.example": ["224.0.1.1"],
    "multicast-v6.example": ["ff0e::1"],
    "broadcast.example": ["255.255.255.255"],
    "reserved.example": ["240.0.0.1"],
    "shared.example": ["100.64.0.1"],
    "alibaba-metadata.example": ["100.100.100.200"],
    "oracle-metadata.example": ["192.0.0.192"],
    "azure-agent.example": ["168.63.129.16"],
    "benchmark.example": ["198.18.0.1"],
    "documentation.example": ["203.0.113.7"],
    "documentation-v6.example": ["2001:db8::1"],
    "relay.example": ["192.88.99.1"],
    "unspecified.example": ["0.0.0.0", "::"],
    "no-addresses.example": [],
}

ADDRESS_FORMS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0X7F.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "0177.0.0.0x1",
    "00000177.0.0.1",
    "127.0.0.1.",
    "0",
    "0.0.0.0",
    "10.0.0.1",
    "10.1",
    "172.16.0.1",
    "192.168.0.1",
    "192.168.257",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "255.255.255.255",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[fd00::1]",
    "[fe80::1%25lo]",
    "[fd00:ec2::254]",
    "[2002:7f00:1::]",
]

FORMS = [
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "FILE:///etc/passwd",
    "ftp://images.example/a.png",
    "gopher://127.0.0.1:443/_GET",
    "dict://127.0.0.1:443/",
    "ldap://127.0.0.1:443/",
    "unix:/run/docker.sock",
    "jar:https://images.example/a.zip!/a.png",
    "blob:https://images.example/1",
    "about:blank",
    "javascript:alert(1)",
    "data:text/plain;base64,QUJD",
    "data:text/html,<b>",
    "http://images.example/a.png",
    "HTTP://127.0.0.1/",
    "https:images.example/a.png",
    "https:/images.example/a.png",
    "https:///images.example/a.png",
    "https://",
    "https:///",
    "https://?",
    "https://#",
    "https://.",
    "https://..",
    "https://a..b/",
    "//images.example/a.png",
    "images.example/a.png",
    "",
    " ",
    " https://images.example/",
    "https://images.example/ ",
    "https://images.example/a b.png",
    "https://images.example/\ta.png",
    "https://images.example/\r\nHost: evil/",
    "https://images.example/\n",
    "https://images.example/\0",
    "https://images.example\0.evil.example/",
    "https://images.example/\x7f",
    "https://user@images.example/",
    "https://user:password@images.example/",
    "https://images.example@127.0.0.1/",
    "https://images.example:443@127.0.0.1/",
    "https://:@images.example/",
    "https://images.example%40127.0.0.1/",
    "https://images.example\\@127.0.0.1/",
    "https://127.0.0.1\\@images.example/",
    "https:\\\\images.example\\a.png",
    "https://images.example\\.evil.example/",
    "https://images.example/..\\..\\a.png",
    "https://127.0.0.1#@images.example/",
    "https://127.0.0.1?@images.example/",
    "https://images.example:22/",
    "https://images.example:80/",
    "https://images.example:8443/",
    "https://images.example:0/",
    "https://images.example:65979/",
    "https://images.example:-443/",
    "https://images.example:+443/",
    "https://images.example:0443/",
    "https://images.example:443:443/",
    "https://images.example:/",
    "https://images.example:https/",
    "https://images。example/",
    "https://127。0。0。1/",
    "https://127.0.0.1/",
    "https://①②⑦.⓪.⓪.①/",
    "https://\uff4cocalhost/",
    "https://ⓔxample.com/",
    "https://xn--/",
    "https://bücher.example/",
    "https://\u0131t.example/",
    "https://images.example/\u00e9.png",
    "https://images.example/\u202egnp.a",
    "https://images.example/\ud800",
    "https://[images.example]/",
    "https://[::1",
    "https://::1/",
    "https://%31%32%37.0.0.1/",
    "https://127%2e0%2e0%2e1/",
    "https://$(id).example/",
    "https://" + "a" * 64 + ".example/",
    "https://" + "a." * 200 + "example/",
    "https://images.example/" + "a" * MAX_URL_CHARS,
]

BAD_URLS = FORMS + [f"https://{host}/a.png" for host in [*ADDRESS_FORMS, *PRIVATE_NAMES]]


def lookup(host: str) -> list[str]:
    """Answers as the internet might; numbers are read by the system, as they would be."""
    if host == HOST or host.endswith((f".{HOST}", "1.example")):
        return [PUBLIC]
    if host in PRIVATE_NAMES:
        return PRIVATE_NAMES[host]
    if re.fullmatch(r"[0-9a-fx.]+", host):
        return resolve(host)
    host.encode("idna")
    raise OSError(-2, "Name or service not known by 10.0.0.2")


def refusal(fetching: Callable[[], Any]) -> RequestError:
    """The refusal; it must not tell what only this machine knows."""
    with pytest.raises(RequestError) as caught:
        asyncio.run(fetching())
    error = caught.value
    assert (error.status, error.code) == (400, "invalid_image_url")
    assert len(error.message) <= 300
    assert not re.search(r"\d+\.\d+\.\d+\.\d+|::|0x|Errno|\[|getaddrinfo|SSL", error.message)
    assert error.__cause__ is None
    return error


class Canary:
    """A socket on loopback that counts who comes."""

    async def __aenter__(self) -> Canary:
        self.visits = 0
        self._server = await asyncio.start_server(self._visit, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)
        self._server.close()

    async def _visit(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        writer.close()


def test_the_class_is_complete() -> None:
    """Class G2 holds at least the hundred and ten inputs that were promised."""
    assert len(BAD_URLS) + len(MISBEHAVIOUR) + len(REDIRECTS) >= 110
    assert len(set(BAD_URLS)) == len(BAD_URLS)


@pytest.mark.parametrize("url", BAD_URLS, ids=[ascii(url)[:60] for url in BAD_URLS])
def test_bad_url_reaches_nobody(url: str) -> None:
    """A URL that leads anywhere but to the public internet is refused before any packet."""

    async def fetching() -> None:
        async with Canary() as canary:
            detour = Detour(canary.port)
            loader = ImageLoader(SETTINGS, Fetcher(SETTINGS, resolve=lookup, network=detour))
            try:
                await loader.load(url, param="messages[0].content[0]")
            finally:
                await loader.aclose()
                assert (canary.visits, detour.asked) == (0, [])

    assert refusal(fetching).param == "messages[0].content[0]"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "[::1]", "0.0.0.0"])
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_real_network_refuses_loopback(scheme: str, host: str) -> None:
    """With nothing put in its place, the fetcher does not touch a socket that listens here."""

    async def fetching() -> None:
        async with Canary() as canary:
            fetcher = Fetcher(SETTINGS)
            try:
                await fetcher.fetch(f"{scheme}://{host}:{canary.port}/")
            finally:
                fetcher.close()
                assert canary.visits == 0

    refusal(fetching)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1"])
def test_real_network_refuses_loopback_at_443(host: str) -> None:
    """The port is no way around the address."""

    async def fetching() -> None:
        fetcher = Fetcher(SETTINGS)
        try:
            await fetcher.fetch(f"https://{host}/")
        finally:
            fetcher.close()

    assert "without a public address" in refusal(fetching).message


def test_fetching_is_off_by_default() -> None:
    """Without images.fetch_urls nothing is looked up, and the way out is named."""

    async def fetching() -> None:
        loader = ImageLoader(Images())
        try:
            await loader.load(f"https://{HOST}/a.png", param="messages[0].content[0]")
        finally:
            await loader.aclose()

    assert refusal(fetching).message == (
        "Images by URL are off here; send the image as a data: URL (data:image/png;base64,...), "
        "or the operator may set images.fetch_urls."
    )


@pytest.mark.parametrize(
    ("text", "public"),
    [
        (PUBLIC, True),
        ("8.8.8.8", True),
        ("2606:2800:21f:cb07::1", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True),
        ("2002:808:808::", True),
        *[(found, False) for found in ["127.0.0.1", "::1", "3fff::1", "5f00::1", "100::1"]],
    ],
)
def test_public_addresses(text: str, public: bool) -> None:
    """Public is what the internet routes, also inside IPv6 forms that carry IPv4."""
    assert is_public(text) is public


async def fetch(
    paths: dict[str, Answer],
    url: str = f"https://{HOST}/a.png",
    settings: Images = SETTINGS,
    resolver: Callable[[str], list[str]] = lookup,
    names: tuple[str, ...] = (HOST,),
) -> tuple[bytes, evil.EvilServer, Detour]:
    """The bytes that the evil server's answer becomes, with the server and the way to it."""
    async with evil_server(paths, *names) as server:
        detour = Detour(server.port)
        fetcher = Fetcher(
            settings, resolve=resolver, network=detour, ssl_context=server.client_context
        )
        try:
            return await fetcher.fetch(url), server, detour
        finally:
            fetcher.close()
            assert all(is_public(host) and port == 443 for host, port in detour.asked)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        (f"https://{HOST}/a.png", "/a.png"),
        (f"HTTPS://{HOST.upper()}:443/a.png?size=1&b=%20#part", "/a.png?size=1&b=%20"),
        (f"https://{HOST}.", "/"),
        (f"https://{HOST}?q=[1]", "/?q=[1]"),
        (f"https://{HOST}#@127.0.0.1/", "/"),
    ],
)
def test_good_url_is_fetched(url: str, target: str) -> None:
    """An https URL is fetched from the address that was checked, with nothing of ours in it."""
    body, server, detour = asyncio.run(fetch({target: GOOD}, url))
    assert body == PICTURE
    assert detour.asked == [(PUBLIC, 443)]
    assert server.heads == [
        f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n"
        "Accept: image/png,image/jpeg,image/webp,image/gif\r\nAccept-Encoding: identity\r\n"
        "Connection: close\r\nUser-Agent: gemma-serve\r\n\r\n"
    ]


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy sees a client's URL, whatever the environment says."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    body, _, detour = asyncio.run(fetch({"/a.png": GOOD}))
    assert (body, detour.asked) == (PICTURE, [(PUBLIC, 443)])


def test_name_is_looked_up_once() -> None:
    """A name that is public at first and loopback later can't change the address in between."""
    answers = [[PUBLIC], ["127.0.0.1"]]
    body, _, detour = asyncio.run(fetch({"/a.png": GOOD}, resolver=lambda host: answers.pop(0)))
    assert (body, detour.asked) == (PICTURE, [(PUBLIC, 443)])
    assert answers == [["127.0.0.1"]]


def test_rebinding_on_a_redirect_is_refused() -> None:
    """The next hop is looked up and checked anew, also at the same host."""
    answers = [[PUBLIC], ["127.0.0.1"]]
    paths = {"/a.png": evil.redirect("/b.png"), "/b.png": GOOD}
    error = refusal(lambda: fetch(paths, resolver=lambda host: answers.pop(0)))
    assert "without a public address" in error.message


def test_next_address_is_tried() -> None:
    """A host with an address that does not answer is reached at its next one."""

    class HalfDead(Detour):
        async def connect_tcp(self, host: str, port: int, *args: Any) -> Any:
            if host != PUBLIC:
                raise httpcore.ConnectError
            return await super().connect_tcp(host, port, *args)

    async def fetching() -> bytes:
        async with evil_server({"/a.png": GOOD}) as server:
            fetcher = Fetcher(
                SETTINGS,
                resolve=lambda host: ["2606:2800:21f:cb07::1", PUBLIC],
                network=HalfDead(server.port),
                ssl_context=server.client_context,
            )
            return await fetcher.fetch(f"https://{HOST}/a.png")

    assert asyncio.run(fetching()) == PICTURE


def test_certificate_must_be_the_hosts() -> None:
    """A certificate for another name is refused."""
    refusal(lambda: fetch({"/a.png": GOOD}, names=("other.example",)))


def test_certificate_must_be_trusted() -> None:
    """A certificate of an unknown authority is refused, before any request is sent."""

    async def fetching() -> None:
        async with evil_server({"/a.png": GOOD}) as server:
            fetcher = Fetcher(SETTINGS, resolve=lookup, network=Detour(server.port))
            try:
                await fetcher.fetch(f"https://{HOST}/a.png")
            finally:
                assert server.heads == []

    refusal(fetching)


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_redirects_are_followed(hops: int) -> None:
    """Up to three redirects, relative or absolute, lead to the image."""
    paths = {f"/{at}": evil.redirect(f"https://{HOST}/{at + 1}") for at in range(1, hops)}
    paths |= {"/a.png": evil.redirect("1"), f"/{hops}": GOOD}
    body, server, _ = asyncio.run(fetch(paths))
    assert body == PICTURE
    assert len(server.heads) == hops + 1


REDIRECTS = [
    "https://127.0.0.1/",
    "https://localhost/",
    "https://[::1]/",
    "https://2130706433/",
    "https://metadata.google.internal/",
    "https://mixed.example/",
    "https://images.example:8443/",
    "https://user@images.example/",
    "http://images.example/a.png",
    "//127.0.0.1/",
    "\\\\127.0.0.1\\",
    "file:///etc/passwd",
    "data:image/png;base64,AAAA",
    "ftp://images.example/",
    "javascript:alert(1)",
    "https://images.example/b c",
    "https://images.example/\u00e9",
    "https://unknown.invalid/",
    "https://[/",
    "",
    "/a.png",
]


@pytest.mark.parametrize("location", REDIRECTS)
def test_bad_redirect_is_refused(location: str) -> None:
    """A redirect to what is refused as a URL, or in a circle, is refused."""
    refusal(lambda: fetch({"/a.png": evil.redirect(location)}))


def test_redirect_without_end() -> None:
    """Of fifty redirects four requests are made."""
    paths = {f"/{at}": evil.redirect(f"/{at + 1}") for at in range(50)}
    error = refusal(lambda: fetch(paths, f"https://{HOST}/0"))
    assert "redirects more than 3 times" in error.message


TOO_LONG = respond(bytes(100_001))
MISBEHAVIOUR: dict[str, tuple[Answer, str]] = {
    "too_long": (TOO_LONG, "more than 100000 bytes"),
    "endless": (evil.endless, "more than 100000 bytes"),
    "endless_chunks": (evil.endless_chunks, ""),
    "huge_length_then_endless": (respond(bytes(200_000), "Content-Length: 9999999"), "more than"),
    "endless_interim": (evil.endless_interim, "took over 0.5 s"),
    "endless_head": (evil.endless_head, "could not be fetched"),
    "drip": (evil.drip, "took over 0.5 s"),
    "silent": (evil.silent, "took over 0.5 s"),
    "says_more_than_it_sends": (respond(b"short", "Content-Length: 50"), "could not be fetched"),
    "length_is_no_number": (respond(b"x", "Content-Length: many"), "could not be fetched"),
    "length_negative": (respond(b"x", "Content-Length: -1"), "could not be fetched"),
    "two_lengths": (
        respond(b"x", "Content-Length: 1", "Content-Length: 2"),
        "could not be fetched",
    ),
    "bad_chunk": (respond(b"zz\r\n", "Transfer-Encoding: chunked"), "could not be fetched"),
    "gzip_bomb": (evil.gzip_bomb(50_000_000), "compressed encoding"),
    "deflate": (respond(b"x", "Content-Encoding: deflate"), "compressed encoding"),
    "brotli_after_identity": (
        respond(b"x", "Content-Encoding: identity", "Content-Encoding: br"),
        "compressed encoding",
    ),
    "not_found": (respond(b"no", status="404 Not Found"), "HTTP status 404"),
    "server_error": (respond(b"no", status="500 Oops"), "HTTP status 500"),
    "wants_a_password": (
        respond(b"", 'WWW-Authenticate: Basic realm="x"', status="401 Unauthorized"),
        "HTTP status 401",
    ),
    "partial": (respond(PICTURE, status="206 Partial Content"), "HTTP status 206"),
    "no_content": (respond(b"", status="204 No Content"), "HTTP status 204"),
    "not_modified": (respond(b"", status="304 Not Modified"), "HTTP status 304"),
    "redirect_without_location": (respond(b"", status="302 Found"), "redirects more than 3"),
    "not_http": (evil.raw(b"SSH-2.0-OpenSSH_9.9\r\n"), "could not be fetched"),
    "nothing": (evil.raw(b""), "could not be fetched"),
    "http_0_9": (evil.raw(PICTURE), "could not be fetched"),
    "switches_protocol": (
        respond(b"", "Upgrade: h2c", "Connection: Upgrade", status="101 Switching Protocols"),
        "",
    ),
}


@pytest.mark.parametrize("name", MISBEHAVIOUR)
def test_misbehaving_server(name: str) -> None:
    """Whatever the other server does, the client gets a 400 within the time and byte limits."""
    answer, message = MISBEHAVIOUR[name]
    hurried = Images(fetch_urls=True, fetch_timeout_s=0.5, max_bytes=100_000)
    error = refusal(lambda: fetch({"/a.png": answer}, settings=hurried))
    assert message in error.message


def test_time_covers_the_resolver() -> None:
    """A name server that does not answer is given up in the same time."""
    hurried = Images(fetch_urls=True, fetch_timeout_s=0.1)

    def slow(host: str) -> list[str]:
        time.sleep(0.5)
        return [PUBLIC]

    error = refusal(lambda: fetch({}, settings=hurried, resolver=slow))
    assert "took over 0.1 s" in error.message


def test_body_at_the_limit_is_taken() -> None:
    """Exactly max_bytes are fetched."""
    body, _, _ = asyncio.run(fetch({"/a.png": respond(bytes(100_000))}))
    assert len(body) == 100_000


def test_fetched_image_is_decoded() -> None:
    """The loader gives vLLM the pixels, and nothing of the URL."""

    async def loading() -> str:
        async with evil_server({"/a.png": GOOD}) as server:
            network = Detour(server.port)
            fetcher = Fetcher(
                SETTINGS, resolve=lookup, network=network, ssl_context=server.client_context
            )
            loader = ImageLoader(SETTINGS, fetcher)
            try:
                return await loader.load(f"https://{HOST}/a.png", param="")
            finally:
                await loader.aclose()

    assert asyncio.run(loading()).startswith("data:image/bmp;base64,Qk")
