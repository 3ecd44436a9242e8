"""The building blocks of all parsers, and the options that a run saves in a file."""

import argparse
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from typing_extensions import override

from tinygpt2._internal.checks import brief, shown
from tinygpt2._internal.files import read_json, write_text
from tinygpt2._internal.ranges import Bool, Check, Choice, Optional, Text

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

Command = Callable[[argparse.Namespace], int]
"""Runs a command with its options and returns the exit code."""

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001 - its only name
Group: TypeAlias = "argparse._ActionsContainer"  # noqa: SLF001 - a parser or one of its groups

FILES_HELP = (
    "texts (.txt, .md), rows of them (.jsonl, .json, .csv, .tsv, .parquet), also compressed (.gz, .bz2, .xz, .zst); "
    "directories of such; - is standard input"
)

_SAVED_LIMIT = 1 << 20  # bytes


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations, which a later option could make ambiguous, and suggests names instead."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - argparse's own
        super().__init__(allow_abbrev=False, **settings)

    def print_help(self, file: "SupportsWrite[str] | None" = None) -> None:
        """Prints the help; argparse itself ignores an error of the stream."""
        print(self.format_help(), end="", file=file)

    def options_first(self, words: Sequence[str]) -> list[str]:
        """Returns the words with the options before the arguments.

        Where two arguments may each be left out, argparse gives up the second at an option that follows the first.
        """
        options: list[str] = []
        arguments: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word == "--":
                arguments += rest
                break
            if not _is_option(word):
                arguments.append(word)
                continue
            options.append(word)
            takes = self._option_string_actions[word.partition("=")[0]].nargs
            while "=" not in word and rest and takes != 0 and not _is_option(rest[0]) and rest[0] != "--":
                options.append(rest.pop(0))
                if takes is None:
                    break
        return [*options, "--", *arguments] if arguments else options

    def check_options(self, words: Sequence[str]) -> None:
        """Exits with the code of incorrect usage if a word is an option that there is not.

        Argparse itself would first miss what a mistyped option should have given, and its versions differ.
        """
        known = self._option_string_actions
        for word in words:
            if word == "--":
                return
            flag = word.partition("=")[0]
            if _is_option(word) and flag not in known:
                advice = suggested(flag, known) or (
                    f"; '{self.prog} --help' lists the options, and -- goes before an argument that begins with a dash"
                )
                self.error(f"there is no option {flag}{advice}")


def _is_option(word: str) -> bool:
    """Returns whether argparse takes a word for an option, not for a value."""
    if not word.startswith("-") or word == "-" or (" " in word and "=" not in word.partition(" ")[0]):
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False


def suggested(word: str, known: Iterable[str]) -> str:
    """Returns a question whether one of the known names was meant; empty if none is alike.

    >>> suggested("--epoch", ["--epochs", "--eval-every"])
    '; did you mean --epochs?'
    """
    import difflib

    spelled = word.lower().replace("_", "-").lstrip("-")
    names = {name.lstrip("-"): name for name in known}
    alike = [name for name in names if name.startswith(spelled)] or difflib.get_close_matches(spelled, names, n=1)
    return f"; did you mean {' or '.join(names[name] for name in alike)}?" if alike else ""


