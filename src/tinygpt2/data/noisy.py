"""Windows of a text that is different in every pass."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset
from typing_extensions import override

from tinygpt2._internal.checks import LARGEST_INT, check_int
from tinygpt2._internal.random import numpy_generator
from tinygpt2.data.batches import Batch
from tinygpt2.data.cuts import Words
from tinygpt2.data.noise import TextNoise
from tinygpt2.data.pieces import pieces_of_documents, pieces_of_text
from tinygpt2.data.windows import JoinedTokenDataset, TokenArray, TokenDataset, parts_of, places
from tinygpt2.text.documents import documents_of
from tinygpt2.tokenizers.protocol import Tokenizer

_CUTS, _STARTS, _TOKENS = 2, 3, 4  # the purposes of seeds; the order of the data and dropout have others

_PIECE = 1 << 20  # tokens to count at a time

_Ints = npt.NDArray[np.int64]


class NoisyDataset(Dataset[Batch]):
    """As many windows as the clean text has, in each pass others, and with noise.

    Item ``epoch * len(dataset) + i`` is window i of a pass, a pure function of seed, pass and window: a worker process,
    or a run that resumes, needs to know nothing else. The windows of a pass are evenly spread over its tokens, from a
    place that is drawn: with N windows, and P places at which one can begin, window i begins at
    ``(i * P + offset) // N``, where ``offset`` is drawn from 0 to P - 1. So each place is as likely as any other, and N
    does not depend on the offset, nor on how many tokens the words are cut into.

    Args:
        clean: The windows of the clean text, of one sequence or of several.
        noise: The noise.
        seed: Seed of all that is drawn.
        words: Words of the text, if they are to be cut in other ways; the text is then one sequence.
        end: Id of the end-of-text token, if there is one.

    Raises:
        ValueError: If tokens are to be drawn, but all are ends of texts.
    """

    def __init__(
        self,
        clean: TokenDataset | JoinedTokenDataset,
        noise: TextNoise,
        *,
        seed: int,
        words: Words | None = None,
        end: int | None = None,
    ) -> None:
        self.clean, self.noise, self.seed = clean, noise, seed
        self._parts = parts_of(clean)
        self._last_windows = np.cumsum([len(part) for part in self._parts])
        self._words = words
        self._replace = _Replacement(self._parts, end, noise.token_noise) if noise.token_noise else None
        self._encoded: tuple[int, TokenArray] | None = None  # the pass whose words were cut last, and its tokens

    def __getstate__(self) -> dict[str, Any]:
        """Returns what a worker process needs."""
        return self.__dict__ | {"_encoded": None}

    def __len__(self) -> int:
        return len(self.clean)

    def __iter__(self) -> Iterator[Batch]:
        """Yields the windows of the first pass; there is no last pass, so there are indices without end."""
        return map(self.__getitem__, range(len(self)))

    @override
    def __getitem__(self, index: int) -> Batch:
        """Returns a window and its targets, both (T,) int64.

        Raises:
            IndexError: If the index is negative.
            TypeError: If it is not an integer.
        """
        inputs, targets = self.__getitems__([check_int("index", index, minimum=-LARGEST_INT)])
        return inputs[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Returns the windows of a batch, both (B, T) int64; a ``DataLoader`` calls this.

        Raises:
            IndexError: If an index is negative.
            TypeError: If the indices are not integers in a sequence.
        """
        wanted = places(indices).astype(np.int64)
        if (wanted < 0).any():
            raise IndexError(
                f"window {wanted.min()}; they are counted from 0, those of the second pass from {len(self)}"
            )
        epochs, windows = np.divmod(wanted, len(self.clean))
        rows = np.empty((len(wanted), self._parts[0].context_length + 1), dtype=np.int64)
        of = np.searchsorted(self._last_windows, windows, side="right")  # the sequence of each
        for epoch, part in sorted(set(zip(epochs.tolist(), of.tolist(), strict=True))):
            here = np.flatnonzero((epochs == epoch) & (of == part))
            rows[here] = self._windows(epoch, part, windows[here])
        inputs, targets = rows[:, :-1].copy(), rows[:, 1:].copy()
        for row, epoch, window in zip(inputs, epochs.tolist(), windows.tolist(), strict=True):
            if self._replace is not None and self.is_noisy(epoch):
                self._replace(row, numpy_generator(self.seed, _TOKENS, epoch, window))
        return torch.from_numpy(inputs), torch.from_numpy(targets)

    def is_noisy(self, epoch: int) -> bool:
        """Returns whether a pass, counted from 0, is one that has noise."""
        return self.noise.epochs is None or epoch < self.noise.epochs

    def settings(self) -> dict[str, Any]:
        """Returns the noise, as a checkpoint compares it."""
        noise = self.noise
        return {"bpe_dropout": noise.bpe_dropout, "token_noise": noise.token_noise, "noise_epochs": noise.epochs}

    def _windows(self, epoch: int, part: int, windows: _Ints) -> TokenArray:
        """Returns the tokens of windows of a sequence, and of the last target of each, (B, T + 1)."""
        tokens, clean = self._tokens(epoch, part), self._parts[part]
        beginnings = len(tokens) - clean.context_length
        offset = int(numpy_generator(self.seed, _STARTS, epoch, part).integers(beginnings))
        before = int(self._last_windows[part]) - len(clean)
        starts = ((windows - before) * beginnings + offset) // len(clean)
        windows_of: TokenArray = tokens[starts[:, None] + np.arange(clean.context_length + 1)]
        return windows_of

    def _tokens(self, epoch: int, part: int) -> TokenArray:
        """Returns the tokens of a sequence, as its words are cut in a pass."""
        clean = self._parts[part]
        if self._words is None or not self.is_noisy(epoch):
            return clean.tokens
        encoded = self._encoded
        if encoded is None or encoded[0] != epoch:
            generator = numpy_generator(self.seed, _CUTS, epoch)
            encoded = self._encoded = epoch, self._words.encode(self.noise.bpe_dropout, generator)
        # Without a merge, others can be possible that make a text shorter: too short, if it had just one window.
        return encoded[1] if len(encoded[1]) > clean.context_length else clean.tokens


