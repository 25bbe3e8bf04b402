"""What a target on the command line names; nothing is started or looked up here but a file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from benchmarks.servers.errors import ServerError

Kind = Literal["url", "profile", "vllm", "transformers", "llama-cpp"]
ALLOWED = (
    "http://HOST:PORT, profile:NAME_OR_PATH, vllm:NAME_OR_PATH, transformers:DIRECTORY_OR_PROFILE "
    "or llama-cpp:GGUF_PATH"
)
# The GGUF file that comes as a PyPI package; it goes by the name of the profile that serves it.
PACKAGED_GGUF = "gemma-3-270m"
SETTING = re.compile(r"[A-Za-z_][\w.-]*=.*", re.DOTALL)


@dataclass(frozen=True)
class TargetSpec:
    """A server to measure, running already (`url`) or to be started."""

    kind: Kind
    what: str  # an address, a profile's name or path, a checkpoint's directory, a GGUF file
    settings: tuple[str, ...] = ()  # key=value: of the profile, or of llama.cpp's server
    model: str | None = None
    api_key: str | None = None

    @property
    def label(self) -> str:
        """The target as it was written, without its key."""
        what = self.what if self.kind == "url" else f"{self.kind}:{self.what}"
        return "".join([what, *(f",--set {setting}" for setting in self.settings)])


def parse_target(text: str) -> TargetSpec:
    """
    Read a target; see ALLOWED for its forms.

    A running server takes `,model=NAME` and `,key=API_KEY` behind it; a profile, vLLM's server and
    llama.cpp's take `,--set KEY=VALUE` any number of times.

    Raises:
        ServerError: it is none of them.
    """
    if text.startswith(("http://", "https://")):
        return _running(text)
    kind, colon, rest = text.partition(":")
    if not colon or kind not in get_args(Kind) or kind == "url":
        raise ServerError(f"target {text!r} is none that the harness knows; give {ALLOWED}")
    what, *settings = re.split(r",\s*--set[ =]\s*", rest)
    if not what:
        raise ServerError(f"target {text!r} names nothing behind its colon; give {ALLOWED}")
    for setting in settings:
        if not SETTING.fullmatch(setting):
            raise ServerError(f"target {text!r}: --set {setting!r} is no setting; give KEY=VALUE")
    spec = TargetSpec(kind, what, tuple(settings))  # type: ignore[arg-type]
    _check(spec, text)
    return spec


def _running(text: str) -> TargetSpec:
    url, *options = re.split(r",(?=\w+=)", text)
    given = dict(option.split("=", 1) for option in options)
    if unknown := sorted(set(given) - {"model", "key"}):
        raise ServerError(
            f"target {url!r}: a running server has no option {unknown[0]!r}; give model or key"
        )
    if not re.fullmatch(r"https?://[^/\s,]+(/[^\s,]*)?", url):
        raise ServerError(
            f"target {url!r} is no server's address; write it like http://127.0.0.1:8000"
        )
    return TargetSpec("url", url.rstrip("/"), model=given.get("model"), api_key=given.get("key"))


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
