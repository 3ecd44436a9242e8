"""Lines for a person who may no longer be there."""

import errno
import io
import sys

import pytest

from tinygpt2._internal.console import write_line


@pytest.mark.parametrize("number", [errno.EIO, errno.EPIPE, errno.ENOSPC])
@pytest.mark.parametrize("fails", ["write", "flush"])
def test_a_terminal_that_was_closed_is_no_failure(number: int, fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "gone")

    stream = io.StringIO()
    monkeypatch.setattr(stream, fails, fail, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    write_line("a line")


def test_a_line_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    write_line("a line")
    assert capsys.readouterr() == ("", "a line\n")
