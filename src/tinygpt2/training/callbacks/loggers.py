"""Loggers of metrics for visualisation tools."""

import os
from typing import TYPE_CHECKING

from typing_extensions import override

from tinygpt2._internal.checks import check_path
from tinygpt2.training.callbacks.base import Callback
from tinygpt2.training.state import TrainState

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class TensorBoardLogger(Callback):
    """Writes losses, learning rate, gradient norm and speed for TensorBoard: ``pip install 'tinygpt2[tensorboard]'``.

    Args:
        directory: Directory of the event files; view them with ``tensorboard --logdir DIRECTORY``.

    Raises:
        TypeError: If it is not a path.

    >>> import os, tempfile
    >>> from tinygpt2 import GPT2Config, make_dataloader, train
    >>> shape = GPT2Config(
    ...     vocab_size=4, context_length=8, n_layer=1, n_head=2, n_embd=32
    ... )
    >>> loader = make_dataloader([0, 1, 2, 3] * 50, batch_size=4, context_length=8)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     history = train(
    ...         GPT2Model(shape), loader, device="cpu", progress=False,
    ...         callbacks=[TensorBoardLogger(directory)],
    ...     )
    ...     print(len(os.listdir(directory)), "event file")
    1 event file
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        check_path("directory", directory)
        self.directory = os.fspath(directory)  # as it is: TensorBoard takes addresses, too, such as s3://...
        self._writer: SummaryWriter | None = None

    @override
    def on_start(self, state: TrainState) -> None:
        self._writer = self._open()

    @override
    def on_step(self, state: TrainState) -> None:
        self._write(state.step, {
            "step/loss": state.loss,
            "step/learning_rate": state.learning_rate,
            "step/grad_norm": state.grad_norm,
            "step/tokens_per_second": state.tokens_per_second,
        })  # fmt: skip

    @override
    def on_evaluation(self, state: TrainState) -> None:
        history = state.history
        measured = {
            "evaluation/train_loss": history.train_losses[-1],
            "evaluation/val_loss": history.val_losses[-1],
            "evaluation/train_bits_per_byte": history.train_bits_per_byte[-1],
            "evaluation/val_bits_per_byte": history.val_bits_per_byte[-1],
        }
        self._write(state.step, {name: value for name, value in measured.items() if value is not None})

    @override
    def on_end(self, state: TrainState, error: BaseException | None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, step: int, values: dict[str, float]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def _open(self) -> "SummaryWriter":
        try:
            from torch.utils.tensorboard.writer import SummaryWriter  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ImportError("TensorBoardLogger needs tensorboard: pip install 'tinygpt2[tensorboard]'") from error
        return SummaryWriter(self.directory)
