"""The page's tokenizers: the same ids as Python's, for any text."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import tiktoken

from tinygpt2 import (
    CharTokenizer,
    add_special_tokens,
    gpt2_tokenizer,
    sample_text,
    train_tokenizer,
    trim_vocabulary,
)
from tinygpt2.page.tokenizers import page_tokenizer
from tinygpt2.tokenizers.protocol import Tokenizer

CHINESE = "一九一四年的夏天，战争开始了。士兵们从巴黎出发，向北方前进；他们不知道要走多远。" * 5

KINDS: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": gpt2_tokenizer,
    "special": lambda: add_special_tokens(gpt2_tokenizer(), ["<|user|>", "<script>"]),
    "trimmed": lambda: trim_vocabulary(gpt2_tokenizer(), sample_text()[:5000]),
    "learned": lambda: train_tokenizer(sample_text()[:5000], 400),
    "learned from Chinese": lambda: train_tokenizer(CHINESE, 320),
    "characters": lambda: CharTokenizer.from_text(sample_text()[:2000] + CHINESE, byte_fallback=True),
}


def texts(count: int) -> list[str]:
    """Returns texts of all kinds of characters: words, whitespace of all kinds, signs, and any code points."""
    source = random.Random(0)  # noqa: S311
    spaces = "\t\n\r\x0b\x1c \x85\xa0\u1680\u2003\u2028\u200b\u3000\ufeff"
    points = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    pools: list[list[str]] = [
        [chr(code) for code in range(32, 127)],
        [*spaces, "  ", "\n\n", "   \n"],
        ["'s", "'LL", "'ll", "'re", " the", " 1914", "don't", "<|endoftext|>", "<script>", "e\u0301", "👩‍👩‍👧"],
        list(CHINESE[:40]),
        [chr(source.choice(points)) for _ in range(3000)],
    ]

    def text() -> str:
        mix = source.sample(pools, k=source.randint(1, len(pools)))
        return "".join(source.choice(source.choice(mix)) for _ in range(source.randint(0, 40)))

    return ["", " ", "\n", *(text() for _ in range(count))]


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_the_ids_of_python_for_every_text_and_decodes_them(javascript: Callable[..., Any], kind: str) -> None:
    tokenizer = KINDS[kind]()
    given = texts(2000)
    found = javascript(
        """const tokenizer = web.tokenizer.makeTokenizer(given.tokenizer);
        return given.texts.map((text) => {
          const ids = tokenizer.encode(text);
          return [ids, tokenizer.decode(ids), tokenizer.textsOf(ids).join("")];
        });""",
        {"tokenizer": page_tokenizer(tokenizer), "texts": given},
    )
    assert len(found) == len(given)
    for text, (ids, *decoded) in zip(given, found, strict=True):
        assert ids == tokenizer.encode_ordinary(text), repr(text)
        assert decoded == [text, text]


def test_every_code_point_is_of_the_class_that_it_is_of_in_python(javascript: Callable[..., Any]) -> None:
    """Browsers have other versions of Unicode, and U+0085 is whitespace where U+FEFF is not."""
    tokenizer = gpt2_tokenizer()
    every = [f"a{chr(code)} 1{chr(code)} !{chr(code)}" for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    found = javascript(
        """const tokenizer = web.tokenizer.makeTokenizer(given.tokenizer);
        return given.texts.map((text) => tokenizer.encode(text));""",
        {"tokenizer": page_tokenizer(tokenizer), "texts": every},
    )
    assert found == tokenizer.encode_ordinary_batch(every)


def test_bytes_that_are_no_text_are_replaced_as_in_python(javascript: Callable[..., Any]) -> None:
    tokenizer = CharTokenizer("a", byte_fallback=True)
    source = random.Random(1)  # noqa: S311
    rows = [[source.choice([0, *range(0x80 + 1, 257)]) for _ in range(source.randint(0, 6))] for _ in range(500)]
    found = javascript(
        "const tokenizer = web.tokenizer.makeTokenizer(given.tokenizer); return given.rows.map((ids) => "
        "tokenizer.decode(ids));",
        {"tokenizer": page_tokenizer(tokenizer), "rows": rows},
    )
    assert found == [tokenizer.decode(ids) for ids in rows]


def test_a_character_that_a_model_has_not_seen_is_named(javascript: Callable[..., Any]) -> None:
    found = javascript(
        """try { web.tokenizer.makeTokenizer(given).encode("ab🦊b"); }
        catch (error) { return [error.constructor.name, error.character]; }""",
        page_tokenizer(CharTokenizer("ab")),
    )
    assert found == ["UnknownCharacter", "🦊"]


@pytest.mark.parametrize(
    ("tokenizer", "named"),
    [
        (tiktoken.Encoding("mine", pat_str=r"\w+|\W", mergeable_ranks={bytes([i]): i for i in range(256)},
                           special_tokens={"<|endoftext|>": 256}), "the encoding 'mine', which splits"),
        (object(), "one of another library (object)"),
    ],
)  # fmt: skip
def test_another_tokenizer_is_refused_by_its_name(tokenizer: Any, named: str) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="a page runs tokenizers of characters and of byte pairs") as error:
        page_tokenizer(tokenizer)
    assert named in str(error.value)
