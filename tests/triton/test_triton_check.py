"""`gemma-serve triton-check` against a server that plays what it is told."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gemma_serve.triton_check import lines
from gemma_serve.triton_check.command import target_of
from gemma_serve.triton_check.golden import GoldenError
from gemma_serve.triton_check.lines import read_pairs, read_requests
from gemma_serve.triton_check.sending import MAX_ANSWER_BYTES
from tests.commands import at_terminal, running
from tests.triton.scripted_triton import Asked, Said, json_said, scripted, sse_said

BOUND_S = 120
HEAD = {"model_name": "m", "model_version": "1"}
GENERATE = "/v2/models/m/generate"
FORM = lines.FORM
HOT = "not compared  text in 1 pair, first in hot: sampled: temperature is 1 and there is no seed"


def triton(asked: Asked) -> Said:
    """A small Triton with a python backend: two words a request, echoing its id."""
    model = asked.path.split("/")[3]
    if asked.path.endswith("/infer"):
        return binary_said(model)
    sent = json.loads(asked.body)
    if "text_input" not in sent:
        return json_said({"error": "expected number of inputs between 1 and 2 but got 0"}, 400)
    said = {"model_name": model, "model_version": "1"}
    said |= {"id": sent["id"]} if "id" in sent else {}
    if asked.path.endswith("/generate_stream"):
        return sse_said(*({**said, "text_output": word} for word in ("The ", "Rhine.")))
    return json_said({**said, "text_output": "The Rhine."})


def binary_said(model: str, text: bytes = b"The Rhine.") -> Said:
    """An answer of the binary tensor data extension."""
    data = struct.pack("<I", len(text)) + text
    parameters = {"binary_data_size": len(data)}
    tensor = {"name": "text_output", "datatype": "BYTES", "shape": [1], "parameters": parameters}
    head = json.dumps({"model_name": model, "model_version": "1", "outputs": [tensor]}).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }
    return Said(head + data, headers=headers)


BINARY_HEAD = json.dumps(
    {
        "inputs": [
            {
                "name": "text_input",
                "datatype": "BYTES",
                "shape": [1],
                "parameters": {"binary_data_size": 6},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
).encode()
BINARY_BODY = BINARY_HEAD + struct.pack("<I", 2) + b"Hi"
REQUESTS: list[dict[str, Any]] = [
    {"name": "echo", "request": {"path": GENERATE, "body": {"id": "7", "text_input": "Hi"}}},
    {"request": {"path": "/v2/models/m/generate_stream", "body": {"text_input": "Hi"}}},
    {
        "name": "bytes",
        "request": {
            "path": "/v2/models/m/versions/1/infer",
            "headers": {"Inference-Header-Content-Length": str(len(BINARY_HEAD))},
            "body_base64": base64.b64encode(BINARY_BODY).decode(),
        },
    },
    {"name": "refused", "request": {"path": GENERATE, "body": {}}},
    {"name": "hot", "request": {"path": GENERATE, "body": {"text_input": "a", "temperature": 1}}},
]


def check(*words: str | Path, environ: dict[str, str] | None = None) -> Any:
    """`gemma-serve triton-check WORDS`, to its end."""
    command = [sys.executable, "-m", "gemma_serve", "triton-check", *map(str, words)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
        env=os.environ | (environ or {}),
    )


def write(path: Path, said: list[Any]) -> Path:
    """A file of JSON Lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in said))
    return path


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden file of the small Triton."""
    place = tmp_path_factory.mktemp("golden") / "golden.jsonl"
    with scripted(triton) as server:
        requests = write(place.with_name("requests.jsonl"), REQUESTS)
        done = check("--record", requests, "--golden", place, "--url", server.url)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert done.stderr.startswith("Recorded 5 pairs in ")
    return place


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """What is started is ended by Ctrl-C, also where the shell has its jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pair(said: Any, status: int = 200, **request: Any) -> dict[str, Any]:
    """A line of a golden file."""
    body = {"text_input": "Hi"}
    return {
        "request": {"path": GENERATE, "body": body} | request,
        "response": {"status": status, "body": said},
    }


# --- recording


