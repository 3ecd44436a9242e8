"""Splitting of a text or of documents into a part to train on and one to validate on."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from tinygpt2._internal.checks import LARGEST_SEED, check_int, check_number
from tinygpt2._internal.random import seeded_generator
from tinygpt2._internal.texts import check_text
from tinygpt2.text.documents import documents_of

MANY = 20
"""Documents from which on those to validate on are drawn at random, each as a whole."""


def split_text(text: str, train_ratio: float = 0.8) -> tuple[str, str]:
    r"""Splits a text at a character into a first part to train on and the rest to validate on.

    Args:
        text: Any text of at least two characters.
        train_ratio: Share of the characters in the first part, greater than 0 and less than 1.

    Raises:
        TypeError: If the text is not a ``str``; join several: ``"\n".join(texts)``.
        ValueError: If the ratio is out of range, or a part would be empty.

    >>> split_text("abcdefghij", train_ratio=0.8)
    ('abcdefgh', 'ij')
    """
    check_text("text", text)
    train_ratio = check_number("train_ratio", train_ratio, maximum=1, above_minimum=True, below_maximum=True)
    cut = int(train_ratio * len(text))
    if cut == 0 or cut == len(text):
        raise ValueError(
            f"a text of {len(text)} characters cannot be split at train_ratio={train_ratio}: one part would be empty; "
            "pass a longer text"
        )
    return text[:cut], text[cut:]


class DocumentSplit(NamedTuple):
    """The result of `split_documents`.

    Attributes:
        train: Documents to train on.
        val: Documents to validate on, without those that are also in ``train``.
        duplicates: Number of documents that were left out of ``val`` because they are in ``train`` word for word.

    >>> DocumentSplit(["one"], ["two"], duplicates=0).val
    ['two']
    """

    train: list[str]
    val: list[str]
    duplicates: int


def split_documents(
    documents: Iterable[str], train_ratio: float = 0.9, *, seed: int = 0, field: str = "text"
) -> DocumentSplit:
    """Splits documents into those to train on and those to validate on.

    From 20 documents on, they are shuffled, and those to validate on are whole ones with the wanted share of the
    characters: the end of a sorted list is unlike the rest of it, and its order tells what comes next. Of fewer
    documents, in their order, the last ones are taken, or, if the share is nearer to that, the end of one. A document
    to validate on that is also in the other part word for word says nothing about new text, and is left out.

    Args:
        documents: A list of ``str``, a column of a table, a data set, or any other iterable; empty ones are left out.
        train_ratio: Share of the characters to train on, greater than 0 and less than 1.
        seed: Seed of the order.
        field: Name of the column of texts, if ``documents`` is a table or a data set.

    Raises:
        TypeError: If the documents are anything else.
        ValueError: If the ratio is out of range, a document has a lone surrogate, or a part would be empty.

    >>> names = [f"name {i}" for i in range(100)]
    >>> split = split_documents(names)
    >>> len(split.train), split.val[:3]
    (90, ['name 67', 'name 34', 'name 61'])
    """
    train_ratio = check_number("train_ratio", train_ratio, maximum=1, above_minimum=True, below_maximum=True)
    seed = check_int("seed", seed, minimum=0, maximum=LARGEST_SEED)
    texts = [text for text in documents_of("documents", documents, field) if text and not text.isspace()]
    wanted = max(1, round((1 - train_ratio) * sum(map(len, texts))))
    if len(texts) >= MANY:
        train, val = _drawn(texts, wanted, seed)
    else:
        train, val = _last(texts, wanted)
    if not (train and val):
        raise ValueError(
            f"{len(texts)} documents cannot be split at train_ratio={train_ratio}: one part would be empty; pass more, "
            "or longer ones"
        )
    return without_duplicates(train, val)


def without_duplicates(train: Sequence[str], val: Sequence[str]) -> DocumentSplit:
    """Returns both parts, the second without the documents that are in the first, whatever their spaces are.

    Raises:
        ValueError: If nothing is left of the second.
    """
    known = {_words_of(text) for text in train}
    new = [text for text in val if _words_of(text) not in known]
    if not new:
        raise ValueError(
            f"every document to validate on ({len(val):,}) is also among those to train on, word for word; pass others"
        )
    return DocumentSplit(list(train), new, len(val) - len(new))


def _words_of(text: str) -> bytes:
    """Returns what two texts have in common if they are the same word for word."""
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8"), digest_size=16).digest()


def _drawn(texts: Sequence[str], wanted: int, seed: int) -> tuple[list[str], list[str]]:
    """Returns the documents in a random order, in two parts; the second has at most the wanted number of characters.

    It has them to within half of a usual document: filled with short ones it would be unlike the other part.
    """
    train: list[str] = []
    val: list[str] = []
    usual = sum(map(len, texts)) / len(texts)
    order: list[int] = torch.randperm(len(texts), generator=seeded_generator(seed), device="cpu").tolist()
    for text in map(texts.__getitem__, order):
        fits = len(text) <= wanted and not (val and wanted < usual / 2)
        wanted -= len(text) if fits else 0
        (val if fits else train).append(text)
    return (train, val) if val else (train[1:], train[:1])


def _last(texts: Sequence[str], wanted: int) -> tuple[list[str], list[str]]:
    """Returns the documents before a place near the end, where one may be cut, and those after it."""
    first, rest = len(texts), wanted
    while first and len(texts[first - 1]) <= rest:
        first -= 1
        rest -= len(texts[first])
    if first < len(texts) and rest <= wanted / 2:
        return list(texts[:first]), list(texts[first:])
    if not first:
        return [], list(texts)
    cut = len(texts[first - 1]) - rest
    whole, parted = texts[: first - 1], texts[first - 1]
    return [part for part in (*whole, parted[:cut]) if part], [part for part in (parted[cut:], *texts[first:]) if part]
