"""Runs over targets that do not count, and from weights that are not finite."""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import IterableDataset
from typing_extensions import override

from tinygpt2 import (
    GPT2Config,
    GPT2Model,
    NonFiniteLossError,
    TrainingConfig,
    TrainingHistory,
    TrainState,
    evaluate,
    on_step,
    train,
)
from tinygpt2.data.batches import Batch

SHAPE = GPT2Config(vocab_size=50, context_length=8, n_layer=1, n_head=2, n_embd=16, dropout=0.2)
CONFIG = TrainingConfig(epochs=3, learning_rate=1e-2, schedule="cosine", eval_every=2, eval_batches=2)
ROWS = torch.randint(50, (24, 9), generator=torch.Generator().manual_seed(5)).view(6, 4, 9)


def batches(*empty: int, rows: Tensor = ROWS) -> list[Batch]:
    """Returns six batches, of which the given ones have no target that counts."""
    return [
        (part[:, :-1], torch.full((4, 8), -100) if i in empty else part[:, 1:].clone()) for i, part in enumerate(rows)
    ]


def weights(model: GPT2Model) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.state_dict().values()])


def run(
    data: Any,  # noqa: ANN401 - any loader
    directory: Path | None = None,
    config: TrainingConfig = CONFIG,
    *,
    model: GPT2Model | None = None,
    stop: int | None = None,
    callbacks: Sequence[Callable[[TrainState], object]] = (),
    **options: Any,  # noqa: ANN401 - any of train's
) -> tuple[GPT2Model, TrainingHistory]:
    if model is None:
        torch.manual_seed(3)
        model = GPT2Model(SHAPE)
    history = train(
        model, data, config=config, device="cpu", progress=False, checkpoint_dir=directory,
        resume=directory is not None, callbacks=[on_step(lambda s: s.stop() if s.step == stop else None), *callbacks],
        **options,
    )  # fmt: skip
    return model, history


# --- steps with nothing to learn from ---


def test_a_step_with_nothing_to_learn_from_counts_and_leaves_the_weights_alone() -> None:
    """It ended the run."""
    seen: list[tuple[int, float, float, float, Tensor]] = []

    def note(state: TrainState) -> None:
        if state.event == "step":
            seen.append((state.step, state.loss, state.grad_norm, state.epochs, weights(state.model)))
            assert state.total_steps == 18

    with pytest.warns(UserWarning, match=r"every target of step 2 is -100.*leave the weights unchanged") as caught:
        _, history = run(batches(1, 2), callbacks=[note])
    assert len(caught) == 1
    assert [step for step, *_ in seen] == list(range(1, 19))
    skipped = [step for step, loss, *_ in seen if math.isnan(loss)]
    assert skipped == [2, 3, 8, 9, 14, 15]
    unchanged = [now[0] for before, now in itertools.pairwise(seen) if torch.equal(before[-1], now[-1])]
    assert unchanged == skipped
    assert all(norm == 0 for step, _, norm, *_ in seen if step in skipped)
    assert [epochs for *_, epochs, _ in seen] == pytest.approx([step / 6 for step in range(1, 19)])
    assert history.epochs[-1] == 3
    assert history.tokens_seen[-1] == 3 * 6 * 32


def test_it_takes_no_part_in_the_optimizers_state() -> None:
    """The weights are those of a run that has the same rates and masks but not those steps."""
    config = replace(CONFIG, schedule="constant", epochs=1)
    shape = replace(SHAPE, dropout=0.0)  # each step has masks of its own
    models = [GPT2Model(shape), GPT2Model(shape)]
    models[1].load_state_dict(models[0].state_dict())
    with pytest.warns(UserWarning, match="step 4"):
        run(batches(3, 4), config=config, model=models[0])
    run([batch for i, batch in enumerate(batches()) if i not in (3, 4)], config=config, model=models[1])
    assert torch.equal(weights(models[0]), weights(models[1]))