def test_what_is_recorded(golden: Path) -> None:
    """JSON, events and bytes as they came; of the headers, what says how to read the body."""
    said = [json.loads(line) for line in golden.read_text().splitlines()]

    assert said[0] == {
        "name": "echo",
        "request": {"path": GENERATE, "body": {"id": "7", "text_input": "Hi"}},
        "response": {
            "status": 200,
            "headers": {"content-type": "application/json"},
            "body": {**HEAD, "id": "7", "text_output": "The Rhine."},
        },
    }
    assert said[1]["response"]["events"] == [
        {**HEAD, "text_output": "The "},
        {**HEAD, "text_output": "Rhine."},
    ]
    assert base64.b64decode(said[2]["response"]["body_base64"]).endswith(b"\n\0\0\0The Rhine.")
    assert set(said[2]["response"]["headers"]) == {
        "content-type",
        "inference-header-content-length",
    }
    assert said[3]["response"]["status"] == 400
    assert [line.get("varies") for line in said] == [None] * 5


def test_what_is_sent(tmp_path: Path) -> None:
    """The body to the byte, each request twice, with --header and no key of gemma-serve's."""
    with scripted(triton) as server:
        done = check(
            *("--record", write(tmp_path / "requests.jsonl", REQUESTS[2:3])),
            *("--golden", tmp_path / "golden.jsonl", "--url", server.url),
            *("--header", "Authorization: Bearer triton's"),
            environ={"GEMMA_SERVE_API_KEY": "ours"},
        )
        assert done.returncode == 0, done.stderr

    assert [asked.body for asked in server.asked] == [BINARY_BODY] * 2
    for asked in server.asked:
        assert asked.headers["authorization"] == "Bearer triton's"
        assert asked.headers["inference-header-content-length"] == str(len(BINARY_HEAD))
    assert "triton's" not in (tmp_path / "golden.jsonl").read_text()


def test_keys_among_the_requests_are_not_recorded(tmp_path: Path) -> None:
    """A key that a request has is sent, and left out of the golden file."""
    request = {"path": GENERATE, "headers": {"X-API-Key": "hush"}, "body": {"text_input": "a"}}
    requests = write(tmp_path / "requests.jsonl", [{"request": request}])
    with scripted(triton) as server:
        check("--record", requests, "--golden", tmp_path / "golden.jsonl", "--url", server.url)

    assert [asked.headers["x-api-key"] for asked in server.asked] == ["hush", "hush"]
    assert "hush" not in (tmp_path / "golden.jsonl").read_text()


def test_an_answer_that_varies(tmp_path: Path) -> None:
    """What the recorded server answers in two ways is marked, and its text not compared."""
    texts = iter(("The Rhine.", "The Main.", "The Elbe."))

    def sampled(_: Asked) -> Said:
        return json_said({**HEAD, "text_output": next(texts)})

    place = tmp_path / "golden.jsonl"
    requests = write(tmp_path / "requests.jsonl", REQUESTS[:1])
    with scripted(sampled) as server:
        recorded = check("--record", requests, "--golden", place, "--url", server.url)
        done = check("--golden", place, "--url", server.url)

    assert "Two answers differed, so their text won't be compared: echo." in recorded.stderr
    assert json.loads(place.read_text())["varies"] is True
    assert (done.returncode, "text not compared in 1" in done.stdout) == (0, True)


def test_a_golden_file_is_kept(golden: Path, tmp_path: Path) -> None:
    """A file that is there is replaced with --force alone; a golden file is recorded anew."""
    place = tmp_path / "golden.jsonl"
    place.write_text("mine")
    with scripted(triton) as server:
        words = ("--record", golden, "--golden", place, "--url", server.url)
        done = check(*words)
        assert (done.returncode, server.asked, place.read_text()) == (2, [], "mine")
        assert done.stderr == (
            f"gemma-serve: {str(place)!r} exists; name another file with --golden, or replace it "
            "with --force.\n"
        )

        assert check(*words, "--force").returncode == 0
    assert place.read_text() == golden.read_text()


