"""`gemma-serve chat`: a conversation with a running server, over its OpenAI route."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import httpx
from rich.console import Console

from gemma_serve.errors import GemmaServeError

KEY_VARIABLE = "GEMMA_SERVE_API_KEY"
CONNECT_S = 5.0
# Between two events: a loaded server may take long to the first token.
READ_S = 600.0


class ChatError(GemmaServeError):
    """The server can't be reached, or refused."""


class Session:
    """One conversation; its history is sent with every message."""

    def __init__(
        self,
        url: str,
        model: str | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
    ) -> None:
        key = os.environ.get(KEY_VARIABLE)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
        self.url = url
        with self._reachable():
            self.client = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        self.messages = [{"role": "system", "content": system}] if system else []
        self.options = {"max_tokens": max_tokens, "temperature": temperature}
        self.model = model

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def loop(self) -> None:
        """Read lines until /quit, Ctrl-D or Ctrl-C."""
        console = Console(stderr=True)
        console.print(
            f"Chatting with {self._model()} at {self.url}. "
            "/quit leaves, /clear forgets the conversation.",
            markup=False,
        )
        while True:
            try:
                line = console.input("[bold]> [/bold]").strip()
            except (EOFError, KeyboardInterrupt):
                return
            if line == "/quit":
                return
            if line == "/clear":
                self.messages = [m for m in self.messages if m["role"] == "system"]
            elif line:
                self._ask_in_loop(line, console)

    def _ask_in_loop(self, line: str, console: Console) -> None:
        # A refused message must not be sent again with the next one.
        remembered = list(self.messages)
        try:
            self.ask(line)
        except ChatError as error:
            self.messages = remembered
            console.print(error.message, markup=False)
        except KeyboardInterrupt:
            self.messages = remembered
            console.print(" (stopped)")

    def ask(self, message: str) -> str:
        """
        Send one message and print the answer as it comes.

        Raises:
            ChatError: the server can't be reached, or refused.
        """
        self.messages.append({"role": "user", "content": message})
        answer = ""
        for text in self._stream():
            answer += text
            sys.stdout.write(text)
            sys.stdout.flush()
        sys.stdout.write("\n")
        self.messages.append({"role": "assistant", "content": answer})
        return answer

    def _stream(self) -> Iterator[str]:
        options = {name: value for name, value in self.options.items() if value is not None}
        body = {"model": self._model(), "messages": self.messages, "stream": True, **options}
        with (
            self._reachable(),
            self.client.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            _refuse_errors(answer)
            for line in answer.iter_lines():
                data = line.removeprefix("data: ")
                if line.startswith("data: ") and data != "[DONE]":
                    yield _text_of(json.loads(data))

    def _model(self) -> str:
        if self.model is None:
            with self._reachable():
                answer = self.client.get("/v1/models")
            _refuse_errors(answer)
            try:
                self.model = str(answer.json()["data"][0]["id"])
            except (ValueError, LookupError, TypeError) as error:
                raise ChatError(
                    f"{self.url} lists no models as an OpenAI server does; name another with --url."
                ) from error
        return self.model

    @contextlib.contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ChatError(
                f"No answer from {self.url} ({type(error).__name__}); "
                "start a server with 'gemma-serve serve', or name another with --url."
            ) from error


def _refuse_errors(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    answer.read()
    try:
        message = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = answer.text[:200]
    hint = f" Set {KEY_VARIABLE}." if answer.status_code == 401 else ""
    raise ChatError(f"The server answered {answer.status_code}: {message}{hint}")


def _text_of(event: dict[str, Any]) -> str:
    if "error" in event:
        raise ChatError(f"The server stopped: {event['error']['message']}")
    choices = event.get("choices") or [{}]
    delta = choices[0].get("delta") or {}
    return str(delta.get("content") or "")
