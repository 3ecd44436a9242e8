"""The moving average of the weights, which a run evaluates, saves and hands over."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tinygpt2 import (
    GPT2Config,
    GPT2Model,
    TrainingConfig,
    TrainState,
    evaluate,
    make_dataloader,
    newest_checkpoint,
    on_step,
    train,
)

SHAPE = GPT2Config(vocab_size=61, context_length=16, n_layer=1, n_head=2, n_embd=16, dropout=0.1)
TOKENS = torch.arange(700).mul(7).remainder(61)
CONFIG = TrainingConfig(max_steps=12, learning_rate=3e-3, eval_every=4, ema_decay=0.8)
LOADER = make_dataloader(TOKENS[:600], batch_size=4, context_length=16, shuffle=True)
HELD_OUT = make_dataloader(TOKENS[600:].flip(0), batch_size=4, context_length=16)


def new_model() -> GPT2Model:
    torch.manual_seed(0)
    return GPT2Model(SHAPE)


class ByHand:
    """The average after each step, from its definition."""

    def __init__(self, decay: float) -> None:
        self.decay, self.averages = decay, list[dict[str, Tensor]]()

    def __call__(self, state: TrainState) -> None:
        share = max(1 - self.decay, 1 / state.step)
        before = self.averages[-1] if self.averages else dict(state.model.named_parameters())
        self.averages.append(
            {
                name: (1 - share) * before[name].detach() + share * parameter.detach()
                for name, parameter in state.model.named_parameters()
            }
        )


def test_the_average_is_what_is_evaluated_and_handed_over() -> None:
    model, by_hand = new_model(), ByHand(0.8)
    history = train(model, LOADER, HELD_OUT, CONFIG, callbacks=[on_step(by_hand)], device="cpu", progress=False)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.detach(), by_hand.averages[-1][name])
    expected = new_model()
    for i, step in enumerate(history.steps[1:], start=1):
        expected.load_state_dict(by_hand.averages[step - 1], strict=False)
        assert history.val_losses[i] == pytest.approx(evaluate(expected, HELD_OUT).loss, abs=1e-6)


def test_averaging_does_not_change_what_is_trained() -> None:
    losses: dict[float, list[float]] = {0.0: [], 0.8: []}
    for decay, found in losses.items():
        note = on_step(lambda state, found=found: found.append(state.loss))  # type: ignore[misc]
        train(new_model(), LOADER, HELD_OUT, replace(CONFIG, ema_decay=decay), callbacks=[note], device="cpu",
              progress=False)  # fmt: skip
    assert losses[0.8] == losses[0.0]


@pytest.mark.parametrize("keep_best", [False, True])
def test_a_resumed_run_has_the_same_average(tmp_path: Path, *, keep_best: bool) -> None:
    def run(directory: Path, stop: int | None, *, resume: bool = False) -> GPT2Model:
        model = new_model()
        callbacks = [on_step(lambda state: state.interrupt() if state.step == stop else None)]
        train(model, LOADER, HELD_OUT, CONFIG, callbacks=callbacks, device="cpu", progress=False, resume=resume,
              checkpoint_dir=directory, keep_best=keep_best)  # fmt: skip
        return model

    whole = run(tmp_path / "whole", None)
    for stop in (1, 6):
        run(tmp_path / f"{stop}", stop)
        again = run(tmp_path / f"{stop}", None, resume=True)
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
        for name in ("checkpoint-12/model.safetensors", "checkpoint-12/training_state.safetensors",
                     "best/model.safetensors"):  # fmt: skip
            assert (tmp_path / f"{stop}" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    finished = run(tmp_path / "whole", None, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), finished.parameters(), strict=True))


def test_a_checkpoint_has_the_average_as_its_model(tmp_path: Path) -> None:
    model = new_model()
    history = train(model, LOADER, HELD_OUT, CONFIG, device="cpu", progress=False, checkpoint_dir=tmp_path)
    saved = GPT2Model.from_pretrained(newest_checkpoint(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), saved.parameters(), strict=True))
    assert evaluate(saved, HELD_OUT).loss == pytest.approx(history.val_losses[-1], abs=1e-6)


def test_frozen_weights_are_their_own_average() -> None:
    model = new_model()
    model.wte.weight.requires_grad_(False)
    before = model.wte.weight.detach().clone()
    train(model, LOADER, None, CONFIG, device="cpu", progress=False)
    assert torch.equal(model.wte.weight, before)
