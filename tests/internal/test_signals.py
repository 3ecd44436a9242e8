"""Ctrl-C, SIGTERM and SIGHUP, deferred to the end of a block."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import pytest

from tinygpt2._internal.signals import deferred_signals

BOTH = [signal.SIGINT, signal.SIGTERM]
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


class HandledError(Exception):
    """What the handler of a test raises."""


@contextmanager
def handled(number: signal.Signals, handler: Any) -> Iterator[None]:  # noqa: ANN401 - a function or a constant
    """Sets the handler of a signal within the block."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def raises(number: int, _: FrameType | None) -> None:
    raise HandledError(number)


def nothing() -> None:
    """Does nothing."""


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_waits_for_the_end_of_the_block(number: signal.Signals) -> None:
    seen: list[str] = []
    with handled(number, raises):
        with pytest.raises(HandledError), deferred_signals(lambda: seen.append("received"), notice=None):  # noqa: PT012
            signal.raise_signal(number)
            seen.append("the rest of the block")
        assert signal.getsignal(number) is raises
    assert seen == ["received", "the rest of the block"]


@pytest.mark.parametrize("first", BOTH)
@pytest.mark.parametrize("second", BOTH)
def test_the_second_signal_takes_effect_at_once(first: signal.Signals, second: signal.Signals) -> None:
    seen: list[str] = []
    with handled(signal.SIGINT, raises), handled(signal.SIGTERM, raises):
        received = partial(seen.append, "received")
        with pytest.raises(HandledError) as caught, deferred_signals(received, notice=None):  # noqa: PT012
            signal.raise_signal(first)
            signal.raise_signal(second)
            seen.append("too late")
        assert caught.value.args == (second,)
        assert [signal.getsignal(number) for number in BOTH] == [raises, raises]
    assert seen == ["received"]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is none")
def test_a_closed_terminal_and_its_shell_are_one_signal() -> None:
    """Both send SIGHUP, and the second would have ended the run while it was saving."""
    number, seen = signal.SIGHUP, list[str]()
    with handled(number, raises):
        with pytest.raises(HandledError), deferred_signals(lambda: seen.append("received"), notice=None):  # noqa: PT012
            for _ in range(3):
                signal.raise_signal(number)
            seen.append("the rest of the block")
        assert signal.getsignal(number) is raises
    assert seen == ["received", "the rest of the block"]
    with handled(signal.SIGINT, raises), handled(number, raises):
        with pytest.raises(HandledError) as caught, deferred_signals(nothing, notice=None):  # noqa: PT012
            signal.raise_signal(number)
            signal.raise_signal(signal.SIGINT)
            seen.append("too late")
        assert caught.value.args == (signal.SIGINT,)
    assert "too late" not in seen


@pytest.mark.parametrize("number", BOTH)
def test_an_ignored_signal_stays_ignored(number: signal.Signals) -> None:
    """As in the background of a script, or under nohup."""
    seen: list[str] = []
    with handled(number, signal.SIG_IGN):
        with deferred_signals(lambda: seen.append("received"), notice="notice"):
            for _ in range(3):
                signal.raise_signal(number)
            assert signal.getsignal(number) is signal.SIG_IGN
        assert signal.getsignal(number) is signal.SIG_IGN
    assert seen == []


def test_the_notice_is_written_once(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), deferred_signals(nothing, notice="stopping"):
        signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr() == ("", "stopping\n")


@pytest.mark.parametrize("name", ["stderr", "__stderr__"])
def test_there_is_no_notice_without_stderr(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, name, None)
    with pytest.raises(KeyboardInterrupt), deferred_signals(nothing, notice="stopping"):
        signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("presses", [1, 2])
def test_signals_while_the_handlers_are_exchanged_are_not_lost(
    at: int, presses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two between the exchange of a handler and its note called the new one for ever."""
    real, calls, seen = signal.signal, list[int](), list[str]()

    def exchange(number: signal.Signals, handler: Callable[..., object]) -> Any:  # noqa: ANN401
        before = real(number, handler)
        calls.append(number)
        if len(calls) == at + 1:
            for _ in range(presses):
                signal.raise_signal(signal.SIGINT)
        return before

    monkeypatch.setattr(signal, "signal", exchange)
    with pytest.raises(KeyboardInterrupt), deferred_signals(lambda: seen.append("received"), notice=None):
        seen.append("the block")
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_another_thread_leaves_the_handlers_alone() -> None:
    seen: list[object] = []

    def look() -> None:
        with deferred_signals(nothing, notice=None):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


@POSIX
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 7), (signal.SIGTERM, -signal.SIGTERM), (getattr(signal, "SIGHUP", signal.SIGINT), 7)],
)
def test_a_forked_process_leaves_control_c_to_its_parent_and_ends_on_sigterm(
    number: signal.Signals, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each worker of a DataLoader repeated the notice, and did not end on SIGTERM."""
    with deferred_signals(nothing, notice="stopping"):
        child = os.fork()
        if child == 0:
            signal.raise_signal(number)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
    assert capfd.readouterr() == ("", "")
