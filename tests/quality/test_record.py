"""Records on disk, and which two can be compared."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from gemma_serve.errors import QualityError, StartupError
from gemma_serve.profile.schema import Quality
from gemma_serve.quality.compare import compare, reference_windows
from gemma_serve.quality.corpus import Windows, corpus_sha256
from gemma_serve.quality.gate import Gate, read_gate, verdict
from gemma_serve.quality.record import Record, Scores, read_record, write_record
from gemma_serve.quality.show import comparison_json, print_comparison, record_json

MAKE_ONE = "make one with: gemma-serve quality record PROFILE --output FILE"


def record(num_windows: int = 3, window_tokens: int = 6, num_top: int = 4) -> Record:
    """A record of a model that knows ten tokens, drawn from a fixed seed."""
    draw = np.random.default_rng(0)
    rows = (num_windows, window_tokens - 1)
    token_ids = draw.integers(10, size=(num_windows, window_tokens), dtype=np.int32)
    p = draw.dirichlet(np.ones(10), size=rows)
    top = np.argsort(-p, axis=2)[..., :num_top]
    scores = Scores(
        token_ids,
        np.log(np.take_along_axis(p, token_ids[:, 1:, None], axis=2)[..., 0]).astype(np.float32),
        top.astype(np.int32),
        np.log(np.take_along_axis(p, top, axis=2)).astype(np.float32),
        draw.integers(10, size=(num_windows, 8), dtype=np.int32),
    )
    about = {"model": "tiny", "corpus_sha256": corpus_sha256(), "gemma_serve_version": "0.0"}
    return Record(about, ("en", "code", "zh")[:num_windows], scores)


def test_round_trip(tmp_path: Path) -> None:
    """What is read is what was written, to the bit, and nothing else is left in the folder."""
    path, made = tmp_path / "a.npz", record()
    write_record(made, path)
    found = read_record(path)
    assert found.texts == made.texts
    assert found.about.items() >= made.about.items()
    for field in fields(Scores):
        ours, theirs = (getattr(one.scores, field.name) for one in (made, found))
        assert np.array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    assert list(tmp_path.iterdir()) == [path]


def test_record_as_json() -> None:
    """What a record says of itself is JSON."""
    made = json.loads(json.dumps(record_json(record())))
    assert made["num_tokens"] == 15
    assert made["num_top"] == 4
    assert made["texts"] == ["en", "code", "zh"]


def rewrite(path: Path, about: Callable[[dict[str, object]], object], **arrays: object) -> None:
    """Write a record that says something else."""
    with np.load(path) as old:
        kept = {name: old[name] for name in old.files} | arrays
    kept["about"] = np.array(json.dumps(about(json.loads(str(kept["about"])))))
    np.savez(path, **kept)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("no zip"),
        lambda path: path.write_bytes(path.read_bytes()[:-200]),
        lambda path: zipfile.ZipFile(path, "w").close(),
        lambda path: np.savez(path, about=np.array([{}], dtype=object)),
        lambda path: path.write_bytes(path.read_bytes().replace(b"\x00\x00", b"\x01\x01")),
        lambda path: rewrite(path, lambda about: []),
        lambda path: rewrite(path, lambda about: about | {"format": "other"}),
        lambda path: rewrite(path, lambda about: about | {"texts": ["en"]}),
        lambda path: rewrite(path, lambda about: about, top_logprobs=np.zeros(3)),
        lambda path: rewrite(path, lambda about: about, token_ids=np.zeros((3, 6), np.int32)),
        lambda path: rewrite(path, lambda about: about, token_ids=np.zeros((0, 6), np.int32)),
    ],
)
def test_no_record(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """Whatever else a file holds, it is no record, and nothing in it is run."""
    path = tmp_path / "a.npz"
    write_record(record(), path)
    spoil(path)
    with pytest.raises(QualityError) as raised:
        read_record(path)
    expected = f"{str(path)!r} is no quality record, or only a part of one; {MAKE_ONE}."
    assert raised.value.message == expected


def test_missing_record(tmp_path: Path) -> None:
    """A path without a file says how to make one."""
    path = tmp_path / "a.npz"
    with pytest.raises(QualityError) as raised:
        read_record(path)
    expected = f"No quality record at {str(path)!r}: No such file or directory; {MAKE_ONE}."
    assert raised.value.message == expected


def test_newer_record(tmp_path: Path) -> None:
    """A record of a version that is not known is refused by that."""
    path = tmp_path / "a.npz"
    write_record(record(), path)
    rewrite(path, lambda about: about | {"version": 2})
    with pytest.raises(QualityError, match="has version 2 and this gemma-serve reads 1; record"):
        read_record(path)


def test_folder_that_can_not_be_written(tmp_path: Path) -> None:
    """A record that can't be written says why and leaves nothing."""
    path = tmp_path / "missing" / "a.npz"
    with pytest.raises(QualityError, match="can't be written: No such file or directory"):
        write_record(record(), path)
    assert not list(tmp_path.iterdir())


