"""The order of events in a training run."""

import math
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from torch import Tensor, nn

from tinygpt2._internal.devices import autocast
from tinygpt2.data.batches import Batch
from tinygpt2.data.passes import Passes
from tinygpt2.distributed.ranks import ALONE, Ranks
from tinygpt2.distributed.sharding import all_whole, gathered, load_whole
from tinygpt2.errors import NonFiniteLossError
from tinygpt2.evaluation.loss import Evaluation, evaluate_batches
from tinygpt2.losses import IGNORE_INDEX
from tinygpt2.model.checks import not_finite
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.training.callbacks.base import Callbacks
from tinygpt2.training.checkpoints.saver import CheckpointSaver
from tinygpt2.training.optimizers import set_rates
from tinygpt2.training.schedules import multiplier_at
from tinygpt2.training.state import Progress, TrainState
from tinygpt2.training.step import StepResult, backward, clip, targets_that_count
from tinygpt2.training.timing import Timing

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
        sizes: Bytes of text that each id stands for, if that is known.
        keep_best: Whether the weights with the lowest validation loss are wanted at the end.
        best: Those so far, on the CPU; without checkpoints, which have them.
        warned: Whether a step with nothing to learn from was reported.
        ranks: The processes that train the model together.
        signalled: Whether a signal has reached this one of several, which the others do not know yet.
    """

    state: TrainState
    objective: nn.Module
    passes: Passes
    validation: Passes | None
    callbacks: Callbacks
    saver: CheckpointSaver | None
    batches: Iterator[Batch] | None
    seed_global: bool
    sizes: Tensor | None = None
    keep_best: bool = False
    best: dict[str, Tensor] | None = None
    warned: bool = False
    ranks: Ranks = ALONE
    signalled: bool = False

    def __call__(self) -> None:
        """Trains until the last step, or until a callback or a signal stops the run."""
        state = self.state
        state.history.stopped = None  # a run that stopped and is made longer
        self.callbacks.emit(state, "start")
        state.timing = Timing()
        if state.evaluation_due:
            self.evaluate()
        self.save()
        state.timing.begin_steps()
        while not self.over():
            self.train_epoch()
        self.save()  # before the last evaluation of a stopped run, which an uninterrupted run does not make
        if not state.interrupted and state.history.steps[-1] != state.step:
            self.evaluate()
            if self.saver:
                with state.timing.during("checkpoints"):
                    self.saver.save_best(state)

    def train_epoch(self) -> None:
        """Makes the remaining steps of an epoch."""
        state = self.state
        for micro_batches, last in self.groups():
            self.take_step(micro_batches, last=last)
            self.callbacks.emit(state, "step")
            if state.evaluation_due and not self.interrupted():
                self.evaluate()
            if last:
                self.end_epoch()
            if self.saver:
                with state.timing.during("checkpoints"):
                    self.saver.step_done(state)
            if self.over():
                break

    def groups(self) -> Iterator[tuple[list[Batch], bool]]:
        """Yields the micro-batches of each remaining step of the epoch, and whether the step is the last."""
        size, begun = self.state.config.gradient_accumulation_steps, self.state.progress
        batches, self.batches = self.batches or self.passes.read(begun.epoch), None
        group, counts = list(islice(batches, 1)), begun.items > 0  # of a pass that was begun not all is known
        if not group:  # the rest is smaller than a batch, whose size has changed, and is dropped
            self.state.progress = replace(begun, epoch=begun.epoch + 1, items=0)
            self.end_epoch()
        while group:
            group += islice(batches, size - len(group))
            position = self.passes.position() if self.saver else None
            ahead = list(islice(batches, 1))  # to see whether there are more
            if self.saver:
                self.saver.read_until(group[-1], position if ahead else self.passes.position())
            counts = counts or targets_that_count(group) > 0
            if not (ahead or counts):
                raise ValueError(
                    f"every target of a pass over {self.passes.name} is {IGNORE_INDEX}, which does not count: nothing "
                    "to learn from"
                )
            yield group, not ahead
            group = ahead

    def take_step(self, micro_batches: list[Batch], *, last: bool) -> None:
        """Makes one optimizer step, or raises an error and leaves the weights unchanged.

        A step in which no target counts leaves them unchanged too, and counts like any other.
        """
        began = time.perf_counter()
        state, before = self.state, self.state.progress
        step = before.step + 1
        rate = set_rates(state.optimizer, multiplier_at(step, state.total_steps, state.config))
        count = targets_that_count(micro_batches)
        if count:
            result, norm = backward(
                self.objective,
                micro_batches,
                count,
                precision=state.config.precision,
                seeds=(state.config.seed, _DROPOUT, step),
                seed_global=self.seed_global,
                ranks=self.ranks,
            )
            _check_finite(result, state, rate)
            clip(self.objective, result, norm, state.config.max_grad_norm)
        else:
            result = self.skipped(micro_batches)
        items = before.items + sum(len(inputs) for inputs, _ in micro_batches)
        state.updating = True
        if count:
            state.optimizer.step()
            if state.average:
                state.average.update(step)
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

    def skipped(self, micro_batches: list[Batch]) -> StepResult:
        """Returns the result of a step that has nothing to learn from; warns of the first."""
        self.objective.zero_grad(set_to_none=True)
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"every target of step {self.state.step + 1} is {IGNORE_INDEX}, which does not count: steps with "
                "nothing to learn from leave the weights unchanged",
                stacklevel=2,
            )
        return StepResult(loss=math.nan, grad_norm=0.0, tokens=sum(inputs.numel() for inputs, _ in micro_batches))

    def over(self) -> bool:
        """Returns whether the run has no further step."""
        interrupted = self.interrupted()
        return self.state.finished or self.state.stopping or interrupted

    def interrupt(self) -> None:
        """Ends the run after the current step, as a signal does; among several ranks when they know of it."""
        self.signalled = True
        if self.ranks.alone:
            self.state.interrupt()

    def interrupted(self) -> bool:
        """Returns whether a signal is ending the run, and learns from other ranks what they know of its end."""
        state = self.state
        if not self.ranks.alone:
            state.interrupted, stopping = self.ranks.any(self.signalled or state.interrupted, state.stopping)
            if stopping and not state.stopping:
                state.stop()
        return state.interrupted

    def end_epoch(self) -> None:
        """Calls the callbacks at the end of a pass over the data."""
        with self.state.timing.during("samples"):
            self.callbacks.emit(self.state, "epoch")

    def save(self) -> None:
        """Saves a checkpoint, if checkpoints are requested."""
        if self.saver:
            with self.state.timing.during("checkpoints"):
                self.saver.save(self.state)

    def evaluate(self) -> None:
        """Adds the current losses to the history, unless a signal arrives before they are known."""
        state = self.state
        seconds = state.seconds
        with state.timing.during("evaluations"), state.averaged():
            try:
                training = self.evaluation(self.passes)
                validation = None if self.validation is None else self.evaluation(self.validation)
            except _InterruptedError:
                return
            state.history.append(
                step=state.step,
                epoch=state.epochs,
                tokens_seen=state.tokens_seen,
                train_loss=training.loss,
                val_loss=None if validation is None else validation.loss,
                learning_rate=state.learning_rate,
                train_bits_per_byte=training.bits_per_byte,
                val_bits_per_byte=None if validation is None else validation.bits_per_byte,
                seconds=seconds,
            )
            if state.history.best == len(state.history.steps) - 1:
                self.keep_weights()
            self.callbacks.emit(state, "evaluation")

    def keep_weights(self) -> None:
        """Copies the weights, which have the lowest validation loss so far, if they will be wanted."""
        if not (self.saver or self.keep_best) or (self.saver and self.saver.is_idle(self.state)):
            return
        state = all_whole(self.state.model.state_dict())
        weights = {name: weight.detach().to("cpu", copy=True) for name, weight in state.items()}
        if self.saver:
            self.saver.keep_weights(self.state, weights)
        else:
            self.best = weights

    def hand_over(self, model: GPT2Model) -> None:
        """Gives a model the weights that the run is for: the average, or the best, unless a signal has ended it."""
        state = self.state
        if not state.interrupted:
            if state.average:
                state.average.apply()
            if self.keep_best:
                self.restore_best()
        if model is not state.model:
            model.load_state_dict(all_whole(state.model.state_dict()))

    def restore_best(self) -> None:
        """Gives the model the weights with the lowest validation loss, unless it has them or the disk has lost them."""
        history = self.state.history
        if history.best is None or history.steps[history.best] == self.state.step:
            return
        best = self.saver.best_weights(self.state) if self.saver else self.best
        if best is not None:
            load_whole(self.state.model, best)

    def evaluation(self, passes: Passes) -> Evaluation:
        """Returns the loss over a data set."""
        config, model = self.state.config, self.state.model
        with passes.evaluation() as batches, autocast(model.device, config.precision), gathered(self.objective):
            read: Iterable[Batch] = self.until_interrupted(batches)
            if passes.batches is not None:  # otherwise one that counts may never come
                read = _counting(read)
            read = islice(read, config.eval_batches)
            try:
                return evaluate_batches(model, read, passes.name, sizes=self.sizes, ranks=self.ranks)
            except NonFiniteLossError as error:
                error.step, error.history = self.state.step, self.state.history
                raise

    def until_interrupted(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yields batches until a signal ends the evaluation that reads them."""
        for batch in batches:
            if self.interrupted():
                raise _InterruptedError
            yield batch


def _counting(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yields the batches that have a target that counts; if none has, the last."""
    last, found = None, False
    for batch in batches:
        last = batch
        if targets_that_count([batch]):
            found = True
            yield batch
    if last is not None and not found:
        yield last


def _check_finite(result: StepResult, state: TrainState, rate: float) -> None:
    if math.isfinite(result.loss) and math.isfinite(result.grad_norm):
        return
    step, weight = state.step + 1, not_finite(state.model)
    cause = (
        f"The cause: {weight}"
        if weight
        else (
            f"Likely causes: the learning rate is too high (try {rate / 10:g}, or warmup_steps)"
            + (", or gradients are not clipped (pass max_grad_norm=1.0)" if state.config.max_grad_norm is None else "")
        )
    )
    raise NonFiniteLossError(
        f"the loss at step {step} is {result.loss:g} and its gradient norm {result.grad_norm:g}, at learning rate "
        f"{rate:g}. {cause}. The model has the weights it had after step {step - 1}",
        step=step,
        history=state.history,
    )
