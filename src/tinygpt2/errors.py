"""The exceptions of tinygpt2."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinygpt2.training.history import TrainingHistory


_DIFFERENCES_SHOWN = 12  # in a message; all weights of another dtype are too many to read


class CheckpointError(ValueError):
    """A checkpoint is damaged, or is not a checkpoint. Nothing was loaded from it.

    >>> import pathlib, tempfile
    >>> from tinygpt2 import newest_checkpoint
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     pathlib.Path(directory, "checkpoint-10").mkdir()
    ...     newest_checkpoint(directory)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    tinygpt2.CheckpointError: no checkpoint in ... is intact: ... manifest.json: No such file or directory
    """


class IncompatibleRunError(ValueError):
    """A checkpoint belongs to another run than the one to resume. Nothing was changed, in memory or on disk.

    Attributes:
        differences: Each difference, in words: in the weights, the configuration or the data.

    >>> error = IncompatibleRunError("checkpoint-10", ["the seed was 0 and is 1"])
    >>> error.differences
    ('the seed was 0 and is 1',)
    """

    def __init__(self, checkpoint: object, differences: Iterable[str], *, fix: str = "") -> None:
        self.differences = tuple(differences)
        more = len(self.differences) - _DIFFERENCES_SHOWN
        shown = [*self.differences[:_DIFFERENCES_SHOWN], *([f"and {more} more differences"] if more > 0 else [])]
        super().__init__(f"{checkpoint} is of another run: {'; '.join(shown)}{'. ' if fix else ''}{fix}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Returns how to make it anew, in another process for instance, from its message."""
        return _made_anew, (type(self), str(self), self.differences)


def _made_anew(cls: type[IncompatibleRunError], message: str, differences: tuple[str, ...]) -> IncompatibleRunError:
    error = cls.__new__(cls, message)
    error.differences = differences
    return error


class LostRankError(RuntimeError):
    """A process that trained the same model has ended, so this one cannot continue.

    Attributes:
        ranks: The processes that have ended, or do not answer.

    >>> LostRankError([1], 4).ranks
    (1,)
    """

    def __init__(self, ranks: Iterable[int], size: int) -> None:
        self.ranks, self.size = tuple(ranks), size
        who = f"rank {self.ranks[0]} of {size} has" if len(self.ranks) == 1 else f"ranks {self.ranks} of {size} have"
        super().__init__(f"{who} ended or does not answer, so the others stop; its own message, if any, has the cause")

    def __reduce__(self) -> tuple[Any, ...]:
        """Returns how to make it anew, in another process for instance."""
        return type(self), (self.ranks, self.size)


class NonFiniteLossError(ArithmeticError):
    """The loss or its gradient became NaN or infinite, and training stopped before that reached the weights.

    If a weight is not finite, the message names it.

    Attributes:
        step: The step that failed; the model has the weights of the step before. If it was an evaluation that failed,
            the step before it. ``None`` from `training_step` and `evaluate`.
        history: The evaluations up to that step; ``None`` from `training_step` and `evaluate`.

    >>> from tinygpt2 import (
    ...     GPT2Config, GPT2Model, TrainingConfig, make_dataloader, train
    ... )
    >>> shape = GPT2Config(
    ...     vocab_size=4, context_length=8, n_layer=1, n_head=2, n_embd=32
    ... )
    >>> loader = make_dataloader([0, 1, 2, 3] * 50, batch_size=4, context_length=8)
    >>> config = TrainingConfig(learning_rate=1e30, max_grad_norm=None)
    >>> try:
    ...     train(
    ...         GPT2Model(shape), loader, config=config, device="cpu",
    ...         progress=False,
    ...     )
    ... except NonFiniteLossError as error:
    ...     print("stopped at step", error.step)
    stopped at step 2
    """

    def __init__(self, message: str, *, step: int | None = None, history: "TrainingHistory | None" = None) -> None:
        super().__init__(message)
        self.step = step
        self.history = history
