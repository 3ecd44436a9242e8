"""What a model's bits per byte are to be compared with."""

import lzma
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np

from tinygpt2._internal.checks import check_int, shown
from tinygpt2._internal.texts import check_text, utf8_size
from tinygpt2.evaluation.ngrams import END, LARGEST_ORDER, Symbols, ngram_bits
from tinygpt2.evaluation.passages import Passages
from tinygpt2.text.documents import documents_of
from tinygpt2.tokenizers.foreign import AnyTokenizer, as_tokenizer

_MOST = 4 << 20  # bytes of training text
_DICTIONARY = 64 << 20  # bytes that xz looks back at most; it needs eleven times as much memory


@dataclass(frozen=True)
class Baselines:
    """The result of `baselines`, in bits per byte of held-out text. Printed, it is a small table.

    Attributes:
        ngram: What a static model of byte n-grams needs.
        order: Bytes of context in its longest n-grams.
        xz: What the compressor xz needs for the held-out text after the training text.
        untrained: What a model needs that finds all tokens equally likely; ``None`` without a tokenizer.
        bytes: Bytes predicted; the end of a document counts as one.
        training_bytes: Bytes of training text that the n-grams and xz have seen.
        training_bytes_in_all: Bytes of training text that there are; more than those if it was too long.

    >>> print(Baselines(
    ...     ngram=2.763, order=4, xz=2.992, untrained=5.1, bytes=9369,
    ...     training_bytes=84274, training_bytes_in_all=84274,
    ... ))
    byte n-gram, 4 bytes of context  2.763 bits per byte
    xz                               2.992 bits per byte
    untrained model                  5.100 bits per byte
    """

    ngram: float
    order: int
    xz: float
    untrained: float | None
    bytes: int
    training_bytes: int
    training_bytes_in_all: int

    def rows(self) -> dict[str, float]:
        """Returns the figures with their names."""
        rows = {f"byte n-gram, {self.order} bytes of context": self.ngram, "xz": self.xz}
        return rows if self.untrained is None else rows | {"untrained model": self.untrained}

    def __str__(self) -> str:
        rows = self.rows()
        width = max(map(len, rows))
        return "\n".join(f"{name:{width}}  {bits:.3f} bits per byte" for name, bits in rows.items())

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes as a dict, which JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: object) -> Self:
        """Returns the baselines in a dict made by ``to_dict``.

        Raises:
            ValueError: If it is anything else.
        """
        expected = {each.name: each.type for each in fields(cls)}
        if not (isinstance(content, dict) and content.keys() == expected.keys()):
            raise ValueError(f"expected an object with {', '.join(expected)}, got {shown(content)}")
        for name, value in content.items():
            if expected[name] is int:
                valid = type(value) is int and value >= 0
            else:
                valid = type(value) is float and math.isfinite(value) and value >= 0
            if not (valid or (value is None and name == "untrained")):
                raise ValueError(f"{name} is {shown(value)}, which is not a {expected[name]}")
        return cls(**content)


