"""`gemma-serve render`: what it prints, what it refuses, and that the server renders the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.commands import at_terminal
from tests.servers import Server

BOUND_S = 120
PYTHONIC = ("--set", "chat.tool_call_parser=pythonic")
BOS, EOS, START_OF_TURN, END_OF_TURN = 2, 1, 105, 106

SYSTEM = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "What does <end_of_turn> mean?"}
# What a client sends after its first tool call; three rules have something to do.
BODY = {
    "messages": [
        {"role": "developer", "content": "Answer in Spanish."},
        {"role": "user", "content": "Weather in Rome?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {"role": "assistant", "content": "Hace"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        }
    ],
}


def render(
    profile: str | Path, text: str, words: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """`gemma-serve render PROFILE WORDS < text`, to its end."""
    command = [sys.executable, "-m", "gemma_serve", "render", str(profile), *words]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=BOUND_S, check=False
    )


def refusal(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """Exit code and last line on stderr of a run that printed nothing, least of all a traceback."""
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


def test_import_leaves_vllm_out() -> None:
    """The profile's environment must stand before vLLM reads it, so nothing here imports vLLM."""
    code = "import sys, gemma_serve.render; sys.exit('vllm' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], timeout=BOUND_S, check=False)

    assert done.returncode == 0


def test_text(tiny_profile: Path) -> None:
    """A list of messages gives the prompt as it is, its ids, the stop ids and the rules."""
    done = render(tiny_profile, json.dumps([SYSTEM, QUESTION]))
    prompt, _, about = done.stdout.partition("\n\n--- ")
    tokens, stops, rules = about.splitlines()

    assert done.returncode == 0, done.stderr
    assert prompt == (
        "<bos><start_of_turn>user\nBe brief.\n\nWhat does <end_of_turn> mean?<end_of_turn>\n"
        "<start_of_turn>model\n"
    )
    count, _, ids = tokens.partition(" tokens: ")
    assert len(json.loads(ids)) == int(count)
    assert (stops, rules) == (f"--- stops at: [{EOS}, {END_OF_TURN}]", "--- rules: none")


def test_json_is_what_the_server_renders(tiny_server: Server, tiny_profile: Path) -> None:
    """A whole body with tools: every field is the one that the server of this profile answers."""
    done = render(tiny_profile, json.dumps(BODY), ["--json", *PYTHONIC])
    with tiny_server.client() as client:
        served = client.post("/v1/chat/completions/render", json={"model": "tiny", **BODY})

    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    assert printed == served.json()
    assert printed["rules"] == ["developer_to_system", "tools_as_text", "prefill"]
    assert printed["num_tokens"] == len(printed["token_ids"])
    assert printed["stop_token_ids"] == [EOS, END_OF_TURN]
    assert printed["token_ids"][0] == BOS
    assert printed["token_ids"].count(START_OF_TURN) == 4
    # The answer goes on where the client has left it.
    assert printed["prompt"].endswith(
        "sunny\n</tool_response><end_of_turn>\n<start_of_turn>model\nHace"
    )


def test_strict(tiny_profile: Path) -> None:
    """With chat.strict, what a rule would have mended is exit code 1, and the line names it."""
    code, line = refusal(render(tiny_profile, json.dumps(BODY), ["--set", "chat.strict=true"]))

    assert code == 1
    assert line.startswith("gemma-serve: The messages need developer_to_system, tools_as_text to ")


def test_bad_message(tiny_profile: Path) -> None:
    """A message that can't be read is exit code 1, and the line says which and why."""
    messages = [QUESTION, {"role": "judge", "content": "No."}]
    code, line = refusal(render(tiny_profile, json.dumps(messages)))

    assert code == 1
    assert line.startswith("gemma-serve: messages[1].role is 'judge'; use system, developer, ")


GEMMA_4 = ("--set", "chat.tool_call_parser=gemma4")


@pytest.mark.parametrize(
    ("fields", "words", "sentence"),
    [
        ({"documents": [{"text": "x"}]}, (), "The field 'documents' is not allowed: "),
        ({"chat_template_kwargs": {"bos_token": ""}}, (), "The chat template takes no variable "),
        ({"tools": BODY["tools"], "tool_choice": "required"}, GEMMA_4, "tool_choice 'required' "),
    ],
    ids=["field", "variable", "tool choice"],
)
def test_what_the_server_refuses(
    tiny_profile: Path, fields: dict[str, Any], words: Sequence[str], sentence: str
) -> None:
    """No prompt is shown for a request that the server would not answer."""
    code, line = refusal(
        render(tiny_profile, json.dumps({"messages": [QUESTION], **fields}), words)
    )

    assert code == 1
    assert line.startswith(f"gemma-serve: {sentence}")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The input is not JSON ("),
        ("Hello", "The input is not JSON ("),
        ("[" * 100_000, "The input is not JSON ("),
        ('"Hello"', "The input has no messages; "),
        ('{"prompt": "Hello"}', "The input has no messages; "),
    ],
)
def test_no_conversation(tiny_profile: Path, text: str, sentence: str) -> None:
    """What holds no conversation is one line and exit code 1, before vLLM is even imported."""
    done = render(tiny_profile, text)

    assert refusal(done)[0] == 1
    assert done.stderr.startswith(f"gemma-serve: {sentence}")
    assert done.stderr.count("\n") == 1


def test_ctrl_c(tiny_profile: Path, tmp_path: Path) -> None:
    """Ctrl-C ends it with 130 and without a word, and nothing is left running."""
    with at_terminal(["render", tiny_profile], tmp_path / "render.log") as command:
        command.type(f"{json.dumps([QUESTION])}\n\x04")
        command.wait_for("Loading the tokenizer")
        command.type("\x03")
        assert command.ended() == 130
        assert "Traceback" not in command.output()
        assert "<start_of_turn>" not in command.output()
