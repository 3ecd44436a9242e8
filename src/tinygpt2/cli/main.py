"""The command ``tinygpt2``: its arguments, its exit codes and how it tells a failure."""

import argparse
import io
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from tinygpt2 import __version__
from tinygpt2.cli.commands import evaluate_command, generate_command, info_command, plot_command, tokenize_command
from tinygpt2.cli.train import EVALUATIONS, EXIT_SIGNAL, TOKENIZERS, saved_options, train_command
from tinygpt2.config import PRESETS
from tinygpt2.errors import NonFiniteLossError

EXIT_FAILURE = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    0 is success, 1 a failure (told in one line on stderr), 2 a wrong usage, 130 an interruption by Ctrl-C and 143 one
    by SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where a test or notebook has replaced it
            stream.reconfigure(encoding="utf-8", errors="replace")
    options = _parser().parse_args(arguments)
    try:
        if getattr(options, "resume", False):
            options = _parser(saved_options(options.out)).parse_args(arguments)
        code: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_SIGNAL + signal.SIGINT)
    except BrokenPipeError:
        _drop_unwritable_output()
        return _fail("nobody reads the output any more (broken pipe)")
    except Exception as error:
        _drop_unwritable_output()
        if options.traceback:
            raise
        return _fail(_describe(error))
    else:
        return code


def _drop_unwritable_output() -> None:
    """Sends what stdout still holds nowhere if it cannot be written: Python would try again when it exits."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int = EXIT_FAILURE) -> int:
    print(f"tinygpt2: {message}", file=sys.stderr)
    return code


def _describe(error: Exception) -> str:
    """Returns an error as one line."""
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"error: {place}{error.strerror}"
    known = isinstance(error, ValueError | OSError | NonFiniteLossError | ImportError)
    text = " ".join(str(error).split())
    return f"error: {text}" if known else f"error: {type(error).__name__}: {text} (--traceback shows where)"


@dataclass(frozen=True)
class _Number:
    """An argparse type: a number in a range, told in the user's words when it is not."""

    kind: Callable[[str], float]
    description: str
    accepts: Callable[[float], bool]

    def __call__(self, text: str) -> float:
        try:
            value = self.kind(text)
        except ValueError:
            self._refuse(text)
        if not self.accepts(value):
            self._refuse(text)
        return value

    def _refuse(self, text: str) -> NoReturn:
        raise argparse.ArgumentTypeError(f"expected {self.description}, got {text!r}")


_POSITIVE_INT = _Number(int, "a whole number of at least 1", lambda value: value >= 1)
_AT_LEAST_TWO = _Number(int, "a whole number of at least 2", lambda value: value >= 2)
_COUNT = _Number(int, "a whole number of at least 0", lambda value: value >= 0)
_POSITIVE = _Number(float, "a number greater than 0", lambda value: 0 < value < math.inf)
_NOT_NEGATIVE = _Number(float, "a number of at least 0", lambda value: 0 <= value < math.inf)
_PROBABILITY = _Number(float, "a number greater than 0 and at most 1", lambda value: 0 < value <= 1)
_RATIO = _Number(float, "a number greater than 0 and less than 1", lambda value: 0 < value < 1)
_DROPOUT = _Number(float, "a number of at least 0 and less than 1", lambda value: 0 <= value < 1)


def _text(argument: str) -> str:
    """An argparse type: text that the locale, "C" for instance, could not decode is read as UTF-8."""
    try:
        argument.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(argument).decode("utf-8", errors="replace")
    return argument


def _parser(run: Mapping[str, object] | None = None) -> argparse.ArgumentParser:
    """Returns the parser; the options of a run to resume take the place of the defaults."""
    parser = argparse.ArgumentParser(
        prog="tinygpt2",
        description="Train a GPT-2 from scratch on your own text, and generate with it.",
        epilog="'tinygpt2 train' alone trains a small model on the text that comes with the package. "
        "'tinygpt2 COMMAND --help' explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"tinygpt2 {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where in the code a failure came from")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(commands).set_defaults(**(run or {}))
    _add_generate(commands)
    _add_evaluate(commands)
    _add_tokenize(commands)
    _add_plot(commands)
    _add_info(commands)
    return parser


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - its only name


def _add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], summary: str, details: str = ""
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {details}",
    )
    parser.set_defaults(run=run)
    return parser


