"""What looks on while a model trains: the progress bar, text samples, TensorBoard, and anything of yours.

A callback is a function of the training state. It is called at each event, which ``state.event`` names:

    def stop_when_good(state: TrainState) -> None:
        if state.event == "evaluation" and state.history.train_losses[-1] < 3:
            state.stop()

    train(model, loader, callbacks=[stop_when_good])
"""

import math
import os
import sys
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Never, Protocol, Self

import torch
from tqdm import tqdm

from tinygpt2._internal.checks import check_int, check_number
from tinygpt2.config import TrainingConfig
from tinygpt2.data.loader import mixed_seed
from tinygpt2.generation.decoding import generate_text
from tinygpt2.generation.samplers import GreedySampler, Sampler
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.text.tokenizers import Tokenizer
from tinygpt2.training.history import TrainingHistory

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

_GREEDY = GreedySampler()

Event = Literal["start", "step", "evaluation", "epoch", "end"]

_PLAIN_LINE_SECONDS = 10.0  # where there is no terminal, a line at least so often


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


class Callback(Protocol):
    """Anything that can be called with the training state.

    >>> from tinygpt2 import GPT2Config, make_dataloader, train
    >>> shape = GPT2Config(
    ...     vocab_size=4, context_length=8, n_layer=1, n_head=2, n_embd=32
    ... )
    >>> loader = make_dataloader([0, 1, 2, 3] * 50, batch_size=4, context_length=8)
    >>> def write_the_steps(state: TrainState) -> None:
    ...     if state.event == "end":
    ...         print(state.step, "of", state.total_steps)
    >>> callbacks: list[Callback] = [write_the_steps]
    >>> _ = train(
    ...     GPT2Model(shape), loader, callbacks=callbacks, device="cpu",
    ...     progress=False,
    ... )
    6 of 6
    """

    def __call__(self, state: TrainState, /) -> object:
        """Looks at the state after an event; what it returns does not matter."""
        ...


class ProgressBar:
    """Shows on stderr how training goes: a bar on a terminal, plain lines elsewhere.

    `train` adds one unless ``progress=False``. The same by hand:

    >>> from tinygpt2 import GPT2Config, make_dataloader, train
    >>> shape = GPT2Config(
    ...     vocab_size=4, context_length=8, n_layer=1, n_head=2, n_embd=32
    ... )
    >>> loader = make_dataloader([0, 1, 2, 3] * 50, batch_size=4, context_length=8)
    >>> with ProgressBar() as bar:
    ...     history = train(
    ...         GPT2Model(shape), loader, callbacks=[bar], device="cpu",
    ...         progress=False,
    ...     )
    """

    def __init__(self) -> None:
        self._bar: tqdm[Never] | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, state: TrainState, /) -> None:
        """Moves the bar on, and writes a line for each evaluation."""
        if state.event == "start" and sys.stderr.isatty():
            self._bar = tqdm(total=state.total_steps, initial=state.step, unit="step", dynamic_ncols=True, leave=False)
        elif state.event == "step":
            if self._bar is not None:
                self._bar.set_postfix_str(
                    f"loss {state.loss:.3f}, {state.tokens_per_second:,.0f} tokens/s", refresh=False
                )
                self._bar.update()
            elif time.monotonic() - self._last_line > _PLAIN_LINE_SECONDS:
                self._write(f"{_position(state)} | loss {state.loss:.3f} | {_pace(state)}")
        elif state.event == "evaluation":
            val_loss = state.history.val_losses[-1]
            validation = "" if val_loss is None else f" | val loss {val_loss:.3f}"
            self._write(
                f"{_position(state)} | train loss {state.history.train_losses[-1]:.3f}{validation} | {_pace(state)}"
            )

    def _write(self, line: str) -> None:
        write_line(line)
        self._last_line = time.monotonic()


