"""The arguments of ``tinygpt2 train``, with their help texts."""

import argparse

from tinygpt2._internal.ranges import Bool
from tinygpt2.cli.options import (
    FILES_HELP,
    Command,
    Commands,
    Group,
    add_command,
    add_device,
    add_documents,
    add_option,
    argument_type,
)
from tinygpt2.cli.train_options import DEFAULTS, FLAGS, RANGES, SMALL, SNAPSHOTS


def add_parser(commands: Commands, run: Command) -> None:
    """Adds the command, which calls ``run``."""
    parser = add_command(
        commands,
        "train",
        run,
        "train a model on text files",
        "Without a FILE, it trains on the built-in sample text. What is not given is chosen for the text, for the "
        "machine, whose speed is measured, and for the minutes; it is printed with the reasons. The run directory "
        "receives the model with the lowest validation loss (config.json and model.safetensors, in the format of "
        "Hugging Face's transformers), the losses (history.json) and their plot (losses.png), and two checkpoints, the "
        "newer with the last model. Losses are in nats per token; that of an untrained model is about the logarithm of "
        "the vocabulary size. If the validation loss rises while the training loss falls, the model is memorising the "
        "text: use more text, a smaller model, more dropout or fewer epochs.",
    )
    files_help = f"{FILES_HELP}. Each is a document, but a single text goes on. Or files of tokens"
    parser.add_argument(
        "files", metavar="FILE", nargs="*", type=argument_type(None), default=argparse.SUPPRESS, help=files_help
    )
    add_option(parser, "--out", "run directory, new or empty (default: a new one in runs/)", metavar="DIR")
    _add(
        parser,
        "minutes",
        "what the run may take in all (default: by the size of the text); it takes longer if the machine becomes "
        "slower. With --epochs or --max-steps, they decide the size of the model only",
        "M",
    )
    _add_model_options(parser)
    _add_data_options(parser)
    _add_optimisation_options(parser)
    _add_report_options(parser)
    _add_resuming_options(parser)
    add_device(parser)


def _add(group: Group, name: str, help_text: str, metavar: str | None = "N") -> None:
    """Adds an option of a run, by its range and its default."""
    check, default = RANGES[name], DEFAULTS[name]
    add_option(group, FLAGS[name], help_text, check, metavar=metavar, default=default, only_if_given=True)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    _add(group, "preset", "a shape with a name", None)
    _add(group, "n_layer", "number of blocks")
    _add(group, "n_head", "number of attention heads of each block")
    _add(group, "n_embd", "width")
    _add(group, "context_length", "maximum number of tokens that the model can look back on")
    _add(group, "dropout", "dropout probability, against overfitting", "P")
    _add(
        group,
        "tokenizer",
        "bpe: byte pairs learned from the text; trimmed: the GPT-2 tokens that the text needs; gpt2: all 50,257; char: "
        "one token for each character of the text; auto: by the text's size and script; or a directory or a "
        "tokenizer.json that has one",
        "auto|bpe|trimmed|gpt2|char|PATH",
    )
    _add(group, "vocab_size", "tokens of a vocabulary of byte pairs (default: by the size of the text)")
    add_option(
        group,
        "--from-pretrained",
        "fine-tune the model in DIR, or of that name on the Hugging Face Hub, with its size and tokenizer; --dropout "
        "and --context-length, which may be smaller, then default to the model's",
        metavar="DIR",
        only_if_given=True,
    )
    _add(
        group,
        "train_only",
        "with --from-pretrained, train only the weights with a match of this regular expression in their names, "
        "such as 'h[.](10|11)[.]|ln_f'",
        "PATTERN",
    )


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    add_documents(group, only_if_given=True)
    val_help = "validate on these instead of a part of the text"
    group.add_argument(
        "--val", metavar="FILE", nargs="+", type=argument_type(None), default=argparse.SUPPRESS, help=val_help
    )
    _add(
        group,
        "train_ratio",
        "share of the text to train on; the rest is for validation: the end of the text, or, of 20 documents or more, "
        "whole ones drawn by the seed",
        "R",
    )
    _add(group, "batch_size", "windows per batch")
    _add(group, "accumulate", "batches per step: equivalent to one N times as large, with the memory of one")
    _add(
        group,
        "bpe_dropout",
        "probability of skipping each merge of byte pairs, so that each epoch cuts words into other tokens, against "
        "overfitting",
        "P",
    )
    _add(group, "token_noise", "probability of replacing each input token by a random one, against overfitting", "P")
    _add(group, "noise_epochs", "number of the first epochs that have such noise (default: all)")


def _add_optimisation_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("optimisation")
    _add(
        group,
        "teachers",
        "number of first models, from which the model to keep then learns, together with an n-gram model and on text "
        "that they write, too: best for a short text; epochs, dropout and noise are for them",
    )
    _add(group, "student_steps", "number of steps in which it learns from them")
    _add(group, "epochs", "passes over the text")
    _add(group, "max_steps", "number of steps, instead of epochs")
    _add(group, "optimizer", "muon: Muon for the matrices in the blocks, AdamW for the rest", None)
    _add(group, "spelling", "let tokens of similar spelling share updates of their embeddings")
    _add(
        group,
        "learning_rate",
        "peak learning rate",
        "X",
    )
    _add(group, "schedule", "how the learning rate changes after the warm-up", None)
    _add(
        group,
        "warmup_steps",
        "steps over which the learning rate rises from zero",
    )
    _add(group, "weight_decay", "decoupled weight decay", "X")
    _add(group, "ema_decay", "decay of the moving average of the weights, which is then the model; 0 is none", "X")
    _add(group, "precision", "auto is bf16 on a GPU that computes in it", None)
    _add(group, "compile", "compile the model (default: in a long run on a CUDA GPU)")
    _add(group, "seed", "seed of weights, data order and dropout; the same seed gives the same run")


def _add_report_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("report")
    _add(
        group,
        "eval_every",
        "steps between evaluations",
    )
    _add(
        group,
        "eval_batches",
        "batches that an evaluation reads from each part of the text",
    )
    _add(
        group,
        "sample_prompt",
        "text to continue after each epoch; '' for no samples (default: the beginning of the text)",
        "TEXT",
    )
    _add(
        group,
        "snapshots",
        "steps after which to keep the weights, in a byte each, so that 'tinygpt2 page' can show how it learned "
        f"(default: {SNAPSHOTS} if it has at most {SMALL / 1e6:g} million parameters, or else 0)",
    )
    add_option(group, "--quiet", "no progress and no samples", Bool())


def _add_resuming_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("stopping and resuming")
    add_option(
        group,
        "--resume",
        "resume the run in --out from its newest checkpoint, with its original options; --epochs or "
        "--max-steps, either of which replaces the other, extends it",
        Bool(),
    )
    add_option(group, "--allow-changes", "resume even if the text or other options have changed", Bool())
    _add(
        group,
        "checkpoint_every",
        "steps between checkpoints (default: as often as a hundredth of the running time allows)",
    )
    _add(group, "keep", "checkpoints to keep")
    _add(group, "early_stopping", "stop after N evaluations without a lower validation loss; 0 for never")
