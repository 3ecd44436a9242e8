"""``torchrun -m tinygpt2 train``: the run of one process, in several."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tinygpt2 import sample_text

HANGING = 300  # seconds
PROCESSES = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="torchrun with gloo")

OPTIONS = (
    "--n-embd 32 --n-layer 1 --context-length 16 --batch-size 4 --vocab-size 300 --eval-batches 3 --device cpu "
    "--learning-rate 0.004 --sample-prompt ''"
)  # a rate at which rounding does not grow


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(sample_text()[:8000], encoding="utf-8")
    return path


def start(words: str, *, processes: bool = True) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *(PROCESSES if processes else []), "-m", "tinygpt2", *shlex.split(words)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(words: str, **options: Any) -> tuple[int, str, str]:  # noqa: ANN401
    process = start(words, **options)
    said, errors = process.communicate(timeout=HANGING)
    return process.returncode, said, errors


def history_in(directory: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads((directory / "history.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    "more", ["--epochs 2", "--epochs 2 --teachers 2 --student-steps 20 --optimizer muon --dropout 0"]
)
def test_two_processes_train_as_one_does(text_file: Path, more: str, tmp_path: Path) -> None:
    for name, processes in (("one", False), ("two", True)):
        code, _, errors = run(f"train {text_file} --out {tmp_path / name} {OPTIONS} {more}", processes=processes)
        assert code == 0, errors
    one, two = (history_in(tmp_path / name) for name in ("one", "two"))
    assert two["steps"] == one["steps"]
    for losses in ("train_losses", "val_losses", "val_bits_per_byte"):
        assert two[losses] == pytest.approx(one[losses], rel=0, abs=2e-5)
    names = [
        {path.name for path in (tmp_path / name).rglob("*") if not path.name.startswith("checkpoint-")}
        for name in ("one", "two")
    ]
    assert names[0] == names[1]


def test_ctrl_c_stops_all_with_one_checkpoint_and_the_line_to_resume(text_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(f"train {text_file} --out {out} {OPTIONS} --max-steps 100000 --eval-every 50000")
    assert process.stderr is not None
    said = ""
    while "loss" not in said.rpartition("before training")[2]:
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    said += process.communicate(timeout=HANGING)[1]
    found = re.search(r"^stopped by SIG\w+ after step (\d+) of 100000, saved; to resume: +(.*)$", said, re.MULTILINE)
    assert found, said
    assert said.count("stopped by") == 1
    assert (out / f"checkpoint-{found[1]}").is_dir()
    words = shlex.split(found[2])
    assert words[:5] == ["torchrun", "--nproc-per-node", "2", "-m", "tinygpt2"]
    code, _, errors = run(f"{shlex.join(words[5:])} --max-steps {int(found[1]) + 3}")
    assert code == 0, errors
    assert f"resumed after step {found[1]}\n" in errors
    assert history_in(out)["steps"][-1] == int(found[1]) + 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train missing.txt --device cpu", "tinygpt2: error: missing.txt: No such file or directory"),
        ("train - --device cpu", "tinygpt2: error: a pipe can be read by one process only; pass a file"),
        ("generate --model runs", "tinygpt2: error: only 'tinygpt2 train' uses several processes; start this"),
    ],
)
def test_an_error_is_said_once(words: str, expected: str) -> None:
    code, _, errors = run(words)
    assert code != 0
    assert errors.count(expected) == 1, errors
