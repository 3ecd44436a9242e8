"""The function that trains a model: its checks, its setup and its signals."""

import copy
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from tinygpt2._internal.checks import check_bool, check_instance, check_int, check_iterable, check_path
from tinygpt2._internal.console import write_line
from tinygpt2._internal.cpu import fast_products, keep_memory
from tinygpt2._internal.devices import Compiled
from tinygpt2._internal.files import make_directories
from tinygpt2._internal.random import random_states_kept
from tinygpt2._internal.signals import deferred_signals
from tinygpt2.config import TrainingConfig
from tinygpt2.data.identity import sha256_of
from tinygpt2.data.loader import Loader
from tinygpt2.data.passes import Passes
from tinygpt2.distributed.launch import ranks_here, sha256_of_code
from tinygpt2.distributed.ranks import Ranks
from tinygpt2.distributed.sharding import is_sharded, shard
from tinygpt2.evaluation.loss import bytes_per_token
from tinygpt2.generation.decoding import check_model
from tinygpt2.kernels.dropout import Dropout
from tinygpt2.kernels.switch import calls_only, usable
from tinygpt2.model.gpt2 import MLP, Attention, Block, GPT2Model
from tinygpt2.model.modes import training_mode
from tinygpt2.model.objective import DistillationLoss, NextTokenLoss
from tinygpt2.run.directory import RunDirectory
from tinygpt2.tokenizers.byte_pairs import gpt2_tokenizer
from tinygpt2.tokenizers.foreign import AnyTokenizer, as_tokenizer
from tinygpt2.tokenizers.protocol import Tokenizer
from tinygpt2.training.averaging import WeightAverage
from tinygpt2.training.callbacks.base import Callback, Callbacks
from tinygpt2.training.callbacks.progress import ProgressBar
from tinygpt2.training.callbacks.samples import TextSamples
from tinygpt2.training.checkpoints.format import TrainingRecord
from tinygpt2.training.checkpoints.saver import CheckpointSaver, Resumed
from tinygpt2.training.history import TrainingHistory
from tinygpt2.training.loop import Run
from tinygpt2.training.muon import Muon
from tinygpt2.training.optimizers import checked_optimizer, make_optimizer
from tinygpt2.training.state import TrainState

OptimizerFactory = Callable[[nn.Module, TrainingConfig], torch.optim.Optimizer]

NOTICE = "\nstopping at the next safe point; press Ctrl-C again to stop at once"  # a step, an evaluation or a save

WORTH_COMPILING = 1e17  # operations: some minutes on the fastest GPUs of 2025, an hour on those of 2018

# Modules that draw no random numbers except in the kernels.
_OURS = (GPT2Model, Block, Attention, MLP, Dropout, NextTokenLoss, nn.ModuleList, nn.Linear, nn.Embedding, nn.LayerNorm)


