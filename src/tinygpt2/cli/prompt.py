"""A prompt to type at, each line of which a model continues."""

import os
import shutil
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tinygpt2._internal.console import write_line
from tinygpt2.cli.common import naming
from tinygpt2.cli.display import Display
from tinygpt2.cli.options import decoded, suggested
from tinygpt2.cli.settings import SETTINGS, Setting, Values, is_greedy
from tinygpt2.cli.signals import CtrlC
from tinygpt2.cli.writing import Text, Writer, with_seed

_PROMPT, _MORE = "> ", ". "
_GREETING = "Type a text to continue; /help lists commands; Ctrl-C stops, Ctrl-D leaves."
_LEAVING = "Ctrl-C again, Ctrl-D or /quit leaves."
_LINES = r"A line that ends with \ goes on with the next one. // begins a text that begins with /."


def converse(dialogue: "Dialogue", read: Callable[[str], str] | None = None) -> None:
    """Reads lines and answers them until there are no more, or Ctrl-C twice in a row asks to leave.

    Args:
        dialogue: Answers them.
        read: Returns the next line, given what to show before it, without the line break; ``input`` by default.
    """
    read = _editor() if read is None else read
    write_line(_GREETING)
    leaving = False
    with CtrlC() as ctrl_c:
        while True:
            try:
                with ctrl_c.raises():
                    line = _line(read)
            except EOFError:
                break
            except KeyboardInterrupt:
                print()
                if leaving:
                    return
                write_line(_LEAVING)
                leaving = True
                continue
            leaving = False
            try:
                with ctrl_c.raises():
                    dialogue.answer(line)
            except EOFError:
                return
            except KeyboardInterrupt:
                print()  # ends the line of the text
    print()


def _line(read: Callable[[str], str]) -> str:
    line = decoded(read(_PROMPT))
    while line.endswith("\\"):
        line = f"{line[:-1]}\n{decoded(read(_MORE))}"
    return line


def _editor() -> Callable[[str], str]:
    """Returns ``input`` with a history, which is forgotten at the end, and in which pasted lines stay together."""
    try:
        import readline
    except ImportError:  # on Windows, whose terminal has a history of its own
        return input
    # Tabs are part of a text, and so are characters outside ASCII, also in the locale "C".
    settings = ["tab: self-insert", "set input-meta on", "set output-meta on", "set convert-meta off"]
    if os.environ.get("TERM", "dumb") != "dumb":
        settings.append("set enable-bracketed-paste on")  # which Python switches off
    for setting in settings:
        readline.parse_and_bind(setting)
    return input


@dataclass(frozen=True)
class _Command:
    help: str
    run: Callable[..., None]
    metavar: str | None = None


class Dialogue:
    """Answers lines, each a text to continue or a command, with settings that commands change.

    Args:
        writer: The model, which notes what it writes.
        display: Prints texts.
        values: The settings at the start.
    """

    def __init__(self, writer: Writer, display: Display, values: Values) -> None:
        self._writer, self._display = writer, display
        self._values = with_seed(values)
        self._number = 0  # of the next text that the seed gives
        self._last: Text | None = None
        self._commands = {
            "new": _Command("write a new text", self._new),
            "regenerate": _Command("write another continuation of the last prompt", self._regenerate),
            "continue": _Command("add to the last text", self._continue),
            **{each.words: _Command(each.help, partial(self._set, each), each.metavar) for each in SETTINGS.values()},
            "greedy": _Command("the same as /temperature 0", self._greedy),
            "show-probabilities": _Command("show how probable each piece is, or cease to", self._toggle_probabilities),
            "verbose": _Command("report seed and speed, or cease to", self._toggle_report),
            "options": _Command("list the values of the settings", self._list_settings),
            "help": _Command("list the commands", self._list_commands),
            "quit": _Command("leave, as Ctrl-D does", self._leave),
        }

    def answer(self, line: str) -> None:
        """Continues a text, or does what a command says; tells in one line what is wrong with it.

        Raises:
            EOFError: If it says to leave.
        """
        try:
            if line.startswith("/") and not line.startswith("//") and "\n" not in line:
                self._obey(*line.rstrip().partition(" ")[::2])
            elif line:
                self._write(line.removeprefix("/") if line.startswith("//") else line)
        except (RuntimeError, ValueError) as error:  # such as too little memory, or a character that the model has not
            write_line(f"error: {' '.join(str(error).split())}")

    def _obey(self, word: str, argument: str) -> None:
        command = self._commands.get(word[1:])
        if command is None:
            advice = (
                word[1:] and suggested(word, (f"/{name}" for name in self._commands))
            ) or "; /help lists the commands"
            raise ValueError(f"there is no command {word}{advice}")
        if command.metavar:
            command.run(argument.strip())
        elif argument:
            raise ValueError(f"{word} stands alone, got {argument.strip()!r} after it")
        else:
            command.run()

    def _write(self, prompt: str) -> None:
        self._last = self._writer.stream(prompt, self._values, self._number)
        self._number += 1
        self._display.stream(self._last)

    def _new(self) -> None:
        self._write("")

    def _regenerate(self) -> None:
        last = self._last_text()
        if is_greedy(self._values):
            write_line("note: greedy, so it is the same text; /temperature 0.8 draws others")
        self._write(last.prompt)

    def _continue(self) -> None:
        last = self._last_text()
        self._write(last.prompt + last.written)

    def _last_text(self) -> Text:
        if self._last is None:
            raise ValueError("there is no text yet; type one to continue, or /new")
        return self._last

    def _set(self, setting: Setting, argument: str) -> None:
        if argument:
            with naming(f"/{setting.words}"):
                value = setting.parse(argument)
            self._values = with_seed({**self._values, setting.name: value})
            if setting.name == "seed":
                self._number = 0
        write_line(f"{setting.words} {setting.shown(self._values[setting.name])}")

    def _greedy(self) -> None:
        self._set(SETTINGS["temperature"], "0")

    def _toggle_probabilities(self) -> None:
        self._display.probabilities = not self._display.probabilities
        self._display.explain()

    def _toggle_report(self) -> None:
        self._display.verbose = not self._display.verbose

    def _list_settings(self) -> None:
        for setting in SETTINGS.values():
            print(f"{setting.words:20}  {setting.shown(self._values[setting.name])}")

    def _list_commands(self) -> None:
        for name, command in self._commands.items():
            begin = f"/{name} {command.metavar or ''}"
            print(textwrap.fill(command.help, shutil.get_terminal_size().columns,
                                initial_indent=f"{begin:22} ", subsequent_indent=" " * 23))  # fmt: skip
        print(textwrap.fill(_LINES, shutil.get_terminal_size().columns))

    def _leave(self) -> None:
        raise EOFError
