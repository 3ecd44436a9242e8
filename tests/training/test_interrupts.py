"""Ctrl-C at every instant of a run: its effect, and what the resumed run makes of it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tinygpt2 import (
    GPT2Config,
    GPT2Model,
    NextTokenLoss,
    TrainingConfig,
    TrainingHistory,
    TrainState,
    make_dataloader,
    newest_checkpoint,
    on_step,
    train,
)
from tinygpt2.run.directory import RunDirectory

TOKENS = [i * 7 % 50 for i in range(81)]
STEPS = 4  # two epochs, the second step of each reads a smaller batch

# What a run calls, by the names of modules and classes: start-up, evaluations, steps, callbacks, saves, the end.
CALLS = (
    "tinygpt2.data.passes.Passes.identity",
    "tinygpt2.training.checkpoints.saver.CheckpointSaver.resume",
    "tinygpt2.training.checkpoints.saver.read_checkpoint",
    "tinygpt2.training.checkpoints.saver.restore",
    "tinygpt2.training.checkpoints.saver.CheckpointSaver.keep_weights",
    "tinygpt2.training.checkpoints.saver.write_checkpoint",
    "tinygpt2.training.checkpoints.saver.write_directory",
    "tinygpt2.training.checkpoints.saver.remove_directory",
    "tinygpt2.training.callbacks.base.Callbacks.emit",
    "tinygpt2.training.callbacks.base.Callbacks.end",
    "tinygpt2.training.loop.evaluate_batches",
    "tinygpt2.training.loop.backward",
    "tinygpt2.training.loop.set_rates",
    "tinygpt2.model.objective.NextTokenLoss.forward",
    "torch.optim.AdamW.step",
)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


class Presses:
    """Counts the calls, their ends, and presses Ctrl-C at one of them."""

    def __init__(self, at: int | None = None, presses: int = 1) -> None:
        self.at, self.presses, self.calls = at, presses, list[str]()

    def reached(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) - 1 == self.at:
            for _ in range(self.presses):
                signal.raise_signal(signal.SIGINT)

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def replacement(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - any call
            self.reached(f"before {name}")
            result = call(*arguments, **options)
            if name.endswith(("emit", "end", "evaluate", "AdamW.step")):  # elsewhere another call follows at once
                self.reached(f"after {name}")
            return result

        return replacement

    @contextmanager
    def installed(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                owner: Any = pytest.importorskip(name.split(".")[0])
                *path, last = name.split(".")[1:]
                for part in path:
                    owner = getattr(owner, part)
                patch.setattr(owner, last, self.around(name, getattr(owner, last)))
            yield


class Result:
    """A run, or several that resume it: the weights and the history at the end, and all events but start and end."""

    def __init__(self, directory: Path, stop: int | None = None) -> None:
        self.directory, self.stop = directory, stop
        self.events: list[tuple[str, int]] = []

    def note(self, state: TrainState) -> None:
        if state.event not in {"start", "end"}:
            self.events.append((state.event, state.step))
        if self.stop is not None and state.step >= self.stop and state.event in {"start", "step"}:
            state.stop()

    def run(self) -> tuple[Tensor, TrainingHistory]:
        torch.manual_seed(3)
        model = GPT2Model(GPT2Config(vocab_size=50, context_length=8, n_layer=1, n_head=2, n_embd=8, dropout=0.3))
        history = train(
            model,
            make_dataloader(TOKENS[:41], batch_size=3, context_length=8, shuffle=True),
            make_dataloader(TOKENS[56:], batch_size=3, context_length=8),
            TrainingConfig(epochs=2, learning_rate=1e-2),
            callbacks=[self.note],
            device="cpu",
            checkpoint_dir=self.directory,
            checkpoint_every=2,
            resume=True,
            progress=False,
        )
        return torch.cat([weight.detach().flatten() for weight in model.parameters()]), history


@pytest.mark.parametrize("stop", [None, 3])
@pytest.mark.parametrize("presses", [1, 2])
def test_control_c_at_every_instant_and_the_resumed_run_is_the_run(
    tmp_path: Path, presses: int, stop: int | None
) -> None:
    """The error is always Python's own, and each event comes once, in the interrupted run or in the resumed one."""
    counting, whole = Presses(), Result(tmp_path / "whole", stop)
    with counting.installed():
        expected = whole.run()
    assert expected[1].steps == [0, 2, 4 if stop is None else stop]
    assert len(counting.calls) > 60
    instants = list(enumerate(counting.calls))
    for at, name in instants if presses == 1 and stop is None else instants[:: 5 - presses]:
        pressing, result = Presses(at, presses), Result(tmp_path / str(at), stop)
        with pytest.raises(KeyboardInterrupt) as caught, pressing.installed():  # noqa: PT012
            result.run()
            raise AssertionError(name)
        assert type(caught.value) is KeyboardInterrupt, name
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, name
        steps = caught.value.history.steps  # type: ignore[attr-defined]
        assert steps == expected[1].steps[: len(steps)], name
        assert torch.equal((resumed := result.run())[0], expected[0]), name
        assert resumed[1] == expected[1], name
        if presses == 2:  # the steps after the last checkpoint are made again
            assert set(result.events) == set(whole.events), name
        else:  # the last evaluation of a stopped run, which is no part of it when it is resumed, is made each time
            last = ("evaluation", stop)
            without_last = [[event for event in events if event != last] for events in (result.events, whole.events)]
            assert sorted(without_last[0]) == sorted(without_last[1]), name
            assert (last in result.events) == (stop is not None), name


