"""One of several processes that train together.

    python worker.py DIRECTORY NAME ...
    python worker.py DIRECTORY [--resume] [--steps N] [--at STEP raise|SIGNAL RANK] [--wrong WHAT RANK]
                               [--timeout SECONDS] [--pause SECONDS]

With names of `SCENARIOS`, it makes these runs, and rank 0 writes the losses, the history and the weights of each to
DIRECTORY/NAME.pt. Without, it makes a run with checkpoints in DIRECTORY, in which a rank may fail, be killed, or be
given something else than the others. Rank 0 prints the losses of its steps, and each rank what it was ended by. With
a timeout, the process group is the caller's, not made by `train`.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinygpt2 import (
    Callback,
    GPT2Config,
    GPT2Model,
    TextNoise,
    TrainingConfig,
    TrainState,
    make_dataloader,
    on_step,
    train,
)

SHAPE = GPT2Config(vocab_size=53, context_length=16, n_layer=2, n_head=2, n_embd=32, dropout=0.0)
CONFIG = TrainingConfig(epochs=2, learning_rate=1e-3, eval_every=4, max_grad_norm=1.0)
TOKENS = np.random.default_rng(0).integers(0, 53, 900)


RANK = int(os.environ.get("RANK", "0"))


SHARDED = replace(CONFIG, sharding="full" if "RANK" in os.environ else "none")


def windows(batch_size: int = 8, *, seed: int = 3, tokens: Any = TOKENS, **options: Any) -> Any:  # noqa: ANN401
    return make_dataloader(tokens, batch_size=batch_size, context_length=16, shuffle=True, seed=seed, **options)


def masked() -> list[tuple[Tensor, Tensor]]:
    """Batches of several sizes, of which most targets do not count, on some ranks none."""
    generator = torch.Generator().manual_seed(5)
    batches = []
    for rows, length in ((5, 16), (4, 8), (7, 16), (6, 3)):
        inputs = torch.randint(53, (rows, length + 1), generator=generator)
        targets = inputs[:, 1:].clone()
        targets[: rows // 2] = -100
        batches.append((inputs[:, :-1], targets))
    return batches


class Stops(Callback):
    def on_step(self, state: TrainState) -> None:
        if state.step == 5:
            state.stop("five are enough")


class HalvesTheRate(Callback):
    every_rank = True

    def on_step(self, state: TrainState) -> None:
        for group in state.optimizer.param_groups:
            group["initial_lr"] *= 0.5 if state.step == 3 else 1


SCENARIOS: dict[str, Callable[[], dict[str, Any]]] = {
    "adamw": lambda: {"loader": windows(), "val_loader": windows(5)},
    "muon": lambda: {"loader": windows(), "config": replace(CONFIG, optimizer="muon", weight_decay=0.1)},
    "accumulation": lambda: {
        "loader": windows(5), "val_loader": windows(3), "config": replace(CONFIG, gradient_accumulation_steps=3)
    },
    "ragged": lambda: {"loader": windows(6), "val_loader": windows(7)},  # the last batch has fewer rows than ranks
    "masked": lambda: {"loader": masked(), "val_loader": masked()},
    "head of its own": lambda: {"loader": windows(), "shape": replace(SHAPE, tie_weights=False)},
    "noise": lambda: {"loader": windows(noise=TextNoise(token_noise=0.1)), "val_loader": windows()},
    "stopped": lambda: {"loader": windows(), "val_loader": windows(), "callbacks": [Stops()]},
    "rates": lambda: {"loader": windows(), "callbacks": [HalvesTheRate()]},
    "best": lambda: {
        "loader": windows(), "val_loader": windows(tokens=TOKENS[::-1].copy()), "keep_best": True,
        "config": replace(CONFIG, learning_rate=3e-3, epochs=3),
    },
    "average": lambda: {
        "loader": windows(), "val_loader": windows(), "config": replace(CONFIG, ema_decay=0.9, optimizer="muon")
    },
    "sharded": lambda: {"loader": windows(), "val_loader": windows(5), "config": SHARDED},
    "sharded, all else": lambda: {
        "loader": windows(5), "val_loader": windows(3), "keep_best": True,
        "config": replace(SHARDED, gradient_accumulation_steps=3, ema_decay=0.9, max_grad_norm=0.5),
    },
    "sharded, masked, a head of its own": lambda: {
        "loader": masked(), "val_loader": masked(), "shape": replace(SHAPE, tie_weights=False), "config": SHARDED
    },
    "user's optimizer": lambda: {
        "loader": windows(), "optimizer": lambda model, _: torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    },
}  # fmt: skip


def elements_held(state: TrainState) -> int:
    """Returns how many numbers this process has in the weights, their gradients and the state of the optimizer."""
    tensors = [
        tensor
        for parameter in state.model.parameters()
        for tensor in (parameter, parameter.grad, *state.optimizer.state[parameter].values())
        if isinstance(tensor, Tensor)
    ]
    return sum(getattr(tensor, "_local_tensor", tensor).numel() for tensor in tensors)


def run(*, loader: Any, shape: GPT2Config = SHAPE, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    """Makes a run, and returns what came of it."""
    torch.manual_seed(7)
    model, losses = GPT2Model(shape), list[float]()
    note = on_step(lambda state: losses.append(state.loss))
    held = list[int]()
    measure = on_step(lambda state: held.append(elements_held(state)))
    callbacks = [note, measure, *options.pop("callbacks", [])]
    config = options.pop("config", CONFIG)
    history = train(model, loader, config=config, callbacks=callbacks, device="cpu", progress=False, **options)
    return {"losses": losses, "history": vars(history), "weights": model.state_dict(), "held": held}


class At(Callback):
    """Raises an error in a rank after a step, or sends it a signal."""

    every_rank = True

    def __init__(self, step: int, what: str, rank: int) -> None:
        self.step, self.what, self.rank = step, what, rank

    def on_step(self, state: TrainState) -> None:
        if state.step == self.step and self.rank == RANK:
            if self.what == "raise":
                raise RuntimeError("a callback failed")
            os.kill(os.getpid(), getattr(signal, self.what))


def with_checkpoints(options: argparse.Namespace) -> None:
    torch.manual_seed(RANK)  # the weights are those of rank 0
    print("pid", RANK, os.getpid(), flush=True)
    losses, (step, what, number) = list[float](), options.at
    wrong = options.wrong[0] if options.wrong[1] == str(RANK) else ""
    if options.timeout:
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=options.timeout))
    loader = windows(int(options.rows), seed=4 if wrong == "data" else 3)
    config = replace(
        CONFIG,
        max_steps=options.steps,
        seed=1 if wrong == "seed" else 0,
        optimizer=options.optimizer,
        ema_decay=options.ema_decay,
        sharding=options.sharding if "RANK" in os.environ else "none",
    )
    try:
        train(
            GPT2Model(replace(SHAPE, dropout=options.dropout)),
            loader,
            windows(5),
            config,
            callbacks=[
                on_step(lambda state: losses.append(state.loss)),
                At(int(step), what, int(number)),
                on_step(lambda state: print("step", state.step, flush=True)),
                on_step(lambda _: time.sleep(options.pause)),
            ],
            device="cpu",
            checkpoint_dir=options.directory,
            checkpoint_every=options.every,
            resume=options.resume,
            progress=False,
        )
    except Exception as error:  # noqa: BLE001 - the tests say which one is expected
        print(f"rank {RANK}: {type(error).__name__}: {error}", flush=True)
        sys.exit(3)
    finally:
        if RANK == 0:
            print("losses", *losses, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--at", nargs=3, default=["0", "raise", "0"])
    parser.add_argument("--wrong", nargs=2, default=["nothing", "0"])
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--sharding", default="none")
    parser.add_argument("--ema-decay", type=float, default=0.0)
    parser.add_argument("--timeout", type=float, default=0.0)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--dropout", type=float, default=0.0)
    options = parser.parse_args()
    for name in options.names:
        found = run(**SCENARIOS[name]())
        if RANK == 0:
            torch.save(found, options.directory / f"{name}.pt")
    if not options.names:
        with_checkpoints(options)


if __name__ == "__main__":
    main()
