"""The command ``tinygpt2 quantize``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tinygpt2.cli.options import FILES_HELP, Commands, add_command, add_documents

if TYPE_CHECKING:
    from tinygpt2.model.gpt2 import GPT2Model
    from tinygpt2.text.documents import DocumentReader
    from tinygpt2.tokenizers.protocol import Tokenizer


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "quantize",
        quantize_command,
        "write a copy of a model with weights of 8 bits",
        "It takes a quarter of the space and writes faster on a CPU; all commands but train read it. With files of "
        "text from which nothing was learned, it says what that costs in bits per byte.",
    )
    parser.usage = "%(prog)s [OPTIONS] RUN OUT [FILE ...]"
    parser.add_argument(
        "directory", metavar="RUN", help="run directory, or any directory with a GPT-2 in Hugging Face layout"
    )
    parser.add_argument("out", metavar="OUT", help="directory to write, which must not exist or be empty")
    parser.add_argument("files", metavar="FILE", nargs="*", help=FILES_HELP)
    add_documents(parser)


def quantize_command(options: argparse.Namespace) -> int:
    """Writes a model with weights of 8 bits, and prints its size and its loss beside those of the one it was made from.

    The computation is on the CPU, for which such weights are made.
    """
    import torch

    from tinygpt2._internal.console import write_line
    from tinygpt2.cli.common import load
    from tinygpt2.cli.inputs import notes_on
    from tinygpt2.model.quantize import quantize
    from tinygpt2.text.documents import DocumentReader

    out = Path(options.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists already; name a new directory, or an empty one")
    reader = DocumentReader(options.files, field=options.field, separator=options.separator) if options.files else None
    model, tokenizer = load(options.directory, torch.device("cpu"), options.program)
    small = quantize(model)
    rows = {"weights": f"{_megabytes(model)} before, {_megabytes(small)} now"}
    if reader is not None:
        rows["bits per byte"] = _quality(reader, tokenizer, model, small)
        for note in notes_on(reader):
            write_line(note)
    small.save_pretrained(out, tokenizer=tokenizer)
    for figure, value in rows.items():
        print(f"{figure:{max(map(len, rows))}}  {value}")
    if reader is None:
        print("what that costs is not known; name files of text from which nothing was learned to measure it")
    return 0


def _quality(reader: "DocumentReader", tokenizer: "Tokenizer", before: "GPT2Model", now: "GPT2Model") -> str:
    from tinygpt2.cli.inputs import text_or_documents
    from tinygpt2.evaluation.text import evaluate_text

    found = text_or_documents(reader)
    source = found if isinstance(found, str) else list(found)  # to be read twice
    old, new = (evaluate_text(model, tokenizer, source) for model in (before, now))
    if old.bits_per_byte is None or new.bits_per_byte is None:
        return f"not known; {old.loss:.4f} nats per token before, {new.loss:.4f} now"
    return f"{old.bits_per_byte:.4f} before, {new.bits_per_byte:.4f} now, of {old.bytes:,} bytes"


def _megabytes(model: "GPT2Model") -> str:
    return f"{sum(weight.nbytes for weight in model.state_dict().values()) / 1e6:,.1f} MB"
