"""Texts that a model writes, with what is known of each: its tokens, their probabilities, its end and its speed."""

import math
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tinygpt2._internal.random import mixed_seed
from tinygpt2.cli.common import check_prompt
from tinygpt2.cli.settings import Values, is_greedy, sampler_of
from tinygpt2.generation.pieces import Continuation
from tinygpt2.generation.samplers.protocol import Sampler
from tinygpt2.generation.scores import ScoredPiece, log_probabilities
from tinygpt2.generation.text import generate_text, stream_text
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.recipe.reasons import counted
from tinygpt2.tokenizers.protocol import Tokenizer, encoded

_ROWS = 16  # texts that are written together; of gpt2-small, each may need 75 MB
_SEED_BITS = 53  # of a seed that is drawn or derived: every reader of JSON has these integers


class Token(NamedTuple):
    """A token that was chosen, and its log-probability under the model, whatever the sampler."""

    id: int
    log_probability: float


class Recorder:
    """A sampler that notes what another sampler chooses for each row, and when.

    A row is known by its generator and, where several share one, by its place among them.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self._rows: dict[tuple[int, int], list[Token]] = {}
        self._began = time.perf_counter()
        self._times: list[float] = []

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Chooses a token for each row."""
        ids = self.sampler(logits, tokens=tokens, generator=generator)
        logs = log_probabilities(logits, ids)
        for row, token in enumerate(map(Token, ids.tolist(), logs.tolist())):
            self._rows.setdefault((id(generator), row), []).append(token)
        self._times.append(time.perf_counter())
        return ids

    def tokens(self, row: int) -> list[Token]:
        """Returns the tokens of a row, also those after its end, while other rows continued."""
        return [*self._rows.values()][row] if self._rows else []

    @property
    def seconds(self) -> tuple[float, float]:
        """Time until the first token was chosen, and from then until the last."""
        return (self._times[0] - self._began, self._times[-1] - self._times[0]) if self._times else (0.0, 0.0)


