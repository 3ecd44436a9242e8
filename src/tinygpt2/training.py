"""The training loop."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tinygpt2.callbacks import Callback, Event, ProgressBar, TextSamples, TrainState
from tinygpt2.config import Precision, TrainingConfig
from tinygpt2.data import Batch, mixed_seed
from tinygpt2.evaluation import evaluate
from tinygpt2.history import TrainingHistory
from tinygpt2.losses import IGNORE_INDEX, summed_linear_cross_entropy
from tinygpt2.model import GPT2Model, check_tokens
from tinygpt2.optimizer import learning_rate_at, make_optimizer
from tinygpt2.tokenizer import Tokenizer, gpt2_tokenizer


class Loader(Protocol):
    """Batches that can be read again and again: a ``DataLoader``, or as little as a list of (inputs, targets)."""

    def __iter__(self) -> Iterator[Batch]:
        """Begins a pass over the batches."""
        ...

    def __len__(self) -> int:
        """Returns how many batches a pass has."""
        ...


@runtime_checkable
class _HasEpochs(Protocol):
    def set_epoch(self, epoch: int) -> object: ...


class NonFiniteLossError(ArithmeticError):
    """The loss or its gradient became NaN or infinite, and training stopped before that reached the weights.

    Attributes:
        step: The step that failed; the model holds the weights after the one before.
        history: The evaluations until then.
    """

    def __init__(self, message: str, *, step: int, history: TrainingHistory) -> None:
        super().__init__(message)
        self.step = step
        self.history = history


def train(
    model: GPT2Model,
    train_loader: Loader,
    val_loader: Loader | None = None,
    config: TrainingConfig | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    tokenizer: Tokenizer | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> TrainingHistory:
    """Trains a model in place and returns what its losses did.

    The run is a function of the weights it starts from, the loaders and the configuration: dropout is seeded by
    (seed, step, micro-batch), and the loaders of `make_dataloader` by (seed, epoch). PyTorch's global random state and
    the mode of the model (training or evaluation) are as before when it returns.

    The loss of a step is the summed negative log-likelihood over the targets of all its micro-batches, divided by
    their number: several micro-batches, equal or not, are one big batch.

    Args:
        model: What to train; it is moved to the device and stays there.
        train_loader: (inputs, targets), both (B, T) int64; targets of -100 do not count.
        val_loader: Likewise, for the validation loss.
        config: How to train; the defaults of `TrainingConfig` if ``None``.
        callbacks: Called in this order at every event.
        tokenizer: Encodes and decodes the samples of ``config.sample_prompt``; `gpt2_tokenizer` by default.
        device: Where to train; by default a CUDA GPU where there is one, else Apple's (MPS), else the CPU.
        progress: Whether to show progress on stderr.

    Returns:
        The history: an evaluation of the untrained model, one every ``config.eval_every`` steps (or after each epoch),
        and one of the final model.

    Raises:
        NonFiniteLossError: If the loss or its gradient becomes NaN or infinite. The model keeps the weights that it had
            before, and the error the history.
        ValueError: If a loader is empty, tokens are outside the model's vocabulary or longer than its context length,
            or there is no such device.

    >>> from tinygpt2 import GPT2Config, make_dataloader
    >>> model = GPT2Model(GPT2Config(vocab_size=4, context_length=8, n_layer=1, n_head=2, n_embd=32, dropout=0.0))
    >>> loader = make_dataloader([0, 1, 2, 3] * 50, batch_size=4, context_length=8, shuffle=True)
    >>> history = train(model, loader, config=TrainingConfig(learning_rate=1e-2), device="cpu", progress=False)
    >>> history.train_losses[-1] < history.train_losses[0]
    True
    """
    config = TrainingConfig() if config is None else config
    target_device = choose_device(device)
    for name, loader in (("train_loader", train_loader), ("val_loader", val_loader)):
        if loader is not None and len(loader) == 0:
            raise ValueError(f"{name} has no batches; with drop_last=True a data set smaller than one batch has none")
    if config.sample_prompt is not None:
        tokenizer = tokenizer or _default_tokenizer(model)
        callbacks = (TextSamples(config.sample_prompt, tokenizer, max_new_tokens=config.sample_tokens), *callbacks)

    model.to(target_device)
    steps_per_epoch = math.ceil(len(train_loader) / config.gradient_accumulation_steps)
    state = TrainState(
        model=model,
        optimizer=make_optimizer(model, config),
        config=config,
        total_steps=config.max_steps or config.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
    )
    with ProgressBar() if progress else nullcontext() as bar, _as_before(model):
        _run(state, train_loader, val_loader, callbacks if bar is None else (bar, *callbacks))
    return state.history


def choose_device(device: torch.device | str | None = None) -> torch.device:
    """Returns the device asked for, or else the best there is: CUDA, then MPS, then the CPU.

    Raises:
        ValueError: If PyTorch does not know the device, or this machine does not have it.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if device is None:
        return torch.device(available[0])
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # PyTorch's, for an unknown name and for a missing device
        raise ValueError(f"there is no device {str(device)!r} here; available: {', '.join(available)}") from error
    return chosen


