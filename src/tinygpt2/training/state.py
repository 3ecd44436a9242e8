"""Where a training run is."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from tinygpt2.config import TrainingConfig
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.training.history import TrainingHistory

Event = Literal["start", "step", "evaluation", "epoch", "end"]


@dataclass
class TrainState:
    """Where a training run is. Callbacks read it; to end the run after the current step they call ``stop()``.

    Attributes:
        model: The model, in training mode.
        optimizer: What updates it.
        config: What `train` was given.
        history: The evaluations so far.
        total_steps: Updates that the run will make.
        steps_per_epoch: Updates in a pass over the training data.
        event: Why the callbacks are called: ``"start"`` before anything, ``"step"`` after each update, ``"evaluation"``
            after each entry in the history, ``"epoch"`` after each whole pass over the data, ``"end"`` after the last
            evaluation.
        step: Updates made, those before a resumption included.
        tokens_seen: Training tokens read.
        loss: Training loss of the last step, with dropout, in nats per token; NaN before the first.
        grad_norm: Norm of the last step's gradients, before clipping; NaN before the first.
        learning_rate: Rate of the last step; 0.0 before the first.
        training_seconds: Time spent in steps, without evaluations, samples and checkpoints, and without what came
            before a resumption.
        training_steps: Updates made in that time.
        training_tokens: Training tokens read in that time.
        interrupted: Whether Ctrl-C or SIGTERM is ending the run; what is not urgent should not be begun.
    """

    model: GPT2Model
    optimizer: torch.optim.Optimizer
    config: TrainingConfig
    total_steps: int
    steps_per_epoch: int
    history: TrainingHistory = field(default_factory=TrainingHistory)
    event: Event = "start"
    step: int = 0
    tokens_seen: int = 0
    loss: float = math.nan
    grad_norm: float = math.nan
    learning_rate: float = 0.0
    training_seconds: float = 0.0
    training_steps: int = 0
    training_tokens: int = 0
    interrupted: bool = False
    _stopping: bool = field(default=False, init=False, repr=False)
    _between_steps: bool = field(default=True, init=False, repr=False)

    @property
    def epoch(self) -> int:
        """Whole passes made over the training data."""
        return self.step // self.steps_per_epoch

    @property
    def tokens_per_second(self) -> float:
        """Training tokens per second of ``training_seconds``; 0.0 before the first step."""
        return self.training_tokens / self.training_seconds if self.training_seconds else 0.0

    @property
    def finished(self) -> bool:
        """Whether the last step of all was made."""
        return self.step >= self.total_steps

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