@pytest.mark.parametrize("place", ["nowhere/golden.jsonl", "."])
def test_no_place_for_a_golden_file(tmp_path: Path, place: str) -> None:
    """Where no file can be written, nothing is sent."""
    with scripted(triton) as server:
        requests = write(tmp_path / "requests.jsonl", REQUESTS)
        done = check("--record", requests, "--golden", tmp_path / place, "--url", server.url)

    assert (done.returncode, server.asked) == (2, [])
    assert "can't be written: it is a directory, or is in none; name another" in done.stderr


def test_nothing_is_recorded_of_a_server_that_fails(tmp_path: Path) -> None:
    """An answer that is cut leaves no file, and names the request."""

    def cut(asked: Asked) -> Said:
        return Said(b"{", cut=True) if b"7" in asked.body else triton(asked)

    requests = write(tmp_path / "requests.jsonl", [REQUESTS[1], REQUESTS[0]])
    with scripted(cut) as server:
        done = check("--record", requests, "--golden", tmp_path / "g.jsonl", "--url", server.url)

    assert done.returncode == 3
    assert done.stderr == (
        f"gemma-serve: requests.jsonl:2: {server.url} gave no whole answer (RemoteProtocolError), "
        "and nothing was recorded; leave the request out, or see what the server says.\n"
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["requests.jsonl"]


def test_ctrl_c_while_recording(heeds_ctrl_c: None, tmp_path: Path) -> None:
    """Ctrl-C while recording writes nothing, and leaves nothing."""
    reached, stop = threading.Event(), threading.Event()

    def slow(asked: Asked) -> Said:
        reached.set()
        stop.wait(BOUND_S)
        return triton(asked)

    requests = write(tmp_path / "requests.jsonl", REQUESTS)
    with scripted(slow) as server:
        words = ["triton-check", "--record", requests, "--golden", tmp_path / "golden.jsonl"]
        with running([*words, "--url", server.url], tmp_path / "log") as command:
            assert reached.wait(BOUND_S)
            os.kill(command.process.pid, signal.SIGINT)
            assert command.ended() == 130
        stop.set()

    assert command.output() == ""
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log", "requests.jsonl"]


# --- replaying


@pytest.mark.parametrize("concurrency", ["1", "4"])
def test_the_same_server(golden: Path, concurrency: str) -> None:
    """A server that answers as recorded differs in nothing; what is sampled is told."""
    with scripted(triton) as server:
        done = check("--golden", golden, "--url", server.url, "--concurrency", concurrency)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        HOT,
        "5 pairs (--text exact): 5 the same, text not compared in 1.",
    ]


def test_another_server(golden: Path) -> None:
    """Each difference is told with its severity, what may vary is harmless; exit code 1."""

    def other(asked: Asked) -> Said:
        if asked.path.endswith("/infer"):
            return binary_said("m", b"The Rhone.")
        if asked.path.endswith("/generate_stream"):
            return sse_said({**HEAD, "text_output": "The Rhine."})
        if b"text_input" not in asked.body:
            return json_said({"error": "text_input is missing"}, 400)
        return json_said({**HEAD, "text_output": "The Rhine."})

    with scripted(other) as server:
        done = check("--golden", golden, "--url", server.url)
        machine = json.loads(check("--golden", golden, "--url", server.url, "--json").stdout)

    assert done.returncode == 1
    assert done.stdout.splitlines()[-10:] == [
        "echo (golden.jsonl:1)",
        "  breaks  id: missing",
        "bytes (golden.jsonl:3)",
        "  text  text_output: differs from character 7 on; 10 characters instead of 10, length "
        "ratio 1.00, 60% equal from the start",
        "    recorded  The Rhine.",
        "    now       The Rhone.",
        "harmless  number of events in 1 pair, first in line 2: 1 instead of 2",
        "harmless  error wording in 1 pair, first in refused: text_input is missing instead of "
        "expected number of inputs between 1 and 2 but got 0",
        HOT,
        "5 pairs (--text exact): 1 the same, 2 harmless, 1 another text, 1 would break a "
        "client, text not compared in 1.",
    ]
    assert [pair["verdict"] for pair in machine["pairs"]] == [
        "breaks",
        "harmless",
        "text",
        "harmless",
        "same",
    ]
    assert machine["counts"] == {
        "same": 1,
        "harmless": 2,
        "text": 1,
        "breaks": 1,
        "error": 0,
        "not sent": 0,
    }
    assert machine["exit_code"] == 1
    assert machine["pairs"][2]["differences"] == [
        {
            "severity": "text",
            "where": "text_output",
            "message": "another text",
            "divergence": {
                "at": 6,
                "recorded_length": 10,
                "length": 10,
                "before": "The Rh",
                "recorded": "ine.",
                "now": "one.",
                "length_ratio": 1.0,
                "equal_share": 0.6,
            },
        }
    ]