def _run(state: TrainState, train_loader: Loader, val_loader: Loader | None, callbacks: Sequence[Callback]) -> None:
    """Trains until the last step or until a callback stops it."""
    config, history = state.config, state.history

    def emit(event: Event) -> None:
        state.event = event
        for callback in callbacks:
            callback(state)

    def record_evaluation() -> None:
        _record_evaluation(state, train_loader, val_loader)
        emit("evaluation")

    emit("start")
    record_evaluation()
    state.model.train()
    while not _finished(state):
        for micro_batches in _groups(train_loader, state.epoch, config.gradient_accumulation_steps):
            _take_step(state, micro_batches)
            emit("step")
            epoch_ends = state.step % state.steps_per_epoch == 0
            if state.step % config.eval_every == 0 if config.eval_every else epoch_ends:
                record_evaluation()
            if epoch_ends:
                state.epoch += 1
                emit("epoch")
            if _finished(state):
                break
    if history.steps[-1] != state.step:
        record_evaluation()
    emit("end")


def _record_evaluation(state: TrainState, train_loader: Loader, val_loader: Loader | None) -> None:
    """Adds the losses of the model as it is to the history."""
    model, config = state.model, state.config
    with autocast(model.device, config.precision):
        _set_epoch(train_loader, 0)  # always the same batches, so that the losses can be compared
        training = evaluate(model, train_loader, max_batches=config.eval_batches)
        validation = None if val_loader is None else evaluate(model, val_loader, max_batches=config.eval_batches)
    state.history.append(
        step=state.step,
        epoch=state.step / state.steps_per_epoch,
        tokens_seen=state.tokens_seen,
        train_loss=training.loss,
        val_loss=validation.loss if validation else None,
        learning_rate=state.learning_rate,
    )


def _finished(state: TrainState) -> bool:
    return state.stopping or state.step >= state.total_steps


def _groups(loader: Loader, epoch: int, size: int) -> Iterator[list[Batch]]:
    """Yields the micro-batches of each step of an epoch; the last step may have fewer."""
    _set_epoch(loader, epoch)
    batches = iter(loader)
    while group := list(islice(batches, size)):
        yield group


def _set_epoch(loader: Loader, epoch: int) -> None:
    sampler = getattr(loader, "sampler", None)
    if isinstance(sampler, _HasEpochs):
        sampler.set_epoch(epoch)


def _take_step(state: TrainState, micro_batches: Sequence[Batch]) -> None:
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
        _seed_dropout(model.device, config.seed, step, i)
        with autocast(model.device, config.precision):
            loss = _summed_loss(model, inputs.to(model.device), targets.to(model.device)) / count
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    _check_finite(state, step, rate, float(total), float(norm))
    if config.max_grad_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), config.max_grad_norm, norm)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()

    state.step = step
    state.loss, state.grad_norm, state.learning_rate = float(total), float(norm), rate
    state.tokens_seen += sum(inputs.numel() for inputs, _ in micro_batches)
    state.training_seconds += time.perf_counter() - began


def _summed_loss(model: GPT2Model, inputs: Tensor, targets: Tensor) -> Tensor:
    return summed_linear_cross_entropy(model.hidden_states(inputs), model.head_weight, targets)


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


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Returns the context in which a forward pass has this precision on this device; weights stay as they are."""
    bf16 = precision == "bf16" or (precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported())
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


def _seed_dropout(device: torch.device, seed: int, step: int, micro_batch: int) -> None:
    mixed = mixed_seed(seed, step, micro_batch)
    torch.default_generator.manual_seed(mixed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(mixed)
    elif device.type == "mps":
        torch.mps.manual_seed(mixed)


@contextmanager
def _as_before(model: GPT2Model) -> Iterator[None]:
    """Puts back, at the end, the global random state and the mode of every module."""
    device = model.device
    modes = [(module, module.training) for module in model.modules()]
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    mps = torch.mps.get_rng_state() if device.type == "mps" else None
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)
        if mps is not None:
            torch.mps.set_rng_state(mps)


def _default_tokenizer(model: GPT2Model) -> Tokenizer:
    tokenizer = gpt2_tokenizer()
    if model.config.vocab_size < tokenizer.n_vocab:
        raise ValueError(
            f"sample_prompt needs the tokenizer of the training data: the model has {model.config.vocab_size} token "
            f"ids and GPT-2's tokenizer {tokenizer.n_vocab}; pass tokenizer="
        )
    return tokenizer
