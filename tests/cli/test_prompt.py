"""The prompt to type at: by lines that are given, and on a terminal."""

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tinygpt2 import GPT2Model, load_tokenizer
from tinygpt2.cli.display import Display
from tinygpt2.cli.main import main
from tinygpt2.cli.prompt import Dialogue, converse
from tinygpt2.cli.settings import values_of
from tinygpt2.cli.signals import CtrlC
from tinygpt2.cli.writing import Writer

if sys.platform != "win32":
    import pty
    import termios

Say = Callable[..., tuple[str, str]]


@pytest.fixture
def writer(plain_characters: Path) -> Writer:
    return Writer(GPT2Model.from_pretrained(plain_characters), load_tokenizer(plain_characters), records=True)


@pytest.fixture
def dialogue(writer: Writer) -> Dialogue:
    return Dialogue(writer, Display(colours=False), values_of({"max_new_tokens": 12, "seed": 1}))


@pytest.fixture
def say(dialogue: Dialogue, capsys: pytest.CaptureFixture[str]) -> Say:
    """Returns what answers lines, and returns what was printed and what was written to stderr."""

    def say(*lines: str) -> tuple[str, str]:
        for line in lines:
            dialogue.answer(line)
        return capsys.readouterr()

    return say


def test_a_line_is_continued_as_the_command_continues_it(
    say: Say, plain_characters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--seed", "1", "--max-new-tokens", "12", "--device", "cpu"]
    assert main(["generate", str(plain_characters), " The ", *words]) == 0
    expected = capsys.readouterr().out
    assert say(" The ") == (expected, "")


def test_the_next_texts_of_a_seed_are_others_and_come_again_with_it(say: Say) -> None:
    first, second, third = (say(line)[0] for line in ("The", "/regenerate", "/regenerate"))
    assert len({first, second, third}) == 3
    assert say("/seed 1") == ("", "seed 1\n")
    assert [say(line)[0] for line in ("/regenerate", "The", "/regenerate")] == [first, second, third]


def test_the_report_has_the_seed_that_gives_a_text_alone(say: Say) -> None:
    say("The", "/verbose")
    text, report = say("/regenerate")
    seed = re.search(r"; seed (\d+)$", report)
    assert seed is not None
    assert say(f"/seed {seed[1]}", "/regenerate")[0] == text
    assert say("/verbose", "/regenerate")[1] == ""


def test_without_a_seed_one_is_drawn(writer: Writer, capsys: pytest.CaptureFixture[str]) -> None:
    texts = set()
    for _ in range(2):
        Dialogue(writer, Display(), values_of({"max_new_tokens": 50})).answer("The")
        texts.add(capsys.readouterr().out)
    assert len(texts) == 2


def test_a_text_is_added_to(say: Say) -> None:
    first = say("/greedy", "The")[0].removesuffix("\n")
    assert len(first) == len("The") + 12
    longer = say("/continue")[0].removesuffix("\n")
    assert longer.startswith(first)
    assert len(longer) == len(first) + 12
    assert say("/max-new-tokens 24", "The")[0] == f"{longer}\n"


def test_a_new_text_has_no_prompt(say: Say) -> None:
    assert len(say("/new")[0]) <= 12 + 1


def test_an_empty_line_is_nothing(say: Say) -> None:
    assert say("") == ("", "")


@pytest.mark.parametrize("line", ["/regenerate", "/continue"])
def test_before_the_first_text_there_is_none_to_go_on_with(say: Say, line: str) -> None:
    assert say(line) == ("", "error: there is no text yet; type one to continue, or /new\n")


def test_greedy_says_that_nothing_else_comes(say: Say) -> None:
    text = say("/greedy", "The")[0]
    assert say("/regenerate") == (text, "note: greedy, so it is the same text; /temperature 0.8 draws others\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/temperature x", "/temperature: expected a number of at least 0, got 'x'"),
        ("/temperature -1", "/temperature: expected a number of at least 0, got '-1'"),
        ("/temperature 0.8 0.9", "/temperature: expected a number of at least 0, got '0.8 0.9'"),
        ("/temperature off", "/temperature: expected a number of at least 0, got 'off'"),
        ("/top-k 1.5", "/top-k: expected an integer of at least 0, got '1.5'"),
        ("/top-p 0", "/top-p: expected a number greater than 0 and at most 1, got '0'"),
        ("/min-p 2", "/min-p: expected a number greater than 0 and at most 1, got '2'"),
        ("/seed -1", "/seed: expected an integer of at least 0 and at most 18446744073709551615, got '-1'"),
        ("/max-new-tokens many", "/max-new-tokens: expected an integer of at least 0, got 'many'"),
        (r"/stop \q", r"/stop: there is no escape \q; expected \n, \t"),
        ("/temprature 1", "there is no command /temprature; did you mean /temperature?"),
        ("/top_k 3", "there is no command /top_k; did you mean /top-k?"),
        ("/fly", "there is no command /fly; /help lists the commands"),
        ("/", "there is no command /; /help lists the commands"),
        ("/etc/passwd is a file", "there is no command /etc/passwd; /help lists the commands"),
        ("/new text", "/new stands alone, got 'text' after it"),
        ("飞", "the prompt has '飞' (U+98DE) at position 0"),
    ],
)
def test_wrong_input_is_one_line_and_changes_nothing(say: Say, line: str, message: str) -> None:
    before = say("/options")
    printed, told = say(line)
    assert printed == ""
    assert told.startswith(f"error: {message}")
    assert told.count("\n") == 1
    assert say("/options") == before


