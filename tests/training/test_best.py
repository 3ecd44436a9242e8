"""The weights that a run hands over: the last, or those with the lowest validation loss."""

import re
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tinygpt2 import (
    EarlyStopping,
    GPT2Config,
    GPT2Model,
    TrainingConfig,
    TrainingHistory,
    TrainState,
    make_dataloader,
    newest_checkpoint,
    on_evaluation,
    on_step,
    train,
)

SHAPE = GPT2Config(vocab_size=61, context_length=8, n_layer=1, n_head=2, n_embd=16, dropout=0.2)
TOKENS = torch.arange(500).remainder(20)
OTHERS = TOKENS.flip(0)
CONFIG = TrainingConfig(max_steps=24, learning_rate=3e-2, eval_every=4, eval_batches=2)


def run(
    directory: Path | None = None,
    config: TrainingConfig = CONFIG,
    *,
    compiled: bool = False,
    **options: Any,  # noqa: ANN401
) -> tuple[GPT2Model, TrainingHistory]:
    """Trains on tokens and validates on their opposite: the loss falls until the model has learned their order, too."""
    torch.manual_seed(3)
    model = GPT2Model(SHAPE)
    given: Any = torch.compile(model, backend="eager") if compiled else model
    data, others = (make_dataloader(tokens, batch_size=4, context_length=8) for tokens in (TOKENS, OTHERS))
    settings: dict[str, Any] = {
        "device": "cpu",
        "progress": False,
        "checkpoint_dir": directory,
        "resume": directory is not None,
    }
    return model, train(given, data, others, config, **settings | options)


def at_step(step: int) -> GPT2Model:
    return run(callbacks=[on_step(lambda state: state.stop() if state.step == step else None)])[0]


def equal(first: GPT2Model, second: GPT2Model) -> bool:
    return all(map(torch.equal, first.parameters(), second.parameters()))


def test_a_run_ends_with_the_last_weights_or_with_the_best_on_request() -> None:
    last, history = run()
    best, same = run(keep_best=True)
    assert same == history
    assert history.best is not None
    assert 0 < history.best < len(history.steps) - 1
    assert equal(best, at_step(history.steps[history.best]))
    assert equal(last, at_step(24))
    assert not equal(last, best)