def _option(group: "argparse._ActionsContainer", flag: str, *, help: str, **settings: Any) -> None:  # noqa: A002, ANN401
    """Adds an option whose help ends with its default, where it has one."""
    shown = settings.get("default") is not None
    group.add_argument(flag, help=f"{help} (default: %(default)s)" if shown else help, **settings)


def _add_train(commands: Commands) -> argparse.ArgumentParser:
    parser = _add_command(
        commands,
        "train",
        train_command,
        "train a model on text files",
        "Without a FILE it trains on the article that comes with the package. The run directory gets the model "
        "(config.json and model.safetensors, as Hugging Face's transformers has them), the losses (history.json) and "
        "their plot (losses.png), two checkpoints, and in best the model with the lowest validation loss. Losses are "
        "in nats per token; an untrained model's is about the logarithm of the vocabulary. When the validation loss "
        "rises while the training loss falls, the model learns the text by heart: take more text, a smaller model, "
        "more dropout or fewer epochs.",
    )
    parser.add_argument("files", metavar="FILE", nargs="*", help="UTF-8 text files, joined; or one of tokens")
    _option(parser, "--out", metavar="DIR", help="run directory, new or empty (default: a new one in runs/)")

    shape = parser.add_argument_group("model")
    _option(shape, "--preset", choices=list(PRESETS), default="gpt2-nano", help="size of the model")
    _option(
        shape,
        "--context-length",
        type=_POSITIVE_INT,
        default=128,
        metavar="N",
        help="tokens that the model can look back on",
    )
    _option(shape, "--dropout", type=_DROPOUT, default=0.1, metavar="P", help="against learning by heart")
    _option(
        shape,
        "--tokenizer",
        choices=list(TOKENIZERS),
        default="trimmed",
        help="trimmed: those of GPT-2's tokens that the text needs, for a small and fast model; gpt2: all 50,257; "
        "char: one token for each character of the text",
    )
    _option(
        shape,
        "--from-pretrained",
        metavar="DIR",
        help="fine-tune the model in DIR; its size and tokenizer take the place of those above",
    )

    data = parser.add_argument_group("data")
    _option(
        data,
        "--train-ratio",
        type=_RATIO,
        default=0.9,
        metavar="R",
        help="share of the text to train on; the rest, from the end, validates",
    )
    _option(data, "--batch-size", type=_POSITIVE_INT, default=4, metavar="N", help="windows per batch")
    _option(
        data,
        "--accumulate",
        type=_POSITIVE_INT,
        default=1,
        metavar="N",
        help="batches per step: as one N times as large, in the memory of one",
    )

    optimisation = parser.add_argument_group("optimisation")
    _option(optimisation, "--epochs", type=_POSITIVE_INT, default=15, metavar="N", help="passes over the text")
    _option(optimisation, "--max-steps", type=_POSITIVE_INT, metavar="N", help="steps, instead of epochs")
    _option(
        optimisation,
        "--learning-rate",
        type=_POSITIVE,
        metavar="X",
        help="highest rate (default: 0.5 divided by the width of the model; a tenth of that with --from-pretrained)",
    )
    _option(
        optimisation,
        "--schedule",
        choices=["constant", "cosine"],
        default="cosine",
        help="how the rate goes on after the warm-up",
    )
    _option(
        optimisation,
        "--warmup-steps",
        type=_COUNT,
        metavar="N",
        help="steps in which the rate rises from nothing (default: 100, or a fifth of a shorter run)",
    )
    _option(optimisation, "--weight-decay", type=_NOT_NEGATIVE, default=0.1, metavar="X", help="AdamW's")
    _option(
        optimisation,
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="auto is bf16 on a GPU that has it",
    )
    optimisation.add_argument("--compile", action="store_true", help="compile the model, which pays on a GPU")
    _option(
        optimisation,
        "--seed",
        type=_COUNT,
        default=0,
        metavar="N",
        help="of weights, order and dropout: the same seed gives the same run",
    )

    report = parser.add_argument_group("report")
    _option(
        report,
        "--eval-every",
        type=_POSITIVE_INT,
        metavar="N",
        help=f"steps between evaluations (default: {EVALUATIONS} in the run)",
    )
    _option(
        report,
        "--eval-batches",
        type=_POSITIVE_INT,
        default=20,
        metavar="N",
        help="batches that an evaluation reads of each part",
    )
    _option(
        report,
        "--sample-prompt",
        type=_text,
        metavar="TEXT",
        help="text to continue after each epoch (default: how the text begins)",
    )
    _option(report, "--quiet", action="store_true", help="no progress and no samples")

    stopping = parser.add_argument_group("stopping and going on")
    _option(
        stopping,
        "--resume",
        action="store_true",
        help="go on with the run in --out from its newest checkpoint, with the options that it began with; more "
        "--epochs or --max-steps make it longer",
    )
    _option(
        stopping,
        "--allow-changes",
        action="store_true",
        help="resume although the text or other options are not the same",
    )
    _option(
        stopping,
        "--checkpoint-every",
        type=_POSITIVE_INT,
        metavar="N",
        help="steps between checkpoints (default: as often as a hundredth of the time allows)",
    )
    _option(stopping, "--keep", type=_AT_LEAST_TWO, default=2, metavar="N", help="checkpoints to keep")
    _option(
        stopping,
        "--early-stopping",
        type=_POSITIVE_INT,
        metavar="N",
        help="end when the validation loss was not lower in N evaluations",
    )
    _add_device(parser)
    return parser


