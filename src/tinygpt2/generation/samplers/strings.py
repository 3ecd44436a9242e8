"""The sampler that excludes strings, however they are spelt in tokens."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import override

from tinygpt2._internal.checks import check_iterable, of_type
from tinygpt2._internal.texts import check_text
from tinygpt2.generation.samplers.chain import ChainedSampler
from tinygpt2.generation.samplers.checks import checked_text
from tinygpt2.generation.samplers.draws import MultinomialSampler
from tinygpt2.generation.samplers.protocol import Sampler
from tinygpt2.tokenizers.foreign import AnyTokenizer, as_tokenizer
from tinygpt2.tokenizers.spelling import token_texts


@dataclass(frozen=True)
class BannedStringsSampler(ChainedSampler):
    """Excludes each token that would complete one of some strings in the text so far.

    A string can be spelt in several sequences of tokens, and begin and end within one. Here the text decides, not
    the tokens: no generated token completes the string, with a space before it or not, as a word or in a longer one,
    also where it began in the prompt. Upper and lower case differ. Only the last token of a string is excluded, so its
    beginning can appear, and something else follows.

    Attributes:
        strings: A string, or several; none is empty. They are kept as a tuple, sorted.
        tokenizer: The one that the model was trained with. The text of each of its tokens must be known, as it is with
            GPT-2's, with characters and with byte pairs.
        then: The sampler that chooses among the other tokens.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If a string is empty or has a lone surrogate, the texts of the tokens are not known, or, at a call,
            the tokenizer has more tokens than there are logits.

    >>> import torch
    >>> letters = CharTokenizer("abc")
    >>> sampler = BannedStringsSampler("cab", letters, then=GreedySampler())
    >>> text = torch.tensor([letters.encode_ordinary("bca")])
    >>> sampler(torch.tensor([[1.0, 2.0, 0.0, 0.0]]), tokens=text)
    tensor([0])
    """

    strings: str | Iterable[str]
    tokenizer: AnyTokenizer
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        strings = (self.strings,) if isinstance(self.strings, str) else self.strings
        check_iterable("strings", strings, "a str, or several")
        checked = tuple(sorted({check_text("strings", each) for each in strings}))
        if "" in checked:
            raise ValueError("strings must have at least one character each, got ''; every text has the empty string")
        object.__setattr__(self, "strings", checked)
        object.__setattr__(self, "tokenizer", as_tokenizer(self.tokenizer))
        super().__post_init__()
        _ = self._completions  # raises if the texts of the tokens are not known

    @cached_property
    def _completions(self) -> "_Completions":
        texts = token_texts(as_tokenizer(self.tokenizer))
        if texts is None:
            raise ValueError(
                f"tokenizer must say what text each token stands for, got {of_type(self.tokenizer)}, which does not; "
                "to exclude token ids take a BannedTokensSampler"
            )
        return _Completions([string.encode() for string in self.strings], texts)

    @override
    def _changed(self, logits: Tensor, tokens: Tensor | None) -> Tensor:
        text = checked_text(tokens, logits)
        found = self._completions
        if logits.shape[-1] < len(found.texts):
            raise ValueError(
                f"tokenizer has {len(found.texts)} tokens, but there are {logits.shape[-1]} logits; pass the tokenizer "
                "that the model was trained with"
            )
        banned = torch.zeros(logits.shape, dtype=torch.bool, device="cpu")
        for row, ids in zip(banned, text[:, max(0, text.shape[1] - found.longest + 1) :].tolist(), strict=True):
            for completing in found.after(ids):
                row[completing] = True
        return logits.masked_fill(banned.to(logits.device), -torch.inf)


class _Completions:
    """The tokens that complete one of several strings.

    A token completes a string if its text has the whole string, or begins with the rest of one with whose beginning the
    text so far ends. In the order of their texts, the tokens that begin with the same bytes are neighbours.
    """

    def __init__(self, strings: Sequence[bytes], texts: Sequence[bytes]) -> None:
        self.texts = texts
        sizes = sorted(set(map(len, strings)))
        self.longest = max(sizes, default=1)
        order = sorted((i for i, text in enumerate(texts) if text), key=texts.__getitem__)
        self._order = torch.tensor(order, dtype=torch.int64, device="cpu")
        searched = frozenset(strings)
        whole = [i for i in order if _has_one(texts[i], searched, sizes)]
        self._whole = torch.tensor(whole, dtype=torch.int64, device="cpu")
        self._completing: defaultdict[bytes, list[slice]] = defaultdict(list)  # by the beginning of a string
        in_order = [texts[i] for i in order]
        for string in strings:
            for cut in range(1, len(string)):
                self._completing[string[:cut]].append(_beginning_with(string[cut:], in_order))

    def after(self, ids: Sequence[int]) -> Iterator[Tensor]:
        """Yields the ids of tokens, (N,) int64, that complete a string after a text that ends with these."""
        yield self._whole
        end = self._text(ids)
        for size in range(1, min(len(end), self.longest - 1) + 1):
            for place in self._completing.get(end[-size:], ()):
                yield self._order[place]

    def _text(self, ids: Sequence[int]) -> bytes:
        """Returns the text of the last tokens, after the last one that has none, such as the end of text or padding."""
        text = b""
        for i in reversed(ids):
            if not (0 <= i < len(self.texts) and self.texts[i]):
                break
            text = self.texts[i] + text
        return text


def _has_one(text: bytes, strings: frozenset[bytes], sizes: Sequence[int]) -> bool:
    """Returns whether a text has one of the strings, which have these sizes, in a time that does not grow with them."""
    return any(text[first : first + size] in strings for size in sizes for first in range(len(text) - size + 1))


def _beginning_with(beginning: bytes, texts: Sequence[bytes]) -> slice:
    """Returns where in sorted texts those are that begin so."""
    size = len(beginning)
    first = bisect_left(texts, beginning, key=lambda text: text[:size])
    return slice(first, bisect_right(texts, beginning, lo=first, key=lambda text: text[:size]))