@pytest.mark.parametrize(
    ("rule", "code"), [("exact", 1), ("prefix:6", 0), ("prefix:7", 1), ("ignore", 0)]
)
def test_text_rules(tmp_path: Path, rule: str, code: int) -> None:
    """What counts as another text decides the exit code, and is in the last line."""
    said = [pair({**HEAD, "text_output": "The Rhône."})]
    with scripted(triton) as server:
        words = ("--golden", write(tmp_path / "golden.jsonl", said), "--url", server.url)
        done = check(*words, "--text", rule)

    assert done.returncode == code
    verdict = "another text" if code else "harmless"
    assert done.stdout.splitlines()[-1] == f"1 pair (--text {rule}): 1 {verdict}."


def test_another_name_of_the_model(golden: Path) -> None:
    """--model is asked for in the paths, and expected in the answers."""
    with scripted(triton) as server:
        done = check("--golden", golden, "--url", server.url, "--model", "gemma")
        assert {asked.path.split("/")[3] for asked in server.asked} == {"gemma"}
        assert server.asked[2].path == "/v2/models/gemma/versions/1/infer"
        assert done.returncode == 0, done.stdout

    def unnamed(asked: Asked) -> Said:
        return json_said({**HEAD, "text_output": "The Rhine.", "id": "7"})

    with scripted(unnamed) as server:
        done = check("--golden", golden, "--url", server.url, "--model", "gemma")
    assert "breaks  model_name: m instead of gemma" in done.stdout


def test_names_that_are_no_models(tmp_path: Path) -> None:
    """--model leaves a name alone that only got errors, and renames in the lists of models."""
    unknown = "/v2/models/none/generate"
    refused = {"error": "Request for unknown model: 'none' is not found"}
    stats = {"name": "m", "version": "1", "inference_count": 7}
    said = [
        pair({**HEAD, "text_output": "The Rhine."}),
        pair(refused, 404, path=unknown),
        pair([{"name": "m", "version": "1", "state": "READY"}], path="/v2/repository/index"),
        pair({"model_stats": [stats]}, method="GET", path="/v2/models/stats", body=None),
        pair({"model_stats": [stats]}, method="GET", path="/v2/models/m/stats", body=None),
    ]

    def gemma(asked: Asked) -> Said:
        if asked.path == unknown:
            return json_said(refused, 404)
        if asked.path == "/v2/repository/index":
            return json_said([{"name": "gemma", "version": "1", "state": "READY"}])
        if asked.path.endswith("/stats"):
            return json_said({"model_stats": [{**stats, "name": "gemma"}]})
        return triton(asked)

    place = write(tmp_path / "g.jsonl", said)
    with scripted(gemma) as server:
        done = check("--golden", place, "--url", server.url, "--model", "gemma")

    assert [asked.path for asked in server.asked] == [
        *("/v2/models/gemma/generate", unknown, "/v2/repository/index"),
        *("/v2/models/stats", "/v2/models/gemma/stats"),
    ]
    assert done.stdout.splitlines()[-1] == "5 pairs (--text exact): 5 the same."
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--json"], "--json"),
        (["--model", "m"], "--model"),
        (["--text", "exact", "--json"], "--text and --json"),
    ],
)
def test_options_of_a_replay_beside_record(tmp_path: Path, options: list[str], names: str) -> None:
    """What says how to compare is refused beside --record, before anything is sent."""
    requests = write(tmp_path / "requests.jsonl", REQUESTS)
    with scripted(triton) as server:
        words = ("--record", requests, "--golden", tmp_path / "g.jsonl", "--url", server.url)
        done = check(*words, *options)

    assert (done.returncode, done.stdout, server.asked) == (2, "", [])
    assert done.stderr == (
        f"gemma-serve: {names} can't go with --record, which sends requests as they are and "
        "compares nothing; leave it out, and give it when you replay.\n"
    )


