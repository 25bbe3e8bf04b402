"""`python -m benchmarks` as it is typed, against a null server: help, mistakes, files, codes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from benchmarks import cli
from benchmarks.cli import app
from benchmarks.load.calibrate import null_server
from benchmarks.load.null_server import Pace
from benchmarks.records import Comparison, Run, Sweep
from benchmarks.workload import materialise, parse_spec, write_workload

COMMANDS = ["run", "replay", "sweep", "compare", "judge", "report", "calibrate", "nullserver"]
COMMANDS += ["workload"]
BOUND_S = 120


def bench(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """`python -m benchmarks WORDS`, to its end."""
    command = [sys.executable, "-m", "benchmarks", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S, check=False)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A null server: 10 ms to the first token, 2 ms between."""
    with null_server(Pace(0.010, 0.002)) as address:
        yield address


def test_commands_and_their_help() -> None:
    """Each command's help ends in something to copy."""
    names = [info.name or info.callback.__name__ for info in app.registered_commands]

    assert names == [*COMMANDS, "schema"]
    for name in names:
        shown = " ".join(CliRunner().invoke(app, [name, "--help"]).stdout.split())
        assert f"Example: python -m benchmarks {name}" in shown


def assert_honest(done: subprocess.CompletedProcess[str], *records: Path) -> None:
    """
    The exit code is that of the records' verdicts, and so is the first word.

    Which verdict it is depends on how busy this machine is: only red checks of the answers would
    be a bug.
    """
    runs = [Run.model_validate_json(path.read_text()) for path in records]
    verdicts = [run.validity.verdict for run in runs]
    red = {check.name for run in runs for check in run.validity.checks if check.status == "red"}

    assert not red & {"failed_requests", "output_length", "usage_tokens"}
    assert done.stdout.startswith(verdicts[0])
    assert done.returncode == (3 if "INVALID" in verdicts else 0), done.stderr


def test_run_opens_with_the_validity_and_leaves_its_files(url: str, tmp_path: Path) -> None:
    """A run prints its verdict first, and its files are what the schema and other tools expect."""
    done = bench("run", url, "--concurrency", "4", "--requests", "12", "--output", "16",
                 "--slo", "ttft_ms=60000,tpot_ms=60000", "--out", tmp_path)  # fmt: skip
    run = json.loads((tmp_path / "run.json").read_text())

    assert_honest(done, tmp_path / "run.json")
    jsonschema.validate(run, Run.model_json_schema(by_alias=True))
    assert Run.model_validate(run).model_dump(mode="json", by_alias=True) == run
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "requests.jsonl",
        "run.json",
        "summary.csv",
        "vllm_bench.json",
        "workload.jsonl",
    ]
    # 12 measured requests of 16 tokens, all of them good.
    assert run["metrics"]["full_run"]["output_tokens"] == 192
    assert run["metrics"]["full_run"]["goodput"]["attainment"] == 1.0
    assert run["token_source"] == "token_ids"
    lines = (tmp_path / "requests.jsonl").read_text().splitlines()
    assert len(lines) == 12 + run["workload"]["num_warm_up"]


def test_known_times_are_measured_as_they_are(url: str, tmp_path: Path) -> None:
    """Against a server whose times are known, no token is seen before it was sent."""
    bench("run", url, "--concurrency", "2", "--requests", "8", "--output", "16", "--out", tmp_path)
    found = json.loads((tmp_path / "run.json").read_text())["metrics"]["full_run"]["distributions"]

    # 10 ms, and 15 gaps of 2 ms; timers ring late, never early (they count whole milliseconds).
    assert found["ttft_s"]["min"] >= 0.009
    assert found["e2e_s"]["min"] >= 0.010 + 15 * 0.002 - 0.001
    assert found["tpot_s"]["n"] == 8