def train(
    model: GPT2Model,
    train_loader: Loader,
    val_loader: Loader | None = None,
    config: TrainingConfig | None = None,
    *,
    teacher: nn.Module | None = None,
    optimizer: OptimizerFactory | None = None,
    callbacks: Sequence[Callback | Callable[[TrainState], object]] = (),
    tokenizer: AnyTokenizer | None = None,
    device: torch.device | str | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    checkpoint_keep: int = 2,
    resume: bool = False,
    allow_changes: bool = False,
    keep_best: bool = False,
    progress: bool = True,
) -> TrainingHistory:
    """Trains a model in place and returns the loss history.

    The run is a function of the initial weights, the loaders and the configuration: dropout is seeded by
    (seed, step, micro-batch), and the order of the loaders by (seed, epoch). PyTorch's global random numbers are
    neither read nor set, except where there are no others: in a GPU's dropout, other loaders and modules of your own.
    They and the mode of the model (training or evaluation) are restored when it returns.

    The loss of a step is the summed negative log-likelihood over the targets of all its micro-batches, divided by
    the number of targets: several micro-batches, even of unequal size, act as one big batch.

    With ``checkpoint_dir`` the run can be killed at any instant: called again with ``resume=True`` and a model of the
    same shape, it resumes from the newest intact checkpoint, and ends with exactly the bits of an uninterrupted run.
    The first Ctrl-C, SIGTERM or SIGHUP ends the run after the step, with a checkpoint, and then has its usual effect;
    the second has it at once, and so has one during start-up, while data and checkpoint are read. An evaluation that it
    cuts short is made when the run is resumed. An error, for instance in a callback, leaves a checkpoint too. Without
    ``checkpoint_dir`` the model keeps its weights, and the ``KeyboardInterrupt`` has the ``history``.

    Args:
        model: Model to train; it is moved to the device and stays there.
        train_loader: (inputs, targets), both (B, T) int64; targets of -100 do not count. Or dicts of ``input_ids`` and
            ``labels`` as in Hugging Face, unshifted. A stream without a length needs ``config.max_steps``. A step in
            which no target counts leaves the weights unchanged, with a ``UserWarning``; there is one, too, if the
            targets are not shifted by one.
        val_loader: Likewise, for the validation loss.
        config: Training configuration; the defaults of `TrainingConfig` if ``None``.
        teacher: Model whose probabilities the model learns instead of the next tokens (`DistillationLoss`), such as a
            `Mixture`; it is moved to the device. Evaluations report the loss of next tokens nevertheless. A run
            resumes with the same teacher.
        optimizer: Function of (model, config) that returns the optimizer; `make_optimizer` by default. The learning
            rate of each group is its ``initial_lr``, at first the one it was created with, times the schedule's
            multiplier.
        callbacks: Called in this order at every event: `Callback` objects, or functions of the training state.
        tokenizer: Tokenizer of the data. It is saved with each checkpoint, tells how many bytes of text a token stands
            for, so that losses are reported in bits per byte, too, and how tokens are spelled, for ``config.spelling``,
            and encodes and decodes the samples of ``config.sample_prompt``, for which `gpt2_tokenizer` is the default.
        device: Device to train on; by default a CUDA GPU if there is one, else Apple's (MPS), else the CPU.
        checkpoint_dir: Directory of the checkpoints, ``checkpoint-STEP``, and of the model with the lowest validation
            loss, ``best``. It is created if it does not exist.
        checkpoint_every: Steps between checkpoints; by default as often as a hundredth of the time allows. There is
            always one before the first step and one after the last.
        checkpoint_keep: Number of the newest checkpoints to keep, at least 2.
        resume: Whether to resume from the newest checkpoint in ``checkpoint_dir``; if there is none, a new run
            begins. More epochs than before extend the run. The data must be the same; `Loader` says what of them is
            compared.
        allow_changes: Whether to resume even if the data, the batch size or the configuration has changed. The run
            resumes at the same place in the data.
        keep_best: Whether the model ends with the weights of the lowest validation loss (those of the evaluation
            ``history.best``) instead of the last ones. A resumed run finds them in ``best``. A run that ends with an
            error or a signal leaves the last ones. Needs a ``val_loader``.
        progress: Whether to show progress on stderr.

    Returns:
        The history: one evaluation of the untrained model, one every ``config.eval_every`` steps (or after each epoch),
        and one of the last model.

    Raises:
        BlockingIOError: If another process or thread is training in ``checkpoint_dir``.
        CheckpointError: If there are checkpoints to resume from, but all are damaged.
        IncompatibleRunError: If they are from another run; the error lists all differences, and nothing has changed.
        NonFiniteLossError: If the loss or its gradient becomes NaN or infinite, or an evaluation's loss NaN. The model
            keeps the weights that it had before, and the error has the history and names a weight that is not finite.
        OSError: If a checkpoint cannot be written; earlier ones stay intact.
        TypeError: If an argument is of the wrong type, a batch has another form, or ``optimizer`` does not return an
            optimizer.
        ValueError: If a loader is empty, can be read only once or does not have as many batches as it says; if
            inputs or targets are outside the model's vocabulary or longer than its context length, or no target of a
            pass counts; if a `TokenFile` of at most 256 MiB is damaged; if there is no such device; if there are
            checkpoints but ``resume`` is not set; or if ``keep_best`` is set without a ``val_loader``.

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
    switches = {"resume": resume, "allow_changes": allow_changes, "keep_best": keep_best, "progress": progress}
    _check_types(model, config, callbacks, **switches)
    _check_modules(teacher, val_loader, keep_best=keep_best)
    tokenizer = None if tokenizer is None else as_tokenizer(tokenizer)
    sizes = None if tokenizer is None else bytes_per_token(tokenizer)
    ranks, target = ranks_here(device)
    progress = progress and ranks.first
    given, called, model = _to_train(model, config, ranks)
    passes, validation = _passes(model, train_loader, val_loader, config)
    directory = None if checkpoint_dir is None else RunDirectory(check_path("checkpoint_dir", checkpoint_dir))
    _check_checkpoint_options(directory, checkpoint_every, checkpoint_keep, resume)
    built_in = _built_in(config, model, tokenizer, progress=progress) if ranks.first else ()
    watching = Callbacks([*built_in, *callbacks], first=ranks.first)
    model.to(target)
    lock = _locked(directory if ranks.first else None)
    with ranks.together(), lock, _surroundings(called, config, passes, validation) as draws_globally:
        objective = _objective(called, teacher, target, config)
        make = partial(make_optimizer, tokenizer=tokenizer) if optimizer is None else optimizer
        state = _new_state(model, config, passes, make, ranks)
        with _giving_the_history(state):
            saver, resumed = None, None
            data = _identities(passes, validation, teacher) if directory or not ranks.alone else {}
            _check_ranks(ranks, state, passes, data)
            if directory is not None:
                saver = CheckpointSaver(directory, state, data=data, callbacks=watching, tokenizer=tokenizer,
                                        every=checkpoint_every, keep=checkpoint_keep, ranks=ranks)  # fmt: skip
                resumed = _resume(saver, state, passes, allow_changes=allow_changes) if resume else None
            if progress and resume:
                write_line(_where_it_begins(state, directory, resumed=resumed is not None))
            batches = resumed.batches if resumed else None
            compiles = _pays_to_compile(state, passes) if config.compile is None else config.compile
            parallel = ranks.parallel(Compiled(objective) if compiles else objective)
            run = Run(state, parallel, passes, validation, watching, saver, batches, draws_globally, sizes, keep_best,
                      ranks=ranks)  # fmt: skip
            with deferred_signals(run.interrupt, notice=NOTICE if progress else None):
                if not (resumed and _is_complete(state)):
                    _run_to_its_end(run)
                    for line in _last_lines(state, directory) if progress else ():
                        write_line(line)
                run.hand_over(given)
                state.history = ranks.on_first(lambda: state.history)
    return state.history


def _passes(
    model: GPT2Model, train_loader: Loader, val_loader: Loader | None, config: TrainingConfig
) -> tuple[Passes, Passes | None]:
    def passes_over(loader: Loader, name: str) -> Passes:
        return Passes(loader, name=name, seed=config.seed, vocab_size=model.config.vocab_size)

    passes = passes_over(train_loader, "train_loader")
    if passes.batches is None and config.max_steps is None:
        raise ValueError(
            "train_loader does not say how many batches it has, so epochs cannot be planned; pass "
            "TrainingConfig(max_steps=...)"
        )
    return passes, None if val_loader is None else passes_over(val_loader, "val_loader")


def _new_state(
    model: GPT2Model, config: TrainingConfig, passes: Passes, make: OptimizerFactory, ranks: Ranks
) -> TrainState:
    """Returns the state of a new run, with its optimizer."""
    optimizer = checked_optimizer(make, model, config)
    if isinstance(optimizer, Muon):
        optimizer.ranks = ranks
    steps = _total_steps(config, passes)
    state = TrainState(model, optimizer, config, total_steps=steps, items_per_epoch=passes.items_per_pass())
    state.average = WeightAverage(model, config.ema_decay) if config.ema_decay else None
    return state


def _pays_to_compile(state: TrainState, passes: Passes) -> bool:
    """Returns whether a run gains more by compilation than that takes, as far as is known."""
    model, config = state.model, state.config
    if model.device.type != "cuda" or config.sharding != "none":
        return False
    rows = (passes.rows_of_batch() or 1) * config.gradient_accumulation_steps
    tokens = rows * model.config.context_length * (state.total_steps - state.step)
    return 6 * model.num_parameters() * tokens >= WORTH_COMPILING


def _identities(passes: Passes, validation: Passes | None, teacher: nn.Module | None) -> dict[str, Any]:
    """Returns what a checkpoint compares: the identity of the data, and of the teacher, if there is one."""
    of_data = {"training": passes.identity(), "validation": validation and validation.identity()}
    if teacher is None:
        return of_data
    state = sha256_of(teacher.state_dict(), whole=True)
    return {**of_data, "teacher": {"type": type(teacher).__qualname__, "sha256": state}}


def _check_sharding(config: TrainingConfig, ranks: Ranks) -> None:
    """Raises ``ValueError`` if the weights cannot be divided among processes."""
    what = None
    if ranks.alone:
        raise ValueError(
            'sharding="full" divides a model among several processes, but this is one; start with torchrun'
        )
    if config.optimizer == "muon":
        what = 'optimizer="muon", which needs whole matrices; pass optimizer="adamw"'
    elif config.spelling:
        what = "spelling=True, which needs whole embeddings; pass spelling=False"
    elif config.compile:
        what = "compile=True; pass compile=False"
    elif config.sample_prompt is not None:
        what = "sample_prompt, as the first process alone cannot generate; pass sample_prompt=None"
    if what:
        raise ValueError(f'sharding="full" does not work with {what}, or sharding="none"')


def _check_ranks(ranks: Ranks, state: TrainState, passes: Passes, data: Mapping[str, Any]) -> None:
    """Raises ``ValueError`` on every rank if one of them trains something else, or would have nothing to do."""
    if ranks.alone:
        return
    rows = passes.rows_of_batch()
    if rows is not None and rows < ranks.size:
        raise ValueError(
            f"{ranks.size} processes share each batch, but {passes.name} has batches of {rows} rows; start at most "
            f"{rows} processes, or pass batches of at least {ranks.size} rows"
        )
    ranks.check_equal(
        {
            "the data": data,
            "the configuration of the training": asdict(state.config),
            "the shape of the model": asdict(state.model.config),
            "the code of tinygpt2": sha256_of_code(),
            "the version of PyTorch": torch.__version__,
        }
    )


def _objective(model: nn.Module, teacher: nn.Module | None, device: torch.device, config: TrainingConfig) -> nn.Module:
    """Returns the loss to minimise; if its weights are to be divided, they are."""
    objective = NextTokenLoss(model) if teacher is None else DistillationLoss(model, teacher.to(device))
    if config.sharding == "full":
        shard(objective)
    return objective


def _check_types(model: object, config: object, callbacks: object, **switches: object) -> None:
    check_model(model)
    check_instance("config", config, TrainingConfig, "a TrainingConfig")
    check_iterable("callbacks", callbacks, "a list of Callback objects or functions of the training state")
    for name, value in switches.items():
        check_bool(name, value)


def _check_modules(teacher: object, val_loader: Loader | None, *, keep_best: bool) -> None:
    if teacher is not None:
        check_instance("teacher", teacher, nn.Module, "a torch.nn.Module, such as a Mixture")
    if keep_best and val_loader is None:
        raise ValueError("keep_best keeps the weights with the lowest validation loss, which needs a val_loader")


def _to_train(model: GPT2Model, config: TrainingConfig, ranks: Ranks) -> tuple[GPT2Model, GPT2Model, GPT2Model]:
    """Returns the model to hand over, what to call, and the model that it consists of, whose weights are trained.

    What to call may be what ``torch.compile`` has made of it. If the weights are divided, it is a copy: the caller's
    model stays as it is, with all weights.
    """
    given = cast("GPT2Model", getattr(model, "_orig_mod", model))
    if config.sharding == "none":
        return given, model, given
    _check_sharding(config, ranks)
    own = copy.deepcopy(given)
    return given, own, own


def _check_checkpoint_options(directory: RunDirectory | None, every: int | None, keep: int, resume: bool) -> None:
    if every is not None:
        check_int("checkpoint_every", every)
    check_int("checkpoint_keep", keep, minimum=2)
    if directory is None:
        if resume or every is not None:
            raise ValueError("resume and checkpoint_every need a checkpoint_dir")
    elif not resume and (found := directory.checkpoints()):
        raise ValueError(
            f"{directory.path} has checkpoints of an earlier run, the newest {found[0].name}; pass resume=True "
            "to resume it, or another checkpoint_dir"
        )


def _built_in(
    config: TrainingConfig, model: GPT2Model, tokenizer: Tokenizer | None, *, progress: bool
) -> Iterator[Callback]:
    """Yields the built-in callbacks that the arguments request."""
    if progress:
        yield ProgressBar()
    if config.sample_prompt is not None:
        tokenizer = _default_tokenizer(model) if tokenizer is None else tokenizer
        yield TextSamples(config.sample_prompt, tokenizer, max_new_tokens=config.sample_tokens)


def _default_tokenizer(model: GPT2Model) -> Tokenizer:
    tokenizer = gpt2_tokenizer()
    if model.config.vocab_size < tokenizer.n_vocab:
        raise ValueError(
            f"sample_prompt needs the tokenizer of the training data: the model has {model.config.vocab_size} token "
            f"ids and GPT-2's tokenizer {tokenizer.n_vocab}; pass tokenizer="
        )
    return tokenizer


@contextmanager
def _locked(directory: RunDirectory | None) -> Iterator[None]:
    if directory is None:
        yield
        return
    make_directories(directory.path)
    with directory.locked():
        yield


def _total_steps(config: TrainingConfig, passes: Passes) -> int:
    """Returns the number of steps of a new run."""
    if config.max_steps is not None:
        return config.max_steps
    return config.epochs * math.ceil((passes.batches or 0) / config.gradient_accumulation_steps)


def _total_steps_from(record: TrainingRecord, saver: CheckpointSaver, config: TrainingConfig, passes: Passes) -> int:
    """Returns the number of steps of a resumed run, including those already made."""
    if config.max_steps is not None:
        return config.max_steps
    before, progress, accumulated = record.training_config, record.progress, config.gradient_accumulation_steps
    of_epoch = math.ceil((passes.batches or 0) / accumulated)
    same_data = record.data["training"] == saver.data["training"]
    if before.max_steps is None and same_data and before.gradient_accumulation_steps == accumulated:
        return max(progress.step, record.total_steps + (config.epochs - before.epochs) * of_epoch)
    left = math.ceil(passes.batches_left(progress.items) / accumulated)
    return progress.step + max(0, left + (config.epochs - progress.epoch - 1) * of_epoch)


def _resume(saver: CheckpointSaver, state: TrainState, passes: Passes, *, allow_changes: bool) -> Resumed | None:
    """Restores the state from the newest checkpoint, if there is one."""
    resumed = saver.resume(state, passes, allow_changes=allow_changes)
    if resumed:
        state.total_steps = _total_steps_from(resumed.record, saver, state.config, passes)
    return resumed


def _is_complete(state: TrainState) -> bool:
    """Returns whether a resumed run has nothing left to do."""
    return state.finished and state.history.steps[-1] == state.step


def _where_it_begins(state: TrainState, directory: RunDirectory | None, *, resumed: bool) -> str:
    path = directory.path if directory else None
    if not resumed:
        return f"no checkpoint in {path}: starting a new run"
    if _is_complete(state):
        return f"the run in {path} finished after {state.step} steps; more epochs extend it"
    return f"resumed after step {state.step}"


def _last_lines(state: TrainState, directory: RunDirectory | None) -> Iterator[str]:
    """Yields what to say at the end of a run."""
    stopped, history = f"stopped after step {state.step} of {state.total_steps}", state.history
    if state.interrupted:
        if not state.announced:
            yield f"{stopped}; saved in {directory.path}, ready to resume" if directory else stopped
        return
    if history.stopped is not None:
        best = "" if history.best is None else f"; the best was at step {history.steps[history.best]}"
        yield f"{stopped}: {history.stopped}{best}"
    yield state.timing.summary()


def _draws_globally(model: GPT2Model, config: TrainingConfig, all_passes: Sequence[Passes]) -> bool:
    """Returns whether a step may draw from PyTorch's global random numbers, because it has no others."""
    return (
        model.device.type != "cpu"
        or config.compile
        or not (usable("dropout") and usable("attention"))
        or not all(type(module) in _OURS and calls_only(module, type(module).forward) for module in model.modules())
        or not all(passes.is_ours for passes in all_passes)
    )


