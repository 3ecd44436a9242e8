"""Ranges of values: what they accept, what they read from a text, and how they describe themselves."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tinygpt2._internal.texts
from tinygpt2._internal.checks import can_be_iterated, check_iterable, check_json, shown
from tinygpt2._internal.ranges import Bool, Check, Choice, Int, Loss, Many, Number, Optional, Pair, Text
from tinygpt2._internal.texts import check_text

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
        (Int(), [1.0, "1", None, True, [1], int, np.int64]),
        (Number(), ["1", None, False, 1j, [1.0], float, np.float32]),
        (Bool(), [1, 0, None, "true"]),
        (Text(), [b"a", 1, None, ["a"]]),
        (Optional(Text()), [b"a", 1]),
        (Many(Text()), ["ab", None, {"a": 1}, [1], ("a", None)]),
        (
            Pair(DROPOUT),
            [
                0.9,
                None,
                "ab",
                b"ab",
                ("0.9", 0.5),
                {0.9, 0.5},
                {0.9: 1, 0.5: 1},
                tuple,
                np.float64(0.9),
                np.array(0.9),
                torch.tensor(0.9),
            ],
        ),
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
        with pytest.raises(ValueError, match=r"it must be a finite number greater than 0 and at most 1, got"):
            PROBABILITY.check("it", value)


@given(text=st.text(st.characters()), piece=st.integers(1, 9))
def test_a_text_has_no_lone_surrogates_wherever_it_is_divided(text: str, piece: int) -> None:
    position = next((i for i, char in enumerate(text) if 0xD800 <= ord(char) <= 0xDFFF), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tinygpt2._internal.texts, "_PIECE", piece)
        if position is None:
            assert check_text("it", text) is text
            return
        with pytest.raises(
            ValueError, match=f"it has a lone surrogate, U.{ord(text[position]):04X}, at position {position},"
        ):
            check_text("it", text)


@pytest.mark.parametrize("value", [1, None, ["a"], {}, np.array([]), np.array(["a"]), torch.zeros(2), str])
def test_only_a_text_is_one_of_several_names(value: object) -> None:
    """An array of NumPy was compared item by item, and its truth value asked for."""
    with pytest.raises(ValueError, match="it must be one of 'a', 'b', got "):
        Choice(("a", "b")).check("it", value)


class _Sequence:
    """Can be iterated over by its indices, as in Python before ``__iter__``."""

    def __getitem__(self, index: int) -> int:
        return range(3)[index]


@pytest.mark.parametrize("value", [[], (), iter([]), range(3), {1}, np.zeros(0), torch.zeros(2, 3), _Sequence()])
def test_what_has_items_can_be_iterated_over(value: object) -> None:
    check_iterable("it", value, "a list")
    assert can_be_iterated(value)


@pytest.mark.parametrize("value", [None, 1, list, len, object(), np.float32(1), np.array(1), torch.tensor(1)])
def test_what_has_no_items_is_a_type_error(value: object) -> None:
    """A scalar of NumPy or PyTorch has the methods of a sequence, which raise when they are called."""
    assert not can_be_iterated(value)
    with pytest.raises(TypeError, match="it must be a list, got "):
        check_iterable("it", value, "a list")


@pytest.mark.parametrize("value", ["", "ab", b"", {}, {"input_ids": 1}])
def test_characters_and_keys_are_not_the_items_that_are_meant(value: object) -> None:
    with pytest.raises(TypeError, match="it must be a list, got "):
        check_iterable("it", value, "a list")


def test_none_is_optional_only_where_that_is_said() -> None:
    assert Optional(Int()).check("it", None) is None
    with pytest.raises(TypeError, match="it must be an integer"):
        Int().check("it", None)


def test_a_range_without_an_upper_end_ends_where_numpy_and_pytorch_do() -> None:
    assert Int().check("it", 2**63 - 1) == Int().parse(str(2**63 - 1)) == np.int64(2**63 - 1)
    for value, told in (
        (2**63, "9223372036854775808"),
        (10**30, "10{30}"),
        (10**400, "about 10..400"),
        (10**5000, "about 10..5000"),  # which Python itself refuses to print
    ):
        with pytest.raises(ValueError, match=f"it must be at most 9223372036854775807, got {told}$"):
            Int().check("it", value)
    with pytest.raises(ValueError, match=r"it must be at least 1, got about -10..400$"):
        Int().check("it", -(10**400))
    for text in (str(2**63), "9" * 400, "9" * 5000):
        with pytest.raises(ValueError, match=r"^expected an integer of at most 9223372036854775807, got '9"):
            Int().parse(text)
    with pytest.raises(ValueError, match=r"it must be a finite number at least 0, got about 10..400$"):
        Number().check("it", 10**400)
    assert Number().check("it", math.nextafter(math.inf, 0)) > 1e308


@pytest.mark.parametrize("text", ["1_000", "1e3", "٣", "１２", "¹", "0x10", "1,000", "1.0", "+-1", "", "9" * 5000])
def test_an_integer_is_spelled_in_decimal_digits(text: str) -> None:
    """``int`` reads underscores and the digits of every script, which no other program does."""
    with pytest.raises(ValueError, match=r"^expected an integer of at"):
        Int().parse(text)
    assert [Int(minimum=-5).parse(text) for text in ("7", "+7", " 7", "-5", "007")] == [7, 7, 7, -5, 7]


@pytest.mark.parametrize("text", ["1_0.5", "٠.٥", "０.５", "nan", "infinity", "1e400", "0x1p-1", "0,5", "9" * 5000])
def test_a_number_is_spelled_in_decimal_digits(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a number of at least 0, got"):
        Number().parse(text)
    assert [Number().parse(text) for text in ("0.5", "5e-1", ".5", " 0.5")] == [0.5] * 4


@pytest.mark.parametrize("make", [np.int64, np.uint8, np.array, torch.tensor])
def test_whole_scalars_of_numpy_and_pytorch_are_integers_and_numbers(make: Any) -> None:  # noqa: ANN401
    value = Int().check("it", make(3))
    assert (value, type(value)) == (3, int)
    number = Number().check("it", make(3))
    assert (number, type(number)) == (3.0, float)


@pytest.mark.parametrize(
    "value",
    [np.float16(0.5), np.float32(0.5), np.longdouble(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor(0.5).half(),
     torch.tensor(0.5, requires_grad=True), Fraction(1, 2), Decimal("0.5")],
)  # fmt: skip
def test_whatever_float_reads_is_a_number_but_not_an_integer(value: Any) -> None:  # noqa: ANN401
    number = PROBABILITY.check("it", value)
    assert (number, type(number)) == (0.5, float)
    with pytest.raises(TypeError, match="it must be an integer, got"):
        Int().check("it", value)


@pytest.mark.parametrize(
    "value",
    [np.True_, np.array([1]), np.array([0.5]), np.str_("1"), np.complex64(1), np.datetime64(1, "s"), torch.tensor([1]),
     torch.tensor(True), torch.tensor(1j), torch.empty((), device="meta"), 1j, b"1", object()],
)  # fmt: skip
def test_anything_else_is_neither(value: object) -> None:
    for check in (Int(), Number()):
        with pytest.raises(TypeError, match=r"it must be an? (integer|number), got"):
            check.check("it", value)


@pytest.mark.parametrize(
    "value", [Decimal("NaN"), Decimal("sNaN"), Decimal("1e999"), Fraction(10**400), np.nan, -np.inf]
)
def test_no_number_of_any_kind_is_infinite(value: object) -> None:
    with pytest.raises(ValueError, match=r"it must be a finite number at least 0, got"):
        Number().check("it", value)


@pytest.mark.parametrize("zero", [-0.0, np.float32(-0.0), Decimal("-0"), torch.tensor(-0.0)])
def test_zero_has_no_sign(zero: object) -> None:
    assert math.copysign(1, Number().check("it", zero)) == 1
    assert math.copysign(1, Number().parse("-0.0")) == 1


NAN = math.nan


@pytest.mark.parametrize(
    "loss", [0.5, -1, NAN, math.inf, np.float64("nan"), np.float32("nan"), np.float32("-inf"), torch.tensor(NAN)]
)
def test_a_loss_is_any_number(loss: float) -> None:
    """NaN and infinity of other types than Python's were refused, and those of NumPy stayed NumPy's."""
    found = Loss().check("it", loss)
    assert type(found) is float
    assert repr(found) == repr(float(loss))
    for wrong in (None, "1", True, [1.0]):
        with pytest.raises(TypeError, match="it must be a number"):
            Loss().check("it", wrong)
    with pytest.raises(ValueError, match=r"it must be a finite number of any size, got about 10..400"):
        Loss().check("it", 10**400)


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, [0] * 10**6, {i: i for i in range(10**5)}, 10**10_000, [[[[[[1] * 99] * 99]]]], np.zeros(10**6),
     b"x" * 10**6, torch.zeros(1000, 1000), "a\nb", np.arange(90).reshape(9, 10)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_value_in_a_message_is_short_and_on_one_line(value: object) -> None:
    text = shown(value)
    assert 0 < len(text) <= 100
    assert len(text.splitlines()) == 1
    for check in (Int(), Number(), Bool(), Pair(Int()), Many(Int()), Choice(("a", "b"))):
        with pytest.raises((TypeError, ValueError)) as caught:
            check.check("it", value)
        assert len(str(caught.value)) < 250


def test_a_short_value_is_shown_whole() -> None:
    for value in ("no", None, -1, 0.1, [1, 2], {"a": True}, 2**127):
        assert shown(value) == repr(value)


def test_what_json_cannot_hold_or_read_back_is_a_type_error() -> None:
    assert check_json("it", {"a": (1, [2])}) == {"a": [1, [2]]}
    nested: list[Any] = []
    for _ in range(40):
        nested = [nested]
    assert check_json("it", nested) == nested
    for _ in range(50_000):
        nested = [nested]
    endless: list[Any] = []
    endless.append(endless)
    for wrong in (nested, endless, {1, 2}, object(), 10**5000):
        with pytest.raises(TypeError, match="it is saved in checkpoints as JSON, which cannot hold it"):
            check_json("it", wrong)
    while nested:  # from the outside, since Python's own end of it could recurse
        nested = nested[0]