def test_settings_are_set_and_shown(say: Say) -> None:
    assert say("/temperature 1.5", "/top-k 3", "/top-p 0.5", "/min-p 0.25", r"/stop \n\t") == (
        "",
        "temperature 1.5\ntop-k 3\ntop-p 0.5\nmin-p 0.25\nstop \\n\\t\n",
    )
    assert say("/top-p") == ("", "top-p 0.5\n")
    say("/top-p off", "/min-p  off ")
    listed = dict(line.split() for line in say("/options")[0].splitlines())
    assert listed["top-k"] == "3"
    assert listed["temperature"] == "1.5"
    assert (listed["top-p"], listed["min-p"], listed["stop"]) == ("off", "off", r"\n\t")
    say("/stop off", "/seed off")
    assert "stop off\n" in say("/stop")


def test_settings_have_an_effect(say: Say) -> None:
    greedy = say("/greedy", "The")[0]
    assert say("/temperature 5", "/top-k 1", "The")[0] == greedy
    assert say("/top-k 0", "The")[0] != greedy
    assert say("/max-new-tokens 0", "The")[0] == "The\n"


def test_help_names_every_command(say: Say) -> None:
    listed = re.findall(r"^/(\S+)", say("/help")[0], re.MULTILINE)
    assert {"regenerate", "continue", "temperature", "top-k", "top-p", "min-p", "seed", "stop", "quit"} <= set(listed)
    assert all(len(line) <= 80 for line in say("/help")[0].splitlines())