def _add_generate(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "generate",
        generate_command,
        "continue a text",
        "The continuation is written as it comes. The flags narrow the choice of each token in this order: top-k, "
        "top-p, min-p, temperature.",
    )
    _add_model(parser)
    parser.add_argument("prompt", metavar="PROMPT", type=_text, help="text to continue; - reads it from standard input")
    _option(parser, "--max-new-tokens", type=_COUNT, default=100, metavar="N", help="how much to add at most")
    _option(
        parser,
        "--temperature",
        type=_NOT_NEGATIVE,
        default=0.8,
        metavar="T",
        help="below 1 the likely tokens come more often, above 1 the others; 0 is greedy",
    )
    _option(parser, "--top-k", type=_COUNT, default=50, metavar="K", help="only the K likeliest; 0 for all")
    _option(
        parser, "--top-p", type=_PROBABILITY, metavar="P", help="only the likeliest that together have probability P"
    )
    _option(
        parser,
        "--min-p",
        type=_PROBABILITY,
        metavar="P",
        help="only tokens at least P times as likely as the likeliest",
    )
    _option(parser, "--greedy", action="store_true", help="always the likeliest token")
    _option(parser, "--seed", type=_COUNT, metavar="N", help="the same seed gives the same text")
    _add_device(parser)


def _add_evaluate(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "evaluate",
        evaluate_command,
        "measure a model's loss and perplexity on text files",
        "Each token but the first is predicted once, from no more tokens before it than the model can look back on.",
    )
    _add_model(parser)
    parser.add_argument("files", metavar="FILE", nargs="+", help="UTF-8 text files")
    _option(parser, "--batch-size", type=_POSITIVE_INT, default=8, metavar="N", help="windows per batch")
    _add_device(parser)


def _add_tokenize(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "tokenize",
        tokenize_command,
        "turn text files of any size into a file of tokens",
        "It is made on every core, in little memory, and 'tinygpt2 train' reads it in place of the texts without "
        "loading it.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="UTF-8 text files; several are joined")
    _option(parser, "--out", metavar="FILE", required=True, help="file to write, for instance corpus.tokens")
    _option(parser, "--model", metavar="DIR", help="take the tokenizer of this model (default: GPT-2's)")


def _add_plot(commands: Commands) -> None:
    parser = _add_command(commands, "plot", plot_command, "plot the losses of a run")
    parser.add_argument("directory", metavar="DIR", help="run directory")
    _option(parser, "--out", metavar="FILE", help="picture to write, .png, .svg or .pdf (default: DIR/losses.png)")


def _add_info(commands: Commands) -> None:
    parser = _add_command(commands, "info", info_command, "tell what a run directory holds")
    parser.add_argument("directory", metavar="DIR", help="run directory")


def _add_model(parser: argparse.ArgumentParser) -> None:
    _option(
        parser,
        "--model",
        metavar="DIR",
        required=True,
        help="run directory, or any directory with a GPT-2 in Hugging Face layout",
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    _option(parser, "--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: the best there is)")
