"""Texts on the terminal: colours, and numbers where there are none."""

import io
import math
import sys

import pytest

from tinygpt2.cli import display
from tinygpt2.cli.display import Display, has_colours, legend
from tinygpt2.generation.scores import ScoredPiece


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),  # as the convention has it
        ({"TERM": "xterm", "NO_COLOR": "0"}, False),
        ({"TERM": "xterm", "FORCE_COLOR": "0"}, False),
        ({"TERM": "dumb"}, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True),
        ({}, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_a_terminal_has_colours_unless_something_says_otherwise(
    environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert has_colours(Screen(), environment) == expected


def test_what_is_no_terminal_has_colours_only_if_they_are_forced() -> None:
    assert not has_colours(io.StringIO(), {"TERM": "xterm"})
    assert not has_colours(None, {"TERM": "xterm"})
    assert has_colours(io.StringIO(), {"FORCE_COLOR": "1"})


def coloured(probability: float) -> str:
    return display._coloured("x", probability)


def test_each_level_of_probability_has_its_colour() -> None:
    """The legend shows the same."""
    levels = [(1.0, 0.5), (0.49, 0.1), (0.09, 0.01), (0.009, 0.0)]
    assert len({coloured(probability) for level in levels for probability in level}) == len(levels)
    for (high, low), words in zip(levels, ("50% or more", "10% or more", "1% or more", "less"), strict=True):
        assert coloured(high) == coloured(low)
        assert coloured(low).replace("x", words) in legend(colours=True)


def test_white_space_needs_no_colour() -> None:
    assert display._coloured(" \n", 0.5) == " \n"


def test_the_colours_can_be_read_on_white_and_on_black() -> None:
    """By the contrast of WCAG 2.2, which asks for 3 at least."""
    for _, code in display._COLOURS:
        light = luminance(int(code.rpartition(";")[2]))
        assert (1 + 0.05) / (light + 0.05) > 3
        assert (light + 0.05) / 0.05 > 3


def luminance(colour: int) -> float:
    """Returns the relative luminance of a colour of the palette of 256: of its cube, or of its greys."""
    steps, place = (0, 95, 135, 175, 215, 255), colour - 16
    grey = [8 + 10 * (colour - 232)] * 3
    channels = grey if colour >= 232 else [steps[place // 36], steps[place // 6 % 6], steps[place % 6]]
    linear = [c / 12.92 if (c := each / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for each in channels]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_without_colours_each_piece_has_its_percentage() -> None:
    shown = Display(probabilities=True, colours=False)
    pieces = [ScoredPiece(f"{p}", math.log(p)) for p in (1.0, 0.994, 0.123, 0.0101, 0.009)]
    assert "".join(map(shown._shown, pieces)) == "1.0[100%]0.994[99%]0.123[12%]0.0101[1%]0.009[<1%]"
