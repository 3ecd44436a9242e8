"""The training loop."""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tinygpt2._internal.checks import check_int
from tinygpt2._internal.console import write_line
from tinygpt2._internal.cpu import fast_products, keep_memory
from tinygpt2._internal.devices import autocast, choose_device, compiled
from tinygpt2._internal.random import mixed_seed, random_states_kept, seed_everywhere
from tinygpt2._internal.signals import deferred_signals
from tinygpt2.config import TrainingConfig
from tinygpt2.data.loader import Loader, fingerprint
from tinygpt2.data.windows import Batch
from tinygpt2.errors import NonFiniteLossError
from tinygpt2.evaluation import evaluate
from tinygpt2.losses import IGNORE_INDEX, summed_linear_cross_entropy
from tinygpt2.model.checks import check_tokens
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.model.modes import training_mode
from tinygpt2.text.tokenizers import Tokenizer, gpt2_tokenizer
from tinygpt2.training.callbacks.base import Callback
from tinygpt2.training.callbacks.progress import ProgressBar
from tinygpt2.training.callbacks.samples import TextSamples
from tinygpt2.training.checkpoints.saver import CheckpointSaver, checkpoints
from tinygpt2.training.history import TrainingHistory
from tinygpt2.training.optimizers import learning_rate_at, make_optimizer
from tinygpt2.training.state import Event, TrainState


@runtime_checkable
class _HasEpochs(Protocol):
    def set_epoch(self, epoch: int) -> object: ...


