"""Progress display on stderr."""

import sys
import time
from typing import Never

from tqdm import tqdm
from typing_extensions import override

from tinygpt2._internal.console import write_line
from tinygpt2.training.callbacks.base import Callback
from tinygpt2.training.history import TrainingHistory
from tinygpt2.training.state import TrainState


class ProgressBar(Callback):
    """Shows the progress of training on stderr: a bar on a terminal, plain lines elsewhere.

    `train` adds one unless ``progress=False``. To add it yourself:

    >>> from tinygpt2 import GPT2Config, GPT2Model, make_dataloader, train
    >>> shape = GPT2Config(
    ...     vocab_size=4, context_length=8, n_layer=1, n_head=2, n_embd=32
    ... )
    >>> loader = make_dataloader([0, 1, 2, 3] * 50, batch_size=4, context_length=8)
    >>> history = train(
    ...     GPT2Model(shape), loader, callbacks=[ProgressBar()], device="cpu",
    ...     progress=False,
    ... )
    """

    def __init__(self) -> None:
        self._bar: tqdm[Never] | None = None
        self._last_line = time.monotonic()

    @override
    def on_start(self, state: TrainState) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            self._bar = tqdm(
                total=state.total_steps, initial=state.step, dynamic_ncols=True, leave=False, bar_format=_BAR
            )
            self._show(state)

    @override
    def on_step(self, state: TrainState) -> None:
        if self._bar is not None:
            self._bar.update()
            self._show(state)
        elif time.monotonic() - self._last_line > _PLAIN_LINE_SECONDS:
            self._write(f"{_position(state)} | loss {state.loss:.3f} | {_pace(state)}")

    @override
    def on_evaluation(self, state: TrainState) -> None:
        self._show(state)
        self._write(f"{_position(state)} | {_losses(state.history)} | {_pace(state)}")

    @override
    def on_end(self, state: TrainState, error: BaseException | None) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show(self, state: TrainState) -> None:
        """Shows beside the bar what the run is doing; without a delay if that is an evaluation, which may be long."""
        if self._bar is not None:
            due = state.evaluation_due
            doing = f"loss {state.loss:.3f}, {_pace(state, separator=', ')}" if state.training_steps else _pace(state)
            self._bar.set_postfix_str("evaluating" if due else doing, refresh=due)

    def _write(self, line: str) -> None:
        write_line(line)
        self._last_line = time.monotonic()


def _position(state: TrainState) -> str:
    width = len(str(state.total_steps))
    return f"epoch {state.epochs:5.2f} | step {state.step:{width}d}/{state.total_steps}"


def _losses(history: TrainingHistory) -> str:
    """Returns the losses of the last evaluation, the last of them in bits per byte, too, if that is known."""
    line, bits = f"train loss {history.train_losses[-1]:.3f}", history.train_bits_per_byte[-1]
    if (val_loss := history.val_losses[-1]) is not None:
        line, bits = f"{line} | val loss {val_loss:.3f}", history.val_bits_per_byte[-1]
    return line if bits is None else f"{line} ({bits:.2f} bits/byte)"


def _pace(state: TrainState, separator: str = " | ") -> str:
    if not state.training_steps:
        return "before training" if not state.step else "resumed"
    return f"{state.tokens_per_second:,.0f} tokens/s{separator}{tqdm.format_interval(state.seconds_left)} left"


_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"  # tqdm's own estimate counts steps alone
_PLAIN_LINE_SECONDS = 10.0  # the longest time between lines without a terminal
