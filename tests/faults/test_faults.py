"""A tenth of the faults and less, with every run of the tests. CONTRIBUTING.md says how to run all."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from tinygpt2 import GPT2Config, GPT2Model, TrainingConfig, TrainState, make_dataloader, newest_checkpoint, train

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="forks, limits, mounts")]

RUN = Path(__file__).with_name("run.py")


def test_nothing_is_lost_or_wrong(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, str(RUN), "--kills", "20", "--files", "2000", "--json", str(report)]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    content = json.loads(report.read_text(encoding="utf-8"))
    assert content == {
        "kills": content["kills"],
        "writers": content["writers"],
        "files": 2000,
        "inputs": 2000,
        "failures": [],
    }
    assert content["kills"] >= 20
    assert content["writers"] >= 20


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A directory with checkpoints of steps 2 and 4."""
    directory = tmp_path / "run"
    run(directory, max_steps=4)
    return directory


def run(directory: Path, **options: object) -> None:
    torch.manual_seed(0)
    model = GPT2Model(GPT2Config(vocab_size=61, context_length=8, n_layer=1, n_head=2, n_embd=32))
    loader = make_dataloader(list(range(61)) * 4, batch_size=4, context_length=8, shuffle=True)
    callbacks = options.pop("callbacks", ())
    config = TrainingConfig(eval_batches=1, **options)  # type: ignore[arg-type]
    train(
        model, loader, config=config, callbacks=callbacks, device="cpu", checkpoint_dir=directory,  # type: ignore[arg-type]
        checkpoint_every=2, resume=True, progress=False,
    )  # fmt: skip


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def in_child(work: Callable[[], None], before: Callable[[], object]) -> None:
    """Forks, takes something away from the child, and asserts that ``work`` passes in it."""
    child = os.fork()
    if child == 0:
        try:
            before()
            work()
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - this process must not go on
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def refused(directory: Path, number: int) -> Callable[[], None]:
    def work() -> None:
        with pytest.raises(OSError, match="cannot save a checkpoint of step 6") as caught:
            run(directory, max_steps=8)
        assert caught.value.errno == number

    return work


def limit_files() -> None:
    import resource  # noqa: PLC0415 - POSIX

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def become_nobody() -> None:
    if os.geteuid() == 0:
        os.seteuid(65534)


def test_a_disk_that_is_full_is_one_error_and_the_old_checkpoints_stay(begun: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    before = content(begun)
    in_child(refused(begun, errno.EFBIG), limit_files)
    assert content(begun) == before
    run(begun, max_steps=8)
    assert newest_checkpoint(begun).name == "checkpoint-8"


def test_a_small_file_system_that_fills_up(begun: Path, small_disk: Path) -> None:
    """The real thing, where this user may mount it."""
    run(small_disk / "run", max_steps=4)
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="space"):
        filler.write_bytes(bytes(2 << 20))
    before = content(small_disk / "run")
    refused(small_disk / "run", errno.ENOSPC)()
    assert content(small_disk / "run") == before
    filler.unlink()
    run(small_disk / "run", max_steps=8)
    run(begun, max_steps=8)
    assert content(begun / "checkpoint-8") == content(small_disk / "run" / "checkpoint-8")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_directory_that_may_not_be_written_is_one_error() -> None:
    with TemporaryDirectory() as place:  # not tmp_path, which nobody but its owner may enter
        Path(place).chmod(0o755)
        directory = Path(place, "run")
        run(directory, max_steps=4)
        before = content(directory)
        directory.chmod(0o555)
        in_child(refused(directory, errno.EACCES), become_nobody)
        assert content(directory) == before


def test_a_directory_that_is_removed_underneath_is_one_error(tmp_path: Path) -> None:
    directory = tmp_path / "run"

    def remove(state: TrainState) -> None:
        if state.event == "step" and state.step == 5:
            directory.rename(tmp_path / "elsewhere")

    with pytest.raises(FileNotFoundError, match="cannot save a checkpoint of step 6"):
        run(directory, max_steps=8, callbacks=[remove])
    assert not directory.exists()
    assert sorted(path.name for path in (tmp_path / "elsewhere").glob("checkpoint-*")) == [
        "checkpoint-2",
        "checkpoint-4",
    ]
    run(tmp_path / "elsewhere", max_steps=8)
