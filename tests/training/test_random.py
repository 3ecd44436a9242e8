"""Random numbers: a run is a function of its seeds, whatever the process draws beside it."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from typing_extensions import override

from tinygpt2 import (
    Callback,
    CharTokenizer,
    EarlyStopping,
    GPT2Config,
    GPT2Model,
    TrainingConfig,
    TrainingHistory,
    TrainState,
    make_dataloader,
    newest_checkpoint,
    on_step,
    train,
)
from tinygpt2.data.batches import Batch
from tinygpt2.kernels.switch import without_kernels

TOKENS = [i * 7 % 50 for i in range(321)]
CONFIG = TrainingConfig(epochs=2, eval_every=5, eval_batches=2, learning_rate=1e-2)

Make = Callable[[], GPT2Model]


def plain(seed: int = 3, context_length: int = 8) -> GPT2Model:
    torch.manual_seed(seed)
    return GPT2Model(GPT2Config(
        vocab_size=50, context_length=context_length, n_layer=2, n_head=2, n_embd=16, dropout=0.3
    ))  # fmt: skip


class Mine(nn.Module):
    """A module of a user's, with a dropout that has no other random numbers than the global ones."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.dropout = inner, nn.Dropout(0.2)

    @override
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.inner(x))
        return out


def with_foreign_dropout() -> GPT2Model:
    model = plain()
    block = model.h[0]
    block.mlp = Mine(block.mlp)  # type: ignore[arg-type]
    return model


def with_a_hook() -> GPT2Model:
    model = plain()
    model.ln_f.register_forward_hook(lambda module, _, out: nn.functional.dropout(out, 0.2, module.training))
    return model


def data(context_length: int = 8) -> DataLoader[Batch]:
    return make_dataloader(TOKENS[: 40 * context_length + 1], batch_size=4, context_length=context_length, shuffle=True)


def run(model: GPT2Model, directory: Path | None = None, stop: int | None = None) -> TrainingHistory:
    return train(
        model, data(model.config.context_length), data(model.config.context_length), CONFIG, device="cpu",
        progress=False, checkpoint_dir=directory, resume=directory is not None,
        callbacks=[on_step(lambda state: state.stop() if state.step == stop else None)],
    )  # fmt: skip


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("context_length", [1, 8])
def test_a_run_neither_reads_nor_sets_the_global_random_numbers(context_length: int) -> None:
    """With sequences of one token the dropout of attention was PyTorch's, and drew from them."""
    results = []
    for seed in (0, 1):
        model = plain(context_length=context_length)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        seen: list[Tensor] = []

        def look(_: TrainState, seen: list[Tensor] = seen) -> None:
            seen.append(torch.get_rng_state())

        history = train(
            model, data(context_length), config=CONFIG, device="cpu", progress=False, callbacks=[look]
        )  # fmt: skip
        assert all(torch.equal(state, before) for state in [*seen, torch.get_rng_state()])
        results.append((weights(model), history))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_drawing_in_a_callback_changes_nothing() -> None:
    models = plain(), plain()
    run(models[0])
    train(models[1], data(), data(), CONFIG, device="cpu", progress=False, callbacks=[lambda _: torch.rand(3)])
    assert torch.equal(weights(models[0]), weights(models[1]))


def test_two_runs_in_two_threads_are_the_runs_one_after_the_other() -> None:
    """They seeded the same generator under each other."""
    expected = [plain(1), plain(2)]
    histories = [run(model) for model in expected]
    models, results = [plain(1), plain(2)], dict[int, TrainingHistory]()
    threads = [
        threading.Thread(target=lambda i=i, model=model: results.__setitem__(i, run(model)))
        for i, model in enumerate(models)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(2):
        assert torch.equal(weights(models[i]), weights(expected[i]))
        assert results[i] == histories[i]


def test_two_whole_runs_in_two_threads_keep_their_bits(tmp_path: Path) -> None:
    """With bars, samples, early stopping and checkpoints, stopped and resumed, each in a directory of its own."""
    tokenizer = CharTokenizer("".join(map(chr, range(0x4E00, 0x4E00 + 49))))
    config = replace(CONFIG, sample_prompt="一", sample_tokens=4)

    def stop_at(step: int | None) -> Callback:
        return on_step(lambda state: state.stop() if state.step == step else None)

    def whole(models: list[GPT2Model], seed: int, directory: Path) -> tuple[Tensor, TrainingHistory, str]:
        for model, stop in zip(models, (3, 8, None), strict=True):
            history = train(
                model, data(), data(), replace(config, seed=seed), device="cpu", tokenizer=tokenizer, resume=True,
                checkpoint_dir=directory, checkpoint_every=3, callbacks=[EarlyStopping(3), stop_at(stop)],
            )  # fmt: skip
        return weights(models[-1]), history, newest_checkpoint(directory).name

    def models(seed: int) -> list[GPT2Model]:  # which are made with the global random numbers, so not in a thread
        return [plain(seed) for _ in range(3)]

    expected = [whole(models(seed), seed, tmp_path / f"alone-{seed}") for seed in (1, 2)]
    beside = [(models(seed), seed, tmp_path / f"beside-{seed}") for seed in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(whole, *arguments) for arguments in beside]
    for future, (alone, history, newest) in zip(futures, expected, strict=True):
        assert torch.equal(future.result()[0], alone)
        assert future.result()[1:] == (history, newest)


@pytest.mark.parametrize("make", [with_foreign_dropout, with_a_hook])
def test_dropout_of_the_users_is_seeded_too_and_the_global_state_is_restored(tmp_path: Path, make: Make) -> None:
    """In a hook it was not, and each run was another one."""
    expected = make()
    history = run(expected)
    for stop in (3, 12, None):
        model = make()
        torch.manual_seed(stop or 0)
        before = torch.get_rng_state()
        resumed = run(model, tmp_path, stop)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights(model), weights(expected))
    assert resumed == history


@pytest.mark.parametrize("kernels", [("dropout",), ("attention",), ()])
def test_without_kernels_a_run_is_reproducible_and_the_global_state_is_restored(kernels: tuple[str, ...]) -> None:
    results = []
    for seed in (0, 1):
        model = plain()
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        with without_kernels(*kernels):
            run(model)
        assert torch.equal(torch.get_rng_state(), before)
        results.append(weights(model))
    assert torch.equal(*results)
