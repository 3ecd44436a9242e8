"""The loss of a model over a data set."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from tinygpt2._internal.checks import check_instance, check_int, check_iterable
from tinygpt2._internal.cpu import fast_products
from tinygpt2._internal.devices import device_of, moved
from tinygpt2.data.batches import Batch, BatchCheck
from tinygpt2.data.loader import without_noise
from tinygpt2.distributed.ranks import ALONE, Ranks
from tinygpt2.errors import NonFiniteLossError
from tinygpt2.kernels.cross_entropy import id_outside
from tinygpt2.losses import IGNORE_INDEX, perplexity
from tinygpt2.model.checks import not_finite
from tinygpt2.model.modes import evaluation_mode
from tinygpt2.model.objective import NextTokenLoss, vocab_size_of
from tinygpt2.tokenizers.foreign import AnyTokenizer, as_tokenizer
from tinygpt2.tokenizers.identity import token_bytes
from tinygpt2.tokenizers.protocol import Tokenizer

_MOST_WAITING = 1024  # scalars on a device


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate` and `evaluate_text`.

    Losses of models with different tokenizers cannot be compared: a token may be a character or a word. Bits per byte
    can, since every model predicts the same bytes.

    Attributes:
        loss: Mean cross-entropy, nats per token; infinite if the model gives a target a probability of zero.
        perplexity: exp(loss).
        tokens: Number of targets that ``loss`` is the mean of.
        bytes: Number of bytes of UTF-8 text that these tokens stand for; ``None`` if it is not known. The end of a
            document counts as one byte, for the line break or separator that it stands for in a file.
        words: Number of words, separated by whitespace, that they stand for; ``None`` if it is not known.
        documents: Number of documents; ``None`` for a loader, or a single text.

    >>> import math
    >>> result = Evaluation(
    ...     loss=2.0, perplexity=math.exp(2.0), tokens=1000, bytes=4000
    ... )
    >>> f"{result.loss / math.log(2):.2f} bits per token"
    '2.89 bits per token'
    >>> f"{result.bits_per_byte:.2f} bits per byte"
    '0.72 bits per byte'
    """

    loss: float
    perplexity: float
    tokens: int
    bytes: int | None = None
    words: int | None = None
    documents: int | None = None

    @property
    def bits_per_byte(self) -> float | None:
        """The loss in bits per byte of text; ``None`` if the bytes are not known."""
        return self.loss * self.tokens / (self.bytes * math.log(2)) if self.bytes else None

    @property
    def word_perplexity(self) -> float | None:
        """Perplexity per word, exp(nats per word), as reported for WikiText; ``None`` if the words are not known.

        In a language without spaces, such as Chinese, whatever stands between two of them is one word, a sentence for
        instance, and the figure says little.
        """
        return perplexity(self.loss * self.tokens / self.words) if self.words else None


def evaluate(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    max_batches: int | None = None,
    tokenizer: AnyTokenizer | None = None,
) -> Evaluation:
    """Returns the loss of a model over a data set, in which every token counts equally, whatever the batch sizes.

    Dropout is off, and the model stays in its mode. The windows of a loader do not predict the first token of a text,
    nor the last ones, which do not fill a window; `evaluate_text` predicts every byte of a text once.

    Args:
        model: Any module from tokens (B, T) to logits (B, T, V), such as a `GPT2Model`.
        loader: (inputs, targets), both (B, T) int64; targets of -100 do not count. Or dicts of ``input_ids`` and
            ``labels`` in the convention of Hugging Face: unshifted. Moved to the model's device. A ``UserWarning``
            says so if the targets are not shifted by one. Of a loader with `TextNoise`, the clean text is read.
        max_batches: Maximum number of batches to read; ``None`` for all.
        tokenizer: The one that made the tokens. If it is given, and is known to be lossless, the result has the bytes
            of text that the targets stand for, and so ``bits_per_byte``.

    Raises:
        NonFiniteLossError: If the loss is NaN, or infinite because of the weights; the error names the first weight
            that is not finite.
        TypeError: If an argument is of the wrong type, or a batch has another form.
        ValueError: If the loader has no batch, or no target that counts, or an id is outside the vocabulary of the
            model or the tokenizer.

    >>> from tinygpt2 import GPT2Config, GPT2Model, make_dataloader
    >>> shape = GPT2Config(
    ...     vocab_size=100, context_length=16, n_layer=1, n_head=2, n_embd=32
    ... )
    >>> model = GPT2Model(shape)
    >>> loader = make_dataloader(range(100), batch_size=4, context_length=16)
    >>> evaluate(model, loader).tokens
    96
    """
    check_instance("model", model, nn.Module, "a torch.nn.Module")
    check_iterable("loader", loader, "an iterable of batches")
    max_batches = None if max_batches is None else check_int("max_batches", max_batches)
    sizes = None if tokenizer is None else bytes_per_token(as_tokenizer(tokenizer))
    check = BatchCheck(vocab_size_of(model))
    batches = (check(batch, f"batch {i}") for i, batch in enumerate(islice(without_noise(loader), max_batches)))
    return evaluate_batches(model, batches, sizes=sizes)


