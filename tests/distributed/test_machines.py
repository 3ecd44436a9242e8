"""A run on two machines, which are two network namespaces here, and the loss of the link between them."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "worker.py"
HANGING = 300  # seconds
TIMEOUT = 10  # seconds, of the process group
NAMES = ("tinygpt2-0", "tinygpt2-1")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def machines() -> Iterator[None]:
    """Two machines on a switch, with a link each."""
    if shutil.which("ip") is None:
        pytest.skip("there is no ip program to make network namespaces with")
    try:
        ip("netns", "add", NAMES[0])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces cannot be made: {error.stderr.strip()}")
    try:
        ip("netns", "add", NAMES[1])
        ip("link", "add", "link0", "netns", NAMES[0], "type", "veth", "peer", "name", "link1", "netns", NAMES[1])
        for number, name in enumerate(NAMES):
            ip("-n", name, "address", "add", f"10.77.0.{number + 1}/24", "dev", f"link{number}")
            ip("-n", name, "link", "set", f"link{number}", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def start(directory: Path, *words: str) -> list["subprocess.Popen[str]"]:
    """Starts a rank on each machine."""
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29500", "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, WORKER, directory / f"{number}", "--timeout", f"{TIMEOUT}",
             *words],
            env=os.environ | common | {"RANK": f"{number}", "GLOO_SOCKET_IFNAME": f"link{number}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, name in enumerate(NAMES)
    ]  # fmt: skip


def losses_in(said: str) -> list[float]:
    found = re.search(r"^losses(.*)$", said, re.MULTILINE)
    assert found, said
    return [float(word) for word in found[1].split()]


@pytest.mark.usefixtures("machines")
def test_a_link_that_is_lost_ends_both_in_bounded_time_and_the_run_resumes(tmp_path: Path) -> None:
    whole = [rank.communicate(timeout=HANGING) for rank in start(tmp_path / "whole")]
    expected = losses_in(whole[0][0])
    assert len(expected) == 12

    first, second = start(tmp_path / "cut", "--pause", "0.5")
    assert first.stdout is not None
    said = ""
    while "step 6\n" not in said:
        line = first.stdout.readline()
        assert line, said
        said += line
    ip("-n", NAMES[1], "link", "set", "link1", "down")
    began = time.monotonic()
    ends = [rank.communicate(timeout=HANGING) for rank in (first, second)]
    took = time.monotonic() - began
    assert took < 6 * TIMEOUT + 30  # a few waits of the process group's timeout, on a machine that may be busy
    for rank, (out, errors) in enumerate(ends):
        assert f"rank {rank}: LostRankError: rank {1 - rank} of 2 has ended or does not answer" in out, errors
    assert not list((tmp_path / "cut" / "1").glob("checkpoint-*"))  # the first machine alone has them

    ip("-n", NAMES[1], "link", "set", "link1", "up")
    again = [rank.communicate(timeout=HANGING) for rank in start(tmp_path / "cut", "--resume")]
    resumed = losses_in(again[0][0])
    assert 0 < len(resumed) < len(expected)
    assert resumed == expected[-len(resumed) :]