def train(
    model: GPT2Model,
    train_loader: Loader,
    val_loader: Loader | None = None,
    config: TrainingConfig | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    tokenizer: Tokenizer | None = None,
    device: torch.device | str | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    checkpoint_keep: int = 2,
    resume: bool = False,
    allow_changes: bool = False,
    progress: bool = True,
) -> TrainingHistory:
    """Trains a model in place and returns what its losses did.

    The run is a function of the weights it starts from, the loaders and the configuration: dropout is seeded by
    (seed, step, micro-batch), and the loaders of `make_dataloader` by (seed, epoch). PyTorch's global random state and
    the mode of the model (training or evaluation) are as before when it returns.

    The loss of a step is the summed negative log-likelihood over the targets of all its micro-batches, divided by
    their number: several micro-batches, equal or not, are one big batch.

    With ``checkpoint_dir`` the run can be killed at any instant: called again with ``resume=True`` and a model of the
    same shape, it goes on from the newest whole checkpoint, and ends with the very bits of a run that was never
    stopped. The first Ctrl-C or SIGTERM ends the run after the step, with a checkpoint, and then does what it would
    have done; the second does it at once. An error, of a callback for instance, leaves a checkpoint too.

    Args:
        model: What to train; it is moved to the device and stays there.
        train_loader: (inputs, targets), both (B, T) int64; targets of -100 do not count.
        val_loader: Likewise, for the validation loss.
        config: How to train; the defaults of `TrainingConfig` if ``None``.
        callbacks: Called in this order at every event.
        tokenizer: Encodes and decodes the samples of ``config.sample_prompt``; `gpt2_tokenizer` by default.
        device: Where to train; by default a CUDA GPU where there is one, else Apple's (MPS), else the CPU.
        checkpoint_dir: Where to save checkpoints, ``checkpoint-STEP``, and the model with the lowest validation loss,
            ``best``. It is made if it is not there.
        checkpoint_every: Steps between checkpoints; by default as often as a hundredth of the time allows. The first
            and the last step always have one.
        checkpoint_keep: How many of the newest checkpoints to keep, at least 2.
        resume: Whether to go on from the newest checkpoint in ``checkpoint_dir``; where there is none the run begins.
            More epochs than the run had make it longer.
        allow_changes: Whether to resume although the data, the batch size or the configuration changed.
        progress: Whether to show progress on stderr.

    Returns:
        The history: an evaluation of the untrained model, one every ``config.eval_every`` steps (or after each epoch),
        and one of the final model.

    Raises:
        CheckpointError: If there are checkpoints to resume from, but each is damaged.
        NonFiniteLossError: If the loss or its gradient becomes NaN or infinite. The model keeps the weights that it had
            before, and the error the history.
        OSError: If a checkpoint cannot be written; those before it are whole.
        ValueError: If a loader is empty, tokens are outside the model's vocabulary or longer than its context length,
            there is no such device, the checkpoints are of another run, or there are some and ``resume`` is not asked
            for.

    >>> from tinygpt2 import GPT2Config, make_dataloader
    >>> shape = GPT2Config(
    ...     vocab_size=4, context_length=8, n_layer=1, n_head=2, n_embd=32,
    ...     dropout=0.0,
    ... )
    >>> model = GPT2Model(shape)
    >>> loader = make_dataloader(
    ...     [0, 1, 2, 3] * 50, batch_size=4, context_length=8, shuffle=True
    ... )
    >>> config = TrainingConfig(learning_rate=1e-2)
    >>> history = train(
    ...     model, loader, config=config, device="cpu", progress=False
    ... )
    >>> history.train_losses[-1] < history.train_losses[0]
    True
    """
    config = TrainingConfig() if config is None else config
    target_device = choose_device(device)
    for name, loader in (("train_loader", train_loader), ("val_loader", val_loader)):
        if loader is not None and len(loader) == 0:
            raise ValueError(f"{name} has no batches; with drop_last=True a data set smaller than one batch has none")
    _check_checkpoint_options(checkpoint_dir, checkpoint_every, checkpoint_keep, resume)
    if config.sample_prompt is not None:
        tokenizer = tokenizer or _default_tokenizer(model)
        callbacks = (TextSamples(config.sample_prompt, tokenizer, max_new_tokens=config.sample_tokens), *callbacks)
    say: Callable[[str], None] = write_line if progress else lambda _: None

    if target_device.type == "cpu":
        keep_memory()
    model.to(target_device)
    steps_per_epoch = math.ceil(len(train_loader) / config.gradient_accumulation_steps)
    state = TrainState(
        model=model,
        optimizer=make_optimizer(model, config),
        config=config,
        total_steps=config.max_steps or config.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
    )
    notice = "\nstopping after this step; once more stops at once" if progress else None
    with (
        deferred_signals(state.interrupt, notice=notice),
        random_states_kept(target_device),
        training_mode(model),
        fast_products(),
    ):
        saver = None
        if checkpoint_dir is not None:
            data = _fingerprints(train_loader, val_loader, config.seed)
            saver = CheckpointSaver(Path(checkpoint_dir), data, every=checkpoint_every, keep=checkpoint_keep)
        if saver and resume:
            resumed = saver.resume(state, allow_changes=allow_changes)
            if resumed and state.finished and state.history.steps[-1] == state.step:
                say(f"the run in {checkpoint_dir} is finished after {state.step} steps; more epochs make it longer")
                return state.history
            say(f"resumed after step {state.step}" if resumed else f"no checkpoint in {checkpoint_dir}: a run begins")
        with ProgressBar() if progress else nullcontext() as bar, _saving_on_errors(state, saver):
            _Run(state, train_loader, val_loader, callbacks if bar is None else (bar, *callbacks), saver)()
        if state.interrupted:
            where = f", saved in {checkpoint_dir} to resume from" if saver else ""
            say(f"stopped after step {state.step} of {state.total_steps}{where}")
    return state.history


def _check_checkpoint_options(
    directory: str | os.PathLike[str] | None, every: int | None, keep: int, resume: bool
) -> None:
    if every is not None:
        check_int("checkpoint_every", every)
    check_int("checkpoint_keep", keep, minimum=2)
    if directory is None:
        if resume or every is not None:
            raise ValueError("resume and checkpoint_every need a checkpoint_dir")
    elif not resume and (found := checkpoints(Path(directory))):
        raise ValueError(
            f"{os.fspath(directory)} has checkpoints of an earlier run, the newest {found[0].name}; pass resume=True "
            "to go on with it, or another checkpoint_dir"
        )


