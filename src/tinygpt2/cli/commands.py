"""The commands of ``tinygpt2``, and the options that words give to one of them."""

import argparse
from collections.abc import Sequence

from tinygpt2.cli.doctor import add as add_doctor
from tinygpt2.cli.evaluate import add as add_evaluate
from tinygpt2.cli.generate import add as add_generate
from tinygpt2.cli.hints import to_paste
from tinygpt2.cli.info import add as add_info
from tinygpt2.cli.options import Commands, Parser, suggested
from tinygpt2.cli.page import add as add_page
from tinygpt2.cli.plot import add as add_plot
from tinygpt2.cli.quantize import add as add_quantize
from tinygpt2.cli.tokenize import add as add_tokenize
from tinygpt2.cli.train_parser import add_parser


def parsed(words: Sequence[str], program: Sequence[str]) -> argparse.Namespace:
    """Returns the options that words give, and in ``program`` and ``words`` the words themselves.

    Raises:
        SystemExit: If they are no correct usage, or asked for help.
    """
    parser = MainParser(to_paste(program))
    commands = parser.commands.choices
    place = next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))
    parser.check_options(words[:place])
    in_order = list(words)
    if place < len(words):
        command = words[place]
        if command not in commands:
            advice = suggested(command, commands) or f"; expected one of {', '.join(commands)}"
            parser.error(f"there is no command {command!r}{advice}")
        commands[command].check_options(words[place + 1 :])
        in_order = [*words[: place + 1], *commands[command].options_first(words[place + 1 :])]
    options = parser.parse_args(in_order)
    options.program, options.words = program, words
    return options


class MainParser(Parser):
    """The parser of all commands.

    Args:
        program: The program as it was called.
    """

    def __init__(self, program: str = "tinygpt2") -> None:
        super().__init__(
            prog=program,
            description="Train a GPT-2 from scratch on your own text, and generate with it.",
            epilog="'tinygpt2 train' alone trains a small model on the built-in sample text. "
            "'tinygpt2 COMMAND --help' explains a command.",
        )
        self.add_argument("--version", action=_Version)
        self.add_argument("--traceback", action="store_true", help="show where in the code a failure occurred")
        self.commands = self.add_subparsers(
            title="commands", metavar="COMMAND", dest="command", required=True, parser_class=Parser
        )
        for add in (
            _add_train, add_generate, add_evaluate, add_quantize, add_tokenize, add_plot, add_page, add_info, add_doctor
        ):  # fmt: skip
            add(self.commands)


def _add_train(commands: Commands) -> None:
    add_parser(commands, _train)


def _train(arguments: argparse.Namespace) -> int:
    from tinygpt2.cli.train import train_command

    return train_command(arguments)


class _Version(argparse.Action):
    """Prints the version; looking it up takes longer than all the rest of a parser."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS,
                         help="show program's version number and exit")  # fmt: skip

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"tinygpt2 {_version()}")
        parser.exit()


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tinygpt2")
    except PackageNotFoundError:
        return "(not installed)"