def write_line(line: str) -> None:
    """Writes a line to stderr, above the progress bar where there is one."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


def _position(state: TrainState) -> str:
    width = len(str(state.total_steps))
    return f"epoch {state.step / state.steps_per_epoch:5.2f} | step {state.step:{width}d}/{state.total_steps}"


def _pace(state: TrainState) -> str:
    if not state.training_steps:
        return "before training" if not state.step else "resumed"
    seconds = state.training_seconds / state.training_steps * (state.total_steps - state.step)
    return f"{state.tokens_per_second:,.0f} tokens/s | {tqdm.format_interval(seconds)} left"


@dataclass
class TextSamples:
    """Continues a prompt at the end of each epoch, and of a run that ends within one, and writes the text to stderr.

    `train` adds one where ``config.sample_prompt`` is given.

    Attributes:
        prompt: What to continue.
        tokenizer: The one that the training data was encoded with.
        max_new_tokens: Length of the continuation.
        sampler: Chooses each token; greedy by default, so that samples can be compared.
    """

    prompt: str
    tokenizer: Tokenizer
    max_new_tokens: int = 50
    sampler: Sampler = _GREEDY
    _last_step: int = field(default=-1, init=False, repr=False)

    def __post_init__(self) -> None:
        self.tokenizer.encode_ordinary(self.prompt)  # an error, if there is one, before training and not after an epoch

    def __call__(self, state: TrainState, /) -> None:
        """Writes a sample after an epoch."""
        if state.event in ("epoch", "end") and state.step != self._last_step and not state.interrupted:
            self._last_step = state.step
            generator = torch.Generator(state.model.device).manual_seed(mixed_seed(state.config.seed))
            text = generate_text(
                state.model,
                self.tokenizer,
                self.prompt,
                max_new_tokens=self.max_new_tokens,
                sampler=self.sampler,
                generator=generator,
            )
            write_line(f"  sample: {' '.join(text.split())}")


@dataclass
class EarlyStopping:
    """Ends the run when the validation loss has not become lower for some evaluations.

    With ``checkpoint_dir``, `train` keeps the model with the lowest validation loss in ``best``.

    Attributes:
        patience: Evaluations to wait for a lower loss.
        min_delta: By how much a loss must be lower to count, in nats per token.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If a value is out of range; while training, if there is no validation data.

    >>> EarlyStopping(patience=3)
    EarlyStopping(patience=3, min_delta=0.0)
    """

    patience: int
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        check_int("patience", self.patience)
        check_number("min_delta", self.min_delta)

    def __call__(self, state: TrainState, /) -> None:
        """Looks at the history, so that a resumed run stops where an uninterrupted one does."""
        if state.event not in ("start", "evaluation") or not state.history.steps:
            return
        best, waited = math.inf, 0
        for loss in state.history.val_losses:
            if loss is None:
                raise ValueError("EarlyStopping needs a validation loss: pass a val_loader to train")
            better = loss < best - self.min_delta
            best, waited = (loss, 0) if better else (best, waited + 1)
        if waited >= self.patience and not state.finished and not state.stopping:
            write_line(f"stopping early: the validation loss was not lower in {waited} evaluations")
            state.stop()


class TensorBoardLogger:
    """Writes losses, learning rate, gradient norm and speed for TensorBoard: ``pip install 'tinygpt2[tensorboard]'``.

    Args:
        directory: Where the event files go; look at them with ``tensorboard --logdir DIRECTORY``.

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
    ...     print(len(os.listdir(directory)), "file of events")
    1 file of events
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = os.fspath(directory)
        self._writer: SummaryWriter | None = None

    def __call__(self, state: TrainState, /) -> None:
        """Writes the numbers of a step or an evaluation."""
        if self._writer is None:
            self._writer = self._open()
        if state.event == "step":
            self._write(state.step, {
                "step/loss": state.loss,
                "step/learning_rate": state.learning_rate,
                "step/grad_norm": state.grad_norm,
                "step/tokens_per_second": state.tokens_per_second,
            })  # fmt: skip
        elif state.event == "evaluation":
            val_loss = state.history.val_losses[-1]
            self._write(state.step, {"evaluation/train_loss": state.history.train_losses[-1]})
            if val_loss is not None:
                self._write(state.step, {"evaluation/val_loss": val_loss})
        elif state.event == "end":
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