def _fingerprints(train_loader: Loader, val_loader: Loader | None, seed: int) -> dict[str, object]:
    _begin_pass(train_loader, 0, seed)
    training = fingerprint(train_loader)
    if val_loader is None:
        return {"training": training, "validation": None}
    _begin_pass(val_loader, 0, seed)
    return {"training": training, "validation": fingerprint(val_loader)}


class _InterruptedError(Exception):
    """A signal came during an evaluation, which is made again when the run is resumed."""


@dataclass
class _Run:
    """A training run: what it works on, and the order in which things happen."""

    state: TrainState
    train_loader: Loader
    val_loader: Loader | None
    callbacks: Sequence[Callback]
    saver: CheckpointSaver | None

    def __post_init__(self) -> None:
        self.summed_loss = compiled(_summed_loss) if self.state.config.compile else _summed_loss

    def __call__(self) -> None:
        """Trains until the last step, or until a callback or a signal stops it."""
        state = self.state
        self.emit("start")
        try:
            if self.evaluation_is_due():
                self.evaluate()
            self.save()
            while not self.over():
                self.train_epoch()
        except _InterruptedError:
            pass
        self.save()  # before the evaluation of a run that a callback stopped, which an uninterrupted run does not make
        if not state.interrupted and state.history.steps[-1] != state.step:
            self.evaluate()
            if self.saver:
                self.saver.save_best(state)
        self.emit("end")

    def train_epoch(self) -> None:
        """Makes the steps that are left of an epoch."""
        state = self.state
        for micro_batches in _groups(self.train_loader, state):
            _take_step(state, micro_batches, self.summed_loss)
            self.emit("step")
            if state.interrupted:
                break
            if self.evaluation_is_due():
                self.evaluate()
            if state.step % state.steps_per_epoch == 0:
                self.emit("epoch")
            if self.saver:
                self.saver.step_done(state)
            if self.over():
                break

    def over(self) -> bool:
        return self.state.finished or self.state.stopping or self.state.interrupted

    def emit(self, event: Event) -> None:
        self.state.event = event
        for callback in self.callbacks:
            callback(self.state)

    def save(self) -> None:
        if self.saver:
            self.saver.save(self.state)

    def evaluation_is_due(self) -> bool:
        state = self.state
        if state.history.steps and state.history.steps[-1] == state.step:
            return False
        every = state.config.eval_every or state.steps_per_epoch
        return state.step % every == 0 or state.finished

    def evaluate(self) -> None:
        """Adds the losses of the model as it is to the history."""
        state = self.state
        train_loss = self.loss(self.train_loader)
        val_loss = None if self.val_loader is None else self.loss(self.val_loader)
        state.history.append(
            step=state.step,
            epoch=state.step / state.steps_per_epoch,
            tokens_seen=state.tokens_seen,
            train_loss=train_loss,
            val_loss=val_loss,
            learning_rate=state.learning_rate,
        )
        if self.saver:
            self.saver.evaluated(state)
        self.emit("evaluation")

    def loss(self, loader: Loader) -> float:
        config, model = self.state.config, self.state.model
        _begin_pass(loader, 0, config.seed)  # always the same batches, so that the losses can be compared
        with autocast(model.device, config.precision):
            return evaluate(model, _until_interrupted(loader, self.state), max_batches=config.eval_batches).loss


def _until_interrupted(loader: Iterable[Batch], state: TrainState) -> Iterator[Batch]:
    for batch in loader:
        if state.interrupted:
            raise _InterruptedError
        yield batch


def _groups(loader: Loader, state: TrainState) -> Iterator[list[Batch]]:
    """Yields the micro-batches of each step that is left in the epoch; the last step may have fewer."""
    size = state.config.gradient_accumulation_steps
    _begin_pass(loader, state.epoch, state.config.seed)
    batches = islice(iter(loader), state.step % state.steps_per_epoch * size, None)
    while group := list(islice(batches, size)):
        yield group


