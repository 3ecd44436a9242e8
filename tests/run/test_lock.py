"""Only one process, and one thread of it, is in a directory at a time."""

import errno
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tinygpt2.run import lock
from tinygpt2.run.lock import is_locked, locked

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="of POSIX")

# The module alone, without the package and its PyTorch, so that a process begins at once.
BEGIN = f"""
import os, runpy, sys, time
from pathlib import Path
locked = runpy.run_path({lock.__file__!r})["locked"]
directory = Path(sys.argv[1])
"""
HOLD = BEGIN + "with locked(directory):\n    print('in', flush=True)\n    sys.stdin.read()\n"
TRY = BEGIN + (
    "try:\n    with locked(directory): print('in')\nexcept BlockingIOError as error: print(f'refused: {error}')\n"
)
FORK = (
    BEGIN
    + """
with locked(directory):
    here, there = os.pipe()
    if os.fork() == 0:
        os.write(there, b".")
        time.sleep(5)
        os._exit(0)
    os.read(here, 1)
    print("in", flush=True)
    os._exit(1)  # as if it was killed
"""
)


@contextmanager
def another_process(script: str, directory: Path) -> Iterator["subprocess.Popen[str]"]:
    """Starts a process and returns it once it has the directory."""
    command = [sys.executable, "-c", script, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        try:
            yield process
        finally:
            process.kill()


def attempt(directory: Path) -> str:
    """Returns what a process says that asks for a directory."""
    command = [sys.executable, "-c", TRY, str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_whether_a_directory_is_locked_is_known_without_waiting(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with another_process(HOLD, tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        assert is_locked(tmp_path)
    with locked(tmp_path):
        pass  # whoever asked has left nothing
    assert not is_locked(tmp_path / "none")
    assert not list(tmp_path.parent.glob(".*.lock"))


def test_two_that_ask_at_the_same_time_do_not_see_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("has no shared locks")
    answers: list[bool] = []
    unlock = lock._unlock

    def ask_meanwhile(descriptor: int, directory: Path) -> None:
        monkeypatch.setattr(lock, "_unlock", unlock)
        answers.append(is_locked(directory))
        unlock(descriptor, directory)

    monkeypatch.setattr(lock, "_unlock", ask_meanwhile)
    assert not is_locked(tmp_path)
    assert answers == [False]


@pytest.mark.skipif(sys.platform == "win32", reason="locks another file there")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EBADF])
def test_a_file_system_that_cannot_lock_tells_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: int, *, shared: bool = False) -> None:
        raise OSError(number, f"no locks here, {shared=}")

    monkeypatch.setattr(lock, "_lock", fail)
    assert not is_locked(tmp_path)
    assert not caplog.records


def test_a_second_process_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    """``--resume`` on a run that was still running used to kill it."""
    with locked(tmp_path):
        expected = f"another process is training in {tmp_path}: wait until it ends, or choose another directory"
        assert attempt(tmp_path) == f"refused: {expected}\n"
        assert attempt(tmp_path) == f"refused: {expected}\n"
    assert attempt(tmp_path) == "in\n"


def test_a_process_that_is_killed_leaves_no_lock(tmp_path: Path) -> None:
    with another_process(HOLD, tmp_path) as process:
        with pytest.raises(BlockingIOError, match="another process is training in"), locked(tmp_path):
            pytest.fail("let in")
        process.kill()
        process.wait()
        with locked(tmp_path):
            pass


@POSIX
def test_the_workers_of_a_killed_run_do_not_keep_the_next_one_out(tmp_path: Path) -> None:
    """A forked process has copies of all descriptors, and a lock lasts as long as its last copy."""
    with another_process(FORK, tmp_path) as process:
        process.wait()
        with locked(tmp_path):
            pass


def test_a_second_thread_is_refused(tmp_path: Path) -> None:
    refusals: list[str] = []

    def enter() -> None:
        try:
            with locked(tmp_path):
                refusals.append("none")
        except BlockingIOError as error:
            refusals.append(str(error))

    def in_a_thread() -> str:
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        return refusals[-1]

    with locked(tmp_path):
        assert in_a_thread().startswith(f"another thread is training in {tmp_path}: ")
        with locked(tmp_path):
            pass
        assert in_a_thread().startswith("another thread")
    assert in_a_thread() == "none"


def test_the_same_thread_may_ask_again_and_the_lock_lasts_as_long_as_the_first(tmp_path: Path) -> None:
    with locked(tmp_path):
        with locked(tmp_path), locked(tmp_path):
            pass
        assert attempt(tmp_path).startswith("refused")
    assert attempt(tmp_path) == "in\n"


def test_an_error_inside_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), locked(tmp_path):
        raise KeyboardInterrupt
    assert attempt(tmp_path) == "in\n"


@POSIX
def test_all_names_of_a_directory_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    with locked(Path("run")), locked(tmp_path / "run"), locked(tmp_path / "link"), locked(Path("link/../run")):
        assert attempt(tmp_path / "link").startswith("refused")


def test_two_directories_are_two(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    with locked(tmp_path / "a"):
        assert attempt(tmp_path / "b") == "in\n"


@POSIX
def test_nothing_is_left_behind_and_the_directory_may_go_meanwhile(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    with locked(directory):
        assert list(tmp_path.rglob("*")) == [directory]
        shutil.rmtree(directory)
    assert list(tmp_path.iterdir()) == []
    directory.mkdir()
    with locked(directory):
        pass


def test_a_directory_that_is_not_there_is_no_directory_to_lock(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(tmp_path / "none"):
        pytest.fail("let in")


@POSIX
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF])
def test_where_a_file_system_cannot_lock_a_warning_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def flock(_: int, __: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with caplog.at_level(logging.WARNING), locked(tmp_path):
        assert f"nothing keeps a second process out of {tmp_path}" in caplog.text
        with locked(tmp_path):
            pass
    assert len(caplog.records) == 1


@POSIX
def test_another_failure_of_the_lock_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_: int, __: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208
    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", flock)
        with pytest.raises(OSError, match="Input/output"), locked(tmp_path):
            pytest.fail("let in")
    with locked(tmp_path):
        pass
    assert not before or len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
