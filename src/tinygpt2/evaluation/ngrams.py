"""Byte n-grams: the model of text to compare another one with."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

END = 256
"""The symbol that ends a document, after those of the 256 bytes."""

LARGEST_ORDER = 6
"""The longest context: it and the symbol after it fit into a key."""

_BITS = 9  # of a symbol in a key
_PIECE = 1 << 20  # symbols to predict at a time

Symbols = npt.NDArray[np.uint16]
_Places = npt.NDArray[np.int64]
_Keys = npt.NDArray[np.uint64]
_Floats = npt.NDArray[np.float64]


def ngram_bits(training: Symbols, held_out: Symbols, *, order: int, vocab_size: int) -> float:
    """Returns the bits that a static model of n-grams needs for the held-out symbols.

    It interpolates with the weights of Witten and Bell (1991). If a context occurred n times in the training part, with
    T different symbols after it, a symbol that followed it c times has the probability (c + T q) / (n + T), where q is
    its probability after the context without its first symbol. After a context that never occurred it is q. Below the
    empty context, all symbols are equally likely. A context may begin with an `END`, but does not reach back beyond it.

    Args:
        training: (N,) symbols that are counted. An `END` at the beginning is only context.
        held_out: (M,) symbols to predict, with the same exception.
        order: Largest number of symbols in a context, up to `LARGEST_ORDER`.
        vocab_size: Number of symbols that can occur.
    """
    tables = [_Table(training[places], contexts) for places, contexts in _contexts(training, order)]
    bits, first = 0.0, int(held_out[:1].tolist() == [END])
    for begin in range(first, len(held_out), _PIECE):
        start = max(0, begin - order)
        piece = held_out[start : begin + _PIECE]
        probabilities = np.full(len(piece), 1 / vocab_size)
        for table, (places, contexts) in zip(tables, _contexts(piece, order), strict=True):
            probabilities[places] = table.interpolated(piece[places], contexts, probabilities[places])
        bits -= float(np.log2(probabilities[begin - start :]).sum())
    return bits


def _contexts(symbols: Symbols, order: int) -> Iterator[tuple[_Places, _Keys]]:
    """Yields, for each length from 0, the places that have a context of that length, and these contexts as keys."""
    places = np.arange(len(symbols))
    ends = np.maximum.accumulate(np.where(symbols == END, places, 0))
    available = places - np.concatenate([[0], ends[:-1]])[: len(places)]  # from the last end before the place
    places = places[int(symbols[:1].tolist() == [END]) :]
    contexts = np.zeros(len(places), dtype=np.uint64)
    yield places, contexts
    for length in range(1, order + 1):
        long_enough = available[places] >= length
        places = places[long_enough]
        earliest = symbols[places - length].astype(np.uint64)
        contexts = contexts[long_enough] | earliest << np.uint64(_BITS * (length - 1))
        yield places, contexts


class _Table:
    """Counts of the symbols after contexts of one length.

    Args:
        symbols: (N,) symbols.
        contexts: (N,) key of the context of each.
    """

    def __init__(self, symbols: Symbols, contexts: _Keys) -> None:
        self.sequences, self.counts = np.unique(_with_symbols(contexts, symbols), return_counts=True)
        of_sequences = self.sequences >> np.uint64(_BITS)
        self.contexts, begins, self.followers = np.unique(of_sequences, return_index=True, return_counts=True)
        self.occurrences = np.add.reduceat(self.counts, begins) if len(begins) else self.counts

    def interpolated(self, symbols: Symbols, contexts: _Keys, shorter: _Floats) -> _Floats:
        """Returns the probabilities of symbols, given those after contexts that are shorter by one symbol."""
        count = _looked_up(self.sequences, self.counts, _with_symbols(contexts, symbols))
        n = _looked_up(self.contexts, self.occurrences, contexts)
        t = _looked_up(self.contexts, self.followers, contexts)
        return np.where(n > 0, (count + t * shorter) / np.maximum(n + t, 1), shorter)


def _with_symbols(contexts: _Keys, symbols: Symbols) -> _Keys:
    return contexts << np.uint64(_BITS) | symbols.astype(np.uint64)


def _looked_up(keys: _Keys, values: _Places, wanted: _Keys) -> _Places:
    """Returns the values of keys, which are sorted; 0 for one that is not there."""
    if not len(keys):
        return np.zeros(len(wanted), dtype=np.int64)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)