def _begin_pass(loader: Loader, epoch: int, seed: int) -> None:
    """Makes the order of the next pass over a loader a function of (seed, epoch)."""
    torch.default_generator.manual_seed(mixed_seed(seed, epoch))  # of PyTorch's own DataLoader(shuffle=True)
    sampler = getattr(loader, "sampler", None)
    if isinstance(sampler, _HasEpochs):
        sampler.set_epoch(epoch)


def _summed_loss(model: GPT2Model, inputs: Tensor, targets: Tensor, scale: float) -> Tensor:
    return summed_linear_cross_entropy(model.hidden_states(inputs), model.head_weight, targets, scale=scale)


def _take_step(
    state: TrainState,
    micro_batches: Sequence[Batch],
    summed_loss: Callable[[GPT2Model, Tensor, Tensor, float], Tensor] = _summed_loss,
) -> None:
    """Updates the weights once, or raises and leaves them alone."""
    began = time.perf_counter()
    config, model, optimizer = state.config, state.model, state.optimizer
    step = state.step + 1
    rate = learning_rate_at(step, state.total_steps, config)
    count = sum(int((targets != IGNORE_INDEX).sum()) for _, targets in micro_batches)
    if count == 0:
        raise ValueError(f"every target of step {step} is {IGNORE_INDEX}, which does not count: nothing to learn from")

    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=model.device)
    for i, (inputs, targets) in enumerate(micro_batches):
        check_tokens(inputs, model.config)
        seed_everywhere(model.device, mixed_seed(config.seed, step, i))
        with autocast(model.device, config.precision):
            loss = summed_loss(model, inputs.to(model.device), targets.to(model.device), 1 / count)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    loss_value, norm_value = float(total), float(norm)
    _check_finite(state, step, rate, loss_value, norm_value)
    if config.max_grad_norm is not None and norm_value > config.max_grad_norm:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), config.max_grad_norm, norm)
    for group in optimizer.param_groups:
        group["lr"] = rate
    tokens = sum(inputs.numel() for inputs, _ in micro_batches)
    with _updating(state):
        optimizer.step()
        state.step = step
        state.loss, state.grad_norm, state.learning_rate = loss_value, norm_value, rate
        state.tokens_seen += tokens
    state.training_seconds += time.perf_counter() - began
    state.training_steps += 1
    state.training_tokens += tokens


def _check_finite(state: TrainState, step: int, rate: float, loss: float, norm: float) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    clipping = "gradients are not clipped (pass max_grad_norm=1.0), " if state.config.max_grad_norm is None else ""
    raise NonFiniteLossError(
        f"the loss at step {step} is {loss:g} and its gradient's norm {norm:g}, with learning rate {rate:g}. "
        f"Likely causes: the learning rate is too high (try {rate / 10:g}, or warmup_steps), {clipping}or the weights "
        f"were not finite to begin with. The model keeps its weights after step {step - 1}",
        step=step,
        history=state.history,
    )


@contextmanager
def _updating(state: TrainState) -> Iterator[None]:
    """Marks a state that is no longer that of one step and not yet that of the next."""
    state._between_steps = False  # noqa: SLF001 - nobody else's business
    yield
    state._between_steps = True  # noqa: SLF001


@contextmanager
def _saving_on_errors(state: TrainState, saver: CheckpointSaver | None) -> Iterator[None]:
    """Saves a checkpoint when training fails, of a callback's error for instance."""
    try:
        yield
    except Exception as error:
        if saver and not saver.failed and state._between_steps:  # noqa: SLF001
            try:
                saver.save(state)
            except Exception as second:  # noqa: BLE001 - the first error is the one to tell
                error.add_note(f"and then: {second}")
            else:
                error.add_note(f"a checkpoint of step {state.step} is saved; resume=True goes on from there")
        raise


def _default_tokenizer(model: GPT2Model) -> Tokenizer:
    tokenizer = gpt2_tokenizer()
    if model.config.vocab_size < tokenizer.n_vocab:
        raise ValueError(
            f"sample_prompt needs the tokenizer of the training data: the model has {model.config.vocab_size} token "
            f"ids and GPT-2's tokenizer {tokenizer.n_vocab}; pass tokenizer="
        )
    return tokenizer
