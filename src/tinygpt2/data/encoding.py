"""Encoding of texts and documents into token ids, in pieces on every core."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tiktoken

from tinygpt2._internal.texts import check_text, utf8_size
from tinygpt2.data.fast import fast_encoder
from tinygpt2.data.pieces import Piece, pieces_of_documents
from tinygpt2.text.documents import documents_of
from tinygpt2.tokenizers.byte_pairs import gpt2_tokenizer
from tinygpt2.tokenizers.characters import CharTokenizer
from tinygpt2.tokenizers.foreign import AnyTokenizer, as_tokenizer
from tinygpt2.tokenizers.protocol import END_OF_TEXT, Tokenizer, encoded, panics_as_errors

TokenIds = npt.NDArray[np.integer[Any]]
Encoder = Callable[[Piece], TokenIds]

_FEW = 4  # pieces, which take less time than it takes to set up what is faster
_SEPARATOR = "\ud800"  # no character, so no text has it
_CODE_POINTS = 0x110000


class Encoded(NamedTuple):
    """A piece, as it is written to a file.

    Attributes:
        ids: (N,), of `ids_dtype`.
        bytes: Size of its text in UTF-8, without ends.
        ends: How many documents end in it.
    """

    ids: TokenIds
    bytes: int
    ends: int


def encode_documents(
    documents: Iterable[str], tokenizer: AnyTokenizer | None = None, *, field: str = "text"
) -> npt.NDArray[np.integer[Any]]:
    """Returns the ids of documents, each followed by the end-of-text token, in one array.

    Empty documents are left out. The work is done on every core, as in `tokenize_to_file`.

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
    [10161, 2611, 50256, 46, 16017, 544, 50256]
    """
    tokenizer = as_tokenizer(gpt2_tokenizer() if tokenizer is None else tokenizer, ends=True)
    check_text("field", field)
    texts = filter(None, documents_of("documents", documents, field))
    parts = [part.ids for part in encode_pieces(pieces_of_documents(texts, tokenizer), tokenizer, default_threads())]
    if not parts:
        raise ValueError("there is nothing to encode: there are no documents, or all are empty; expected some text")
    return np.concatenate(parts).astype(ids_dtype(tokenizer.n_vocab).newbyteorder("="), copy=False)


def default_threads() -> int:
    """Returns the number of threads that encode unless the caller has said one: that of cores."""
    return os.cpu_count() or 1


def ids_dtype(n_vocab: int) -> np.dtype[Any]:
    """Returns the smallest type of the ids of a vocabulary, little-endian: uint16 or uint32."""
    return np.dtype(np.uint16 if n_vocab <= np.iinfo(np.uint16).max + 1 else np.uint32).newbyteorder("<")


def encode_pieces(pieces: Iterable[Piece], tokenizer: Tokenizer, threads: int) -> Generator[Encoded, None, None]:
    """Yields the ids of each piece in order, encoded ahead on several threads: tiktoken lets them run side by side.

    A tokenizer that is not known to allow that is called in this thread only.
    """
    pieces = iter(pieces)
    few = list(islice(pieces, _FEW))
    encode = _encoder(tokenizer, many=len(few) == _FEW)
    pieces = chain(few, pieces)
    if threads == 1 or not isinstance(tokenizer, tiktoken.Encoding | CharTokenizer):
        yield from map(encode, pieces)
        return
    waiting: deque[Future[Encoded]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for piece in pieces:
                waiting.append(pool.submit(encode, piece))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _encoder(tokenizer: Tokenizer, *, many: bool) -> Callable[[Piece], Encoded]:
    encode: Encoder = partial(_one_by_one, tokenizer)
    if isinstance(tokenizer, tiktoken.Encoding):
        encode = (fast_encoder(tokenizer) if many else None) or partial(_with_tiktoken, tokenizer)
    elif type(tokenizer) is CharTokenizer:
        encode = partial(_by_table, tokenizer, _table(tokenizer))
    dtype = ids_dtype(tokenizer.n_vocab)

    def encode_and_count(piece: Piece) -> Encoded:
        ids = encode(piece).astype(dtype, copy=False)
        return Encoded(ids, utf8_size("".join(piece.texts)), len(piece.texts) if piece.ended else 0)

    return encode_and_count


def _one_by_one(tokenizer: Tokenizer, piece: Piece) -> TokenIds:
    """Encodes with any tokenizer.

    Raises:
        ValueError: If it gives an id that it says it does not have.
    """
    ids: list[int] = []
    for text in piece.texts:
        ids += encoded(tokenizer, text)
        if piece.ended:
            ids.append(tokenizer.eot_token)
    if ids and not 0 <= min(ids) <= max(ids) < tokenizer.n_vocab:
        raise ValueError(
            f"the tokenizer has a vocabulary of {tokenizer.n_vocab:,} but gave ids from {min(ids):,} to {max(ids):,}; "
            "its n_vocab must be larger than every id"
        )
    return np.asarray(ids, dtype=np.uint32)


def _with_tiktoken(tokenizer: tiktoken.Encoding, piece: Piece) -> TokenIds:
    """Encodes many documents in one call, with the end-of-text token between them, if none of them spells it out."""
    with panics_as_errors(tokenizer):
        if not piece.ended:
            return tokenizer.encode_to_numpy(piece.texts[0], disallowed_special=())
        text = END_OF_TEXT.join([*piece.texts, ""])
        if text.count(END_OF_TEXT) == len(piece.texts):
            return tokenizer.encode_to_numpy(text, allowed_special={END_OF_TEXT}, disallowed_special=())
    return _one_by_one(tokenizer, piece)


def _table(tokenizer: CharTokenizer) -> npt.NDArray[np.int64]:
    """Returns the id of each code point, -1 for those without one, and that of the end of text for the separator."""
    table = np.full(_CODE_POINTS, -1, dtype=np.int64)
    table[_code_points(tokenizer.characters)] = np.arange(len(tokenizer.characters))
    table[ord(_SEPARATOR)] = tokenizer.eot_token
    return table


def _by_table(tokenizer: CharTokenizer, table: npt.NDArray[np.int64], piece: Piece) -> TokenIds:
    text = _SEPARATOR.join([*piece.texts, ""]) if piece.ended else piece.texts[0]
    ids = table[_code_points(text)]
    return ids if ids.size and ids.min() >= 0 else _one_by_one(tokenizer, piece)


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
