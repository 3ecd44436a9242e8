"""Snapshots: what a run keeps to look back on how it learned."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tinygpt2 import GPT2Config, GPT2Model, TrainingConfig, make_dataloader, train
from tinygpt2.formats.safetensors import read_safetensors
from tinygpt2.model.rounding import restored_weights, rounded_weights
from tinygpt2.run.directory import RunDirectory
from tinygpt2.training.callbacks.snapshots import Snapshots, snapshot_steps

SHAPE = GPT2Config(vocab_size=5, context_length=8, n_layer=1, n_head=2, n_embd=8)
TOKENS = [0, 1, 2, 3, 4] * 60


def trained(directory: Path, callback: Snapshots, **config: object) -> GPT2Model:
    torch.manual_seed(0)
    model = GPT2Model(SHAPE)
    loader = make_dataloader(TOKENS, batch_size=4, context_length=8, shuffle=True)
    settings = TrainingConfig(max_steps=20, eval_batches=1, **config)  # type: ignore[arg-type]
    train(model, loader, config=settings, callbacks=[callback], checkpoint_dir=directory, progress=False, device="cpu")
    return model


@pytest.mark.parametrize("beginning", [True, False])
@pytest.mark.parametrize("total", [1, 2, 7, 500, 1_000_000])
@pytest.mark.parametrize("count", [0, 1, 2, 8])
def test_the_steps_end_with_the_last_and_are_apart_by_a_factor(total: int, count: int, beginning: bool) -> None:
    steps = snapshot_steps(total, count, beginning=beginning)
    assert len(steps) <= count
    assert steps == sorted(set(steps))
    assert (0 in steps) == (beginning and count > 0)
    if count - beginning > 0:
        assert steps[-1] == total
    if total == 1_000_000 and count == 8:
        later = [step for step in steps if step]
        factors = [after / before for before, after in pairwise(later)]
        assert max(factors) < 1.2 * min(factors)


def test_a_snapshot_has_the_weights_of_its_step_in_a_byte_each(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    model = trained(tmp_path, Snapshots(run, 4))
    assert sorted(path.stem for path in run.snapshots()) == ["0", "20", "3", "7"]
    last = restored_weights(read_safetensors(run.snapshot(20)))
    torch.testing.assert_close(last, restored_weights(rounded_weights(model.state_dict())))
    torch.manual_seed(0)
    first = restored_weights(read_safetensors(run.snapshot(0)))
    torch.testing.assert_close(first, restored_weights(rounded_weights(GPT2Model(SHAPE).state_dict())))
    numbers = sum(weight.numel() for weight in model.state_dict().values())
    assert run.snapshot(20).stat().st_size < 2 * numbers + 4000


def test_a_snapshot_is_of_the_average_where_that_is_the_model(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    model = trained(tmp_path, Snapshots(run, 2), ema_decay=0.9)
    last = restored_weights(read_safetensors(run.snapshot(20)))
    torch.testing.assert_close(last, restored_weights(rounded_weights(model.state_dict())))


def test_snapshots_do_not_change_the_run(tmp_path: Path) -> None:
    with_them = trained(tmp_path / "a", Snapshots(RunDirectory(tmp_path / "a"), 5), ema_decay=0.9)
    without = trained(tmp_path / "b", Snapshots(RunDirectory(tmp_path / "b"), 0), ema_decay=0.9)
    for one, other in zip(with_them.parameters(), without.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not (tmp_path / "b" / "snapshots").exists()


def test_weights_come_back_to_half_a_step_of_their_row() -> None:
    weights = {"w": torch.randn(7, 5) * torch.tensor([[10.0**i] for i in range(-3, 4)]), "b": torch.randn(5)}
    for levels in (127, 7):
        back = restored_weights(rounded_weights(weights, levels))
        error = (back["w"] - weights["w"]).abs().amax(dim=1)
        assert (error <= 0.51 * weights["w"].abs().amax(dim=1) / levels).all()
        assert torch.equal(back["b"], weights["b"])


@pytest.mark.parametrize("damage", [{}, {"w.scale": torch.ones(3)}, {"w.scale": torch.ones(2, 1)}])
def test_scales_that_do_not_fit_are_refused(damage: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="w has no scale for each of its 2 rows"):
        restored_weights({"w": torch.zeros(2, 3, dtype=torch.int8), **damage})


def test_what_a_killed_process_left_among_snapshots_is_removed(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    trained(tmp_path, Snapshots(run, 2))
    left = tmp_path / "snapshots" / ".20.safetensors.0a1b2c3d"
    left.write_bytes(b"half")
    mine = tmp_path / "snapshots" / ".mine"
    mine.write_bytes(b"a note")
    with run.locked():
        run.recover()
    assert mine.exists()
    assert run.snapshot(20).exists()
    assert not left.exists()
