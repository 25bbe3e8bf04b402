"""What `gemma-serve triton-check` does with its options."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from gemma_serve.progress import Progress
from gemma_serve.triton_check.golden import GoldenError
from gemma_serve.triton_check.lines import read_pairs, read_requests
from gemma_serve.triton_check.recording import check_place, record
from gemma_serve.triton_check.replay import replay
from gemma_serve.triton_check.sending import Target
from gemma_serve.triton_check.show import print_report, progress_bar, report_json
from gemma_serve.triton_check.texts import read_rule

KEY_VARIABLE = "GEMMA_SERVE_API_KEY"
HEADER = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([\t\x20-\x7e]*)")


def run_replay(
    golden: Path, target: Target, *, text: str | None, model: str | None, as_json: bool
) -> int:
    """
    Replay a golden file, print what differs, and return the exit code.

    Raises:
        GemmaServeError: the file can't be used, or the server can't be reached.
    """
    rule = read_rule(text or "exact")
    pairs = read_pairs(golden)
    with progress_bar("Replaying", len(pairs)) as advance:
        report = replay(pairs, target, rule, model, advance)
    if as_json:
        print(json.dumps(report_json(report), indent=2))
    else:
        print_report(report)
    return report.exit_code


def run_record(requests: Path, golden: Path, target: Target, *, force: bool) -> None:
    """
    Record a golden file, and say what it holds.

    Raises:
        GemmaServeError: a file can't be used, or the server can't be reached.
    """
    check_place(golden, force=force)
    asked = read_requests(requests)
    with progress_bar("Recording", 2 * len(asked)) as advance:
        recorded = record(asked, golden, target, advance)
    progress = Progress()
    progress.say(f"Recorded {recorded.num_pairs} pairs in {golden}.")
    if recorded.varying:
        labels = ", ".join(place.label for place in recorded.varying)
        progress.say(f"Two answers differed, so their text won't be compared: {labels}.")


def check_recording(*, text: str | None, model: str | None, as_json: bool) -> None:
    """
    Refuse options of a replay beside --record.

    Raises:
        GoldenError: one was given.
    """
    given = {"--text": text is not None, "--model": model is not None, "--json": as_json}
    names = " and ".join(name for name, is_given in given.items() if is_given)
    if names:
        raise GoldenError(
            f"{names} can't go with --record, which sends requests as they are and compares "
            "nothing; leave it out, and give it when you replay."
        )


def target_of(
    url: str, header_lines: Sequence[str], timeout_s: float, concurrency: int, *, sends_key: bool
) -> Target:
    """
    The server that the options name.

    Args:
        sends_key: Whether the key in the environment is for this server.

    Raises:
        GoldenError: a line is no header.
    """
    key = os.environ.get(KEY_VARIABLE) if sends_key else None
    headers = {"authorization": f"Bearer {key}"} if key else {}
    for line in header_lines:
        found = HEADER.fullmatch(line.strip())
        if found is None:
            # The line may hold a key.
            raise GoldenError(
                "--header takes 'Name: value' in ASCII, for example 'Authorization: Bearer KEY'."
            )
        headers[found[1].lower()] = found[2]
    return Target(url, headers, timeout_s, concurrency)