def test_two_slashes_begin_a_text(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a pasted text of several lines is none of the commands, whatever it begins with."""
    written: list[str] = []
    monkeypatch.setattr(Dialogue, "_write", lambda _, prompt: written.append(prompt))
    say("//x", "///x", "/quit\nis a text")
    assert written == ["/x", "//x", "/quit\nis a text"]


# --- the loop ---


class Typed:
    """Lines as a person types them; an exception is raised."""

    def __init__(self, *lines: str | type[BaseException]) -> None:
        self.lines = list(lines)
        self.shown: list[str] = []

    def __call__(self, shown: str) -> str:
        self.shown.append(shown)
        line = self.lines.pop(0)
        if isinstance(line, str):
            return line
        raise line


def test_it_goes_on_until_the_end_of_input(dialogue: Dialogue, capsys: pytest.CaptureFixture[str]) -> None:
    typed = Typed("/max-new-tokens 0", "The", "", "/fly", "fox", EOFError)
    converse(dialogue, typed)
    assert capsys.readouterr().out == "The\nfox\n\n"
    assert typed.shown == ["> "] * 6


def test_quit_leaves(dialogue: Dialogue) -> None:
    converse(dialogue, Typed("/quit"))


def test_a_backslash_at_the_end_goes_on_with_the_next_line(dialogue: Dialogue, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(dialogue, "_write", written.append)
    typed = Typed("one\\", "", "two\\", "three", "\\", "/x", "four\\", EOFError)
    converse(dialogue, typed)
    assert written == ["one\n", "two\nthree", "\n/x"]
    assert typed.shown[:3] == ["> ", ". ", "> "]


def test_ctrl_c_twice_in_a_row_leaves(dialogue: Dialogue, capsys: pytest.CaptureFixture[str]) -> None:
    typed = Typed(KeyboardInterrupt, "", KeyboardInterrupt, KeyboardInterrupt, "not read")
    converse(dialogue, typed)
    assert typed.lines == ["not read"]
    assert capsys.readouterr().err.count("Ctrl-C again, Ctrl-D or /quit leaves.") == 2


def test_ctrl_c_stops_a_text_and_keeps_what_there_is(
    dialogue: Dialogue, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the text can be continued."""
    printed: list[int] = []
    write = sys.stdout.write

    def interrupting(text: str) -> int:
        printed.append(len(text))
        if len(printed) == 5:
            signal.raise_signal(signal.SIGINT)
        return write(text)

    monkeypatch.setattr(sys.stdout, "write", interrupting)
    converse(dialogue, Typed("/max-new-tokens 1000000", "The", "/max-new-tokens 3", "/continue", EOFError))
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("The")
    assert second.startswith(first)
    assert 3 < len(first) < 20


def test_ctrl_c_is_an_exception_only_where_one_is_expected() -> None:
    def press_twice() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)  # which would interrupt what deals with the first
            dealt_with.append(True)

    dealt_with: list[bool] = []
    before = signal.getsignal(signal.SIGINT)
    with CtrlC() as ctrl_c:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), ctrl_c.raises():
            press_twice()
        assert dealt_with
        with ctrl_c.raises():
            pass
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_too_little_memory_is_one_line(
    dialogue: Dialogue, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("out of\nmemory")

    monkeypatch.setattr(Writer, "stream", fail)
    converse(dialogue, Typed("The", "fox", EOFError))
    assert capsys.readouterr().err.count("error: out of memory\n") == 2


# --- on a terminal ---

# The process becomes the leader of a terminal, whose Ctrl-C it then gets.
ON_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from tinygpt2.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
PROMPT = r"(\A|\n|\x1b\[\?2004h)> $"
CTRL_D, UP = b"\x04", b"\x1b[A"
PATIENCE = 10  # seconds
WAIT = 120  # seconds, in which even a busy machine does what takes it one


class Terminal:
    """A process on a terminal: keys are typed, and what it writes is read."""

    def __init__(self, *words: object) -> None:
        self.end, begin = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, *map(str, words)],
            stdin=begin, stdout=begin, stderr=begin, start_new_session=True, env=os.environ | {"TERM": "xterm"},
        )  # fmt: skip
        os.close(begin)

    def type(self, keys: bytes, pattern: str) -> str:
        """Types keys, and returns what is written until it matches at its end."""
        os.write(self.end, keys)
        return self.until(pattern)

    def until(self, pattern: str) -> str:
        """Returns what is written until it matches at its end."""
        content = b""
        while not re.search(pattern, found := content.decode(errors="replace"), re.DOTALL):
            byte = self._read(WAIT)
            assert byte, f"expected {pattern!r}, got {found!r}"
            content += byte
        return found

    def leave(self, keys: bytes = b"") -> int:
        """Types keys, and returns the exit code."""
        os.write(self.end, keys)
        while self._read(WAIT):
            pass
        return self.process.wait(WAIT)

    def signal(self, send: Callable[[], object]) -> None:
        """Sends a signal at the prompt.

        One that comes after the prompt is shown, but before the line editor waits, has its effect with the next one.
        """
        send()
        while not select.select([self.end], [], [], PATIENCE)[0]:
            send()

    def press_ctrl_c(self) -> None:
        os.write(self.end, b"\x03")

    def _read(self, seconds: float) -> bytes:
        """Returns the next byte; nothing if there are no more, or none comes in time."""
        try:
            return os.read(self.end, 1) if select.select([self.end], [], [], seconds)[0] else b""
        except OSError:  # nobody writes there any more
            return b""


