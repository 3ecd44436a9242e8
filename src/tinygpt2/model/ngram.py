"""An n-gram model of tokens, smoothed as by Witten and Bell."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from typing_extensions import override

from tinygpt2._internal.checks import check_int
from tinygpt2.model.checks import check_id_range, ids_of_text

_MOST_IDS = 2**24  # more than any tokenizer has; each takes memory in every row of the result
_LONGEST = 16  # the highest order; longer contexts repeat only where text is copied

_Ints = npt.NDArray[np.int64]


class NGramModel(nn.Module):
    """Probabilities of the next token from counts of what followed the last few tokens in a text.

    Called like a GPT-2: (B, T) ids give (B, T, V) logits, which here are log-probabilities. Each position sees the last
    ``order - 1`` tokens of its row, or as many as there are. With c the count of a token after a context, n the number
    of tokens after it and t the number of different ones, the probability is (c + t p) / (n + t), where p is that after
    the context without its oldest token; without any context, p is 1 / V (Witten and Bell 1991, interpolated). So no
    probability is zero.

    The counts are sorted, in memory proportional to the text: about 50 bytes per token for an order of 3. It has no
    parameters to train; its state has the counts.

    Args:
        tokens: Ids of the text, one-dimensional; or of several documents, a list of such, across whose ends nothing is
            counted.
        vocab_size: Number of ids, V.
        order: Tokens of an n-gram, at most 16: 3 for trigrams, 1 for counts of single tokens.

    Raises:
        TypeError: If the tokens are not integers, or an option is not an integer.
        ValueError: If there are no tokens, they are not one-dimensional, one is outside the vocabulary, or a number is
            out of range.

    >>> import torch
    >>> model = NGramModel([0, 1, 0, 1, 0, 2], vocab_size=3, order=2)
    >>> model(torch.tensor([[0]])).exp()  # after a 0: twice 1, once 2
    tensor([[[0.1778, 0.5333, 0.2889]]])
    """

    base: Tensor

    def __init__(self, tokens: Any, vocab_size: int, order: int = 3) -> None:  # noqa: ANN401 - any sequence of ids
        super().__init__()
        self.vocab_size = check_int("vocab_size", vocab_size, maximum=_MOST_IDS)
        self.order = check_int("order", order, maximum=_LONGEST)
        documents = [ids_of_text(document, vocab_size) for document in _documents(tokens)]
        if not any(map(len, documents)):
            raise ValueError("there are no tokens to count: the text is empty")
        counts = np.bincount(np.concatenate(documents), minlength=vocab_size)
        seen = np.count_nonzero(counts)
        probabilities = (counts + seen / vocab_size) / (counts.sum() + seen)
        self.register_buffer("base", torch.from_numpy(probabilities.astype(np.float32)))
        for length, counted in enumerate(_counted(documents, vocab_size, order), 1):
            for name, values in counted._asdict().items():
                self.register_buffer(f"{name}_{length}", torch.from_numpy(values))

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the logarithm of the `probabilities`, (B, T, V) float32."""
        return self.probabilities(tokens).log_()

    def probabilities(self, tokens: Tensor) -> Tensor:
        """Returns the probabilities of the token after each position, (B, T, V) float32.

        Args:
            tokens: (B, T), of any integer type.

        Raises:
            TypeError: If it is not a tensor.
            ValueError: If it is not (B, T) of integers, or, on a CPU, an id is outside the vocabulary.
        """
        self._check(tokens)
        positions = torch.arange(tokens.numel(), device=tokens.device)
        return self._at(tokens, positions).view(*tokens.shape, self.vocab_size)

    def last_probabilities(self, tokens: Tensor) -> Tensor:
        """Returns the probabilities of the token after the last position, (B, V): ``probabilities(tokens)[:, -1]``.

        Arguments and errors are those of `probabilities`.
        """
        self._check(tokens)
        rows, width = tokens.shape
        return self._at(tokens, torch.arange(rows, device=tokens.device) * width + width - 1)

    def _at(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Returns the probabilities of the token after some positions of the flattened tokens, (N, V)."""
        flat, columns = tokens.flatten().long(), positions % tokens.shape[1]
        rows = torch.arange(len(positions), device=tokens.device)  # those whose context occurs in the text
        contexts = torch.zeros_like(rows)
        known: list[tuple[int, Tensor, Tensor]] = []
        for length in range(1, self.order):
            listed = self.get_buffer(f"contexts_{length}")
            inside = columns[rows] >= length - 1
            rows, contexts = rows[inside], contexts[inside]
            keys = contexts * self.vocab_size + flat[positions[rows] - (length - 1)]
            contexts = torch.searchsorted(listed, keys)
            found = listed[contexts.clamp(max=len(listed) - 1)] == keys if len(listed) else contexts < 0
            rows, contexts = rows[found], contexts[found]
            known.append((length, rows, contexts))
        left = torch.ones(len(positions), device=tokens.device)  # for shorter contexts
        shares = []
        for length, rows, contexts in reversed(known):
            shares.append(left[rows])
            left[rows] *= self.get_buffer(f"left_{length}")[contexts]
        result = left.unsqueeze(1) * self.base  # (N, V)
        for length, rows, contexts in known:
            self._add(result, length, rows, contexts, shares[-length])
        return result

    def _add(self, result: Tensor, length: int, rows: Tensor, contexts: Tensor, shares: Tensor) -> None:
        """Adds the probabilities of the tokens that follow contexts of a length, times a share, to rows of a result."""
        ends = self.get_buffer(f"ends_{length}")
        counts = ends[contexts + 1] - ends[contexts]
        first = ends[contexts] - (counts.cumsum(0) - counts)
        of = torch.repeat_interleave(torch.arange(len(contexts), device=contexts.device), counts)
        places = first[of] + torch.arange(len(of), device=of.device)
        followers = self.get_buffer(f"tokens_{length}")[places].long()
        values = self.get_buffer(f"shares_{length}")[places] * shares[of]
        result.view(-1).index_add_(0, rows[of] * self.vocab_size + followers, values)

    def _check(self, tokens: object) -> None:
        if not isinstance(tokens, Tensor):
            raise TypeError(f"expected tokens as a tensor of shape (B, T), got {type(tokens).__name__}")
        if (
            tokens.dim() != 2
            or not tokens.shape[1]
            or tokens.is_floating_point()
            or tokens.is_complex()
            or tokens.dtype == torch.bool
        ):
            raise ValueError(f"expected tokens of shape (B, T), int64, got {tokens.dtype} of {tuple(tokens.shape)}")
        if tokens.device != self.base.device:
            raise ValueError(f"the counts are on {self.base.device}, but the tokens are on {tokens.device}; move one")
        if tokens.device.type == "cpu" and tokens.numel():
            check_id_range(int(tokens.min()), int(tokens.max()), self.vocab_size)


class _Counted(NamedTuple):
    """What followed the contexts of one length.

    Attributes:
        contexts: Each context in order, as V times the number of the context without its oldest token, plus this token.
        ends: Where its followers end, after a 0 for the first: one more than contexts.
        tokens: The followers of all contexts, one context after the other.
        shares: The count of each, divided by n + t of its context.
        left: t / (n + t) of each context, which is left for shorter contexts.
    """

    contexts: _Ints
    ends: _Ints
    tokens: npt.NDArray[np.int32]
    shares: npt.NDArray[np.float32]
    left: npt.NDArray[np.float32]


def _counted(documents: list[_Ints], vocab_size: int, order: int) -> Iterable[_Counted]:
    """Yields what followed the contexts of one token, then of two, up to ``order - 1``."""
    text = np.concatenate(documents)
    before = np.concatenate([np.arange(len(document)) for document in documents])  # tokens before each in its document
    at = np.arange(len(text))  # the tokens with so many others before them
    numbers = np.zeros(len(text), dtype=np.int64)  # those of the contexts of these tokens
    for length in range(1, order):
        enough = before[at] >= length
        at = at[enough]
        keys = numbers[enough] * vocab_size + text[at - length]
        contexts, numbers = np.unique(keys, return_inverse=True)
        pairs, counts = np.unique(numbers * vocab_size + text[at], return_counts=True)
        of, tokens = np.divmod(pairs, vocab_size)
        different = np.bincount(of, minlength=len(contexts))
        total = different + np.bincount(numbers, minlength=len(contexts))
        yield _Counted(
            contexts=contexts,
            ends=np.concatenate([[0], np.cumsum(different)]).astype(np.int64),
            tokens=tokens.astype(np.int32),
            shares=(counts / total[of]).astype(np.float32),
            left=(different / total).astype(np.float32),
        )


def _documents(tokens: Any) -> list[Any]:  # noqa: ANN401 - as above
    """Returns the documents in ids of one text or of several."""
    first = next(iter(tokens), None) if isinstance(tokens, list | tuple) else None
    return [tokens] if first is None or np.ndim(first) == 0 else list(tokens)