@pytest.mark.parametrize("presses", [1, 2])
def test_control_c_at_every_instant_of_the_resumed_run(tmp_path: Path, presses: int) -> None:
    """While it restores its checkpoint, for instance, and before its first step."""
    expected = Result(tmp_path / "whole").run()
    begun, counting = Presses(None), Presses()
    first = Result(tmp_path / "first", stop=1)
    with begun.installed():
        first.run()
    first.stop = None
    with counting.installed():
        first.run()
    for at, name in list(enumerate(counting.calls))[:24:presses]:
        again = Result(tmp_path / str(at), stop=1)
        again.run()
        again.stop = None
        with pytest.raises(KeyboardInterrupt) as caught, Presses(at, presses).installed():
            again.run()
        assert type(caught.value) is KeyboardInterrupt, name
        resumed = again.run()
        assert torch.equal(resumed[0], expected[0]), name
        assert resumed[1] == expected[1], name


def test_control_c_during_start_up_has_its_effect_at_once(tmp_path: Path) -> None:
    """There is nothing to finish: it waited for the data to be read, and for a first checkpoint."""
    result, presses = Result(tmp_path), Presses(0)
    with pytest.raises(KeyboardInterrupt) as caught, presses.installed():
        result.run()
    assert presses.calls == ["before tinygpt2.data.passes.Passes.identity"]
    assert caught.value.history == TrainingHistory()  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


def test_control_c_while_compiling_ends_after_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    presses = 0

    def compiling(module: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:  # noqa: ANN401
            nonlocal presses
            if not presses:
                presses = 1
                signal.raise_signal(signal.SIGINT)
            return module(*arguments)

        return call

    monkeypatch.setattr(torch, "compile", compiling)
    model = GPT2Model(GPT2Config(vocab_size=50, context_length=8, n_layer=1, n_head=2, n_embd=8))
    loader = make_dataloader(TOKENS, batch_size=3, context_length=8)
    with pytest.raises(KeyboardInterrupt):
        train(model, loader, config=TrainingConfig(compile=True), device="cpu", progress=False, checkpoint_dir=tmp_path)
    assert newest_checkpoint(tmp_path).name == "checkpoint-1"


def test_the_notice_is_true(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It promised to finish a step, also where there was none; what ends is the evaluation under way."""
    model = GPT2Model(GPT2Config(vocab_size=50, context_length=8, n_layer=1, n_head=2, n_embd=8))
    loader = make_dataloader(TOKENS, batch_size=3, context_length=8)
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:  # noqa: PT012
        pressing = Presses(0)
        name = "NextTokenLoss.forward"
        patch.setattr(NextTokenLoss, "forward", pressing.around(name, NextTokenLoss.forward))
        train(model, loader, device="cpu", checkpoint_dir=tmp_path)
    assert pressing.calls == [f"before {name}"]
    assert capfd.readouterr().err.splitlines() == [
        "",
        "stopping at the next safe point; press Ctrl-C again to stop at once",
        f"stopped after step 0 of 4; saved in {tmp_path}, ready to resume",
    ]
    assert newest_checkpoint(tmp_path).name == "checkpoint-0"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGINT)])
def test_a_signal_that_the_process_ignores_does_not_stop_a_run(number: signal.Signals, tmp_path: Path) -> None:
    """As in the background of a script, and under nohup."""
    model = GPT2Model(GPT2Config(vocab_size=50, context_length=8, n_layer=1, n_head=2, n_embd=8))
    loader = make_dataloader(TOKENS, batch_size=3, context_length=8)
    before = signal.signal(number, signal.SIG_IGN)
    try:
        history = train(
            model, loader, device="cpu", progress=False, checkpoint_dir=tmp_path,
            callbacks=[on_step(lambda _: signal.raise_signal(number))],
        )  # fmt: skip
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert history.steps == [0, 4]
    assert RunDirectory(tmp_path).checkpoints()[0].name == "checkpoint-4"
