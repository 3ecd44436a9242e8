"""What learning.py trains itself: nanoGPT's recipe, and small trials with one thing changed."""

import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from _learning import Row, Text, scores
from _peers import Work, nanogpt_model
from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    NextTokenLoss,
    TextNoise,
    Tokenizer,
    TrainingConfig,
    TrainState,
    evaluate_text,
    load_tokenizer,
    make_dataloader,
    make_optimizer,
    on_step,
    train,
    train_tokenizer,
    training_step,
)
from tinygpt2._internal.cpu import fast_products, keep_memory
from tinygpt2.data.batches import Batch
from tinygpt2.data.passes import Passes

NANOGPT: dict[str, Any] = {"context_length": 64, "n_layer": 4, "n_head": 4, "n_embd": 128}
"""The shape that nanoGPT's readme trains on a CPU, and its batch, steps and rates."""
NANOGPT_BATCH, NANOGPT_STEPS, NANOGPT_RATES, NANOGPT_WARMUP = 12, 2000, (1e-3, 1e-4), 100


class NanoGPT:
    """nanoGPT's recipe, step by step: AdamW, random windows, a warm-up of 100 steps and a cosine to a tenth.

    The model is nanoGPT's own if there is a checkout of it, and otherwise tinygpt2's with the same kernels as `train`,
    which is faster. Both have biases.
    """

    def __init__(self, config: GPT2Config, ids: Tensor, seed: int, checkout: str | None) -> None:
        self.work = Work(config, NANOGPT_BATCH, config.context_length, checkout, seed=seed)
        with redirect_stdout(sys.stderr):  # which it writes to
            self.theirs = nanogpt_model(self.work) if checkout else None
        self.model = self.work.model()
        self.ids, self.steps = ids, 0
        self.generator = torch.Generator().manual_seed(seed)
        trained: nn.Module = self.theirs or self.model
        groups = [
            {"params": [p for p in trained.parameters() if p.dim() >= 2], "weight_decay": 0.1},
            {"params": [p for p in trained.parameters() if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=NANOGPT_RATES[0], betas=(0.9, 0.99), fused=True)

    def step(self, done: float) -> None:
        """Makes a step when a share of the run is done."""
        self.steps += 1
        high, low = NANOGPT_RATES
        rate = low + (high - low) * (1 + math.cos(math.pi * min(1.0, done))) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate * min(1.0, self.steps / NANOGPT_WARMUP)
        inputs, targets = random_windows(self.ids, NANOGPT_BATCH, self.work.length, self.generator)
        if self.theirs is None:
            self.model.train()
            with fast_products():
                training_step(NextTokenLoss(self.model), self.optimizer, [(inputs, targets)], max_grad_norm=1.0)
            return
        self.theirs.train()
        self.theirs(inputs, targets)[1].backward()
        nn.utils.clip_grad_norm_(self.theirs.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def trained(self) -> GPT2Model:
        """Returns a model of tinygpt2 with the weights so far, which `evaluate_text` can read."""
        if self.theirs is not None:
            weights = {name.removeprefix("transformer."): weight for name, weight in self.theirs.state_dict().items()}
            self.model.load_state_dict({name: weights[name] for name in self.model.state_dict()})
        return self.model.eval()


def random_windows(ids: Tensor, rows: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    places = torch.randint(len(ids) - length, (rows, 1), generator=generator) + torch.arange(length + 1)
    windows = ids[places]
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def nanogpt(text: Text, run: Row, *, characters: bool, seed: int, checkout: str | None, evaluations: int = 20) -> Row:
    """Returns what nanoGPT's recipe reaches in the time of a run, at its best evaluation.

    Either with characters and the shape for CPUs, or with the run's own vocabulary and shape. Evaluations take none of
    the time.
    """
    keep_memory()
    train, held = text.joined()
    if characters:
        tokenizer: Tokenizer = CharTokenizer.from_text(train, byte_fallback=True)
        shape = GPT2Config(vocab_size=tokenizer.n_vocab, dropout=0.0, **NANOGPT)
    else:
        tokenizer, shape = load_tokenizer(run["run"]), GPT2Config(**run["shape"] | {"dropout": 0.0})
    recipe = NanoGPT(shape, torch.tensor(tokenizer.encode_ordinary(train)), seed, checkout)
    best, weights, seconds, next_one = math.inf, dict[str, Tensor](), 0.0, 0.0
    while seconds < run["seconds"]:
        began = time.perf_counter()
        recipe.step(seconds / run["seconds"])
        seconds += time.perf_counter() - began
        if seconds >= min(next_one, run["seconds"]):
            next_one += run["seconds"] / evaluations
            model = recipe.trained()
            if (loss := evaluate_text(model, tokenizer, held).loss) < best:
                best, weights = loss, {name: weight.clone() for name, weight in model.state_dict().items()}
    model = recipe.trained()
    model.load_state_dict(weights)
    return scores(model, tokenizer, held) | {"steps": recipe.steps, "seconds": seconds}


def contest(text: Text, *, shares: Sequence[float], rate: float, seed: int, checkout: str | None, steps: int) -> Row:
    """Returns the loss that nanoGPT's recipe for CPUs ends with, and that of shorter runs of ours on the same model.

    All take turns, step by step in proportion, so that a machine that drifts drifts for all. Ours are Muon with a rate
    that falls to zero, each in so many steps as should take a share of the time.
    """
    keep_memory()
    train, held = text.joined()
    tokenizer = CharTokenizer.from_text(train, byte_fallback=True)
    ids = torch.tensor(tokenizer.encode_ordinary(train))
    config = GPT2Config(vocab_size=tokenizer.n_vocab, dropout=0.0, **NANOGPT)
    theirs = NanoGPT(config, ids, seed, checkout)
    speed = _seconds_of_steps(partial(NanoGPT(config, ids, seed, checkout).step, 0.0))
    ratio = _seconds_of_steps(partial(Ours(config, ids, seed, rate).step, 0.0)) / speed
    ours = [Ours(config, ids, seed, rate) for _ in shares]
    wanted = [max(1, round(share * steps / ratio)) for share in shares]
    times, best = [0.0] * (len(ours) + 1), math.inf
    for step in range(1, steps + 1):
        times[0] += _seconds(partial(theirs.step, step / steps))
        for i, (run, most) in enumerate(zip(ours, wanted, strict=True)):
            while run.steps * steps < step * most:
                times[i + 1] += _seconds(partial(run.step, run.steps / most))
        if step % max(1, steps // 8) == 0:
            best = min(best, evaluate_text(theirs.trained(), tokenizer, held).loss)
    return {
        "parameters": theirs.model.num_parameters(),
        "nats": best,
        "seconds": times[0],
        "ours": [
            {"share": share, "steps": run.steps, "seconds": taken, "ratio": taken / times[0],
             "nats": evaluate_text(run.model.eval(), tokenizer, held).loss}
            for share, run, taken in zip(shares, ours, times[1:], strict=True)
        ],
    }  # fmt: skip


class Ours:
    """Steps of tinygpt2 on random windows: Muon, and a rate that falls to zero along a straight line."""

    def __init__(self, config: GPT2Config, ids: Tensor, seed: int, rate: float) -> None:
        self.model = Work(config, NANOGPT_BATCH, config.context_length, seed=seed).model()
        self.objective, self.rate, self.ids, self.steps = NextTokenLoss(self.model), rate, ids, 0
        config_of_run = TrainingConfig(optimizer="muon", learning_rate=rate, weight_decay=0.1)
        self.optimizer = make_optimizer(self.model, config_of_run)
        self.generator = torch.Generator().manual_seed(seed)

    def step(self, done: float) -> None:
        """Makes a step when a share of the run is done."""
        self.steps += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min(1.0 - done, done * 20 + 0.05)
        batch = random_windows(self.ids, NANOGPT_BATCH, self.model.config.context_length, self.generator)
        self.model.train()
        with fast_products():
            training_step(self.objective, self.optimizer, [batch], max_grad_norm=1.0)


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _seconds_of_steps(step: Callable[[], object], number: int = 20) -> float:
    """Returns the median of the seconds of a few steps."""
    return float(np.median([_seconds(step) for _ in range(number)]))


@dataclass(frozen=True)
class Trial:
    """A small recipe, of which the ablations change one thing at a time."""

    vocabulary: int = 1500
    n_layer: int = 2
    n_embd: int = 128
    context: int = 128
    batch: int = 4
    rising: bool = False
    passes: int = 8
    optimizer: str = "muon"
    rate: float = 0.008
    schedule: str = "linear"
    weight_decay: float = 1.0
    dropout: float = 0.1
    offsets: bool = True
    token_noise: float = 0.1
    bpe_dropout: float = 0.1
    quiet: float = 0.2
    spelling: bool = False
    tied: bool = True
    initial: float = 1.0
    average: float = 0.0

    def changed(self, changes: Mapping[str, Any]) -> "Trial":
        """Returns the recipe with changes, some of which are functions of the value before."""
        return replace(self, **{
            name: change(getattr(self, name)) if callable(change) else change for name, change in changes.items()
        })  # fmt: skip


class Rising:
    """Batches of half the size in the first half of the passes, and of twice the size from there on."""

    def __init__(self, loader: Callable[[int], Any], batch: int, passes: int) -> None:
        self.parts = [Passes(loader(size), name="loader", seed=0) for size in (max(1, batch // 2), 2 * batch)]
        self.passes, self.epoch = passes, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def steps(self) -> int:
        first = self.passes // 2
        counts = [part.batches or 0 for part in self.parts]
        return first * counts[0] + (self.passes - first) * counts[1]

    def __iter__(self) -> Iterator[Batch]:
        return self.parts[2 * self.epoch >= self.passes].read(self.epoch)


class Average:
    """An exponential moving average of the weights."""

    def __init__(self, decay: float) -> None:
        self.decay, self.weights = decay, dict[str, Tensor]()

    def __call__(self, state: TrainState) -> None:
        for name, weight in state.model.state_dict().items():
            if name in self.weights:
                self.weights[name].lerp_(weight, max(1 - self.decay, 1 / (1 + state.step)))
            else:
                self.weights[name] = weight.clone()


def trial(text: Text, recipe: Trial, seed: int) -> Row:
    """Trains a small model by a recipe, and returns what it is worth."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a text that has fewer pairs
        tokenizer = train_tokenizer(text.train, recipe.vocabulary)
    model = GPT2Model(GPT2Config(
        vocab_size=tokenizer.n_vocab, context_length=recipe.context, n_layer=recipe.n_layer, n_embd=recipe.n_embd,
        n_head=max(1, recipe.n_embd // 32), dropout=recipe.dropout, tie_weights=recipe.tied,
    ))  # fmt: skip
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.dim() >= 2):
            parameter.mul_(recipe.initial)
    loader = partial(_loader, text, tokenizer, recipe, seed)
    rising = Rising(loader, recipe.batch, recipe.passes) if recipe.rising else None
    batches = rising or loader(recipe.batch)
    steps = rising.steps() if rising else recipe.passes * len(batches)  # type: ignore[arg-type]
    config = TrainingConfig(
        max_steps=steps, optimizer=recipe.optimizer, learning_rate=recipe.rate, schedule=recipe.schedule,  # type: ignore[arg-type]
        weight_decay=recipe.weight_decay, warmup_steps=max(1, steps // 20), max_grad_norm=1.0, seed=seed,
        spelling=recipe.spelling, eval_every=steps, eval_batches=1,
    )  # fmt: skip
    average = Average(recipe.average)
    callbacks = [on_step(average)] if recipe.average else []
    train(model, batches, config=config, callbacks=callbacks, tokenizer=tokenizer, device="cpu", progress=False)
    if recipe.average:
        model.load_state_dict(average.weights)
    return scores(model, tokenizer, text.source) | {"steps": steps}


def _loader(text: Text, tokenizer: Tokenizer, recipe: Trial, seed: int, batch: int) -> Any:  # noqa: ANN401
    noise = None
    if recipe.offsets:
        epochs = round((1 - recipe.quiet) * recipe.passes)
        noise = TextNoise(bpe_dropout=recipe.bpe_dropout, token_noise=recipe.token_noise, epochs=epochs)
    source: Any = text.train if text.documents else text.train[0]
    return make_dataloader(source, batch_size=batch, context_length=recipe.context, shuffle=True, tokenizer=tokenizer,
                           seed=seed, noise=noise)  # fmt: skip