def test_replayed_workload_has_the_same_bytes(url: str, tmp_path: Path) -> None:
    """A run of another run's workload.jsonl sends the same bytes, by their SHA-256."""
    first, second = tmp_path / "first", tmp_path / "second"
    bench("run", url, "--concurrency", "2", "--requests", "6", "--output", "4", "--out", first)
    bench("run", url, "--concurrency", "3", "--workload", first / "workload.jsonl",
          "--out", second)  # fmt: skip
    runs = [json.loads((path / "run.json").read_text()) for path in (first, second)]

    assert runs[0]["workload"]["sha256"] == runs[1]["workload"]["sha256"]
    assert (first / "workload.jsonl").read_bytes() == (second / "workload.jsonl").read_bytes()


SMALL = ["--requests", "4", "--warm-up", "0", "--output", "4"]


def test_stored_workload_of_any_name_is_replayed_with_any_load(url: str, tmp_path: Path) -> None:
    """The file of the command workload is sent as it is, or the part of it that is asked for."""
    file = tmp_path / "chat.jsonl"
    shared = ["--workload", "prefix", "--set", "num_groups=2", "--set", "prefix_tokens=40"]
    digest = bench("workload", file, "--output", "4", *shared).stdout.split()[-1]
    runs = []
    for name, words in (("16", []), ("4", []), ("part", ["--requests", "3", "--warm-up", "1"])):
        clients = "16" if name == "16" else "4"
        done = bench("run", url, "--concurrency", clients, "--workload", file, *words,
                     "--out", tmp_path / name)  # fmt: skip
        assert (tmp_path / name / "run.json").is_file(), done.stderr
        runs.append(Run.model_validate_json((tmp_path / name / "run.json").read_text()).workload)

    assert [one.sha256 == digest for one in runs] == [True, True, False]
    assert (tmp_path / "16" / "workload.jsonl").read_bytes() == file.read_bytes()
    assert (runs[2].num_requests, runs[2].num_warm_up) == (3, 1)
    # Prompts that are made to share blocks do so again.
    assert {(one.kind, one.cache) for one in runs} == {("prefix", "warm")}


@pytest.mark.parametrize(
    ("words", "schema"),
    [
        (["run", "--concurrency", "2"], "gemma-bench/1"),
        (["sweep", "--levels", "1,2"], "gemma-bench-sweep/1"),
    ],
)
def test_json_is_the_only_thing_on_stdout(
    url: str, tmp_path: Path, words: list[str], schema: str
) -> None:
    """--json prints the record and nothing else."""
    done = bench(words[0], url, *words[1:], *SMALL, "--out", tmp_path, "--json")

    assert json.loads(done.stdout)["schema"] == schema


def test_comparison_by_blocks(url: str, tmp_path: Path) -> None:
    """--json prints the record alone; without a terminal each block is a line on stderr."""
    done = bench("compare", url, url, "--concurrency", "1", *SMALL, "--looks", "6",
                 "--aa-pairs", "2", "--out", tmp_path, "--json")  # fmt: skip
    record = Comparison.model_validate_json(done.stdout)

    code = {"faster": 0, "equivalent": 0, "slower": 1, "inconclusive": 2, "invalid": 3}
    assert done.returncode == code[record.verdict], done.stderr
    begun = re.findall(r"Comparing: block (\d+) of 16: (.*), pair (\d+) of (\d)", done.stderr)
    assert begun[0] == ("1", "A against itself", "1", "2")
    assert ("5", "A against B", "1", "6") in begun
    # A pair that something disturbed is measured again under its number.
    assert sorted({int(number) for number, *_ in begun}) == list(range(1, 17))


