"""The command ``tinygpt2 generate``."""

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tinygpt2._internal.ranges import Bool, Check, Int, Number, Text
from tinygpt2.cli.options import Commands, Group, add_command, add_device, add_model, add_option, argument_type
from tinygpt2.config import TRAINING_RANGES

if TYPE_CHECKING:
    import torch

    from tinygpt2.generation.samplers.protocol import Sampler
    from tinygpt2.model.gpt2 import GPT2Model
    from tinygpt2.tokenizers.protocol import Tokenizer

_COUNT = Int(minimum=0)
_ROWS = 16  # texts that are generated together; of gpt2-small, each may need 75 MB
_PROBABILITY = Number(above_minimum=True, maximum=1)

# The options of drawing tokens, with their defaults; at a temperature of 0 they hold, though nothing is drawn.
_DRAWING: Mapping[str, Any] = {"temperature": 0.8, "top_k": 50, "top_p": None, "min_p": None, "seed": None}


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "generate",
        generate_command,
        "continue a text, or write new ones",
        "A text ends where the model ends it, or at --max-new-tokens. One text is printed as it is generated; several "
        "one a line, or separated by lines of --- if one of them has several lines. The options narrow the choice of "
        "each token in this order: top-k, top-p, min-p, temperature.",
    )
    add_model(parser)
    prompt_help = "text to continue; - reads it from standard input; without one, a new text is written"
    parser.add_argument("prompt", metavar="PROMPT", nargs="?", default="", type=argument_type(Text()), help=prompt_help)
    add_option(parser, "--samples", "number of texts", Int(), metavar="N", default=1)
    add_option(parser, "--max-new-tokens", "maximum number of tokens to add", _COUNT, metavar="N", default=100)
    heat = "below 1 favours likely tokens, above 1 unlikely ones; 0 is greedy"
    _add(parser, "temperature", heat, Number(), "T")
    _add(parser, "top_k", "keep only the K likeliest tokens; 0 for all", _COUNT, "K")
    _add(parser, "top_p", "keep only the likeliest tokens whose total probability reaches P", _PROBABILITY, "P")
    _add(parser, "min_p", "keep only tokens at least P times as likely as the top one", _PROBABILITY, "P")
    add_option(parser, "--greedy", "always choose the likeliest token", Bool())
    _add(parser, "seed", "random seed; with the same options it gives the same texts", TRAINING_RANGES["seed"], "N")
    add_device(parser)


def _add(parser: Group, name: str, help_text: str, check: Check, metavar: str) -> None:
    """Adds an option of drawing tokens."""
    flag = f"--{name.replace('_', '-')}"
    add_option(parser, flag, help_text, check, metavar=metavar, default=_DRAWING[name], only_if_given=True)


def generate_command(options: argparse.Namespace) -> int:
    """Prints a prompt, and its continuation as it is generated; or several continuations."""
    from tinygpt2._internal.devices import choose_device
    from tinygpt2.cli.common import check_prompt, load

    sampler, seed = _sampler(options), getattr(options, "seed", None)
    device = choose_device(options.device)
    model, tokenizer = load(options.model, device, options.program)
    prompt = _standard_input() if options.prompt == "-" else options.prompt
    check_prompt(prompt, tokenizer)
    decoding = {
        "max_new_tokens": options.max_new_tokens,
        "sampler": sampler,
        "generator": _generator(seed, device),
    }
    if options.samples == 1:
        _print_one(model, tokenizer, prompt, decoding)
    else:
        _print_several(model, tokenizer, prompt, options.samples, decoding)
    return 0


def _print_one(model: "GPT2Model", tokenizer: "Tokenizer", prompt: str, decoding: dict[str, Any]) -> None:
    from tinygpt2.generation.text import stream_text

    pieces = stream_text(model, tokenizer, prompt, **decoding)  # which refuses a prompt before it is printed
    print(prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _print_several(
    model: "GPT2Model", tokenizer: "Tokenizer", prompt: str, count: int, decoding: dict[str, Any]
) -> None:
    from tinygpt2.generation.text import generate_text

    texts: list[str] = []
    while len(texts) < count:
        texts += generate_text(model, tokenizer, [prompt] * min(_ROWS, count - len(texts)), **decoding)
    print(("\n---\n" if any("\n" in text for text in texts) else "\n").join(texts))


def _standard_input() -> str:
    from tinygpt2.text.reading import open_standard_input

    if sys.stdin is None:
        raise ValueError("the prompt is -, standard input, but that is closed")
    with open_standard_input() as reader:
        return "".join(reader)


def _generator(seed: int | None, device: "torch.device") -> "torch.Generator":
    import torch

    generator = torch.Generator(device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def default_sampler() -> "Sampler":
    """Returns the sampler of a command line without options."""
    return _sampler(argparse.Namespace(greedy=False, samples=1))


def _sampler(options: argparse.Namespace) -> "Sampler":
    """Returns the sampler that the options describe: filters first, then the temperature, then the draw.

    Raises:
        ValueError: If an option of drawing, or several samples, were requested together with ``--greedy``.
    """
    from tinygpt2.generation.samplers.draws import GreedySampler, MultinomialSampler
    from tinygpt2.generation.samplers.filters import MinPSampler, TopKSampler, TopPSampler
    from tinygpt2.generation.samplers.temperature import TemperatureSampler

    given = {name: value for name, value in vars(options).items() if name in _DRAWING}
    if options.greedy and given:
        flag = f"--{next(iter(given)).replace('_', '-')}"
        raise ValueError(f"--greedy always chooses the likeliest token, so {flag} has no effect; omit one of the two")
    if options.greedy and options.samples > 1:
        raise ValueError("--greedy always gives the same text, so it cannot give several; omit --greedy or --samples")
    drawing = {**_DRAWING, **given}
    if options.greedy or drawing["temperature"] == 0:
        return GreedySampler()
    sampler: Sampler = MultinomialSampler()
    if drawing["temperature"] != 1:
        sampler = TemperatureSampler(drawing["temperature"])
    if drawing["min_p"] is not None:
        sampler = MinPSampler(drawing["min_p"], then=sampler)
    if drawing["top_p"] is not None:
        sampler = TopPSampler(drawing["top_p"], then=sampler)
    return TopKSampler(drawing["top_k"], then=sampler) if drawing["top_k"] else sampler