def baselines(
    training: str | Iterable[str],
    held_out: str | Iterable[str],
    *,
    tokenizer: AnyTokenizer | None = None,
    order: int = 4,
    most_bytes: int = _MOST,
) -> Baselines:
    """Returns what simple models of a training text need for each byte of a held-out text, to compare a model with.

    All of them predict the bytes that `evaluate_text` counts: every byte of a text; of documents also the end of each,
    as one more symbol, which counts as one byte. Contexts do not reach from one document into the next. For xz, a line
    break ends each document.

    - The n-grams are those of bytes, counted in the training text alone, interpolated from long contexts to short ones
      down to equal probabilities (Witten and Bell 1991).
    - xz (preset 9, extreme) compresses the training text with and without the held-out text after it; the figure is the
      difference.
    - The untrained model needs log2(V) bits for each token, for a vocabulary of V.

    It takes a few seconds per megabyte, most of them for xz.

    Args:
        training: The text, or the documents, that a model was trained on.
        held_out: Those to predict.
        tokenizer: The model's, for the untrained model.
        order: Number of bytes from which the n-grams predict the next one, 1 to 6.
        most_bytes: Bytes of training text to use at most, by default 4 MiB: the last ones, of documents the last whole
            ones. The n-grams need about sixty times as much memory.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If either text is empty, a text has a lone surrogate or cannot be encoded, or a number is out of
            range.

    >>> from tinygpt2 import sample_text, split_text
    >>> result = baselines(*split_text(sample_text(), 0.9))
    >>> f"{result.ngram:.2f} {result.xz:.2f}"
    '2.76 2.99'
    """
    order = check_int("order", order, maximum=LARGEST_ORDER)
    most_bytes = check_int("most_bytes", most_bytes)
    held_out_texts = _texts("held_out", held_out)
    with_ends = not isinstance(held_out, str)
    seen, in_all = _last(_texts("training", training), most_bytes, with_ends=with_ends)
    given, predicted = _bytes(seen, with_ends=with_ends), _bytes(held_out_texts, with_ends=with_ends)
    count = len(predicted)
    vocab_size = END + with_ends
    symbols = _symbols(seen, with_ends=with_ends), _symbols(held_out_texts, with_ends=with_ends)
    return Baselines(
        ngram=ngram_bits(*symbols, order=order, vocab_size=vocab_size) / count,
        order=order,
        xz=8 * (_compressed(given + predicted) - _compressed(given)) / count,
        untrained=None if tokenizer is None else _untrained(tokenizer, held_out_texts, with_ends=with_ends),
        bytes=count,
        training_bytes=len(given),
        training_bytes_in_all=in_all,
    )


def _texts(name: str, source: str | Iterable[str]) -> list[str]:
    """Returns a text, or documents, as a list without empty ones."""
    texts = [check_text(name, source)] if isinstance(source, str) else documents_of(name, source)
    found = [text for text in texts if text]
    if not found:
        raise ValueError(f"{name} has no text; expected at least one character")
    return found


def _last(texts: list[str], most: int, *, with_ends: bool) -> tuple[list[str], int]:
    """Returns the last of the texts that have at most this many bytes, cut if it is a single one; and all their bytes.

    A text that is cut begins with a whole character.
    """
    sizes = [utf8_size(text) + with_ends for text in texts]
    first, left = len(texts), most
    while first and sizes[first - 1] <= left:
        first -= 1
        left -= sizes[first]
    kept = texts[first:] or [texts[-1][-most:].encode()[-most:].decode(errors="ignore")]
    return kept, sum(sizes)


def _bytes(texts: list[str], *, with_ends: bool) -> bytes:
    end = b"\n" if with_ends else b""
    return b"".join(text.encode() + end for text in texts)


def _symbols(texts: list[str], *, with_ends: bool) -> Symbols:
    """Returns the bytes of texts; those of documents between ends."""
    if not with_ends:
        return np.concatenate([np.frombuffer(text.encode(), np.uint8).astype(np.uint16) for text in texts])
    end = np.array([END], dtype=np.uint16)
    pieces = [np.frombuffer(text.encode(), np.uint8) for text in texts]
    return np.concatenate([end, *(part for piece in pieces for part in (piece, end))], dtype=np.uint16)


def _compressed(content: bytes) -> int:
    """Returns the size of bytes compressed, without a container."""
    size = min(max(len(content), 4096), _DICTIONARY)
    preset = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": size}
    return len(lzma.compress(content, lzma.FORMAT_RAW, filters=[preset]))


def _untrained(tokenizer: AnyTokenizer, texts: list[str], *, with_ends: bool) -> float:
    known = as_tokenizer(tokenizer, ends=with_ends)
    passages = Passages(known, texts if with_ends else texts[0])
    tokens = sum(len(passage.targets) for passage in passages)
    return math.log2(known.n_vocab) * tokens / (passages.bytes or 1)