@pytest.fixture
def at_prompt(run_directory: Path) -> Iterator[Callable[..., Terminal]]:
    """Returns what begins the command on a terminal, and waits for its prompt."""
    begun: list[Terminal] = []

    def begin(*options: object) -> Terminal:
        begun.append(Terminal("generate", run_directory, "--device", "cpu", *options))
        assert "Type a text to continue;" in begun[-1].until(PROMPT)
        return begun[-1]

    yield begin
    for terminal in begun:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.end)


@POSIX
def test_on_a_terminal_ctrl_c_stops_texts_and_not_the_program(at_prompt: Callable[..., Terminal]) -> None:
    terminal = at_prompt("--max-new-tokens", 10**9)
    for _ in range(2):
        terminal.type(b"The quick\n", "The quick.*The quick.{40}")
        terminal.press_ctrl_c()
        terminal.until(PROMPT)
    terminal.type(b"half a line", "half a line$")
    terminal.signal(terminal.press_ctrl_c)
    terminal.until(f"Ctrl-C again.*{PROMPT}")
    assert "half" not in terminal.type(b"/max-new-tokens 5\n", f"max-new-tokens 5\r\n.*{PROMPT}")
    assert re.search("The.*The.{5}\r\n", terminal.type(b"The\n", f"The.*The.*{PROMPT}"), re.DOTALL)
    terminal.signal(terminal.press_ctrl_c)
    terminal.until(f"Ctrl-C again.*{PROMPT}")
    terminal.signal(terminal.press_ctrl_c)
    assert terminal.leave() == 0


@POSIX
def test_on_a_terminal_there_is_a_history_and_a_paste_is_one_text(at_prompt: Callable[..., Terminal]) -> None:
    readline = pytest.importorskip("readline")
    terminal = at_prompt("--max-new-tokens", 0)
    terminal.type(b"The fox\n", f"The fox\r\n.*The fox\r\n.*{PROMPT}")
    terminal.type(b"dog\n", f"dog\r\n.*dog\r\n.*{PROMPT}")
    terminal.type(UP + UP, "The fox$")
    terminal.type(b" jumps\n", f"jumps\r\n.*The fox jumps\r\n.*{PROMPT}")
    if "GNU" in str(readline.__doc__):
        terminal.type(b"\x1b[200~one\ntwo\x1b[201~\n", f"2004l\rone\r\ntwo\r\n.*{PROMPT}")
    assert terminal.leave(CTRL_D) == 0


@POSIX
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_at_the_prompt_ends_it_and_leaves_the_terminal_as_it_was(
    number: signal.Signals, code: int, at_prompt: Callable[..., Terminal]
) -> None:
    terminal = at_prompt()
    terminal.signal(lambda: terminal.process.send_signal(number))
    assert terminal.leave() == code
    assert termios.tcgetattr(terminal.end)[3] & termios.ECHO


@POSIX
@pytest.mark.parametrize("options", [["--samples", "2"], ["--json"], [""]])
def test_on_a_terminal_several_texts_or_an_empty_prompt_are_written_at_once(
    options: list[str], plain_characters: Path
) -> None:
    terminal = Terminal("generate", plain_characters, *options, "--max-new-tokens", 3, "--device", "cpu")
    try:
        assert terminal.leave() == 0
    finally:
        terminal.process.kill()
        os.close(terminal.end)
