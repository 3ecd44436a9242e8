"""Noise on the input of training, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tinygpt2._internal.ranges import Check, Int, Number, Optional, check_fields

NOISE_RANGES: Mapping[str, Check] = MappingProxyType(
    {
        "bpe_dropout": Number(maximum=1, below_maximum=True),
        "token_noise": Number(maximum=1, below_maximum=True),
        "epochs": Optional(Int(minimum=0)),
    }
)
"""The range of each field of `TextNoise`."""


@dataclass(frozen=True, kw_only=True)
class TextNoise:
    """Noise on the training text, against memorising a short one, for `make_dataloader`.

    Each pass over the text is different: its windows begin at other places, its words are cut into other tokens, and
    other input tokens are replaced. All of it is a pure function of the loader's seed and the pass, so a run resumes in
    the middle of any pass with the same batches. The targets are always the true next tokens, as the words were cut.

    `train` measures its losses on the clean text, also that of the training data; `evaluate` does, too.

    Attributes:
        bpe_dropout: Probability of skipping each possible merge, at each step of merging the bytes of a word
            (BPE-dropout, Provilkov et al. 2020). It needs a text and a tokenizer with merges, a ``tiktoken.Encoding``
            such as `train_tokenizer`, `trim_vocabulary` and `gpt2_tokenizer` return. Words of more than 256 bytes stay
            as they are.
        token_noise: Probability of replacing each input token by one drawn from the tokens of the text (Xie et al.
            2017, "Data Noising as Smoothing"). The end-of-text token is neither replaced nor drawn.
        epochs: Number of the first passes that have noise; in the others only the windows begin at other places.
            ``None`` for all.

    Both probabilities are at least 0 and less than 1. Dropout of merges encodes the text anew in every pass, which
    takes a second for a few megabytes, and keeps three bytes in memory for each byte of text. It is meant for texts
    that are read many times; more than a hundred megabytes seldom are.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If a value is out of range.

    >>> loader = make_dataloader(
    ...     "low lower lowest", batch_size=1, context_length=2,
    ...     noise=TextNoise(bpe_dropout=0.5),
    ... )
    >>> for _ in range(2):
    ...     inputs, targets = next(iter(loader))
    ...     [gpt2_tokenizer().decode([i]) for i in inputs[0].tolist()]
    ['l', 'ow']
    [' lower', ' low']
    """

    bpe_dropout: float = 0.0
    token_noise: float = 0.0
    epochs: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, NOISE_RANGES)
