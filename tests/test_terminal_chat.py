"""`gemma-serve chat`: against the shared server, at a terminal, and where it is refused."""

from __future__ import annotations

import io
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemma_serve.terminal_chat import ChatError, Session
from tests.commands import at_terminal, running
from tests.http_side import http_side
from tests.servers import Server

# Far more tokens than the tiny model's context holds.
TOO_LONG = "word " * 20_000


def chat(url: str, monkeypatch: pytest.MonkeyPatch, *lines: str) -> Session:
    """A session at the end of an interactive chat with these lines typed."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    with Session(url, system="Be brief.", max_tokens=8) as session:
        session.loop()
    return session


def said(session: Session) -> list[tuple[str, str]]:
    """Role and text of what the session remembers, answers left out: they are noise."""
    words = {"assistant": "..."}
    return [
        (message["role"], words.get(message["role"], message["content"]))
        for message in session.messages
    ]


# --- with a server that answers


def test_one_message(tiny_server: Server, tmp_path: Path) -> None:
    """`-m` prints the answer, nothing else, and leaves with 0."""
    words = ["chat", "--url", tiny_server.base_url, "--max-tokens", "8", "-m", "What is a haiku?"]
    with running(words, tmp_path / "chat.log") as command:
        assert command.ended() == 0
        assert command.output().strip()
        assert "Chatting with" not in command.output()


def test_same_answer_as_the_api(tiny_server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed, and kept, is what the API answers."""
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "What is a haiku?"}],
        "max_tokens": 8,
        "temperature": 0,
    }
    with tiny_server.client() as client:
        answer = client.post("/v1/chat/completions", json=body).json()
    expected = answer["choices"][0]["message"]["content"]

    with Session(tiny_server.base_url, max_tokens=8, temperature=0.0) as session:
        assert session.ask("What is a haiku?") == expected
    assert capsys.readouterr().out == f"{expected}\n"
    assert session.messages[-1] == {"role": "assistant", "content": expected}


def test_at_a_terminal(tiny_server: Server, tmp_path: Path) -> None:
    """A prompt, an answer, the next prompt; /clear is silent and /quit leaves with 0."""
    words = ["chat", "--url", tiny_server.base_url, "--max-tokens", "8"]
    with at_terminal(words, tmp_path / "screen.log") as command:
        assert command.wait_for(r"Chatting with (\S+) at") == "tiny"
        for number, line in enumerate(["Hello.", "/clear", "/quit"], start=1):
            command.until(lambda n=number: command.output().count("\n> ") == n, f"prompt {number}")
            command.type(f"{line}\n")

        assert command.ended() == 0


def test_ctrl_d_leaves(tiny_server: Server, tmp_path: Path) -> None:
    """Ctrl-D leaves as /quit does."""
    with at_terminal(["chat", "--url", tiny_server.base_url], tmp_path / "screen.log") as command:
        command.wait_for("\n> ")
        command.type("\x04")

        assert command.ended() == 0


def test_history_is_sent_and_cleared(tiny_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn is remembered; /clear forgets all but the system prompt; blank lines are none."""
    assert said(chat(tiny_server.base_url, monkeypatch, "One.", "", "Two.", "/quit", "Three.")) == [
        ("system", "Be brief."),
        ("user", "One."),
        ("assistant", "..."),
        ("user", "Two."),
        ("assistant", "..."),
    ]
    assert said(chat(tiny_server.base_url, monkeypatch, "One.", "/clear", "Two.")) == [
        ("system", "Be brief."),
        ("user", "Two."),
        ("assistant", "..."),
    ]


def test_refused_message_is_not_kept(
    tiny_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A message that the server refuses is said, forgotten, and the chat goes on."""
    session = chat(tiny_server.base_url, monkeypatch, TOO_LONG, "Two.", "/quit")

    assert "The server answered 400: " in capsys.readouterr().err
    assert said(session) == [
        ("system", "Be brief."),
        ("user", "Two."),
        ("assistant", "..."),
    ]


# --- with no server, or one that refuses


@pytest.fixture
def keyed_url() -> Iterator[str]:
    """The real HTTP side with a key, still without an engine."""
    with http_side({}, key="right") as side:
        yield side.url


def refusal(url: str) -> str:
    """The one sentence that a message to this server ends in."""
    with pytest.raises(ChatError) as caught, Session(url) as session:
        session.ask("Hello.")
    return caught.value.message


def test_no_key_and_a_wrong_one(keyed_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that wants a key is told by the variable that holds it."""
    monkeypatch.delenv("GEMMA_SERVE_API_KEY", raising=False)
    assert refusal(keyed_url) == (
        "The server answered 401: No API key was sent; send a configured one as 'Authorization: "
        "Bearer KEY' or 'x-api-key: KEY'. Set GEMMA_SERVE_API_KEY."
    )

    monkeypatch.setenv("GEMMA_SERVE_API_KEY", "wrong")
    assert refusal(keyed_url).startswith("The server answered 401: The API key is not known; ")


def test_right_key_while_the_model_loads(keyed_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the key the server is reached, and says itself what it waits for."""
    monkeypatch.setenv("GEMMA_SERVE_API_KEY", "right")

    assert refusal(keyed_url) == (
        "The server answered 503: The model is still loading; retry when /readyz answers 200."
    )


@pytest.mark.parametrize("url", ["http://127.0.0.1:{closed}", "127.0.0.1:{closed}", "http://[x"])
def test_unreachable(url: str, tmp_path: Path) -> None:
    """No server there, or no such address: one line, and exit code 1."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = url.format(closed=closed.getsockname()[1])
        with running(["chat", "--url", url, "-m", "Hello."], tmp_path / "chat.log") as command:
            assert command.ended() == 1

    [line] = command.output().splitlines()
    assert line.startswith(f"gemma-serve: No answer from {url} (")
    assert line.endswith("start a server with 'gemma-serve serve', or name another with --url.")


def test_another_kind_of_server() -> None:
    """A server that is none of ours is one sentence too."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_answer_once, args=(listening,))
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        assert refusal(url) == (
            f"{url} lists no models as an OpenAI server does; name another with --url."
        )
        thread.join(30)


def _answer_once(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")
