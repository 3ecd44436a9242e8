"""Runs of several processes, which are the same as runs of one, whatever happens to one of the processes."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tinygpt2 import GPT2Config, GPT2Model, TrainingConfig, train
from tinygpt2.distributed.launch import launched

WORKER = Path(__file__).parent / "worker.py"
NAMES = (
    "adamw", "muon", "accumulation", "ragged", "masked", "head of its own", "noise", "stopped", "rates", "best",
    "average", "sharded", "sharded, all else", "sharded, masked, a head of its own", "user's optimizer",
)  # fmt: skip
HANGING = 300  # seconds

pytestmark = pytest.mark.skipif(os.name != "posix", reason="torchrun with gloo")


def launch(size: int, *words: object) -> "subprocess.CompletedProcess[str]":
    """Runs the worker in so many processes."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)] if size > 1 else []
    return subprocess.run(
        [sys.executable, *start, str(WORKER), *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGING,
    )


def losses_of(done: "subprocess.CompletedProcess[str]") -> list[float]:
    found = re.search(r"^losses(.*)$", done.stdout, re.MULTILINE)
    assert found, done.stderr
    return [float(word) for word in found[1].split()]


def said_by(done: "subprocess.CompletedProcess[str]") -> dict[int, str]:
    return {int(rank): line for rank, line in re.findall(r"^rank (\d): (.*)$", done.stdout, re.MULTILINE)}


@pytest.fixture(scope="module", params=[2, 4])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The results of one process, and of several."""
    one, many = (tmp_path_factory.mktemp(f"of-{size}", numbered=True) for size in (1, request.param))
    for size, place in ((1, one), (request.param, many)):
        done = launch(size, place, *NAMES)
        assert done.returncode == 0, done.stderr
    return one, many


@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_processes_is_one(results: tuple[Path, Path], name: str) -> None:
    one, many = (torch.load(place / f"{name}.pt", weights_only=True) for place in results)
    assert len(one["losses"]) >= 5
    assert many["losses"] == pytest.approx(one["losses"], rel=0, abs=1e-6)
    history, same = (found["history"] for found in (one, many))
    assert same["steps"] == history["steps"]
    assert same["tokens_seen"] == history["tokens_seen"]
    assert same["stopped"] == history["stopped"]
    for losses in ("train_losses", "val_losses"):
        assert _numbers(same[losses]) == pytest.approx(_numbers(history[losses]), rel=0, abs=1e-6)
    for weight, tensor in one["weights"].items():
        torch.testing.assert_close(many["weights"][weight], tensor, rtol=0, atol=1e-5)


def test_each_process_holds_its_share_of_a_sharded_model(
    request: pytest.FixtureRequest, results: tuple[Path, Path]
) -> None:
    one, many = (torch.load(place / "sharded.pt", weights_only=True)["held"][-1] for place in results)
    size = request.node.callspec.params["results"]
    assert many == pytest.approx(one / size, rel=0.03)  # 53 rows divide by no number of processes
    whole = torch.load(results[1] / "adamw.pt", weights_only=True)["held"][-1]
    assert whole == one


def _numbers(values: Sequence[Any]) -> list[float]:
    return [-1.0 if value is None else value for value in values]


# --- checkpoints ---


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of a run of one process that nothing stops."""
    return losses_of(launch(1, tmp_path_factory.mktemp("whole") / "run"))


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 4)])
def test_a_run_resumes_on_another_number_of_processes(
    before: int, after: int, expected: list[float], tmp_path: Path
) -> None:
    stopped = launch(before, tmp_path / "run", "--at", 5, "SIGINT", before - 1)
    assert losses_of(stopped) == pytest.approx(expected[:5], rel=0, abs=1e-6)
    assert (tmp_path / "run" / "checkpoint-5").is_dir()
    resumed = launch(after, tmp_path / "run", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert losses_of(resumed) == pytest.approx(expected[5:], rel=0, abs=1e-6)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (2, 4)])