def test_help() -> None:
    """The help says how to record, and every exit code."""
    said = " ".join(check("--help").stdout.split())

    assert "--record requests.jsonl --golden golden.jsonl --url http://triton:8000" in said
    for code in ("0 nothing differs", "1 something does", "2 a file or an option", "130 Ctrl-C"):
        assert code in said
    assert "3 a request was not answered" in said


def test_the_key_and_headers(golden: Path) -> None:
    """The key comes from the environment, as for chat; --header wins over it."""
    environ = {"GEMMA_SERVE_API_KEY": "ours"}
    with scripted(triton) as server:
        words = ("--golden", golden, "--url", server.url)
        check(*words, environ=environ)
        check(
            *words, "--header", "authorization: Basic x", "--header", "X-Team: a", environ=environ
        )

    sent = [asked.headers for asked in server.asked]
    assert {headers["authorization"] for headers in sent[:5]} == {"Bearer ours"}
    assert {headers["authorization"] for headers in sent[5:]} == {"Basic x"}
    assert {headers["x-team"] for headers in sent[5:]} == {"a"}


def test_headers_of_the_old_connection(tmp_path: Path) -> None:
    """A recorded length, host or connection is not sent: they belong to the request as it was."""
    old = {"Content-Length": "1", "Host": "triton", "Connection": "close", "X-Kept": "a"}
    said = [pair({**HEAD, "text_output": "The Rhine."}, headers=old)]
    with scripted(triton) as server:
        done = check("--golden", write(tmp_path / "g.jsonl", said), "--url", server.url)

    assert done.returncode == 0, done.stdout
    [asked] = server.asked
    assert json.loads(asked.body) == {"text_input": "Hi"}
    assert asked.headers["host"] == server.url.removeprefix("http://")
    assert asked.headers["x-kept"] == "a"


def test_what_would_steer_the_terminal_is_shown(tmp_path: Path) -> None:
    """Control characters of an answer are escaped, and its square brackets are no markup."""
    said = [pair({**HEAD, "text_output": "The"}), pair({"error": "a"}, 400)]

    def nasty(_: Asked) -> Said:
        return json_said({**HEAD, "text_output": "The\x1b[31m\u202e[bold]\n\x9b"})

    with scripted(nasty) as server:
        done = check("--golden", write(tmp_path / "g.jsonl", said), "--url", server.url)

    assert "now       The\\x1b[31m\\u202e[bold]\\n\\x9b" in done.stdout
    assert not {"\x1b", "\u202e", "\x9b"} & set(done.stdout)


# --- where the server fails


def test_no_server(golden: Path) -> None:
    """Where nothing answers: one line, and exit code 3."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = check("--golden", golden, "--url", url)

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"gemma-serve: No answer from {url} (ConnectError); start the server, or name another with "
        "--url.\n"
    )


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://[x", "ftp://127.0.0.1", ""])
def test_no_such_address(golden: Path, url: str) -> None:
    """What is no address of a server is the same line."""
    done = check("--golden", golden, "--url", url)

    assert done.returncode == 3
    [line] = done.stderr.splitlines()
    assert line.startswith(f"gemma-serve: No answer from {url} (")


def test_a_server_that_goes_away(golden: Path) -> None:
    """What was answered is reported; the rest could not be sent, and the exit code is 3."""
    gone = threading.Event()

    def once(asked: Asked) -> Said:
        if not gone.is_set():
            gone.set()
            server.close()
        return triton(asked)

    with scripted(once) as server:
        done = check("--golden", golden, "--url", server.url, "--json")

    report = json.loads(done.stdout)
    assert done.returncode == report["exit_code"] == 3
    assert [said["verdict"] for said in report["pairs"]] == ["same", "error"]
    assert report["pairs"][1]["failure"] == "could not be sent (ConnectError)"
    assert [place["line"] for place in report["not_sent"]] == [3, 4, 5]


def test_an_answer_that_is_cut(golden: Path) -> None:
    """A connection that closes too early is its pair's error; the others are compared."""

    def cut(asked: Asked) -> Said:
        return Said(b"{", cut=True) if b'"7"' in asked.body else triton(asked)

    with scripted(cut) as server:
        done = check("--golden", golden, "--url", server.url)

    assert done.returncode == 3
    assert "no whole answer (RemoteProtocolError)" in done.stdout
    assert done.stdout.splitlines()[-1] == (
        "5 pairs (--text exact): 4 the same, 1 not answered, text not compared in 1."
    )


