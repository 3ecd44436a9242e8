"""Early stopping."""

import math
from dataclasses import dataclass

from typing_extensions import override

from tinygpt2._internal.checks import check_int, check_number
from tinygpt2.training.callbacks.base import Callback
from tinygpt2.training.state import TrainState


@dataclass
class EarlyStopping(Callback):
    """Ends the run when the validation loss has not improved for some evaluations.

    The history says why the run ended (``history.stopped``) and which evaluation was the best (``history.best``).
    `train` keeps the model of that one: with ``checkpoint_dir`` in ``best``, with ``keep_best`` in memory.

    Attributes:
        patience: Evaluations to wait for a lower loss.
        min_delta: Decrease that a lower loss must exceed to count, in nats per token.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If a value is out of range, or, during training, if there is no validation data.

    >>> EarlyStopping(patience=3)
    EarlyStopping(patience=3, min_delta=0.0)
    """

    patience: int
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        self.patience = check_int("patience", self.patience)
        self.min_delta = check_number("min_delta", self.min_delta)

    @override
    def on_start(self, state: TrainState) -> None:
        self.on_evaluation(state)  # so that a resumed run stops where an uninterrupted one does

    @override
    def on_evaluation(self, state: TrainState) -> None:
        best, waited = math.inf, 0
        for loss in state.history.val_losses:
            if loss is None:
                raise ValueError("EarlyStopping needs a validation loss: pass a val_loader to train")
            better = loss < best - self.min_delta
            best, waited = (loss, 0) if better else (best, waited + 1)
        if waited >= self.patience and not state.finished and not state.stopping:
            by = f" by more than {self.min_delta:g}" if self.min_delta else ""
            times = f"{waited} evaluation{'s' * (waited > 1)}"
            state.stop(f"the validation loss has not fallen{by} for {times}")
