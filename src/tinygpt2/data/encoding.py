"""Encoding of texts and documents into token ids."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tinygpt2.text.documents import documents_of
from tinygpt2.text.foreign import as_tokenizer
from tinygpt2.text.tokenizers import Tokenizer, encoded, gpt2_tokenizer


def encode_documents(
    documents: Iterable[str], tokenizer: Tokenizer | None = None, *, field: str = "text"
) -> npt.NDArray[np.integer[Any]]:
    """Returns the ids of documents, each followed by the end-of-text token, in one array.

    Args:
        documents: Several ``str``: a list, a column of a table, or any other iterable.
        tokenizer: `gpt2_tokenizer` by default.
        field: Name of the column of texts, if ``documents`` is a table or a data set.

    Returns:
        (N,) uint16, or uint32 if the vocabulary needs it.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If there is no text, or a document has a lone surrogate.

    >>> encode_documents(["Emma", "Olivia"]).tolist()
    [10161, 2611, 50256, 30098, 20254, 50256]
    """
    tokenizer = as_tokenizer(gpt2_tokenizer() if tokenizer is None else tokenizer, ends=True)
    ids: list[int] = []
    for text in documents_of("documents", documents, field):
        if text:
            ids += [*encoded(tokenizer, text), tokenizer.eot_token]
    if not ids:
        raise ValueError("there is nothing to encode: there are no documents, or all are empty")
    return np.asarray(ids, dtype=np.uint16 if tokenizer.n_vocab <= 1 << 16 else np.uint32)