@pytest.mark.filterwarnings("ignore:every target of step:UserWarning")
@pytest.mark.parametrize("empty", [(0,), (5,), (1, 2), (0, 1, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_run_that_skips_resumes_exactly(tmp_path: Path, empty: tuple[int, ...], accumulated: int) -> None:
    config = replace(CONFIG, gradient_accumulation_steps=accumulated)
    model, history = run(batches(*empty), tmp_path / "whole", config)
    for stop in (1, 2, 3, 6, 7, 8):
        run(batches(*empty), tmp_path / "broken", config, stop=stop)
    again, same = run(batches(*empty), tmp_path / "broken", config)
    assert torch.equal(weights(again), weights(model))
    assert same == history
    assert history.epochs[-1] == 3


def test_a_micro_batch_with_nothing_to_learn_from_contributes_nothing() -> None:
    shape, config = replace(SHAPE, dropout=0.0), replace(CONFIG, max_steps=3)
    models = [GPT2Model(shape), GPT2Model(shape)]
    models[1].load_state_dict(models[0].state_dict())
    run(batches(1)[:2], config=replace(config, gradient_accumulation_steps=2), model=models[0])
    run(batches()[:1], config=config, model=models[1])
    torch.testing.assert_close(weights(models[0]), weights(models[1]))


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, max_steps=50), replace(CONFIG, epochs=1)])
def test_data_with_nothing_to_learn_from_is_an_error_and_not_an_endless_run(config: TrainingConfig) -> None:
    with pytest.raises(ValueError, match="every target of train_loader is -100, which does not count"):
        run(batches(*range(6)), config=config)
    with pytest.raises(ValueError, match="every target of val_loader is -100, which does not count"):
        run(batches(), config=config, val_loader=batches(*range(6)))


@pytest.mark.parametrize("epochs", [2, 4])
def test_a_pass_with_nothing_to_learn_from_is_an_error(epochs: int) -> None:
    """Of data that changes, whose first pass was evaluated and had something."""

    class Fading:
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __len__(self) -> int:
            return 6

        def __iter__(self) -> Iterator[Batch]:
            return iter(batches(*range(6 if self.epoch else 0)))

    seen: list[int] = []
    with (
        pytest.warns(UserWarning, match="step 7"),
        pytest.raises(ValueError, match="every target of a pass over train_loader is -100"),
    ):
        run(Fading(), config=replace(CONFIG, epochs=epochs), callbacks=[on_step(lambda s: seen.append(s.step)).on_step])
    assert seen[-1] == 11


def test_a_stream_that_never_has_anything_to_learn_from_ends() -> None:
    class Endless(IterableDataset[Batch]):
        @override
        def __iter__(self) -> Iterator[Batch]:
            yield from batches()[:2]
            while True:
                yield from batches(*range(6))

    with pytest.warns(UserWarning, match="step 3"):
        _, history = run(Endless(), config=replace(CONFIG, max_steps=30))
    assert history.steps[-1] == 30


def test_an_evaluation_reads_batches_that_have_something_to_evaluate() -> None:
    """With eval_batches=1 and a first batch of which nothing counts, the run ended before it began."""
    config = replace(CONFIG, eval_batches=2, learning_rate=1e-30, weight_decay=0.0)
    with pytest.warns(UserWarning, match="step 1"):
        model, history = run(batches(0, 2), config=config, val_loader=batches(0, 1, 2, 3, 4))
    assert history.train_losses[0] == pytest.approx(evaluate(model, [batches()[1], batches()[3]]).loss, rel=1e-6)
    assert history.val_losses[0] == pytest.approx(evaluate(model, batches()[5:]).loss, rel=1e-6)


# --- weights that are not finite ---


def broken(value: float, name: str = "h.0.mlp.c_fc.weight") -> GPT2Model:
    model = GPT2Model(SHAPE)
    with torch.no_grad():
        model.get_parameter(name).view(-1)[:2] = value
    return model


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named_before_training(value: float) -> None:
    """The loss was nan, and the error of the first step said that the rate was too high."""
    message = r"the loss of train_loader is nan: 2 of 1,024 values of the weight h\.0\.mlp\.c_fc\.weight are not finite"
    with pytest.raises(NonFiniteLossError, match=message) as caught:
        run(batches(), model=broken(value), callbacks=[on_step(lambda _: pytest.fail("trained")).on_step])
    assert caught.value.step == 0
    assert caught.value.history == TrainingHistory()


@pytest.mark.parametrize("eval_every", [2, 100])
def test_weights_that_become_so_are_named_too(eval_every: int) -> None:
    def poison(state: TrainState) -> None:
        if state.event == "step" and state.step == 2:
            with torch.no_grad():
                state.model.get_parameter("ln_f.bias")[3] = math.nan

    with pytest.raises(NonFiniteLossError, match=r"1 of 16 values of the weight ln_f\.bias is not finite") as caught:
        run(batches(), config=replace(CONFIG, eval_every=eval_every), callbacks=[poison])
    assert "learning rate is too high" not in str(caught.value)
    assert caught.value.step == (2 if eval_every == 2 else 3)
    assert caught.value.history is not None
    assert caught.value.history.steps == [0]


def test_nothing_is_said_of_data_with_targets() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(batches())