def test_a_sharded_run_has_the_checkpoints_of_one_process(
    before: int, after: int, expected: list[float], tmp_path: Path
) -> None:
    options = ("--ema-decay", 0.9, "--sharding", "full")
    stopped = launch(before, tmp_path / "run", *options, "--at", 5, "SIGINT", 1)
    assert losses_of(stopped) == pytest.approx(expected[:5], rel=0, abs=1e-6)
    model = GPT2Model.from_pretrained(tmp_path / "run" / "checkpoint-5")
    assert model.config.vocab_size == 53
    resumed = launch(after, tmp_path / "run", *options, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert losses_of(resumed) == pytest.approx(expected[5:], rel=0, abs=1e-6)


WITH_DROPOUT = ("--dropout", 0.1, "--optimizer", "muon")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """The directory and the losses of a run of two processes that nothing stops."""
    directory = tmp_path_factory.mktemp("two") / "run"
    return directory, losses_of(launch(2, directory, *WITH_DROPOUT))


def test_an_error_in_one_process_of_a_sharded_run_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """To save another one, it waited for the others, which waited for it."""
    failed = launch(2, tmp_path / "run", "--sharding", "full", "--at", 6, "raise", 0)
    said = said_by(failed)
    assert said[0] == "RuntimeError: a callback failed"
    assert said.get(1, "LostRankError").startswith("LostRankError")  # unless the launcher was quicker
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-0", "checkpoint-4"]


@pytest.mark.parametrize("what", ["SIGINT", "SIGKILL", "raise"])
def test_a_run_that_one_process_ends_resumes_with_the_same_bits(
    what: str, whole: tuple[Path, list[float]], tmp_path: Path
) -> None:
    options, (directory, losses) = WITH_DROPOUT, whole
    rank = 0 if what == "SIGKILL" else 1
    ended = launch(2, tmp_path / "ended", *options, "--at", 6, what, rank)
    assert ended.returncode != 0
    resumed = launch(2, tmp_path / "ended", *options, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert losses_of(resumed) == losses[4 if what == "SIGKILL" else 6 :]
    files = ("model.safetensors", "training_state.safetensors")
    for name in files:
        one, other = (run / "checkpoint-12" / name for run in (directory, tmp_path / "ended"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("rank", [0, 2])
def test_the_others_name_a_process_that_was_killed(rank: int, tmp_path: Path) -> None:
    runs = (launch(3, tmp_path / f"run-{i}", "--at", 6, "SIGKILL", rank) for i in range(4))
    said = next(filter(None, map(said_by, runs)), {})  # on a busy machine the launcher may end them before they say it
    assert said
    assert rank not in said
    for line in said.values():
        assert line.startswith(f"LostRankError: rank {rank} of 3 has ended or does not answer")


# --- what cannot work ---


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--wrong", "data", "1"], "ValueError: rank 1 has other values than rank 0 for the data; "),
        (["--wrong", "seed", "1"], "ValueError: rank 1 has other values than rank 0 for the configuration"),
        (
            ["--sharding", "full", "--optimizer", "muon"],
            'ValueError: sharding="full" does not work with optimizer="muon"',
        ),
        (["--rows", "1"], "ValueError: 2 processes share each batch, but train_loader has batches of 1 rows"),
    ],
)
def test_each_process_says_what_is_wrong(words: list[str], expected: str, tmp_path: Path) -> None:
    done = launch(2, tmp_path / "run", *words)
    said = said_by(done)
    assert said
    assert all(line.startswith(expected) for line in said.values())
    assert not list(tmp_path.glob("run/checkpoint-*"))


def test_a_process_among_others_must_know_them() -> None:
    assert not launched({})
    assert not launched({"WORLD_SIZE": "1"})
    with pytest.raises(ValueError, match=r"WORLD_SIZE is 2, .* but RANK and MASTER_PORT are not set; start it with"):
        launched({"WORLD_SIZE": "2", "MASTER_ADDR": "localhost"})
    with pytest.raises(ValueError, match="RANK must be a number, got 'one'"):
        launched({"WORLD_SIZE": "2", "RANK": "one", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"})


def test_one_process_has_nothing_to_divide_a_model_among() -> None:
    model = GPT2Model(GPT2Config(vocab_size=9, context_length=8, n_layer=1, n_head=1, n_embd=4))
    batch = torch.zeros((1, 4), dtype=torch.int64), torch.zeros((1, 4), dtype=torch.int64)
    with pytest.raises(ValueError, match="divides a model among several processes, but this is one; start with torchr"):
        train(model, [batch], config=TrainingConfig(sharding="full"), device="cpu", progress=False)
