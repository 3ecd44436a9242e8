"""The text of new tokens, in pieces that no later token changes."""

from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tinygpt2._internal.checks import can_be_iterated
from tinygpt2._internal.texts import check_text
from tinygpt2.generation.scores import ScoredPiece
from tinygpt2.tokenizers.foreign import byte_token_ids
from tinygpt2.tokenizers.protocol import Tokenizer

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # decoders put it for bytes that are not, or not yet, a character
_CONTEXT = 4  # tokens, at least one byte each: more than an incomplete character has


class Continuation:
    """The text of a prompt's new tokens, which ends at the end of text, or before a stop string.

    Args:
        prompt: Ids of the prompt.
        tokenizer: The tokenizer.
        stops: Stop strings.

    Attributes:
        ended: Whether the text has ended, so that further tokens do not belong to it.
        certain: Characters that are certain, with those that may become a stop string.
    """

    def __init__(self, prompt: Sequence[int], tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self.ended, self.certain = False, 0
        self._end = tokenizer.eot_token
        self._characters, self._stops = _Characters(prompt, tokenizer), _Stops(stops)

    def add(self, token: int) -> str:
        """Returns the text, possibly none, that is certain with one more token."""
        if self.ended:
            return ""
        if token == self._end:
            return self.finish()
        certain = self._characters.add(token)
        self.certain += len(certain)
        text = self._stops.add(certain)
        self.ended = self._stops.found
        return text

    def finish(self) -> str:
        """Ends the text and returns the rest of it, which was held back."""
        if self.ended:
            return ""
        self.ended, rest = True, self._characters.rest()
        self.certain += len(rest)
        return self._stops.add(rest, last=True)

    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yields the text of tokens as soon as it is certain, until it ends."""
        for token in tokens:
            if piece := self.add(token):
                yield piece
            if self.ended:
                return
        if rest := self.finish():
            yield rest

    def scored_pieces(self, tokens: Iterable[tuple[int, float]]) -> Iterator[ScoredPiece]:
        """Yields the text of tokens with their log-probabilities, a piece for each token that completes a character."""
        waiting: deque[tuple[int, float]] = deque()  # sizes and log-probabilities of what is certain, but not shown
        log_probability = 0.0
        for token, value in tokens:
            if token == self._end:
                break
            log_probability += value
            before, text = self.certain, self.add(token)
            if self.certain > before:
                waiting.append((self.certain - before, log_probability))
                log_probability = 0.0
            yield from _cut(text, waiting)
            if self.ended:
                return
        before, text = self.certain, self.finish()
        waiting.append((self.certain - before, log_probability))
        yield from _cut(text, waiting)


def _cut(text: str, waiting: deque[tuple[int, float]]) -> Iterator[ScoredPiece]:
    """Yields a text in the pieces that wait, and removes these; of the last, as much as the text has."""
    while text:
        size, log_probability = waiting.popleft()
        yield ScoredPiece(text[:size], log_probability)
        if size > len(text):
            waiting.appendleft((size - len(text), log_probability))
        text = text[size:]


class _Characters:
    """The text of tokens as it reads after a prompt, never part of a character.

    Tokens are decoded together with a few before them: with some tokenizers a token's text depends on the token before
    it (for instance, a space at the beginning is dropped). Text before those few no longer changes. A run of tokens for
    single bytes is decoded when it ends, since SentencePiece's vocabularies read all of it otherwise if one is invalid.
    """

    def __init__(self, prompt: Sequence[int], tokenizer: Tokenizer) -> None:
        self._tokenizer, self._together = tokenizer, byte_token_ids(tokenizer)
        self._held = _last(prompt, self._together)
        self._shown = len(tokenizer.decode(self._held)) if self._held else 0

    def add(self, token: int) -> str:
        """Returns the text that is certain with one more token."""
        self._held.append(token)
        if token in self._together:
            return ""
        text = self._tokenizer.decode(self._held)
        certain = _certain(text)
        piece = text[self._shown : certain]
        self._shown = max(self._shown, certain)
        if len(self._held) >= 4 * _CONTEXT:
            self._held = _last(self._held, self._together)
            self._shown = _certain(self._tokenizer.decode(self._held))
        return piece

    def rest(self) -> str:
        """Returns the text that was not certain."""
        return self._tokenizer.decode(self._held)[self._shown :] if self._held else ""


def _certain(text: str) -> int:
    """Returns how much of a text cannot change: invalid bytes before the last character stay invalid."""
    return len(text) - text.endswith(_REPLACEMENT)


def _last(tokens: Sequence[int], together: Container[int]) -> list[int]:
    """Returns the last few tokens, which do not begin within a run of those that are decoded together."""
    start = max(len(tokens) - _CONTEXT, 0)
    while start > 0 and tokens[start] in together:
        start -= 1
    return list(tokens[start:])


class _Stops:
    """A text up to the first place where a stop string begins; what may become one is held back.

    Attributes:
        found: Whether that place is known.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.found = False
        self._stops, self._longest = stops, max(map(len, stops), default=0)
        self._held = ""

    def add(self, text: str, *, last: bool = False) -> str:
        """Returns what can be shown with more text; ``last`` if nothing can follow it."""
        if not self._stops:
            return text
        held = self._held + text
        found = min((at for stop in self._stops if (at := held.find(stop)) >= 0), default=len(held))
        # A longer stop string that has only begun may still be the first.
        end = found if last else min(found, self._begun(held))
        self.found = end == found < len(held)
        self._held = held[end:]
        return held[:end]

    def _begun(self, held: str) -> int:
        """Returns the first place where a stop string begins of which the end is not there yet."""
        places = range(max(0, len(held) - self._longest + 1), len(held))
        return next((at for at in places if any(stop.startswith(held[at:]) for stop in self._stops)), len(held))


def stop_strings(stop: object) -> tuple[str, ...]:
    """Returns one stop string, or several, as a tuple.

    Raises:
        TypeError: If there is anything but ``str``.
        ValueError: If one is empty, or has a lone surrogate.
    """
    several: Any = stop if can_be_iterated(stop) and not isinstance(stop, str | bytes | bytearray | Mapping) else [stop]
    stops = tuple(check_text("stop", each) for each in several)
    if "" in stops:
        raise ValueError("stop must be strings of at least one character, got ''; for none, leave it out")
    return stops
