"""The share of a text that is copied, held against a search for every window."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinygpt2 import sample_text
from tinygpt2.evaluation import copies
from tinygpt2.evaluation.copies import copied_share

texts = st.text("ab é\U0001f98a", min_size=1, max_size=40)


def share_by_hand(text: str, training: list[str], length: int) -> float:
    covered = set()
    for begin in range(len(text) - length + 1):
        if any(text[begin : begin + length] in document for document in training):
            covered |= set(range(begin, begin + length))
    return len(covered) / len(text)


@given(texts, st.lists(texts, min_size=1, max_size=4), st.integers(1, 9), st.integers(1, 30))
@example("aaaa", ["aa", "aa"], 3, 30)  # in neither of them
@example("abab", ["abab"], 4, 1)
def test_it_is_the_share_of_characters_in_copied_windows(
    text: str, training: list[str], length: int, piece: int
) -> None:
    """Also if the training text is searched in small pieces, and if all hashes meet in a small table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "_PIECE", piece)
        patch.setattr(copies, "_TABLE", 3)
        assert copied_share(text, training, length) == share_by_hand(text, training, length)
        assert copied_share(text, "".join(training), length) == share_by_hand(text, ["".join(training)], length)


def test_of_several_texts_all_characters_count() -> None:
    assert copied_share(["abcd", "wxyz", "ab"], "abcdef", length=4) == 0.4
    assert copied_share(iter(["abcd"]), iter(["abcdef"]), length=4) == 1.0


def test_a_stretch_counts_from_fifty_characters_on() -> None:
    training = sample_text()
    assert copied_share(training[100:149] + "#" * 51, training) == 0
    assert copied_share(training[100:150] + "#" * 50, training) == 0.5
    assert copied_share(training[300:390] + "#" * 10, training) == 0.9


def test_nothing_is_read_once_all_is_found() -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "abcdefgh" * 1000

    assert copied_share("cdef", endless(), length=4) == 1.0


@pytest.mark.parametrize("training", ["", [], ["short"]])
def test_what_is_shorter_than_a_stretch_holds_no_copy(training: Any) -> None:  # noqa: ANN401
    assert copied_share("short", training, length=6) == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"text": ""}, ValueError, "text has no characters; pass text that the model generated"),
        ({"text": ["", ""]}, ValueError, "text has no characters"),
        ({"text": 7}, TypeError, "text must be several str"),
        ({"training": b"ab"}, TypeError, "training must be several str"),
        ({"training": "\ud800ab"}, ValueError, "training has a lone surrogate"),
        ({"length": 0}, ValueError, "length must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        copied_share(**{"text": "ab", "training": "ab"} | arguments)
