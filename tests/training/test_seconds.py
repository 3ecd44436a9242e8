"""The time that a run has taken is counted on when it is resumed, and is no part of its checkpoints."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tinygpt2 import GPT2Config, GPT2Model, TrainingConfig, TrainingHistory, make_dataloader, train
from tinygpt2.training.checkpoints.seconds import read_seconds, write_seconds
from tinygpt2.training.state import TrainState

SHAPE = GPT2Config(vocab_size=20, context_length=8, n_layer=1, n_head=1, n_embd=8)


def run(directory: Path | None, steps: int) -> TrainingHistory:
    torch.manual_seed(0)
    loader = make_dataloader(torch.arange(200) % 20, batch_size=4, context_length=8, shuffle=True)
    config = TrainingConfig(max_steps=steps, eval_every=2, schedule="constant", warmup_steps=0)
    return train(GPT2Model(SHAPE), loader, config=config, device="cpu", checkpoint_dir=directory,
                 resume=directory is not None, progress=False)  # fmt: skip


def rising(seconds: list[float | None]) -> bool:
    return all(a is not None and b is not None and a <= b for a, b in pairwise(seconds))


def test_each_evaluation_has_the_time_of_the_run() -> None:
    history = run(None, 6)
    assert history.steps == [0, 2, 4, 6]
    assert rising(history.seconds)
    assert history.seconds[0] != history.seconds[-1]


def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    """From the time of the checkpoint, as if it had not been stopped."""
    first = run(tmp_path, 4)
    before = json.loads((tmp_path / "seconds.json").read_text(encoding="utf-8"))
    assert [before[str(step)] for step in (0, 2, 4)] == first.seconds
    before["4"] = 1000.0  # which it would be after a long run
    write_seconds(tmp_path / "seconds.json", {int(step): seconds for step, seconds in before.items()})
    history = run(tmp_path, 8)
    assert history.seconds[:3] == [*first.seconds[:2], 1000.0]
    assert rising(history.seconds)
    assert len(history.seconds) == len(history.steps)


def test_checkpoints_have_no_time(tmp_path: Path) -> None:
    run(tmp_path, 2)
    assert "seconds" not in (tmp_path / "checkpoint-2" / "training.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"0": "x"}', '{"a": 1}', '{"0": -1}', '{"0": NaN}'])
def test_without_its_file_the_time_is_not_known(
    tmp_path: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a run of an older version; the time since it was resumed would pass for that of the whole run."""
    run(tmp_path, 2)
    if content is None:
        (tmp_path / "seconds.json").unlink()
    else:
        (tmp_path / "seconds.json").write_text(content, encoding="utf-8")
    history = run(tmp_path, 4)
    assert history.steps == [0, 2, 4]
    assert history.seconds == [None, None, None]
    assert ("cannot read how long the run has taken" in caplog.text) == (content is not None)
    assert TrainState(GPT2Model(SHAPE), torch.optim.SGD(GPT2Model(SHAPE).parameters()), TrainingConfig(), 1).seconds
    assert read_seconds(tmp_path / "seconds.json") == {}