@dataclass
class Text:
    """A text, which is written while its pieces are iterated over.

    Attributes:
        prompt: What it continues.
        seed: The seed that gives it alone.
        values: The settings.
        tokenizer: The tokenizer.
        recorder: What has noted its tokens.
        pieces: What is written; ``None`` where it has been, and all its tokens were noted.
        row: Its place among those that are written together.
        written: The text so far, without the prompt.
    """

    prompt: str
    seed: int
    values: Values
    tokenizer: Tokenizer
    recorder: Recorder
    pieces: Iterator[ScoredPiece] | None = None
    row: int = 0
    written: str = field(default="", init=False)

    def __iter__(self) -> Iterator[ScoredPiece]:
        for piece in self._recorded_pieces() if self.pieces is None else self.pieces:
            self.written += piece.text
            yield piece

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens before it: those of the prompt, or an end of text."""
        return len(encoded(self.tokenizer, self.prompt)) or 1

    def tokens(self) -> list[Token]:
        """Returns its tokens, with the end of text, or with those of the stop string, at which it ended."""
        found = self.recorder.tokens(self.row)
        text = self._continuation(self.values["stop"])
        for count, token in enumerate(found, start=1):
            text.add(token.id)
            if text.ended:
                return found[:count]
        return found

    def _recorded_pieces(self) -> Iterator[ScoredPiece]:
        return self._continuation(self.values["stop"]).scored_pieces(self.recorder.tokens(self.row))

    def _continuation(self, stops: Sequence[str]) -> Continuation:
        return Continuation(encoded(self.tokenizer, self.prompt), self.tokenizer, stops)

    def mean_log_probability(self) -> float:
        """Returns that of its tokens; of a text without any, the lowest there is."""
        tokens = self.tokens()
        return sum(token.log_probability for token in tokens) / len(tokens) if tokens else -math.inf

    def record(self) -> dict[str, Any]:
        """Returns what a program may want to know of it once it is written, as plain values."""
        tokens = self.tokens()
        text = self._continuation(stops=())
        texts = [text.add(token.id) for token in tokens]
        rest = text.finish()
        ended_by = "max_new_tokens"
        if len("".join(texts) + rest) > len(self.written):
            ended_by = "stop"
        elif tokens and tokens[-1].id == self.tokenizer.eot_token:
            ended_by = "end_of_text"
        prefill, decode = self.recorder.seconds
        return {
            "prompt": self.prompt,
            "text": self.written,
            "ended_by": ended_by,
            "seed": None if is_greedy(self.values) else self.seed,
            "prompt_tokens": self.prompt_tokens,
            "ids": [token.id for token in tokens],
            "tokens": [*texts[:-1], texts[-1] + rest] if texts else [],
            "log_probabilities": [round(token.log_probability, 6) for token in tokens],
            "prefill_seconds": round(prefill, 6),
            "decode_seconds": round(decode, 6),
        }


@dataclass(frozen=True)
class Writer:
    """A model that writes texts. The texts of one seed are numbered: each is the same however many are written.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer.
        records: Whether each token is noted, with its probability; otherwise there is only the text.
    """

    model: GPT2Model
    tokenizer: Tokenizer
    records: bool

    def stream(self, prompt: str, values: Values, number: int = 0) -> Text:
        """Returns the text of a number, which is written while it is iterated over.

        Raises:
            ValueError: If the prompt cannot be encoded.
        """
        check_prompt(prompt, self.tokenizer)
        recorder, seed = Recorder(sampler_of(values, self.tokenizer)), _derived(values["seed"], number)
        options = self._options(values, recorder, self._generator(seed))
        if self.records:
            pieces = stream_text(self.model, self.tokenizer, prompt, return_scores=True, **options)
        else:
            texts = stream_text(self.model, self.tokenizer, prompt, **options)
            pieces = (ScoredPiece(text, log_probability=0.0) for text in texts)
        return Text(prompt, seed, values, self.tokenizer, recorder, pieces)

    def together(self, prompt: str, values: Values, count: int) -> Iterator[list[Text]]:
        """Yields the first ``count`` texts, a few at a time, which share one pass over the prompt.

        Raises:
            ValueError: If the prompt cannot be encoded.
        """
        check_prompt(prompt, self.tokenizer)
        for first in range(0, count, _ROWS):
            recorder = Recorder(sampler_of(values, self.tokenizer))
            seeds = [_derived(values["seed"], number) for number in range(first, min(first + _ROWS, count))]
            options = self._options(values, recorder, [self._generator(seed) for seed in seeds])
            generate_text(self.model, self.tokenizer, prompt, n=len(seeds), **options)
            yield [Text(prompt, seed, values, self.tokenizer, recorder, row=row) for row, seed in enumerate(seeds)]

    def _options(
        self, values: Values, recorder: Recorder, generator: torch.Generator | list[torch.Generator]
    ) -> dict[str, Any]:
        sampler = recorder if self.records else recorder.sampler
        shared = {name: values[name] for name in ("max_new_tokens", "stop", "overflow")}
        return {**shared, "sampler": sampler, "generator": generator}

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.model.device).manual_seed(seed)


def with_seed(values: Values) -> dict[str, Any]:
    """Returns settings with a seed, drawn if they have none."""
    seed = secrets.randbits(_SEED_BITS) if values["seed"] is None else values["seed"]
    return {**values, "seed": seed}


def _derived(seed: int, number: int) -> int:
    """Returns the seed of the text of a number: the first has the seed itself, so that each can be had alone."""
    return mixed_seed(seed, number) >> (63 - _SEED_BITS) if number else seed


def speed(batches: Sequence[Sequence[Text]]) -> str:
    """Returns in words how fast texts were written, of which some were written together."""
    prompts = sum(batch[0].prompt_tokens for batch in batches)
    counts = [len(text.tokens()) for batch in batches for text in batch]
    prefill, decode = (sum(times) for times in zip(*(batch[0].recorder.seconds for batch in batches), strict=True))
    further = sum(counts) - sum(count > 0 for count in counts)  # the first of each comes with the prompt
    return (
        f"prompt: {counted(prompts, 'token')} in {prefill:.2g} s{_rate(prompts, prefill)}; "
        f"text: {counted(sum(counts), 'token')} in {decode:.3g} s{_rate(further, decode)}"
    )


def _rate(tokens: int, seconds: float) -> str:
    if not (tokens and seconds):
        return ""
    rate = tokens / seconds
    return f" ({rate:,.0f} tokens/s)" if rate >= 100 else f" ({rate:.3g} tokens/s)"
