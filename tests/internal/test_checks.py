"""Ranges of values: what they accept, what they read from a text, and how they describe themselves."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygpt2._internal.checks
from tinygpt2._internal.checks import Bool, Check, Choice, Int, Many, Number, Optional, Pair, Text, check_text

PROBABILITY = Number(maximum=1, above_minimum=True)
DROPOUT = Number(maximum=1, below_maximum=True)


@pytest.mark.parametrize(
    ("check", "text", "value"),
    [
        (Int(), "1", 1),
        (Int(minimum=0), "0", 0),
        (Int(minimum=0, maximum=7), "7", 7),
        (Number(), "1e-3", 0.001),
        (Number(), "2", 2.0),
        (PROBABILITY, "1", 1.0),
        (DROPOUT, "0", 0.0),
        (Choice(("a", "b")), "b", "b"),
        (Bool(), "true", True),
        (Bool(), "false", False),
        (Text(), " 你好", " 你好"),
        (Optional(Int()), "3", 3),
        (Pair(DROPOUT), "0.9,0.95", (0.9, 0.95)),
        (Many(Int()), "3", (3,)),
    ],
)
def test_what_a_text_spells_is_accepted_and_plain(check: Check, text: str, value: object) -> None:
    parsed = check.parse(text)
    assert (parsed, type(parsed)) == (value, type(value))
    assert check.check("it", parsed) == value


@pytest.mark.parametrize(
    ("check", "texts", "description"),
    [
        (Int(), ["0", "-1", "1.0", "1e3", "", "one", "nan"], "an integer of at least 1"),
        (Int(minimum=0, maximum=7), ["8", "-1"], "an integer of at least 0 and at most 7"),
        (Number(), ["-0.1", "nan", "inf", "fast", ""], "a number of at least 0"),
        (PROBABILITY, ["0", "1.5", "nan"], "a number greater than 0 and at most 1"),
        (DROPOUT, ["1", "-1"], "a number of at least 0 and less than 1"),
        (Choice(("a", "b")), ["c", "", "A"], "one of a, b"),
        (Bool(), ["yes", "1", ""], "true or false"),
        (Optional(Int()), ["0", "None"], "an integer of at least 1"),
        (
            Pair(DROPOUT),
            ["0.9", "0.9,1", "0.9,0.9,0.9", ","],
            "two values, each a number of at least 0 and less than 1",
        ),
    ],
)
def test_another_text_is_refused_with_what_was_expected(check: Check, texts: list[str], description: str) -> None:
    assert check.description == description
    for text in texts:
        with pytest.raises(ValueError, match="expected") as caught:
            check.parse(text)
        assert str(caught.value) == f"expected {description}, got {text!r}"


@pytest.mark.parametrize(
    ("check", "values"),
    [
        (Int(), [1.0, "1", None, True, [1]]),
        (Number(), ["1", None, False, 1j, [1.0]]),
        (Bool(), [1, 0, None, "true"]),
        (Text(), [b"a", 1, None, ["a"]]),
        (Optional(Text()), [b"a", 1]),
        (Many(Text()), ["ab", None, {"a": 1}, [1], ("a", None)]),
        (Pair(DROPOUT), [0.9, None, "ab", b"ab", ("0.9", 0.5)]),
    ],
)
def test_a_value_of_another_type_is_a_type_error_that_names_it(check: Check, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(TypeError, match="it must be"):
            check.check("it", value)


@given(minimum=st.integers(), maximum=st.integers(), value=st.integers())
def test_an_integer_is_accepted_exactly_if_it_is_in_the_range(minimum: int, maximum: int, value: int) -> None:
    check = Int(minimum=minimum, maximum=maximum)
    if minimum <= value <= maximum:
        assert check.check("it", value) == check.parse(str(value)) == value
    else:
        with pytest.raises(ValueError, match=f"it must be at (least|most) -?[0-9]+, got {value}"):
            check.check("it", value)


@given(value=st.floats())
def test_a_number_is_accepted_exactly_if_it_is_in_the_range(value: float) -> None:
    if 0 < value <= 1:
        assert PROBABILITY.check("it", value) == PROBABILITY.parse(str(value)) == value
    else:
        with pytest.raises(ValueError, match="it must be a finite number greater than 0 and at most 1, got"):
            PROBABILITY.check("it", value)


@given(text=st.text(st.characters()), piece=st.integers(1, 9))
def test_a_text_has_no_lone_surrogates_wherever_it_is_divided(text: str, piece: int) -> None:
    position = next((i for i, char in enumerate(text) if 0xD800 <= ord(char) <= 0xDFFF), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tinygpt2._internal.checks, "_PIECE", piece)
        if position is None:
            assert check_text("it", text) is text
            return
        with pytest.raises(
            ValueError, match=f"it has a lone surrogate, U.{ord(text[position]):04X}, at position {position},"
        ):
            check_text("it", text)


def test_none_is_optional_only_where_that_is_said() -> None:
    assert Optional(Int()).check("it", None) is None
    with pytest.raises(TypeError, match="it must be an integer"):
        Int().check("it", None)


def test_a_range_without_an_upper_end_has_numbers_of_any_size() -> None:
    assert Int().check("it", 10**400) == 10**400
    with pytest.raises(ValueError, match="finite"):
        Number().check("it", 10**400)
    assert Number().check("it", math.nextafter(math.inf, 0)) > 1e308
