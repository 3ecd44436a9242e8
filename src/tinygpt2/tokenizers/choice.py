"""The choice of a tokenizer for a text."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import regex
import tiktoken

from tinygpt2._internal.checks import check_choice
from tinygpt2.tokenizers.byte_pairs import gpt2_tokenizer
from tinygpt2.tokenizers.characters import CharTokenizer
from tinygpt2.tokenizers.vocabulary import count_words, learned_from, train_tokenizer, trim_vocabulary

KINDS = ("auto", "bpe", "trimmed", "gpt2", "char")

_SMALLEST = 257  # tokens: the bytes and the end of text
_LARGEST = 32_768
_OF_NAMES = 512

_MOSTLY = 0.8  # share of the letters

_TITLES = {"bpe": "byte pairs", "trimmed": "GPT-2's tokens in the text", "gpt2": "GPT-2's", "char": "characters"}

_SCRIPTS = {
    "Latin letters": regex.compile(r"\p{Latin}"),
    "Chinese characters": regex.compile(r"\p{Han}"),
    "kana": regex.compile(r"[\p{Hiragana}\p{Katakana}]"),
    "Hangul": regex.compile(r"\p{Hangul}"),
    "Cyrillic letters": regex.compile(r"\p{Cyrillic}"),
    "Greek letters": regex.compile(r"\p{Greek}"),
    "Hebrew letters": regex.compile(r"\p{Hebrew}"),
    "Arabic letters": regex.compile(r"\p{Arabic}"),
    "Devanagari": regex.compile(r"\p{Devanagari}"),
    "Thai letters": regex.compile(r"\p{Thai}"),
}


@dataclass(frozen=True)
class TokenizerChoice:
    """What `choose_tokenizer` chose, and why; ``str`` says it in a line.

    Attributes:
        tokenizer: The tokenizer.
        name: Which kind it is: ``"bpe"``, ``"trimmed"``, ``"gpt2"`` or ``"char"``.
        reason: What the choice depended on, for instance the size and the script of the text.
        per_byte: Tokens per byte of the text; ``None`` if the kind was given, so that nothing was compared.
        alternatives: The other kinds, each with the size of its vocabulary and its tokens per byte; empty likewise.

    >>> choice = choose_tokenizer("one two three four " * 9)
    >>> choice.name, choice.alternatives["gpt2"]
    ('bpe', (50257, 0.2163...))
    """

    tokenizer: "tiktoken.Encoding | CharTokenizer"
    name: str
    reason: str
    per_byte: float | None
    alternatives: Mapping[str, tuple[int, float]]

    def __str__(self) -> str:
        line = f"{_TITLES[self.name]}, {self.tokenizer.n_vocab:,} tokens"
        if self.per_byte is not None:
            others = "; ".join(
                f"{_TITLES[name]}: {tokens:,} tokens, {per_byte:.2f}"
                for name, (tokens, per_byte) in self.alternatives.items()
            )
            line += f", {self.per_byte:.2f} tokens a byte ({others})"
        return f"{line}: {self.reason}"


def choose_tokenizer(
    documents: str | Iterable[str], kind: str = "auto", vocab_size: int | None = None
) -> TokenizerChoice:
    """Returns a tokenizer that suits a text, with the reason for it.

    Args:
        documents: The text that the model will be trained on, or several, which are read once, one at a time. Text on
            which the model will be evaluated should not be among them.
        kind: ``"bpe"`` learns byte pairs with `train_tokenizer`; ``"trimmed"`` takes GPT-2's tokens that the text
            needs, with `trim_vocabulary`; ``"gpt2"`` is `gpt2_tokenizer`; ``"char"`` has a token for each character of
            the text, and the bytes for any other (`CharTokenizer`); ``"auto"`` is ``"char"`` for a list of names, whose
            words hardly ever come again, if it has few different characters, and ``"bpe"`` for any other text.
        vocab_size: Number of tokens, for ``"bpe"``, and for ``"auto"``, which is then ``"bpe"``. By default it grows
            with the text: 70 times the cube root of its number of bytes, at most 32,768, and at most 512 for names.

    Raises:
        TypeError: If an argument or a document is of the wrong type.
        ValueError: If there is no text, or a lone surrogate in it, or the kind is unknown, or the size is out of range
            or given for another kind.

    Warns:
        UserWarning: If the text supports fewer than ``vocab_size`` tokens.

    >>> choice = choose_tokenizer("你好，世界！", kind="char")
    >>> choice.tokenizer.n_vocab
    263
    >>> print(choice)
    characters, 263 tokens: as asked for
    """
    check_choice("kind", kind, KINDS)
    if vocab_size is not None and kind not in {"auto", "bpe"}:
        raise ValueError(f"vocab_size is for kind='bpe', got {vocab_size!r} with kind={kind!r}; leave it out")
    if vocab_size is not None:
        return _given("bpe", train_tokenizer(documents, vocab_size))
    if kind == "char":
        return _given(kind, CharTokenizer.from_text(documents, byte_fallback=True))
    if kind == "trimmed":
        return _given(kind, trim_vocabulary(gpt2_tokenizer(), documents))
    if kind == "gpt2":
        return _given(kind, gpt2_tokenizer())
    words = count_words("documents", documents)
    size = sum(len(word.encode("utf-8")) * count for word, count in words.items())
    pairs = learned_from(words, tokens_for(size, names=are_names(words, size)))
    return _given(kind, pairs) if kind == "bpe" else _compared(words, size, pairs)


def _given(kind: str, tokenizer: "tiktoken.Encoding | CharTokenizer") -> TokenizerChoice:
    return TokenizerChoice(tokenizer, kind, "as asked for", None, {})


def tokens_for(size: float, *, names: bool = False) -> int:
    """Returns how many tokens byte pairs should have for a text of so many bytes, or for names.

    benchmarks/vocabularies.py measures how well vocabularies predict held-out text: of 90 KB, 2,000 tokens predict it
    better than 1,000 do, in English, Chinese and code; where tokens of similar spelling share updates, 3,000 do better
    still, and without they are no worse. Names are better predicted by 500 than by more, and still better by their
    characters, if these are few and are read about as often.
    """
    tokens = min(round(70 * math.cbrt(size)), _LARGEST)
    return max(_SMALLEST, min(tokens, _OF_NAMES) if names else tokens)


def are_names(words: Mapping[str, int], size: int) -> bool:
    """Returns whether a text has short words of which few come again. Those of Chinese are clauses, which are long."""
    counts = [count for word, count in words.items() if not word.isspace()]
    return 500 < len(counts) > sum(counts) / 2 and size < 16 * sum(counts)


def suit_characters(characters: int | None, *, names: bool) -> bool:
    """Returns whether a text of so many different characters is best read in them; ``None`` is not known."""
    return names and characters is not None and tokens_of_characters(characters) <= _OF_NAMES


def tokens_of_characters(characters: int) -> int:
    """Returns how many tokens a `CharTokenizer` with those of bytes has for so many different characters."""
    return _SMALLEST + characters


def _compared(words: Mapping[str, int], size: int, pairs: tiktoken.Encoding) -> TokenizerChoice:
    """Returns the choice for a text of these words and so many bytes, given the byte pairs learned from it.

    It is the byte pairs, which predicted held-out text best in most of the measurements, but for names.
    """
    characters: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    gpt2 = gpt2_tokenizer()
    tokenizers: dict[str, tiktoken.Encoding | CharTokenizer] = {
        "bpe": pairs,
        "char": CharTokenizer("".join(sorted(characters)), byte_fallback=True),
        "trimmed": trim_vocabulary(gpt2, list(words)),
        "gpt2": gpt2,
    }
    tokens = {"bpe": _tokens(words, pairs), "char": characters.total(), "gpt2": _tokens(words, gpt2)}
    tokens["trimmed"] = tokens["gpt2"]  # it cuts its own text in the same way
    sizes = {name: (each.n_vocab, tokens[name] / size) for name, each in tokenizers.items()}
    names = are_names(words, size)
    reason = f"{amount(size)}, {'names in ' if names else ''}{script_of(characters)}"
    best = "char" if suit_characters(len(characters), names=names) else "bpe"
    return TokenizerChoice(tokenizers[best], best, reason, sizes.pop(best)[1], sizes)


def _tokens(words: Mapping[str, int], tokenizer: tiktoken.Encoding) -> int:
    return sum(len(tokenizer.encode_ordinary(word)) * count for word, count in words.items())


def amount(size: int) -> str:
    """Returns a number of bytes in words."""
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size >= one:
            return f"{size / one:.{size < 10 * one:d}f} {unit}"
    return f"{size} bytes"


def script_of(characters: Mapping[str, int]) -> str:
    """Returns the script that most of the letters of a text have, given how often each character occurs."""
    letters: Counter[str] = Counter()
    for character, count in characters.items():
        if character.isalpha():
            names = (name for name, script in _SCRIPTS.items() if script.match(character))
            letters[next(names, "letters of another script")] += count
    if not letters:
        return "no letters"
    (name, count), *others = letters.most_common()
    share = count / letters.total()
    if share > _MOSTLY:
        return f"mostly {name}" if others else name
    return f"{name} and {others[0][0]}"