def bytes_per_token(tokenizer: Tokenizer) -> Tensor | None:
    """Returns how many bytes of text each id stands for, (V,) int64; ``None`` if the tokenizer does not say."""
    sizes = token_bytes(tokenizer)
    return None if sizes is None else torch.tensor(sizes, dtype=torch.int64)


def evaluate_batches(
    model: nn.Module,
    batches: Iterable[Batch],
    name: str | None = None,
    *,
    sizes: Tensor | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Returns what `evaluate` does, of batches that were checked.

    Args:
        model: As in `evaluate`.
        batches: (inputs, targets), both (B, T) int64.
        name: Name of the data in error messages.
        sizes: What `bytes_per_token` returns.
        ranks: The processes that evaluate together: of each batch, every one reads its rows.
    """
    of = f" of {name}" if name else ""
    device = device_of(model)
    sizes = None if sizes is None else sizes.to(device)
    objective = NextTokenLoss(model)
    nats, tokens, text = _Sum(), _Sum(), _Sum()
    with torch.no_grad(), evaluation_mode(model), fast_products():
        for inputs, given in (ranks.rows(batch, IGNORE_INDEX) for batch in batches):
            if sizes is not None:
                _check_known(given, len(sizes), of)
            targets = moved(given, device)
            nats.add(objective(moved(inputs, device), targets))
            counts = targets != IGNORE_INDEX
            tokens.add(counts.sum())
            if sizes is not None:
                text.add(sizes[targets.where(counts, 0)].where(counts, 0).sum())
    if not nats.added:
        raise ValueError(
            "there is nothing to evaluate: the loader has no batches; with drop_last=True, a data set smaller than one "
            "batch has none"
        )
    total, count, read = ranks.sums([nats.total(), tokens.total(), text.total()])
    if count == 0:
        raise ValueError(f"there is nothing to evaluate: every target{of} is {IGNORE_INDEX}, which does not count")
    loss = total / count
    check_finite(model, loss, of)
    return Evaluation(
        loss=loss,
        perplexity=perplexity(loss),
        tokens=int(count),
        bytes=None if sizes is None else int(read),
    )


class _Sum:
    """A sum of scalars that stay on their device for a while, so that no batch waits for the one before it."""

    def __init__(self) -> None:
        self.added = 0
        self._sum = 0.0
        self._waiting: list[Tensor] = []

    def add(self, value: Tensor) -> None:
        self._waiting.append(value)
        self.added += 1
        if len(self._waiting) == _MOST_WAITING:
            self.total()

    def total(self) -> float:
        """Returns the sum of what was added."""
        if self._waiting:
            self._sum = math.fsum([self._sum, *torch.stack(self._waiting).tolist()])
            self._waiting.clear()
        return self._sum


def _check_known(targets: Tensor, n_vocab: int, of: str) -> None:
    wrong = id_outside(targets, n_vocab, IGNORE_INDEX)
    if wrong is not None:
        raise ValueError(
            f"the tokenizer has ids 0 to {n_vocab - 1}, but one of the targets{of} is {wrong}; pass the tokenizer that "
            "made the tokens"
        )


def check_finite(model: nn.Module, loss: float, of: str = "") -> None:
    """Raises `NonFiniteLossError` if a loss is NaN, or infinite because of the weights.

    Args:
        model: The model.
        loss: The loss.
        of: What it is the loss of, to follow the word in the message.
    """
    if math.isfinite(loss):
        return
    reason = not_finite(model)
    if math.isnan(loss) and not reason:
        reason = (
            "all weights are finite, so the computation overflows; they are too large, for instance after training "
            "at too high a learning rate, or the precision is too low"
        )
    if reason:
        raise NonFiniteLossError(f"the loss{of} is {loss:g}: {reason}")
