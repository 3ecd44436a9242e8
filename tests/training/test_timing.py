"""Where the time of a run goes, and how much it still needs, by a clock that only work moves."""

import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tinygpt2.training.callbacks.samples
import tinygpt2.training.checkpoints.saver
import tinygpt2.training.loop
from tinygpt2 import CharTokenizer, GPT2Config, GPT2Model, TrainingConfig, TrainState, make_dataloader, train
from tinygpt2.training.timing import Timing

TOKENIZER = CharTokenizer("abcdefgh")
EVALUATION, STEP, SAMPLE, SAVE = 40.0, 10.0, 70.0, 5.0


class Clock:
    """A clock that moves when something is done."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def taking(self, seconds: float, call: Callable[..., Any]) -> Callable[..., Any]:
        def replacement(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - any call
            self.now += seconds
            return call(*arguments, **options)

        return replacement


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    for module, name, seconds in (
        (tinygpt2.training.loop, "evaluate_batches", EVALUATION / 2),  # once for each part of the data
        (tinygpt2.training.loop, "backward", STEP),
        (tinygpt2.training.callbacks.samples, "generate_text", SAMPLE),
        (tinygpt2.training.checkpoints.saver, "write_checkpoint", SAVE),
    ):
        monkeypatch.setattr(module, name, clock.taking(seconds, getattr(module, name)))
    return clock


def run(clock: Clock, *, directory: Path | None = None, resume: bool = False, stop: int = 0, **config: Any) -> Any:  # noqa: ANN401
    """Trains, and returns for each evaluation the step, the announced time left, and the time that it then took."""
    seen: list[tuple[int, float, float]] = []

    def note(state: TrainState) -> None:
        if state.event == "evaluation":
            seen.append((state.step, state.seconds_left, clock.now))
        if stop and state.step == stop:
            state.stop()

    model = GPT2Model(GPT2Config(vocab_size=9, context_length=8, n_layer=1, n_head=2, n_embd=8))
    loader = make_dataloader("abcdefgh" * 9, batch_size=4, context_length=8, tokenizer=TOKENIZER)  # 2 batches
    train(
        model, loader, loader, TrainingConfig(sample_prompt="abc", sample_tokens=2, **config), tokenizer=TOKENIZER,
        device="cpu", callbacks=[note], checkpoint_dir=directory, checkpoint_every=2 if directory else None,
        resume=resume,
    )  # fmt: skip
    return [(step, left, clock.now - then) for step, left, then in seen]


@pytest.mark.parametrize("config", [
    {"epochs": 6}, {"epochs": 6, "eval_every": 3}, {"epochs": 6, "eval_every": 5}, {"max_steps": 12},
    {"max_steps": 11}, {"max_steps": 11, "eval_every": 4}, {"epochs": 6, "gradient_accumulation_steps": 2},
])  # fmt: skip
def test_the_time_left_is_the_time_that_it_takes(clock: Clock, config: dict[str, Any]) -> None:
    """It counted steps alone: 1:05 were announced, and 1:47 passed."""
    (step, left, _), *others = run(clock, **config)
    assert step == 0
    assert math.isnan(left)  # nothing is known yet
    for step, left, took in others[1:]:
        assert left == pytest.approx(took), step
    step, left, took = others[0]  # before the first sample its time is not known
    assert left == pytest.approx(took) or took - left in {n * SAMPLE for n in range(1, 8)}
    assert others[-1][0] == (6 if "gradient_accumulation_steps" in config else config.get("max_steps", 12))


def test_checkpoints_are_in_the_time_left(clock: Clock, tmp_path: Path) -> None:
    for step, left, took in run(clock, directory=tmp_path, epochs=20)[2:]:
        assert left == pytest.approx(took, rel=0.03), step


def test_a_resumed_run_counts_anew_and_is_right(clock: Clock, tmp_path: Path) -> None:
    run(clock, directory=tmp_path, stop=5, epochs=6)
    clock.now += 1e6
    seen = run(clock, directory=tmp_path, resume=True, epochs=6)
    assert [step for step, *_ in seen] == [6, 8, 10, 12]
    for step, left, took in seen[1:]:
        assert left == pytest.approx(took, abs=2 * SAVE), step


def test_one_line_at_the_end_says_where_the_time_went(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    run(clock, epochs=3)  # 4 evaluations, 6 steps, 3 samples
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "time 07:10: training 14%, evaluations 37%, samples 49%"


def test_the_lines_announce_that_time(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    run(clock, epochs=3)
    announced = re.findall(r"(\S+) left", capsys.readouterr().err)
    assert announced == ["02:00", "03:20", "01:10"]  # the first cannot know of the samples


def test_a_stopped_run_and_one_without_a_length_have_a_time_left(clock: Clock) -> None:
    assert [step for step, *_ in run(clock, epochs=6, stop=3)] == [0, 2, 3]
    state = TrainState(None, None, TrainingConfig(max_steps=10), total_steps=10)  # type: ignore[arg-type]
    state.training_steps = 2
    assert state.seconds_left == 0.0


def test_every_instant_counts_once(clock: Clock) -> None:
    timing = Timing()
    clock.now += 1
    with timing.during("evaluations"):
        clock.now += 2
        with timing.during("samples"):
            clock.now += 4
        clock.now += 8
    clock.now += 16
    assert timing.summary() == "time 00:31: training 55%, evaluations 32%, samples 13%"
    assert timing.times == {"evaluations": 1, "samples": 1}
    with pytest.raises(KeyError), timing.during("checkpoints"):  # noqa: PT012
        clock.now += 31
        raise KeyError
    assert timing.summary() == "time 01:02: training 27%, evaluations 16%, samples 6%, checkpoints 50%"
    assert Timing().summary() == "time 00:00: "
