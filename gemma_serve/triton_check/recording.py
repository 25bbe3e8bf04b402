"""Records a golden file: each request is sent twice, to see whether its answer can be compared."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma_serve.triton_check.answers import read_answer, to_response
from gemma_serve.triton_check.differences import compare
from gemma_serve.triton_check.golden import Asked, GoldenError, Pair, Request
from gemma_serve.triton_check.lines import Place, to_line
from gemma_serve.triton_check.sending import Answer, Failure, Target, UnreachableError, send_all
from gemma_serve.triton_check.texts import EXACT

# A key belongs to one server and in no file.
SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})


@dataclass(frozen=True)
class Recorded:
    """What was written."""

    num_pairs: int
    varying: tuple[Place, ...]


def record(
    asked: Sequence[tuple[Place, Asked]],
    golden: Path,
    target: Target,
    on_answer: Callable[[], None] = lambda: None,
) -> Recorded:
    """
    Send the requests to the server that runs now, and write the golden file.

    It is written whole or not at all.

    Raises:
        UnreachableError: a request was not answered.
        GoldenError: the file can't be written.
    """
    requests = [line.request for _, line in asked for _ in range(2)]
    answers: dict[int, Answer] = {}
    failures: list[tuple[Place, Failure]] = []

    def keep(index: int, answer: Answer | Failure) -> bool:
        on_answer()
        if isinstance(answer, Answer):
            answers[index] = answer
        else:
            failures.append((asked[index // 2][0], answer))
        return not failures

    asyncio.run(send_all(requests, target, keep))
    if failures:
        raise _refused(*failures[0], target)
    pairs = [
        _pair(line, answers[2 * index], answers[2 * index + 1])
        for index, (_, line) in enumerate(asked)
    ]
    _write(golden, map(to_line, pairs))
    varying = tuple(place for (place, _), pair in zip(asked, pairs, strict=True) if pair.varies)
    return Recorded(len(pairs), varying)


def check_place(golden: Path, *, force: bool) -> None:
    """
    See that the golden file can be written, before anything is sent.

    Raises:
        GoldenError: it exists and may not be replaced, or its directory does not.
    """
    if not golden.parent.is_dir() or golden.is_dir():
        raise GoldenError(
            f"{str(golden)!r} can't be written: it is a directory, or is in none; name another "
            "file with --golden."
        )
    if golden.exists() and not force:
        raise GoldenError(
            f"{str(golden)!r} exists; name another file with --golden, or replace it with --force."
        )


def _refused(place: Place, failure: Failure, target: Target) -> UnreachableError:
    if not failure.reachable:
        return target.unreachable(failure.reason)
    return UnreachableError(
        f"{place.file}:{place.line}: {target.url} gave {failure}, and nothing was recorded; leave "
        "the request out, or see what the server says."
    )


def _pair(asked: Asked, first: Answer, second: Answer) -> Pair:
    path = asked.request.path
    differences = compare(read_answer(path, first), read_answer(path, second), EXACT, values=True)
    return Pair(
        name=asked.name,
        request=_without_secrets(asked.request),
        response=to_response(first),
        varies=any(difference.severity == "text" for difference in differences),
    )


def _without_secrets(request: Request) -> Request:
    kept = {name: value for name, value in request.headers.items() if name not in SECRET_HEADERS}
    return request.model_copy(update={"headers": kept})


def _write(golden: Path, lines: Iterable[bytes]) -> None:
    try:
        with tempfile.NamedTemporaryFile(
            dir=golden.parent, prefix=".golden-", delete=False
        ) as file:
            try:
                file.writelines(lines)
                file.close()
                os.replace(file.name, golden)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(file.name)
                raise
    except OSError as error:
        raise GoldenError(
            f"{str(golden)!r} can't be written: {error.strerror}; name another file with --golden."
        ) from None
