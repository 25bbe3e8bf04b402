"""
Gemma 3's tokenizer from the vocabulary of a llama.cpp file.

llama.cpp stores pieces, scores and kinds but no merges; those follow from the scores. The result
is Google's tokenizer.json, merge by merge, but for one token (a test holds it against the
published one).
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

if TYPE_CHECKING:
    from gguf import GGUFReader

SPACE = "\u2581"  # what sentencepiece writes for a space

# gguf.TokenType: what the text is searched for before BPE sees it.
CONTROL = 3
USER_DEFINED = 4

# Google's file marks these as special (left out by decode(skip_special_tokens=True)); llama.cpp's
# kinds do not tell them from <unused0> and its like.
SPECIAL = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
)
# Not added: <image_soft_token>, which the published tokenizer has for the multimodal sizes. Its id
# is 262144, one more than a text model has rows of embedding, and vLLM 0.32 takes an id for valid
# when either the tokenizer or the model knows it: one such text in one prompt ended the engine.


class Vocabulary(NamedTuple):
    """Parallel lists, indexed by token id."""

    pieces: list[str]
    scores: list[float]
    kinds: list[int]


def write(reader: GGUFReader, path: Path) -> None:
    """Write tokenizer.json for the vocabulary of `reader`."""
    build(read_vocabulary(reader)).save(str(path), pretty=False)


def read_vocabulary(reader: GGUFReader) -> Vocabulary:
    """The vocabulary as sentencepiece had it, before llama.cpp's converter changed it."""
    pieces, scores, kinds = (
        reader.fields[f"tokenizer.ggml.{name}"].contents()
        for name in ("tokens", "scores", "token_type")
    )
    for token_id, kind in enumerate(kinds):
        if kind == USER_DEFINED:  # llama.cpp: plain spaces, and a score of -1000
            pieces[token_id] = pieces[token_id].replace(" ", SPACE)
            scores[token_id] = 0.0
    return Vocabulary(pieces, scores, kinds)


def build(vocabulary: Vocabulary) -> Tokenizer:
    """BPE with byte fallback that puts <bos> first, and the added tokens of Gemma 3."""
    ids = {piece: token_id for token_id, piece in enumerate(vocabulary.pieces)}
    tokenizer = Tokenizer(
        models.BPE(
            ids,
            merges(vocabulary, ids),
            unk_token="<unk>",  # noqa: S106  # no password, a piece
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", ids["<bos>"])]
    )
    tokenizer.add_tokens(added_tokens(vocabulary))
    return tokenizer


def added_tokens(vocabulary: Vocabulary) -> list[AddedToken]:
    """Control and user-defined pieces: found in the text as they are, whatever stands around."""
    names = [
        piece
        for piece, kind in zip(vocabulary.pieces, vocabulary.kinds, strict=True)
        if kind in (CONTROL, USER_DEFINED)
    ]
    return [AddedToken(name, normalized=False, special=name in SPECIAL) for name in names]


def merges(vocabulary: Vocabulary, ids: dict[str, int]) -> list[tuple[str, str]]:
    """
    Every split of a piece into two pieces, in the order in which BPE may join them.

    Source of the order: transformers, `generate_merges` in convert_slow_tokenizer.py; by score,
    then by the lengths of the left and the right piece, all falling.
    """
    splits = chain.from_iterable(
        _splits(piece, score, ids)
        for piece, score in zip(vocabulary.pieces, vocabulary.scores, strict=True)
    )
    # sorted(reverse=True) keeps the order of equals, which list.reverse() would not.
    ordered = sorted(
        splits, key=lambda split: (split[0], len(split[1]), len(split[2])), reverse=True
    )
    return [(left, right) for _, left, right in ordered]


def _splits(piece: str, score: float, ids: dict[str, int]) -> list[tuple[float, str, str]]:
    return [
        (score, piece[:cut], piece[cut:])
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
