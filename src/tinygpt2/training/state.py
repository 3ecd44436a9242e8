"""State of a training run."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Literal, Self

import torch

from tinygpt2._internal.checks import LARGEST_INT, check_instance, shown
from tinygpt2.config import TrainingConfig
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.training.averaging import WeightAverage
from tinygpt2.training.history import TrainingHistory
from tinygpt2.training.timing import Timing

Event = Literal["start", "step", "evaluation", "epoch", "end"]


@dataclass(frozen=True)
class Progress:
    """Progress of a run, as a checkpoint saves it.

    Attributes:
        step: Optimizer steps made.
        epoch: Complete passes over the training data.
        items: Sequences read of the current pass; not batches, so that a run with another batch size resumes at the
            same place.
        tokens_seen: Training tokens read.
        loss: Training loss of the last step, with dropout, in nats per token; NaN before the first, and if no target of
            the step counted.
        grad_norm: Norm of the last step's gradients, before clipping; NaN before the first.
        learning_rate: Learning rate of the last step; 0.0 before the first.

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
        """Returns the progress in a dict made by ``dataclasses.asdict``.

        Raises:
            ValueError: If it is anything else.
        """
        expected = {part.name: part.type for part in fields(cls)}
        if not isinstance(content, Mapping) or set(content) != set(expected):
            raise ValueError(f"expected an object with {', '.join(expected)}, got {shown(content)}")
        for name, value in content.items():
            is_count = type(value) is int and 0 <= value <= LARGEST_INT
            if not (is_count if expected[name] is int else type(value) is float and not math.isinf(value)):
                kind = "count" if expected[name] is int else "number"
                raise ValueError(f"{name} is {shown(value)}, which is not a {kind}")
        if not content["learning_rate"] >= 0:
            raise ValueError(f"learning_rate is {content['learning_rate']}, which is not a rate")
        return cls(**content)


@dataclass
class TrainState:
    """State of a training run. Callbacks read it, and call ``stop()`` to end the run after the current step.

    Attributes:
        model: The model, in training mode.
        optimizer: The optimizer of its weights.
        config: The configuration that `train` was given.
        total_steps: Steps that the run will make, as far as is known.
        items_per_epoch: Sequences in a pass over the training data, including those of a dropped last batch; ``None``
            for a stream of unknown length.
        history: The evaluations so far.
        event: The event that the callbacks are called for: ``"start"`` before training, ``"step"`` after each step,
            ``"evaluation"`` after each entry in the history, ``"epoch"`` after each pass over the data, ``"end"`` when
            the run ends, in whatever way.
        progress: Progress of the run, whose fields are also attributes of the state.
        training_seconds: Seconds spent on steps since the run began or resumed, without evaluations, samples and
            checkpoints.
        training_steps: Steps made in that time.
        training_tokens: Training tokens read in that time.
        interrupted: Whether Ctrl-C, SIGTERM or SIGHUP is ending the run; callbacks should begin nothing that is not
            urgent.
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
    timing: Timing = field(default_factory=Timing, init=False, repr=False)  # where the time goes
    seconds_before: float | None = field(default=0.0, init=False, repr=False)  # the run was resumed, if known
    announced: bool = field(default=False, init=False, repr=False)  # a callback says where the run was interrupted
    average: WeightAverage | None = field(default=None, init=False, repr=False)  # of the weights, if it is wanted
    updating: bool = field(default=False, init=False, repr=False)  # while the optimizer changes the weights
    _stopping: bool = field(default=False, init=False, repr=False)

    @property
    def step(self) -> int:
        """Optimizer steps made, including those before the run was resumed."""
        return self.progress.step

    @property
    def epoch(self) -> int:
        """Complete passes over the training data."""
        return self.progress.epoch

    @property
    def epochs(self) -> float:
        """Passes over the training data, including the fraction of the current one if its length is known."""
        if self.items_per_epoch is None:
            return float(self.epoch)
        items = min(self.progress.items, self.items_per_epoch)  # an estimate if batches differ in size
        return (self.epoch * self.items_per_epoch + items) / self.items_per_epoch

    @property
    def seconds(self) -> float | None:
        """Seconds that the run has taken, also before it was resumed; ``None`` if those are not known."""
        return None if self.seconds_before is None else self.seconds_before + self.timing.total()

    @property
    def tokens_seen(self) -> int:
        """Training tokens read."""
        return self.progress.tokens_seen

    @property
    def loss(self) -> float:
        """Training loss of the last step, with dropout, in nats per token; NaN before the first, or of no targets."""
        return self.progress.loss

    @property
    def grad_norm(self) -> float:
        """Norm of the last step's gradients, before clipping; NaN before the first."""
        return self.progress.grad_norm

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step; 0.0 before the first."""
        return self.progress.learning_rate

    @property
    def tokens_per_second(self) -> float:
        """Training tokens per second of ``training_seconds``; 0.0 before the first step."""
        return self.training_tokens / self.training_seconds if self.training_seconds else 0.0

    @property
    def seconds_left(self) -> float:
        """Estimate of the seconds to the end of the run, with evaluations, samples and checkpoints; NaN before a step.

        What the run has not yet done since it began or resumed, for instance a sample, counts nothing until then.
        """
        if not self.training_steps:
            return math.nan
        ends = max(0, math.ceil(self._epochs_at_end() - 1e-6) - self.epoch)
        evaluations = self._evaluations_left(ends)
        if self.event in {"step", "evaluation"} and not self.progress.items:  # the epoch that ends here is yet to come
            ends += 1
        steps = max(0, self.total_steps - self.step)
        return self.timing.left(self.training_steps, steps=steps, evaluations=evaluations, samples=ends)

    @property
    def evaluation_due(self) -> bool:
        """Whether the model is to be evaluated at this step and has not been."""
        if self.history.steps and self.history.steps[-1] == self.step:
            return False
        if self.step == 0 or self.finished:
            return True
        every = self.config.eval_every
        return self.progress.items == 0 if every is None else self.step % every == 0

    @property
    def finished(self) -> bool:
        """Whether the run has made its last step."""
        if self.config.max_steps is not None:
            return self.step >= self.config.max_steps
        return self.epoch >= self.config.epochs

    @property
    def stopping(self) -> bool:
        """Whether a callback has asked to stop."""
        return self._stopping

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Gives the model the weights that are evaluated within the block: with ``ema_decay`` their average."""
        with nullcontext() if self.average is None else self.average.applied():
            yield

    def interrupt(self) -> None:
        """Ends the run after the current step, without a final evaluation, as a signal does."""
        self.interrupted = True

    def stop(self, reason: str = "a callback stopped it") -> None:
        """Ends the run after the current step, with a final evaluation.

        Args:
            reason: Why, for ``history.stopped`` and for the line at the end: a clause without a full stop.

        Raises:
            TypeError: If it is not a string.
        """
        check_instance("reason", reason, str, "a string")
        self._stopping = True
        if not self.finished:
            self.history.stopped = reason

    def _epochs_at_end(self) -> float:
        """Returns the passes over the data that the run will have made, including fractions, as far as is known."""
        if self.config.max_steps is None:
            return self.config.epochs
        return self.epochs / self.step * self.total_steps if self.step else self.epochs

    def _evaluations_left(self, epochs: int) -> int:
        """Returns the number of evaluations left, if ``epochs`` is the number of ends of epochs left."""
        every, last = self.config.eval_every, self.total_steps
        if self.step >= last:
            return int(self.evaluation_due)
        later = max(1, epochs) if every is None else math.ceil(last / every) - self.step // every
        return int(self.evaluation_due) + later