def test_a_record_and_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing differs: no divergence, all agree, and every bound holds."""
    compared = compare(record(), record())
    figures = compared.figures
    assert compared.kl == figures["kl_max_nats"] == 0.0
    assert figures["top1_agreement"] == 1.0
    assert figures["greedy_agreement_tokens"] == figures["greedy_tokens"] == 8
    assert figures["perplexity"] == figures["reference_perplexity"]
    assert not compared.exceeds(0.0)
    print_comparison(compared, 0.0)
    assert "Mean KL divergence 0.00000 nats a token: within 0." in capsys.readouterr().out


def test_figures_that_are_no_numbers_are_null() -> None:
    """A candidate without numbers is not within a bound, and still JSON."""
    made = record()
    broken = replace(made.scores, target_logprobs=np.full((3, 5), np.nan, np.float32))
    compared = compare(made, replace(made, scores=broken))
    report = json.loads(json.dumps(comparison_json(compared, 5.0), allow_nan=False))
    assert report["within"] is False
    assert report["figures"]["kl_mean_nats"] is None
    assert report["figures"]["by_text"]["en"]["perplexity"] is None


def test_records_of_different_lengths() -> None:
    """What both have scored is compared."""
    made = record()
    shorter = replace(made, texts=made.texts[:2], scores=made.scores.first(2, 4))
    assert compare(made, shorter).figures["num_tokens"] == 2 * 3
    assert compare(shorter, made).kl == 0.0


def test_another_corpus() -> None:
    """Records of other texts can't be compared."""
    made = record()
    other = replace(made, about={**made.about, "corpus_sha256": "0"})
    for pair in ((made, other), (other, made)):
        with pytest.raises(QualityError, match=r"of another corpus \(gemma-serve 0\.0\); record"):
            compare(*pair)


def test_another_tokenizer() -> None:
    """Nor those of another tokenizer, whether recorded or about to be scored."""
    made = record()
    other_ids = made.scores.token_ids + 1
    other = replace(made, scores=replace(made.scores, token_ids=other_ids))
    message = "The reference is of 'tiny', whose tokenizer makes other tokens of the corpus than"
    with pytest.raises(QualityError, match=message):
        compare(made, other)
    with pytest.raises(QualityError, match=message):
        reference_windows(made, Windows(other_ids, made.texts))
    longer = np.pad(made.scores.token_ids, ((0, 1), (0, 2)))
    assert np.array_equal(
        reference_windows(made, Windows(longer, (*made.texts, "de"))), made.scores.token_ids
    )


# --- the check at the start


def quality(**changes: object) -> Quality:
    return Quality.model_validate({"reference": "a.npz", "max_kl": 0.01} | changes)


def test_part_that_is_checked() -> None:
    """A few tokens of many windows; never more than there are."""
    whole = replace(record(), scores=replace(record().scores, token_ids=np.zeros((42, 512))))
    parts = {n: Gate(quality(max_tokens=n), whole).part() for n in (1, 128, 1024, 9999, 99999)}
    assert parts == {1: (1, 2), 128: (1, 129), 1024: (8, 129), 9999: (42, 239), 99999: (42, 512)}


def test_reference_beside_the_profile(tmp_path: Path) -> None:
    """A relative path is looked for in the folders in order; a wrong one is named at once."""
    write_record(record(), tmp_path / "a.npz")
    gate = read_gate(quality(), [tmp_path / "none", tmp_path])
    assert gate is not None
    assert gate.reference.texts == ("en", "code", "zh")
    assert read_gate(None, []) is None
    with pytest.raises(StartupError, match=r"^quality\.reference: No quality record at"):
        read_gate(quality(reference="b.npz"), [tmp_path])


def test_verdict() -> None:
    """Within the bound a line; beyond it an error or a warning; no number is beyond it."""
    made = record()
    within = verdict(Gate(quality(), made), 0.01, 1024)
    assert within == (
        "Quality: mean KL divergence of 0.0100 nats a token from tiny over 1024 tokens, "
        "within quality.max_kl 0.01."
    )
    for kl in (0.0101, float("inf"), float("nan")):
        with pytest.raises(StartupError) as raised:
            verdict(Gate(quality(), made), kl, 1024)
        assert raised.value.message == (
            f"The quality check found a mean KL divergence of {kl:.4f} nats a token from tiny over "
            "1024 tokens, and quality.max_kl is 0.01; 'gemma-serve quality compare REFERENCE "
            "PROFILE' shows where they differ; mend the checkpoint or its precision, or raise "
            "quality.max_kl."
        )
        warning = verdict(Gate(quality(action="warn"), made), kl, 1024)
        assert warning.startswith("Warning: The quality check found a mean KL divergence of ")
