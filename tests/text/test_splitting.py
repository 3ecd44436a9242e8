"""The split of documents into a part to train on and one to validate on."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2 import split_documents
from tinygpt2.text.splitting import MANY, without_duplicates

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(lambda text: not text.isspace())


@given(st.lists(WORDS, min_size=2, max_size=60, unique_by=lambda text: " ".join(text.split())), st.floats(0.05, 0.95))
def test_nothing_is_lost_and_nothing_is_in_both(documents: list[str], ratio: float) -> None:
    try:
        split = split_documents(documents, ratio)
    except ValueError as error:
        assert "one part would be empty" in str(error) or "also among those to train on" in str(error)  # noqa: PT017
        return
    assert split.train
    assert split.val
    if len(documents) >= MANY:
        assert Counter([*split.train, *split.val]) == Counter(documents)
        assert not set(split.train) & set(split.val)
    elif not split.duplicates:
        assert "".join([*split.train, *split.val]) == "".join(documents)


def test_a_sorted_list_is_judged_on_all_of_it() -> None:
    names = [f"{letter}{i:03}" for letter in "abcdefghijklmnopqrstuvwxyz" for i in range(100)]
    split = split_documents(names, 0.9)
    assert len(split.val) == 260
    assert {name[0] for name in split.val} == set("abcdefghijklmnopqrstuvwxyz")
    assert sorted([*split.train, *split.val]) == names
    for part in (split.train, split.val):  # in which a name tells nothing about the next one
        assert sum(one < other for one, other in pairwise(part)) == pytest.approx(len(part) / 2, rel=0.2)


def test_the_draw_is_of_the_seed() -> None:
    names = [f"name {i}" for i in range(1000)]
    assert split_documents(names, seed=1) == split_documents(iter(names), seed=1)
    assert split_documents(names, seed=1) != split_documents(names, seed=2)


def test_long_documents_do_not_take_more_than_their_share() -> None:
    documents = ["long " * 10_000, *(f"short {i} " * 20 for i in range(30))]
    split = split_documents(documents, 0.9)
    assert sum(map(len, split.val)) <= 0.1 * sum(map(len, documents))


@pytest.mark.parametrize(
    ("documents", "train", "val"),
    [
        (["a" * 100], ["a" * 90], ["a" * 10]),  # a cut of the only one
        (["a" * 90, "b" * 10], ["a" * 90], ["b" * 10]),  # the last one
        (["a" * 50, "b" * 50], ["a" * 50, "b" * 40], ["b" * 10]),  # a cut of the last
        (["a" * 80, "b" * 7, "c" * 13], ["a" * 80, "b" * 7, "c" * 3], ["c" * 10]),
        (["a" * 91, "b" * 4, "c" * 5], ["a" * 91], ["b" * 4, "c" * 5]),  # the last ones, of nearly that size
        (["a" * 97, "b" * 3], ["a" * 90], ["a" * 7, "b" * 3]),  # far from it, so the one before is cut, too
    ],
)
def test_of_few_documents_the_end_is_held_out(documents: list[str], train: list[str], val: list[str]) -> None:
    assert split_documents(documents, 0.9)[:2] == (train, val)


def test_documents_of_both_parts_are_counted_and_left_out() -> None:
    split = without_duplicates(["one two", "three"], ["one  two\n", "four"])
    assert (split.val, split.duplicates) == (["four"], 1)
    repeated = ["again"] * 50 + [f"text {i}" for i in range(50)]
    split = split_documents(repeated, 0.5)
    assert split.duplicates > 0
    assert "again" not in split.val


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (["again"] * 40, "every document to validate on .* is also among those to train on, word for word"),
        (["a"], "1 documents cannot be split at train_ratio=0.9: one part would be empty"),
        ([" ", ""], "0 documents cannot be split"),
    ],
)
def test_what_cannot_be_split_says_why(documents: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_documents(documents)


def test_one_text_is_not_several() -> None:
    with pytest.raises(TypeError, match="documents must be several str, got 'one text'"):
        split_documents("one text")
