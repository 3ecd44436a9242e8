"""Encoding with gigatoken, many times as fast as tiktoken."""

import base64
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import tiktoken

from tinygpt2.data.pieces import Piece
from tinygpt2.tokenizers.byte_pairs import splits_like_gpt2
from tinygpt2.tokenizers.protocol import END_OF_TEXT

_SEPARATOR = "\udcff"  # no character: encoded with surrogateescape it is a byte that UTF-8 does not have
_MOST_REMEMBERED = 1 << 25  # bytes of text; for random letters gigatoken takes ten times as much memory


class FastEncoder:
    """A function from a piece to the ids that a tokenizer of tiktoken gives. Several threads may call it at once.

    gigatoken remembers every word that it has encoded, without end, so it is made anew from time to time.
    """

    def __init__(self, tokens: list[bytes], eot_token: int) -> None:
        self._ranks = b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))
        self._eot_token = eot_token
        self._lock = Lock()
        self._encoding: Any = self._make()
        self._remembered = 0

    def __call__(self, piece: Piece) -> npt.NDArray[np.uint32]:
        """Returns the ids of a piece."""
        from gigatoken import BytesSource  # noqa: PLC0415 - optional

        content = _SEPARATOR.join(piece.texts).encode("utf-8", "surrogateescape")
        encoding = self._for(len(content))
        if piece.ended:
            rows = encoding.encode_batch(BytesSource([content], separator=b"\xff"), parallel=False).layout
            return np.insert(rows.content.data, rows.offsets.data[1:], self._eot_token)
        ids: npt.NDArray[np.uint32]
        (ids,), _ = encoding.encode_batch_padded([content], pad_id=0, parallel=False)  # encode holds up other threads
        return ids

    def _for(self, size: int) -> Any:  # noqa: ANN401 - gigatoken's, which need not be there
        """Returns what encodes so many bytes."""
        with self._lock:
            if self._remembered > _MOST_REMEMBERED:
                self._encoding = None  # before the next one takes memory
                self._encoding, self._remembered = self._make(), 0
            self._remembered += size
            return self._encoding

    def _make(self) -> Any:  # noqa: ANN401
        import gigatoken  # noqa: PLC0415

        with TemporaryDirectory() as directory:
            path = Path(directory, "ranks.tiktoken")
            path.write_bytes(self._ranks)
            return gigatoken.Tokenizer.from_tiktoken(path, pretokenizer="gpt2", special_tokens={})


def fast_encoder(tokenizer: tiktoken.Encoding) -> FastEncoder | None:
    """Returns a fast encoder that gives the ids of ``tokenizer``, or ``None`` if there is none that is known to.

    It needs gigatoken, and byte pairs with GPT-2's pattern whose ids are 0, 1, 2 and so on. Both must give the same ids
    for the text of all tokens.
    """
    ranks = tokenizer._mergeable_ranks  # noqa: SLF001 - tiktoken has no other way to ask
    tokens = sorted(ranks, key=ranks.__getitem__)
    if not splits_like_gpt2(tokenizer) or ranks[tokens[-1]] != len(tokens) - 1:
        return None
    eot_token = tokenizer._special_tokens.get(END_OF_TEXT, -1)  # noqa: SLF001 - without one no piece is ended
    try:
        encode = FastEncoder(tokens, eot_token)
    except ImportError:
        return None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of tokens that no merges make; it cannot be imported
            raise
        return None
    text = "\n".join(token.decode("utf-8", "replace") for token in tokens)
    same = np.array_equal(encode(Piece([text], ended=False)), tokenizer.encode_to_numpy(text, disallowed_special=()))
    return encode if same else None