def test_ping_pong_by_the_options_given(url: str, tmp_path: Path) -> None:
    """Its margin is the one that was given, its pairs are the requests, A/A is left out by 0."""
    done = bench("compare", url, url, *SMALL, "--ping-pong", "--margin", "0.2", "--aa-pairs", "0",
                 "--out", tmp_path, "--json")  # fmt: skip
    record = Comparison.model_validate_json(done.stdout)

    assert (record.equivalence, record.looks, record.a_a) == (0.2, [4], [])
    assert {metric.noise_floor for metric in record.metrics} == {None}
    assert record.message.endswith("no noise floor: A was not measured against itself")
    assert "Comparing: A against B" in done.stderr


def test_sweep_writes_its_points(url: str, tmp_path: Path) -> None:
    """A sweep leaves sweep.json, valid by its schema, and a directory a load."""
    done = bench("sweep", url, "--levels", "1,2", "--requests", "6", "--output", "8",
                 "--out", tmp_path)  # fmt: skip
    sweep = json.loads((tmp_path / "sweep.json").read_text())

    assert_honest(done, tmp_path / "c1" / "run.json", tmp_path / "c2" / "run.json")
    jsonschema.validate(sweep, Sweep.model_json_schema(by_alias=True))
    assert [point["load"]["concurrency"] for point in sweep["points"]] == [1, 2]
    for point in sweep["points"]:
        assert (tmp_path / point["directory"] / "run.json").is_file()


def test_invalid_run_says_so_first_and_exits_with_3(url: str, tmp_path: Path) -> None:
    """A red check comes first and in the exit code; here the answers are cut by --timeout-s."""
    done = bench("run", url, "--concurrency", "2", "--requests", "4", "--output", "600",
                 "--timeout-s", "0.3", "--out", tmp_path)  # fmt: skip

    assert done.returncode == 3
    assert done.stdout.startswith("INVALID")
    assert "timeout" in done.stdout


def test_ramp_and_cores_of_the_client(url: str, tmp_path: Path) -> None:
    """Both are in the record: the load with its ramp, and where the client ran."""
    core = str(max(os.sched_getaffinity(0)))
    done = bench("run", url, "--concurrency", "4", "--requests", "6", "--warm-up", "0",
                 "--output", "100", "--ramp-s", "0.4", "--client-cpus", core,
                 "--out", tmp_path)  # fmt: skip
    run = Run.model_validate_json((tmp_path / "run.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]
    sends_s = sorted(line["send_s"] for line in lines)

    assert_honest(done, tmp_path / "run.json")
    assert (run.load.concurrency, run.load.ramp_s) == (4, 0.4)
    assert run.host["client_cpus"] == core
    assert run.machine is not None
    assert run.machine.load_average is not None
    # The clients begin 100 ms apart, and a request takes 208; timers ring late, never early.
    assert sends_s[1] >= 0.1 - 0.005
    assert sends_s[2] >= 0.2 - 0.005


def test_replay_of_a_flight_record(url: str, tmp_path: Path) -> None:
    """A record's requests are sent at its times, without what generated nothing, and faster."""
    rows = [
        {"timestamp": 1_000.0, "input_length": 600, "output_length": 8, "status": "200"},
        {"timestamp": 1_100.0, "input_length": 20, "output_length": 0, "status": "200"},
        {"timestamp": 1_200.0, "input_length": 20, "output_length": 0, "status": "400"},
        {"timestamp": 1_400.0, "input_length": 30, "output_length": 0, "status": "499"},
        {"timestamp": 1_800.0, "input_length": 600, "output_length": 4, "status": "OK"},
        {"timestamp": 9_000.0, "input_length": 5, "output_length": 1, "status": "200"},
    ]
    flight = tmp_path / "flight.jsonl"
    for row in rows:
        row["hash_ids"] = [7, 8] if row["input_length"] == 600 else [9]
    flight.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    done = bench("replay", flight, url, "--speed", "4", "--limit", "3", "--warm-up", "0",
                 "--out", out)  # fmt: skip

    assert_honest(done, out / "run.json")
    sent = [json.loads(line) for line in (out / "workload.jsonl").read_text().splitlines()]
    assert [(item["at_s"], item["max_tokens"]) for item in sent] == [(0, 8), (0.1, 1), (0.2, 4)]
    prompts = [item["prompt_token_ids"] for item in sent]
    assert [len(prompt) for prompt in prompts] == [600, 30, 600]
    assert {prompt[0] for prompt in prompts} == {2}
    assert prompts[0] == prompts[2]
    lines = [json.loads(line) for line in (out / "requests.jsonl").read_text().splitlines()]
    assert [round(line["sched_s"], 3) for line in lines] == [0, 0.1, 0.2]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "htp://x"], "target 'htp://x' is none that the harness knows"),
        (["run", "http://127.0.0.1:9"], "no server answers at http://127.0.0.1:9"),
        (["run", "--rate", "5", "--concurrency", "2"], "give one of them"),
        (["run", "--input", "many"], "many"),
        (["run", "--workload", "synthtic"], "workload kind 'synthtic' is unknown"),
        (["run", "--set", "x"], "--set x is no KEY=VALUE"),
        (["run", "--slo", "fast"], "fast"),
        (["run", "--protocol", "grpc"], "--protocol grpc is unknown; use openai-chat"),
        (["replay", "no-such.jsonl"], "no-such.jsonl is no flight record, whose lines have"),
        (["replay", "pyproject.toml"], "pyproject.toml is no flight record, whose lines have"),
        (["sweep"], "give one of --levels 1,2,4, --knee and --goodput"),
        (["schema", "report"], "schema report is unknown"),
    ],
)
def test_mistake_is_one_line(words: list[str], sentence: str) -> None:
    """A mistake is one line on stderr, exit code 64, and nothing on stdout."""
    done = bench(*words)

    assert (done.returncode, done.stdout) == (64, "")
    assert re.fullmatch(r"benchmarks: .*\n", done.stderr), done.stderr
    assert sentence in done.stderr


