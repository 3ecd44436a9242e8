"""Where a training run is: what is saved of it, and what callbacks see."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, Self

import torch

from tinygpt2.config import TrainingConfig
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.training.history import TrainingHistory

Event = Literal["start", "step", "evaluation", "epoch", "end"]


@dataclass(frozen=True)
class Progress:
    """How far a run has come, in what it has read and done; the fields are what a checkpoint saves.

    Attributes:
        step: Updates made.
        epoch: Whole passes over the training data.
        items: Sequences read of the pass after those. Counted in data, so that another batch size resumes at the same
            place.
        tokens_seen: Training tokens read.
        loss: Training loss of the last step, with dropout, in nats per token; NaN before the first.
        grad_norm: Norm of the last step's gradients, before clipping; NaN before the first.
        learning_rate: Rate of the last step; 0.0 before the first.

    >>> Progress(step=3, tokens_seen=768).tokens_seen
    768
    """

    step: int = 0
    epoch: int = 0
    items: int = 0
    tokens_seen: int = 0
    loss: float = math.nan
    grad_norm: float = math.nan
    learning_rate: float = 0.0

    @classmethod
    def from_dict(cls, content: object) -> Self:
        """Returns the progress that ``dataclasses.asdict`` made a dict of.

        Raises:
            ValueError: If it is anything else.
        """
        expected = {part.name: part.type for part in fields(cls)}
        if not isinstance(content, Mapping) or set(content) != set(expected):
            raise ValueError(f"expected an object of {', '.join(expected)}, got {content!r:.200}")
        for name, value in content.items():
            is_count = type(value) is int and value >= 0
            if not (is_count if expected[name] is int else type(value) is float and not math.isinf(value)):
                kind = "count" if expected[name] is int else "number"
                raise ValueError(f"{name} is {value!r:.100}, which is not a {kind}")
        return cls(**content)


@dataclass
class TrainState:
    """Where a training run is. Callbacks read it; to end the run after the current step they call ``stop()``.

    Attributes:
        model: The model, in training mode.
        optimizer: What updates it.
        config: What `train` was given.
        total_steps: Updates that the run will make, as far as that can be known.
        items_per_epoch: Sequences in a pass over the training data, those of a dropped last batch among them; ``None``
            for a stream that does not say.
        history: The evaluations so far.
        event: Why the callbacks are called: ``"start"`` before anything, ``"step"`` after each update, ``"evaluation"``
            after each entry in the history, ``"epoch"`` after each whole pass over the data, ``"end"`` when the run
            ends, in whatever way.
        progress: How far the run has come; its fields are attributes here, too.
        training_seconds: Time spent in steps, without evaluations, samples and checkpoints, and without what came
            before the run was resumed.
        training_steps: Updates made in that time.
        training_tokens: Training tokens read in that time.
        interrupted: Whether Ctrl-C or SIGTERM is ending the run; what is not urgent should not be begun.
    """

    model: GPT2Model
    optimizer: torch.optim.Optimizer
    config: TrainingConfig
    total_steps: int
    items_per_epoch: int | None = None
    history: TrainingHistory = field(default_factory=TrainingHistory)
    event: Event = "start"
    progress: Progress = field(default_factory=Progress)
    training_seconds: float = 0.0
    training_steps: int = 0
    training_tokens: int = 0
    interrupted: bool = False
    updating: bool = field(default=False, init=False, repr=False)  # while weights are between two steps
    _stopping: bool = field(default=False, init=False, repr=False)

    @property
    def step(self) -> int:
        """Updates made, those before the run was resumed included."""
        return self.progress.step

    @property
    def epoch(self) -> int:
        """Whole passes made over the training data."""
        return self.progress.epoch

    @property
    def epochs(self) -> float:
        """Passes made over the training data, with the fraction of the present one where that is known."""
        if self.items_per_epoch is None:
            return float(self.epoch)
        items = min(self.progress.items, self.items_per_epoch)  # which is an estimate where batches differ in size
        return (self.epoch * self.items_per_epoch + items) / self.items_per_epoch

    @property
    def tokens_seen(self) -> int:
        """Training tokens read."""
        return self.progress.tokens_seen

    @property
    def loss(self) -> float:
        """Training loss of the last step, with dropout, in nats per token; NaN before the first."""
        return self.progress.loss

    @property
    def grad_norm(self) -> float:
        """Norm of the last step's gradients, before clipping; NaN before the first."""
        return self.progress.grad_norm

    @property
    def learning_rate(self) -> float:
        """Rate of the last step; 0.0 before the first."""
        return self.progress.learning_rate

    @property
    def tokens_per_second(self) -> float:
        """Training tokens per second of ``training_seconds``; 0.0 before the first step."""
        return self.training_tokens / self.training_seconds if self.training_seconds else 0.0

    @property
    def finished(self) -> bool:
        """Whether the last step of all was made."""
        if self.config.max_steps is not None:
            return self.step >= self.config.max_steps
        return self.epoch >= self.config.epochs

    @property
    def stopping(self) -> bool:
        """Whether a callback asked to stop."""
        return self._stopping

    def interrupt(self) -> None:
        """Ends the run after the current step, without a last evaluation: what a signal does."""
        self.interrupted = True

    def stop(self) -> None:
        """Ends the run after the current step, with a last evaluation."""
        self._stopping = True