def add_command(
    commands: Commands, name: str, run: Command, summary: str, details: str = ""
) -> argparse.ArgumentParser:
    """Adds a command and returns its parser."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {details}",
    )
    parser.set_defaults(run=run)
    # Listed once, in the help of the program, but accepted after the command, too.
    parser.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def add_option(
    group: Group,
    flag: str,
    help: str,  # noqa: A002 - argparse's word
    check: Check | None = None,
    *,
    metavar: str | None = None,
    default: object = None,
    required: bool = False,
    only_if_given: bool = False,
    several: bool = False,
) -> None:
    """Adds an option, whose help text ends with its default if it has one.

    Args:
        group: A parser, or a group of one.
        flag: Its name, such as ``--seed``.
        help: Its help text.
        check: The range of its values; ``None`` for any text that is not empty, for instance a path.
        metavar: Placeholder for the value in the help text.
        default: The value if the option is not given.
        required: Whether it must be given.
        only_if_given: Whether the parsed options contain it only if it was given. A switch is then given as on or, for
            instance with ``--no-compile``, as off.
        several: Whether it may be given several times. Its value is then the list of theirs.
    """
    check = check.inner if isinstance(check, Optional) else check
    settings: dict[str, Any] = {"default": argparse.SUPPRESS if only_if_given else default}
    if isinstance(check, Bool):
        settings["action"] = argparse.BooleanOptionalAction if only_if_given else "store_true"
        settings["default"] = argparse.SUPPRESS if only_if_given else False
    else:
        settings |= {"metavar": metavar, "required": required, "type": argument_type(check)}
        if isinstance(check, Choice):
            settings["choices"] = check.choices
        if several:
            settings["action"] = "append"
        if default is not None:
            help = f"{help} (default: {default})"  # noqa: A001
    group.add_argument(flag, help=help, **settings)


@dataclass(frozen=True)
class Escaped(Text):
    r"""A string that is not empty, written on the command line with the escapes of printf.

    >>> Escaped().parse(r"\n\x41\u4f60")
    '\nA你'
    """

    description: str = "a string that is not empty"

    @override
    def check(self, name: str, value: object) -> str:
        """Returns ``value``, a string."""
        if not super().check(name, value):
            raise ValueError(f"{name} must be {self.description}, got an empty one")
        return str(value)

    @override
    def parse(self, text: str) -> str:
        """Returns the string that a text with escapes denotes."""
        if not text:
            raise ValueError(f"expected {self.description}, got an empty one")
        return _ESCAPE.sub(_unescaped, text)


@dataclass(frozen=True)
class Pattern(Text):
    """A regular expression.

    >>> Pattern().parse("h[.]")
    'h[.]'
    """

    description: str = "a regular expression"

    @override
    def check(self, name: str, value: object) -> str:
        """Returns ``value``, a string."""
        text = super().check(name, value)
        try:
            re.compile(text)
        except re.error as error:
            raise ValueError(f"{name} must be {self.description}, got {shown(text)}: {error}") from None
        return text

    @override
    def parse(self, text: str) -> str:
        """Returns the text."""
        return self.check("the pattern", text)


_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{1,4}|U[0-9a-fA-F]{1,8}|[0-7]{1,3}|.|$)", re.DOTALL)
_SIGNS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'"}


def _unescaped(escape: re.Match[str]) -> str:
    code = escape[0][1:]
    if code in _SIGNS:
        return _SIGNS[code]
    digits = code.lstrip("xuU")
    try:
        return chr(int(digits, 8 if digits == code else 16))
    except (ValueError, OverflowError):
        raise ValueError(
            f"there is no escape {escape[0]}; expected \\n, \\t, \\\\, \\xHH, \\uHHHH or another of printf's"
        ) from None


def add_documents(parser: Group, *, only_if_given: bool = False) -> None:
    """Adds the options that tell the documents in files apart."""
    field_help = "column or key of the texts in rows"
    add_option(parser, "--field", field_help, Text(), metavar="NAME", default="text", only_if_given=only_if_given)
    separator_help = r"end of each document in text files, for instance '\n' or '<|endoftext|>' (default: of the file)"
    add_option(parser, "--separator", separator_help, Escaped(), metavar="STRING", only_if_given=only_if_given)


def add_device(parser: Group) -> None:
    """Adds the option for the device to compute on."""
    add_option(parser, "--device", "cpu, cuda, cuda:1 or mps (default: the best available)", metavar="NAME")


def argument_type(check: Check | None) -> Callable[[str], Any]:
    """Returns a range as an argparse type, which parses a value and explains what is wrong with it.

    Without a range, any text will do but an empty one, which is what an unset variable of a shell leaves.
    """

    def parse(text: str) -> Any:  # noqa: ANN401 - of the range's type
        if check is None:
            if not text:
                raise argparse.ArgumentTypeError("expected a value, got an empty one")
            return text
        try:
            return check.parse(decoded(text) if isinstance(check, Text) else text)
        except ValueError as error:
            advice = suggested(text, check.choices) if isinstance(check, Choice) else ""
            raise argparse.ArgumentTypeError(f"{error}{advice}") from None

    return parse


def decoded(argument: str) -> str:
    """Returns an argument decoded as UTF-8 if the locale, for instance "C", could not decode it."""
    try:
        argument.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(argument).decode("utf-8", errors="replace")
    return argument


def save_options(path: Path, options: Mapping[str, object]) -> None:
    """Writes options for `read_options`, atomically."""
    write_text(path, json.dumps(options, indent=1) + "\n")


def read_options(path: Path, ranges: Mapping[str, Check]) -> dict[str, Any]:
    """Reads options that `save_options` wrote.

    Raises:
        ValueError: If the file, which may have been edited, has an option that is not in ``ranges``, or a value that is
            out of range.
    """
    try:
        content = read_json(path, limit=_SAVED_LIMIT)
        return {name: _checked(name, value, ranges) for name, value in content.items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold the options of a run: {brief(error)}") from error


def _checked(name: str, value: object, ranges: Mapping[str, Check]) -> Any:  # noqa: ANN401 - of the range's type
    if name not in ranges:
        raise ValueError(f"there is no option {shown(name)}; expected {', '.join(ranges)}")
    return ranges[name].check(name, value)