PREFIX = ["--workload", "prefix", "--set", "num_groups=2", "--set", "prefix_tokens=9"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("compare A B --looks 4", "looks after [4] pairs were asked for; give rising numbers"),
        ("compare A B --looks x", "--looks x is no list of whole numbers from 1 on; write it like"),
        ("compare A B --aa-pairs 1", "1 pairs of A against itself were asked for; an interval"),
        ("compare A B --margin 3", "an equivalence margin of 3.0 was asked for"),
        ("compare A htp://x", "target 'htp://x' is none that the harness knows"),
        ("compare A vllm:b,protocol=triton-grpc", "vllm's server does not speak triton-grpc"),
        ("compare A B --arrivals trace", "request 0 of the workload has no time of its own"),
        ("compare A B --style ids --protocol openai-chat", "has token ids, and openai-chat takes"),
        ("compare A B --workload no.txt", "workload kind 'no.txt' is unknown"),
        ("compare A B --quality-prompts 4", "--quality-prompts 4 was given, and greedy answers"),
        ("compare A B --quality --quality-file no", "workload kind 'no' is unknown"),
        ("compare A B --ping-pong --concurrency 8", "--ping-pong sends one request at a time"),
        ("compare A B --ping-pong --looks 6", "--looks 6 was given, and --ping-pong looks once"),
        ("compare A B --ping-pong --warm-cache", "--warm-cache was given, and with --ping-pong"),
        ("compare A B --ping-pong --aa-pairs 99", "has a pair for each of the 32 requests"),
        ("compare A B --ping-pong --starts 2", "--ping-pong sends all its requests to one start"),
        ("compare A B --ping-pong --ramp-s 2", "--ramp-s 2.0 was given, and --ping-pong sends one"),
        ("compare A B --starts 11", "11 starts of both servers were asked for; give 1 to 10"),
        ("compare A http://h:1 --starts 2", "http://h:1 runs already, so that it can't be started"),
        (f"compare A B --ping-pong {' '.join(PREFIX)}", "those of this workload (prefix) do"),
        ("compare A B --out README.md", "--out README.md is a file"),
        ("judge A --tools x", "there is no judge 'x'; give vllm or guidellm"),
        ("judge A --rate 5", "load 5/s cannot be judged"),
        ("judge A --ramp-s 5", "--ramp-s 5 cannot be judged: the tools start all clients at once"),
        ("judge A --style ids", "request 0 is not one text, which is all that other tools replay"),
        ("judge A,protocol=triton-generate", "protocol triton-generate cannot be judged"),
        ("sweep A --levels 0 --open", "--levels 0 is no list of numbers from 0.001 on; write it"),
        ("sweep A --levels 0", "--levels 0 is no list of whole numbers from 1 on"),
        ("sweep A --levels a", "--levels a is no list of whole numbers from 1 on"),
        ("sweep A --levels 1.5", "--levels 1.5 is no list of whole numbers from 1 on"),
        ("sweep A --levels inf --open", "--levels inf is no list of numbers"),
        ("sweep A --levels 4,2,4", "--levels 4,2,4 has 4 twice; give each number once"),
        ("sweep A --levels 4 --concurrency 2", "--levels says which loads are measured"),
        ("sweep A --knee --rate 5", "this sweep's levels are clients; give --open with it"),
        ("sweep A --knee --arrivals constant", "a closed loop has none; give --open with it"),
        ("sweep A --knee --open --concurrency 4", "with --open the levels are rates; begin at a"),
        ("sweep A --knee --open --arrivals trace", "--arrivals trace has one load"),
        ("sweep A --knee --attainment 0.5", "--attainment 0.5 was given, and only the search"),
        ("calibrate --concurrency x", "--concurrency x is no list of whole numbers from 1 on"),
        ("run A --rate 5 --burstiness 0.5", "--burstiness 0.5 was given, and only --arrivals gam"),
        ("run A --max-concurrency 4", "--max-concurrency 4 was given, and a closed loop has none"),
        ("run A --arrivals constant", "a closed loop has none; give a --rate with it, or leave"),
        ("run A --arrivals trace --rate 5", "--rate 5.0 was given, and --arrivals trace sends by"),
        ("run A --arrivals no --rate 5", "--arrivals no is unknown; use constant, poisson, gamma"),
        ("run A --arrivals trace --ramp-s 5", "--ramp-s 5.0 was given, and --arrivals trace sends"),
        ("run A --client-cpus 0-99999", "--client-cpus 0-99999 is no list of cores that this pro"),
        ("run A --client-cpus x", "--client-cpus x is no list of cores that this process may use"),
        ("run A --workload TURNS", "request 0 of the workload is a turn of a conversation, in tok"),
        ("run A --workload README.md --input 64", "--input 64 was given, and the prompts of a"),
        ("run A --workload FILE --input 64", "--input 64 was given, and the prompts of a file"),
        ("run A --workload FILE --output 8", "FILE holds requests that are sent as they are"),
        ("run A --workload FILE --style ids", "FILE holds requests that are sent as they are"),
        ("run A --workload FILE --set shuffle=1", "--set shuffle 1 was given, and FILE holds"),
        ("run A --workload FILE --tokenizer t", "--tokenizer t was given, and FILE holds"),
        ("run A --workload FILE --requests 99", "99 measured requests were asked for, and FILE"),
        ("run http://[::1", "'http://[::1' is no server's address; write it like"),
        ("run http://h:99999", "'http://h:99999' is no server's address; write it like"),
    ],
)
def test_mistakes_are_told_before_a_server_is_started(
    words: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """All that can be known beforehand is one line, before servers are waited for."""

    def start(spec: object, **_: object) -> None:
        raise AssertionError(f"{spec} was started")

    file, spec = tmp_path / "FILE", {"kind": "synthetic", "input": 9, "output": 4}
    write_workload(materialise(parse_spec(spec), 1, 4, 2), file)
    turns = tmp_path / "TURNS"
    turn = {"index": 0, "max_tokens": 4, "prompt_token_ids": [1000], "conversation": "c"}
    turns.write_text("".join(json.dumps(turn | {"turn": number}) + "\n" for number in range(2)))
    files = {name.name: str(name) for name in (file, turns)}
    targets = {"A": "profile:a", "B": "profile:b", **files}
    typed = [re.sub(r"^A,", "profile:a,", targets.get(word, word)) for word in words.split()]
    monkeypatch.setattr("benchmarks.serving.started", start)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *typed])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (64, "")
    assert re.fullmatch(r"benchmarks: .*\n", said.err), said.err
    assert sentence in said.err