def test_callbacks_and_checkpoints_see_the_last_weights(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    def look(state: TrainState) -> None:
        if state.event == "end":
            seen.append(state.model.wte.weight.detach().clone())

    run(tmp_path, keep_best=True, callbacks=[look])
    last = run()[0]
    assert torch.equal(seen[0], last.wte.weight)
    assert equal(GPT2Model.from_pretrained(newest_checkpoint(tmp_path)), last)


@pytest.mark.parametrize("stop", [0, 3, 11])
def test_a_resumed_run_ends_with_the_weights_of_the_run_that_was_not_stopped(tmp_path: Path, stop: int) -> None:
    def crash(state: TrainState) -> None:
        if state.step >= stop:
            raise ZeroDivisionError

    expected, _ = run(keep_best=True)
    with suppress(ZeroDivisionError):
        run(tmp_path, callbacks=[crash], keep_best=True, checkpoint_every=5)
    for _ in range(2):  # the second has nothing left to do
        assert equal(run(tmp_path, keep_best=True)[0], expected)
    longer, history = run(tmp_path, replace(CONFIG, max_steps=28), keep_best=True)
    assert history.steps[-1] == 28
    assert equal(longer, expected)


def test_an_error_and_a_best_last_evaluation_leave_the_last_weights() -> None:
    def crash(state: TrainState) -> None:
        if state.step == 24:
            raise ZeroDivisionError

    torch.manual_seed(3)
    model = GPT2Model(SHAPE)
    loader = make_dataloader(TOKENS, batch_size=4, context_length=8)
    with pytest.raises(ZeroDivisionError):
        train(model, loader, make_dataloader(OTHERS, batch_size=4, context_length=8), CONFIG,
              device="cpu", progress=False, keep_best=True, callbacks=[crash])  # fmt: skip
    assert equal(model, run()[0])
    short = replace(CONFIG, max_steps=4)
    model, history = run(config=short, keep_best=True)
    assert history.best == 1
    assert equal(model, at_step(4))


@pytest.mark.parametrize("damage", ["missing", "damaged", "another", "older"])
def test_best_that_the_disk_has_lost_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    directory = tmp_path / "run"
    last, history = run(directory)
    shutil.rmtree(directory / "best") if damage != "damaged" else None
    if damage == "damaged":
        (directory / "best" / "model.safetensors").write_bytes(b"no")
    elif damage == "another":
        other = tmp_path / "other"
        loader = make_dataloader(TOKENS, batch_size=4, context_length=8)
        small = GPT2Model(replace(SHAPE, n_embd=8))
        config = replace(CONFIG, epochs=20, max_steps=None)
        train(small, loader, loader, config, device="cpu", progress=False, checkpoint_dir=other)
        shutil.copytree(other / "best", directory / "best")
    elif damage == "older":
        run(tmp_path / "short", replace(CONFIG, max_steps=4))
        shutil.copytree(tmp_path / "short" / "best", directory / "best")
    model, same = run(directory, keep_best=True)
    assert same == history
    assert equal(model, last)
    assert "keeps its last weights, not those with the lowest validation loss" in caplog.text


def test_without_validation_data_there_is_no_best() -> None:
    loader = make_dataloader(TOKENS, batch_size=4, context_length=8)
    with pytest.raises(ValueError, match=r"keep_best keeps .* needs a val_loader"):
        train(GPT2Model(SHAPE), loader, config=CONFIG, device="cpu", progress=False, keep_best=True)
    with pytest.raises(TypeError, match="keep_best must be"):
        run(keep_best=1)


def test_a_run_that_was_stopped_says_why_and_where_it_was_best(capsys: pytest.CaptureFixture[str]) -> None:
    _, history = run(callbacks=[EarlyStopping(2)], keep_best=True, progress=True)
    assert history.best is not None
    assert history.stopped == "the validation loss has not fallen for 2 evaluations"
    line = f"stopped after step {history.steps[-1]} of 24: {history.stopped}; the best was at step "
    assert capsys.readouterr().err.splitlines()[-2] == f"{line}{history.steps[history.best]}"
    _, history = run(callbacks=[EarlyStopping(1, min_delta=0.5)])
    assert history.stopped == "the validation loss has not fallen by more than 0.5 for 1 evaluation"


@pytest.mark.parametrize(("step", "stopped"), [(5, "a callback stopped it"), (24, None)])
def test_a_callback_that_stops_a_run(step: int, stopped: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """At the last step it stops nothing."""
    stop = on_evaluation(lambda state: state.stop() if state.step >= step else None)
    _, history = run(callbacks=[stop], progress=True)
    assert history.stopped == stopped
    assert ("stopped after step 8 of 24: a callback stopped it" in capsys.readouterr().err) == bool(stopped)
    _, history = run(callbacks=[on_step(lambda state: state.stop("it is late"))])
    assert history.stopped == "it is late"


def test_a_stopped_run_that_is_resumed_leaves_the_same_best(tmp_path: Path) -> None:
    stop = on_step(lambda state: state.stop() if state.step == 8 else None)
    run(tmp_path / "stopped", callbacks=[stop])
    run(tmp_path / "stopped")
    run(tmp_path / "whole")
    for name in ("best", "checkpoint-24"):
        for path in (tmp_path / "whole" / name).iterdir():
            assert path.read_bytes() == (tmp_path / "stopped" / name / path.name).read_bytes()


def test_a_compiled_model_is_saved_under_its_own_names(tmp_path: Path) -> None:
    """They had the prefix of what PyTorch wraps around it, and no checkpoint could be read as a model."""
    model, history = run(tmp_path, compiled=True, keep_best=True)
    assert history.best is not None
    assert equal(GPT2Model.from_pretrained(tmp_path / "best"), model)
    saved = GPT2Model.from_pretrained(newest_checkpoint(tmp_path))
    assert set(saved.state_dict()) == set(model.state_dict())
    text = (newest_checkpoint(tmp_path) / "training.json").read_text(encoding="utf-8")
    assert not re.search("_orig_mod", text)
    again, _ = run(tmp_path, keep_best=True)  # without compiling it
    assert equal(again, model)
