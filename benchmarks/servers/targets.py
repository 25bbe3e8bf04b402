"""What a target on the command line names; nothing is started or looked up here but a file."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import httpx

from benchmarks.records import TRITON_PROTOCOLS, Protocol, TritonContract
from benchmarks.servers.errors import ServerError

Kind = Literal["url", "profile", "vllm", "transformers", "llama-cpp"]
ALLOWED = (
    "http://HOST:PORT, profile:NAME_OR_PATH, vllm:NAME_OR_PATH, transformers:DIRECTORY_OR_PROFILE "
    "or llama-cpp:GGUF_PATH"
)
# The GGUF file that comes as a PyPI package; it goes by the name of the profile that serves it.
PACKAGED_GGUF = "gemma-3-270m"
SETTING = re.compile(r"[A-Za-z_][\w.-]*=.*", re.DOTALL)
# How a target is spoken to; a running server has some more options.
SPOKEN = ("protocol", "contract")
OF_RUNNING = ("model", "key", *SPOKEN, "grpc", "grpc_port")


@dataclass(frozen=True)
class TargetSpec:
    """A server to measure, running already (`url`) or to be started."""

    kind: Kind
    what: str  # an address, a profile's name or path, a checkpoint's directory, a GGUF file
    settings: tuple[str, ...] = ()  # key=value: of the profile, or of llama.cpp's server
    model: str | None = None
    api_key: str | None = None
    protocol: Protocol | None = None
    contract: TritonContract | None = None
    grpc: str | None = None  # HOST:PORT

    @property
    def label(self) -> str:
        """The target as it was written, without its key; with a Triton protocol's contract."""
        what = self.what if self.kind == "url" else f"{self.kind}:{self.what}"
        spoken = [f",{name}={value}" for name in SPOKEN if (value := getattr(self, name))]
        return "".join([what, *spoken, *(f",--set {setting}" for setting in self.settings)])

    def speaking(
        self, protocol: Protocol | None, contract: TritonContract | None = None
    ) -> TargetSpec:
        """
        With the command line's Triton protocol and contract where it names none of its own.

        Raises:
            ServerError: its server does not speak that, or not at an address that is known.
        """
        chosen = self.protocol or protocol
        if chosen not in TRITON_PROTOCOLS:
            return self
        if self.kind not in ("url", "profile"):
            raise ServerError(
                f"target {self.label!r}: {self.kind}'s server does not speak {chosen}; give the "
                "target ,protocol=openai-chat or ,protocol=openai-completions"
            )
        if chosen == "triton-grpc" and self.kind == "url" and self.grpc is None:
            raise ServerError(
                f"target {self.label!r}: the port of the server's gRPC is not known; write "
                ",grpc_port=8001 or ,grpc=HOST:PORT behind it"
            )
        return replace(self, protocol=chosen, contract=self.contract or contract)


def parse_target(text: str) -> TargetSpec:
    """
    Read a target; see ALLOWED for its forms.

    Each takes `,protocol=PROTOCOL` and `,contract=CONTRACT` behind it, for itself alone. A running
    server takes `,model=NAME`, `,key=API_KEY`, and `,grpc_port=PORT` or `,grpc=HOST:PORT` too; a
    profile, vLLM's server and llama.cpp's take `,--set KEY=VALUE` any number of times.

    Raises:
        ServerError: it is none of them.
    """
    if text.startswith(("http://", "https://")):
        return _running(text)
    kind, colon, rest = text.partition(":")
    if not colon or kind not in get_args(Kind) or kind == "url":
        raise ServerError(f"target {text!r} is none that the harness knows; give {ALLOWED}")
    what, settings, options = _parts(rest)
    if not what:
        raise ServerError(f"target {text!r} names nothing behind its colon; give {ALLOWED}")
    for setting in settings:
        if not SETTING.fullmatch(setting):
            raise ServerError(f"target {text!r}: --set {setting!r} is no setting; give KEY=VALUE")
    if unknown := re.search(r",\s*(\w+)=", what):
        raise ServerError(
            f"target {text!r}: a server that is started has no option {unknown[1]!r}; give "
            "protocol, contract or --set KEY=VALUE"
        )
    spoken = _spoken(text, options)
    spec = TargetSpec(kind, what, tuple(settings), **spoken)  # type: ignore[arg-type]
    _check(spec, text)
    return spec


def _parts(rest: str) -> tuple[str, list[str], dict[str, str]]:
    """What is named, its settings, and its options; in any order, as a setting may have commas."""
    what, *parts = re.split(rf",\s*(?=--set[ =]|(?:{'|'.join(SPOKEN)})=)", rest)
    settings = [re.sub(r"^--set[ =]\s*", "", part) for part in parts if part.startswith("--set")]
    options = [part.split("=", 1) for part in parts if not part.startswith("--set")]
    return what, settings, {name: value.strip() for name, value in options}


def _spoken(text: str, given: dict[str, str]) -> dict[str, Any]:
    """
    The protocol and the contract.

    Raises:
        ServerError: a word that is none of those allowed.
    """
    allowed = {"protocol": get_args(Protocol), "contract": get_args(TritonContract)}
    spoken = {name: given[name] for name in SPOKEN if name in given}
    for name, value in spoken.items():
        if value not in allowed[name]:
            raise ServerError(
                f"target {text!r}: {name} {value!r} is unknown; use {', '.join(allowed[name])}"
            )
    return spoken


def _running(text: str) -> TargetSpec:
    url, *options = re.split(r",(?=\w+=)", text)
    given = dict(option.split("=", 1) for option in options)
    if unknown := sorted(set(given) - set(OF_RUNNING)):
        raise ServerError(
            f"target {url!r}: a running server has no option {unknown[0]!r}; give "
            f"{', '.join(OF_RUNNING)}"
        )
    if not re.fullmatch(r"https?://[^/\s,]+(/[^\s,]*)?", url) or not _is_address(url):
        raise ServerError(
            f"target {url!r} is no server's address; write it like http://127.0.0.1:8000"
        )
    return TargetSpec(
        "url",
        url.rstrip("/"),
        model=given.get("model"),
        api_key=given.get("key"),
        grpc=_grpc_address(url, given),
        **_spoken(url, given),
    )


def _is_address(url: str) -> bool:
    """Whether its host and port are any; an IPv6 address stands in brackets."""
    try:
        return bool(httpx.URL(url).host) and urlsplit(url).port != 0
    except (httpx.InvalidURL, ValueError):
        return False


def _grpc_address(url: str, given: dict[str, str]) -> str | None:
    """Where the server speaks gRPC: an address, or a port of the URL's host."""
    found = given.get("grpc")
    if (port := given.get("grpc_port")) is not None:
        host = urlsplit(url).hostname or ""
        found = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if found is not None and not re.fullmatch(r"\S+:\d{1,5}", found):
        raise ServerError(
            f"target {url!r}: {found!r} is no address of gRPC; write ,grpc_port=8001 or "
            ",grpc=HOST:PORT"
        )
    return found


def _check(spec: TargetSpec, text: str) -> None:
    if spec.kind == "transformers" and spec.settings:
        raise ServerError(
            f"target {text!r}: transformers takes no --set; give it a profile with other settings"
        )
    is_file = Path(spec.what).is_file()
    if spec.kind == "llama-cpp" and spec.what != PACKAGED_GGUF and not is_file:
        raise ServerError(
            f"target {text!r}: there is no file {spec.what!r}; give a GGUF file's path, or "
            f"{PACKAGED_GGUF} for the one from PyPI"
        )
