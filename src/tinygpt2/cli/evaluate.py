"""The command ``tinygpt2 evaluate``."""

import argparse
import re
from typing import TYPE_CHECKING

from tinygpt2._internal.ranges import Int
from tinygpt2.cli.options import FILES_HELP, Commands, add_command, add_device, add_documents, add_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinygpt2.evaluation.loss import Evaluation
    from tinygpt2.evaluation.passages import Passages
    from tinygpt2.evaluation.windows import Windows
    from tinygpt2.model.gpt2 import GPT2Model
    from tinygpt2.tokenizers.protocol import Tokenizer

_COLUMNS = ("document", "index", "byte", "id", "token", "log_probability", "probability", "rank")

_STANDARD_OUTPUT = "-"

_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "evaluate",
        evaluate_command,
        "measure a model's loss and perplexity on text files",
        "Every byte is predicted once. One file is one text; several files, or what stands between separators, are "
        "documents: each begins anew, and its end is predicted, too.",
    )
    parser.usage = "%(prog)s [OPTIONS] RUN FILE [FILE ...]"
    parser.add_argument(
        "first", metavar="RUN", help="run directory, or any directory with a GPT-2 in Hugging Face layout"
    )
    parser.add_argument("files", metavar="FILE", nargs="*", help=f"{FILES_HELP}; or a file of the model's tokens")
    add_option(parser, "--model", "the same as RUN; all other words are then FILEs", metavar="DIR")
    stride_help = "tokens between the beginnings of windows; fewer give each token a longer context, and take longer"
    add_option(parser, "--stride", f"{stride_help} (default: the context length)", Int(), metavar="N")
    add_option(parser, "--per-token", "write each token's probability and rank as a table; - for stdout", metavar="TSV")
    add_documents(parser)
    add_option(parser, "--batch-size", "windows per batch", Int(), metavar="N", default=8)
    add_device(parser)


def evaluate_command(options: argparse.Namespace) -> int:
    """Prints the loss of a model on texts, in all its units."""
    from contextlib import nullcontext

    from tinygpt2._internal.console import write_line
    from tinygpt2._internal.devices import choose_device
    from tinygpt2.cli.common import load, naming
    from tinygpt2.cli.inputs import notes_on, text_or_documents, token_files
    from tinygpt2.evaluation.passages import Passages
    from tinygpt2.evaluation.text import evaluate_text
    from tinygpt2.evaluation.windows import Windows
    from tinygpt2.text.documents import DocumentReader
    from tinygpt2.text.sources import STANDARD_INPUT

    directory, files = _model_and_files(options)
    tokens = token_files(files)
    if len(tokens) > 1:
        raise ValueError(f"a file of tokens is evaluated alone, but there are {len(tokens)}; evaluate one at a time")
    reader = None if tokens else DocumentReader(files, field=options.field, separator=options.separator)
    device = choose_device(options.device)
    model, tokenizer = load(directory, device, options.program)
    windows = Windows(model, options.stride, options.batch_size)
    source, table = tokens[0] if reader is None else text_or_documents(reader), options.per_token
    name = "standard input" if files[0] == STANDARD_INPUT else files[0]
    with naming(name) if isinstance(source, str) else nullcontext():
        if table is None:
            result = evaluate_text(model, tokenizer, source, stride=options.stride, batch_size=options.batch_size)
        else:
            result = _write_scores(table, model, Passages(tokenizer, source), windows)
    for note in [] if reader is None else notes_on(reader):
        write_line(note)
    rows = _rows(result)
    write = write_line if table == _STANDARD_OUTPUT else print
    for figure, value in rows.items():
        write(f"{figure:{max(map(len, rows))}}  {value}")
    return 0


def _model_and_files(options: argparse.Namespace) -> tuple[str, list[str]]:
    if options.model is not None:
        return options.model, [options.first, *options.files]
    if not options.files:
        raise ValueError(
            f"expected RUN and FILE, got only {options.first}; for instance: tinygpt2 evaluate runs/novel chapter.txt"
        )
    return options.first, options.files


def _rows(result: "Evaluation") -> dict[str, str]:
    from tinygpt2.cli.common import loss_in_words

    words = "" if result.word_perplexity is None else f", {_number(result.word_perplexity)} per word"
    counts = {
        "tokens": result.tokens, "bytes": result.bytes, "words": result.words, "documents": result.documents
    }  # fmt: skip
    return {
        "loss": loss_in_words(result.loss, result.bits_per_byte),
        "perplexity": f"{_number(result.perplexity)} per token{words}",
        "measured on": ", ".join(f"{count:,} {name}" for name, count in counts.items() if count is not None),
    }


def _number(perplexity: float) -> str:
    return f"{perplexity:,.2f}" if perplexity < 1e6 else f"{perplexity:.3g}"


def _write_scores(path: str, model: "GPT2Model", passages: "Passages", windows: "Windows") -> "Evaluation":
    """Writes a row for each token, and returns the evaluation that they add up to."""
    import sys
    from typing import BinaryIO

    from tinygpt2._internal.files import atomic_write
    from tinygpt2.evaluation.loss import Evaluation
    from tinygpt2.evaluation.scores import score_passages
    from tinygpt2.losses import perplexity

    nats, tokens = 0.0, 0

    def write(line: "Callable[[str], object]") -> None:
        nonlocal nats, tokens
        line("\t".join(_COLUMNS) + "\n")
        document, index = -1, 0
        for number, each in score_passages(model, passages, windows):
            document, index = number, index + 1 if number == document else 0
            token = _escaped(passages.tokenizer, each.token)
            place = "" if each.start is None else each.start
            line(f"{document}\t{index}\t{place}\t{each.token}\t{token}\t{each.log_probability:.6f}\t"
                 f"{each.probability:.6g}\t{each.rank}\n")  # fmt: skip
            nats, tokens = nats - each.log_probability, tokens + 1

    def write_file(file: "BinaryIO") -> None:
        write(lambda line: file.write(line.encode("utf-8")))

    if path == _STANDARD_OUTPUT:
        write(sys.stdout.write)
    else:
        atomic_write(path, write_file)
    loss = nats / tokens
    return passages.completed(Evaluation(loss=loss, perplexity=perplexity(loss), tokens=tokens))


def _escaped(tokenizer: "Tokenizer", token: int) -> str:
    r"""Returns the text of a token on one line, with the escapes of Python; ``\xe4`` may be part of a character."""
    import tiktoken

    if isinstance(tokenizer, tiktoken.Encoding):
        content = tokenizer.decode_single_token_bytes(token)
    else:
        content = tokenizer.decode([token]).encode("utf-8")
    text = content.replace(b"\\", b"\\\\").decode("utf-8", errors="backslashreplace")
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