@pytest.mark.parametrize("words", [["run", "--no-such"], ["compare", "a"], ["nothing"], []])
def test_words_that_are_none_have_the_code_of_mistakes(words: list[str]) -> None:
    """typer's own code would be 2, which says that a comparison is inconclusive."""
    done = bench(*words)

    assert (done.returncode, done.stdout) == (64, "")
    assert "Usage: " in done.stderr


def test_fault_of_the_harness_has_a_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python's own code would be 1, which says that A is slower."""

    def breaks(**_: object) -> None:
        raise KeyError("of a bug")

    monkeypatch.setattr(cli, "app", breaks)

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == 70
    assert "KeyError: 'of a bug'" in capsys.readouterr().err


def test_ctrl_c_ends_a_run_in_one_line(url: str, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a run is 130, one line and no traceback."""
    words = ["run", url, "--requests", "100000", "--output", "100", "--out", str(tmp_path)]
    # A shell that runs the tests in the background has them ignore Ctrl-C.
    hears = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    harness = f"import signal; {hears}; from benchmarks.cli import main; main()"
    command = [sys.executable, "-c", harness, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        # The last thing that is said before requests are sent.
        assert p.stderr is not None
        while "Offering" not in p.stderr.readline():
            assert p.poll() is None
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=BOUND_S)

    assert (p.returncode, out) == (130, "")
    assert "interrupted; nothing is left running" in err
    assert "Traceback" not in err


def test_workload_command_prints_the_digest_of_the_file(tmp_path: Path) -> None:
    """The digest that is printed is that of the bytes on disk."""
    file = tmp_path / "w.jsonl"
    done = bench("workload", file, "--input", "8-16", "--output", "4", "--seed", "3")

    assert hashlib.sha256(file.read_bytes()).hexdigest() in done.stdout


def test_calibrate_knows_the_null_servers_times() -> None:
    """The client's error against known times is small and its ceiling is above the pace."""
    done = bench("calibrate", "--concurrency", "2", "--json")
    (one,) = json.loads(done.stdout)

    assert one["ideal_tps"] == pytest.approx(2 * 128 / (0.020 + 127 * 0.005))
    assert 0 < one["paced_tps"] <= one["ideal_tps"] * 1.01
    assert one["ceiling_tps"] > 0


@pytest.mark.parametrize("kind", ["run", "sweep", "compare", "judge"])
def test_published_schema_is_the_models(kind: str) -> None:
    """The schemas in the repository are those that the records are written by."""
    published = Path(__file__).parents[2] / "benchmarks" / "schemas" / f"{kind}.schema.json"

    assert published.read_text() == bench("schema", kind).stdout


def test_key_is_in_no_file(url: str, tmp_path: Path) -> None:
    """An API key that is part of a target reaches neither the files nor the terminal."""
    done = bench("run", f"{url},key=sk-secret", "--concurrency", "1", "--requests", "2",
                 "--output", "2", "--out", tmp_path)  # fmt: skip
    written = "".join(path.read_text() for path in tmp_path.iterdir())

    assert (tmp_path / "run.json").is_file(), done.stderr
    assert "sk-secret" not in written + done.stdout + done.stderr