def test_a_server_that_says_nothing(golden: Path) -> None:
    """A server that accepts and says nothing is given up after --timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = check("--golden", golden, "--url", url, "--timeout", "0.2", "--json")

    report = json.loads(done.stdout)
    assert done.returncode == 3
    assert {said["failure"] for said in report["pairs"]} == {"no whole answer (ReadTimeout)"}


def test_an_answer_without_an_end(tmp_path: Path) -> None:
    """An answer that is too large is given up, not collected."""
    said = write(tmp_path / "golden.jsonl", [pair({"text_output": "a"})])
    with scripted(lambda _: Said(b" " * (MAX_ANSWER_BYTES + 1))) as server:
        done = check("--golden", said, "--url", server.url)

    assert done.returncode == 3
    assert "no whole answer (more than 33554432 bytes)" in done.stdout


@pytest.mark.parametrize("terminal", [True, False])
def test_ctrl_c(heeds_ctrl_c: None, golden: Path, tmp_path: Path, terminal: bool) -> None:
    """Ctrl-C: what is known so far is reported, exit code 130, nothing is left."""
    reached, stop = threading.Event(), threading.Event()

    def slow(asked: Asked) -> Said:
        if asked.path.endswith("/infer"):
            reached.set()
            stop.wait(BOUND_S)
        return triton(asked)

    start = at_terminal if terminal else running
    with scripted(slow) as server:
        words = ["triton-check", "--golden", golden, "--url", server.url]
        with start(words, tmp_path / "log") as command:
            assert reached.wait(BOUND_S)
            if terminal:
                command.wait_for("Replaying .* 2/5")
                command.type("\x03")
            else:
                os.kill(command.process.pid, signal.SIGINT)
            assert command.ended() == 130
        stop.set()

    assert command.last_line() == ("Stopped. 5 pairs (--text exact): 2 the same, 3 not sent.")


# --- golden files that can't be used


def mistakes(path: Path, text: str | bytes) -> list[str]:
    """What is said of a golden file with this text."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(GoldenError) as caught:
        read_pairs(path)
    assert caught.value.exit_code == 2
    return caught.value.message.splitlines()