@contextmanager
def _surroundings(model: GPT2Model, config: TrainingConfig, *all_passes: Passes | None) -> Iterator[bool]:
    """Prepares the model, the loaders and the machine for training, and restores them at the end.

    Yields whether PyTorch's global random numbers are to be seeded.
    """
    given = [passes for passes in all_passes if passes is not None]
    draws_globally = _draws_globally(model, config, given)
    if model.device.type == "cpu":
        keep_memory()
    with ExitStack() as stack:
        if draws_globally:
            stack.enter_context(random_states_kept(model.device))
        for passes in given:
            stack.enter_context(passes.kept())
        stack.enter_context(training_mode(model))
        stack.enter_context(fast_products())
        yield draws_globally


@contextmanager
def _giving_the_history(state: TrainState) -> Iterator[None]:
    """Adds the history to a ``KeyboardInterrupt``."""
    try:
        yield
    except KeyboardInterrupt as error:
        error.history = state.history  # type: ignore[attr-defined]
        raise


def _run_to_its_end(run: Run) -> None:
    """Runs; saves a checkpoint on failure, and calls ``on_end`` in whatever way the run ends."""
    error: BaseException | None = None
    try:
        with _saving_on_errors(run.state, run.saver):
            run()
    except BaseException as caught:
        error = caught
        raise
    finally:
        with run.state.timing.during("samples"):
            run.callbacks.end(run.state, error)


@contextmanager
def _saving_on_errors(state: TrainState, saver: CheckpointSaver | None) -> Iterator[None]:
    """Saves a checkpoint when training fails, for instance in a callback."""
    try:
        yield
    except Exception as error:
        alone = not is_sharded(state.model)  # otherwise the others would have to help
        if saver and not saver.failed and not state.updating and alone:
            try:
                saver.save(state)
            except Exception as second:  # noqa: BLE001 - the first error is the one to report
                error.add_note(f"and then: {second}")
            else:
                error.add_note(f"a checkpoint of step {state.step} was saved; pass resume=True to resume from it")
        raise