class _Replacement:
    """Replacement of some tokens by others of the same text, except the ends of texts.

    Args:
        parts: Sequences of tokens from whose distribution others are drawn.
        end: Id of the end-of-text token, if there is one.
        probability: That of replacing a token.

    Raises:
        ValueError: If there is no other token.
    """

    def __init__(self, parts: Sequence[TokenDataset], end: int | None, probability: float) -> None:
        self._end, self._probability = end, probability
        counts: Counter[int] = Counter()
        for part in parts:
            for begin in range(0, len(part.tokens), _PIECE):
                ids, times = np.unique(part.tokens[begin : begin + _PIECE], return_counts=True)
                counts.update(dict(zip(ids.tolist(), times.tolist(), strict=True)))
        if end is not None:
            counts.pop(end, None)
        if not counts:
            raise ValueError("token_noise draws tokens of the text, but all are ends of texts; pass token_noise=0")
        self._ids = np.asarray(sorted(counts), dtype=np.int64)
        self._up_to = np.cumsum([counts[i] for i in self._ids.tolist()])  # how often these ids and all before occur

    def __call__(self, tokens: _Ints, generator: np.random.Generator) -> None:
        """Replaces tokens, (T,), in place."""
        chosen = generator.random(len(tokens)) < self._probability
        occurrences = generator.integers(int(self._up_to[-1]), size=len(tokens))
        drawn = self._ids[np.searchsorted(self._up_to, occurrences, side="right")]
        if self._end is not None:
            chosen &= tokens != self._end
        tokens[chosen] = drawn[chosen]


def with_noise(
    clean: TokenDataset | JoinedTokenDataset,
    noise: TextNoise,
    seed: int,
    end: int | None,
    words: Callable[[], Words] | None,
) -> NoisyDataset:
    """Returns windows with noise.

    Args:
        clean: The windows of the clean text.
        noise: The noise.
        seed: Seed of all that is drawn.
        end: Id of the end-of-text token, if there is one.
        words: Returns the words of the text; ``None`` if only ids are known.

    Raises:
        ValueError: If the noise needs words, but there are none.
    """
    if not noise.bpe_dropout:
        return NoisyDataset(clean, noise, seed=seed, end=end)
    if words is None:
        raise ValueError(
            "bpe_dropout cuts words into other tokens, but source has only the ids of tokens; pass the text or the "
            "documents themselves, or bpe_dropout=0"
        )
    return NoisyDataset(clean, noise, seed=seed, words=words(), end=end)


def words_of(source: object, tokenizer: Tokenizer, field: str) -> Words:
    """Returns the words of a text or of documents, which `make_dataloader` takes.

    Raises:
        ValueError: If the tokenizer has no merges.
    """
    if isinstance(source, str):
        return Words(pieces_of_text([source], tokenizer), tokenizer)
    return Words(pieces_of_documents(filter(None, documents_of("source", source, field)), tokenizer), tokenizer)
