"""Texts on the terminal: as they are, with the probabilities of their pieces, or as JSON."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from tinygpt2._internal.console import write_line
from tinygpt2.cli.writing import Text, speed
from tinygpt2.generation.scores import ScoredPiece

# Colours of the palette of 256, each with a contrast of at least 3 on white and on black, that the colour-blind can
# tell apart: blue, grey, orange, and red in bold.
_COLOURS = ((0.5, "38;5;33"), (0.1, "38;5;244"), (0.01, "38;5;166"), (0.0, "1;38;5;160"))


def has_colours(stream: TextIO | None, environment: Mapping[str, str] = os.environ) -> bool:
    """Returns whether a stream shows colours: a terminal that is not a dumb one, unless the environment says otherwise.

    ``NO_COLOR`` says no, ``FORCE_COLOR`` yes, if they are not empty.

    >>> has_colours(None, {"FORCE_COLOR": "1"})
    True
    >>> has_colours(None, {"FORCE_COLOR": "1", "NO_COLOR": "1"})
    False
    """
    if environment.get("NO_COLOR"):
        return False
    if forced := environment.get("FORCE_COLOR"):
        return forced != "0"
    known = environment.get("WT_SESSION") if sys.platform == "win32" else environment.get("TERM", "dumb") != "dumb"
    return bool(known) and stream is not None and stream.isatty()


def legend(*, colours: bool) -> str:
    """Returns the line that explains what is shown."""
    if not colours:
        return "each piece of the text is followed by its probability in percent"
    levels = [_coloured(f"{limit:.0%} or more" if limit else "less", limit) for limit, _ in _COLOURS]
    return f"probability of each piece of the text: {', '.join(levels)}"


@dataclass
class Display:
    """Prints texts.

    Attributes:
        probabilities: Whether it shows them.
        verbose: Whether it reports the speed, and the seed, on stderr.
        colours: Whether probabilities are colours; otherwise they are numbers.
    """

    probabilities: bool = False
    verbose: bool = False
    colours: bool = field(default_factory=lambda: has_colours(sys.stdout))

    def explain(self) -> None:
        """Writes the legend, if there is something to explain."""
        if self.probabilities:
            write_line(legend(colours=self.colours))

    def stream(self, text: Text) -> None:
        """Prints a text while it is written."""
        print(text.prompt, end="", flush=True)
        for piece in text:
            print(self._shown(piece), end="", flush=True)
        print()
        self.report([[text]])

    def together(self, texts: Sequence[Text]) -> None:
        """Prints several texts: one a line, or separated where one has several lines."""
        shown = [text.prompt + "".join(map(self._shown, text)) for text in texts]
        print(("\n---\n" if any("\n" in text for text in shown) else "\n").join(shown))

    def records(self, texts: Iterable[Text]) -> None:
        """Prints a JSON object for each text."""
        for text in texts:
            for _ in text:  # writes it, if it has not been
                pass
            print(json.dumps(text.record(), ensure_ascii=False), flush=True)

    def report(self, batches: Sequence[Sequence[Text]]) -> None:
        """Writes how fast texts were written, if that is wanted, and the seed of the first."""
        if self.verbose and batches:
            write_line(f"{speed(batches)}; seed {batches[0][0].seed}")

    def _shown(self, piece: ScoredPiece) -> str:
        if not self.probabilities:
            return piece.text
        if self.colours:
            return _coloured(piece.text, piece.probability)
        return f"{piece.text}[{_percent(piece.probability)}]"


def _coloured(text: str, probability: float) -> str:
    if text.isspace():  # which has none
        return text
    colour = next(colour for limit, colour in _COLOURS if probability >= limit)
    return f"\x1b[{colour}m{text}\x1b[0m"


def _percent(probability: float) -> str:
    return f"{100 * probability:.0f}%" if probability >= 0.01 else "<1%"
