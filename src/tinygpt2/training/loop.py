"""The order of events in a training run."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from torch import nn

from tinygpt2._internal.devices import autocast
from tinygpt2.data.batches import Batch
from tinygpt2.data.passes import Passes
from tinygpt2.errors import NonFiniteLossError
from tinygpt2.evaluation import evaluate
from tinygpt2.training.callbacks.base import Callbacks
from tinygpt2.training.checkpoints.saver import CheckpointSaver
from tinygpt2.training.optimizers import set_rates
from tinygpt2.training.schedules import multiplier_at
from tinygpt2.training.state import Progress, TrainState
from tinygpt2.training.step import StepResult, backward, check_finite, clip

_DROPOUT = 1  # the purpose of a seed; the order of the data has others


class _InterruptedError(Exception):
    """A signal arrived during an evaluation, which is repeated when the run is resumed."""


@dataclass
class Run:
    """A training run: its parts, and the order of its events.

    Attributes:
        state: State of the run.
        objective: Loss to minimise.
        passes: Passes over the training data.
        validation: Passes over the validation data, if there are any.
        callbacks: Called at every event.
        saver: Saver of checkpoints, if they are requested.
        batches: Batches left of the pass in which the run resumes, if it does.
        seed_global: Whether to seed PyTorch's global random numbers, for dropout without a seed of its own.
    """

    state: TrainState
    objective: nn.Module
    passes: Passes
    validation: Passes | None
    callbacks: Callbacks
    saver: CheckpointSaver | None
    batches: Iterator[Batch] | None
    seed_global: bool

    def __call__(self) -> None:
        """Trains until the last step, or until a callback or a signal stops the run."""
        state = self.state
        self.callbacks.emit(state, "start")
        if self.evaluation_is_due():
            self.evaluate()
        self.save()
        while not self.over():
            self.train_epoch()
        self.save()  # before the last evaluation of a stopped run, which an uninterrupted run does not make
        if not state.interrupted and state.history.steps[-1] != state.step:
            self.evaluate()
            if self.saver:
                self.saver.save_best(state)

    def train_epoch(self) -> None:
        """Makes the remaining steps of an epoch."""
        state = self.state
        for micro_batches, last in self.groups():
            self.take_step(micro_batches, last=last)
            self.callbacks.emit(state, "step")
            if self.evaluation_is_due() and not state.interrupted:
                self.evaluate()
            if last:
                self.callbacks.emit(state, "epoch")
            if self.saver:
                self.saver.step_done(state)
            if self.over():
                break

    def groups(self) -> Iterator[tuple[list[Batch], bool]]:
        """Yields the micro-batches of each remaining step of the epoch, and whether the step is the last."""
        size, begun = self.state.config.gradient_accumulation_steps, self.state.progress
        batches, self.batches = self.batches or self.passes.read(begun.epoch), None
        group = list(islice(batches, 1))
        if not group:  # the rest is smaller than a batch, whose size has changed, and is dropped
            self.state.progress = replace(begun, epoch=begun.epoch + 1, items=0)
        while group:
            group += islice(batches, size - len(group))
            position = self.passes.position() if self.saver else None
            ahead = list(islice(batches, 1))  # to see whether there are more
            if self.saver:
                self.saver.read_until(group[-1], position if ahead else self.passes.position())
            yield group, not ahead
            group = ahead

    def take_step(self, micro_batches: list[Batch], *, last: bool) -> None:
        """Makes one optimizer step, or raises an error and leaves the weights unchanged."""
        began = time.perf_counter()
        state, before = self.state, self.state.progress
        step = before.step + 1
        rate = set_rates(state.optimizer, multiplier_at(step, state.total_steps, state.config))
        result, norm = backward(
            self.objective,
            micro_batches,
            precision=state.config.precision,
            seeds=(state.config.seed, _DROPOUT, step),
            seed_global=self.seed_global,
        )
        _check_finite(result, state, rate)
        clip(self.objective, norm, state.config.max_grad_norm)
        items = before.items + sum(len(inputs) for inputs, _ in micro_batches)
        state.updating = True
        state.optimizer.step()
        state.progress = Progress(
            step=step,
            epoch=before.epoch + last,
            items=0 if last else items,
            tokens_seen=before.tokens_seen + result.tokens,
            loss=result.loss,
            grad_norm=result.grad_norm,
            learning_rate=rate,
        )
        state.updating = False
        state.training_seconds += time.perf_counter() - began
        state.training_steps += 1
        state.training_tokens += result.tokens

    def over(self) -> bool:
        """Returns whether the run has no further step."""
        return self.state.finished or self.state.stopping or self.state.interrupted

    def save(self) -> None:
        """Saves a checkpoint, if checkpoints are requested."""
        if self.saver:
            self.saver.save(self.state)

    def evaluation_is_due(self) -> bool:
        """Returns whether the model should be evaluated at this step and has not been."""
        state = self.state
        if state.history.steps and state.history.steps[-1] == state.step:
            return False
        if state.step == 0 or state.finished:
            return True
        every = state.config.eval_every
        return state.progress.items == 0 if every is None else state.step % every == 0

    def evaluate(self) -> None:
        """Adds the current losses to the history, unless a signal arrives before they are known."""
        state = self.state
        try:
            train_loss = self.loss(self.passes)
            val_loss = None if self.validation is None else self.loss(self.validation)
        except _InterruptedError:
            return
        state.history.append(
            step=state.step,
            epoch=state.epochs,
            tokens_seen=state.tokens_seen,
            train_loss=train_loss,
            val_loss=val_loss,
            learning_rate=state.learning_rate,
        )
        if self.saver:
            self.saver.evaluated(state)
        self.callbacks.emit(state, "evaluation")

    def loss(self, passes: Passes) -> float:
        """Returns the loss over a data set."""
        config, model = self.state.config, self.state.model
        with passes.evaluation() as batches, autocast(model.device, config.precision):
            return evaluate(model, self.until_interrupted(batches), max_batches=config.eval_batches).loss

    def until_interrupted(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yields batches until a signal ends the evaluation that reads them."""
        for batch in batches:
            if self.state.interrupted:
                raise _InterruptedError
            yield batch


def _check_finite(result: StepResult, state: TrainState, rate: float) -> None:
    try:
        check_finite(result)
    except NonFiniteLossError:
        step = state.step + 1
        clipping = "gradients are not clipped (pass max_grad_norm=1.0), " if state.config.max_grad_norm is None else ""
        raise NonFiniteLossError(
            f"the loss at step {step} is {result.loss:g} and its gradient norm {result.grad_norm:g}, at learning "
            f"rate {rate:g}. Likely causes: the learning rate is too high (try {rate / 10:g}, or warmup_steps), "
            f"{clipping}or the weights were not finite to begin with. The model has the weights it had after step "
            f"{step - 1}",
            step=step,
            history=state.history,
        ) from None