OK = '{"request": {"path": "/"}, "response": {"status": 200}}'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "{",
            "The line is not JSON (Expecting property name enclosed in double quotes at "
            "character 3); a line is ",
        ),
        (b"\xff{}", "The line is not JSON (it is not UTF-8 at byte 1); a line is "),
        ("[" * 5000, "The line is not JSON (it is nested too deep); a line is "),
        ("1" * 5000, "The line is not JSON (a number is too long); a line is "),
        ("[" * 110 + "]" * 110, "The line is no JSON object of at most 100 levels; a line is "),
        ("[]", "The line is no JSON object of at most 100 levels; a line is "),
        (
            "{}",
            "request can't be used: field required; response can't be used: field required; "
            "a line is ",
        ),
        (OK.replace('"/"', '"v2"'), "request.path can't be used: string should match pattern "),
        (OK.replace('"/"', '"/a b"'), "request.path can't be used: string should match pattern "),
        (OK.replace("200", "20"), "response.status can't be used: input should be greater than "),
        (
            OK.replace("200", '200, "body": 1, "events": []'),
            "response can't be used: body and events are both there; keep one; a line is ",
        ),
        (
            OK.replace("200", '200, "body_base64": "x"'),
            "response.body_base64 can't be used: this is not base64; a line is ",
        ),
        (
            OK.replace("200", '200, "events": ["a"]'),
            "response.events.0 can't be used: input should be a valid dictionary; a line is ",
        ),
        (
            OK.replace('"/"', '"/", "method": "PUT"'),
            "request.method can't be used: input should be 'GET' or 'POST'; a line is ",
        ),
        (
            OK.replace('"/"', '"/", "headers": {"a b": "c"}'),
            "request.headers.a b.[key] can't be used: string should match pattern ",
        ),
        (
            OK.replace('"/"', '"/", "headers": {"a": "\\n"}'),
            "request.headers.a can't be used: string should match pattern ",
        ),
        (
            OK.replace("{", '{"prompt": "hush", ', 1),
            "prompt can't be used: extra inputs are not permitted; a line is ",
        ),
    ],
)
def test_lines_that_cant_be_used(tmp_path: Path, line: str | bytes, said: str) -> None:
    """A wrong line is told with its file and number, what is wrong, and what a line is."""
    text = line if isinstance(line, bytes) else line.encode()
    [mistake] = mistakes(tmp_path / "golden.jsonl", OK.encode() + b"\n\n" + text + b"\n")

    assert mistake.startswith(f"golden.jsonl:3: {said}")
    assert mistake.endswith(f"a line is {FORM}.")
    assert "hush" not in mistake


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """Every wrong line is told, up to twenty."""
    told = mistakes(tmp_path / "golden.jsonl", "{}\n" + f"{OK}\n" + "{}\n" * 30)

    assert [line.split(":")[1] for line in told] == ["1", *map(str, range(3, 22))]


def test_a_line_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line over the limit is refused before it is read whole."""
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)

    assert mistakes(tmp_path / "golden.jsonl", f"{OK}\n" + "x" * 101) == [
        "golden.jsonl:2: The line has more than 100 bytes; leave out the pair, or send a smaller "
        "request."
    ]


def test_the_limit_of_a_line() -> None:
    """64 MiB."""
    assert lines.MAX_LINE_BYTES == 64 * 1024 * 1024


def test_files_that_cant_be_used(tmp_path: Path) -> None:
    """An empty file, a directory and none: exit code 2, and nothing is sent."""
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    expected = {
        empty: f"empty.jsonl has no lines; each is {FORM}.",
        tmp_path: f"{str(tmp_path)!r} can't be read: Is a directory; name a JSON Lines file.",
        tmp_path / "no": f"{str(tmp_path / 'no')!r} can't be read: No such file or directory; name "
        "a JSON Lines file.",
    }
    with scripted(triton) as server:
        for place, sentence in expected.items():
            done = check("--golden", place, "--url", server.url)
            assert (done.returncode, done.stderr) == (2, f"gemma-serve: {sentence}\n")
    assert server.asked == []


def test_a_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    """What editors leave in a file is no mistake."""
    place = tmp_path / "golden.jsonl"
    place.write_bytes(b"\xef\xbb\xbf" + OK.encode() + b"\r\n\r\n \n")

    assert [found.line for found, _ in read_pairs(place)] == [1]


@pytest.mark.parametrize("line", ["", "Authorization", "a b: c", "a: b\nc: d", "a: ü"])
def test_no_header(line: str) -> None:
    """What is no header is told without quoting it: it may hold a key."""
    with pytest.raises(GoldenError) as caught:
        target_of("http://127.0.0.1", [line], 1.0, 1, sends_key=False)
    assert caught.value.message == (
        "--header takes 'Name: value' in ASCII, for example 'Authorization: Bearer KEY'."
    )


def test_the_documented_lines(tmp_path: Path) -> None:
    """The examples in the documentation are lines that can be used."""
    page = (Path(__file__).parents[2] / "docs" / "from-triton.md").read_text()
    section = page.partition("## Try the migration first")[2].partition("\n## ")[0]
    requests, golden = re.findall(r"```json\n(.*?)```", section, re.DOTALL)
    for name, text in (("requests", requests), ("golden", golden)):
        (tmp_path / name).write_text(text)

    assert [place.name for place, _ in read_requests(tmp_path / "requests")] == ["rivers", "stream"]
    assert [place.name for place, _ in read_pairs(tmp_path / "golden")] == ["rivers"]
