"""The command ``tinygpt2 generate``."""

import argparse
import sys

import torch

from tinygpt2._internal.checks import Bool, Int, Number, Text
from tinygpt2._internal.devices import choose_device
from tinygpt2.cli.common import load
from tinygpt2.cli.options import Commands, add_command, add_device, add_model, add_option, argument_type
from tinygpt2.config import TRAINING_RANGES
from tinygpt2.generation.samplers import (
    GreedySampler,
    MinPSampler,
    MultinomialSampler,
    Sampler,
    TemperatureSampler,
    TopKSampler,
    TopPSampler,
)
from tinygpt2.generation.text import stream_text

_COUNT = Int(minimum=0)
_PROBABILITY = Number(above_minimum=True, maximum=1)


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "generate",
        generate_command,
        "continue a text",
        "The continuation is printed as it is generated. The options narrow the choice of each token in this order: "
        "top-k, top-p, min-p, temperature.",
    )
    add_model(parser)
    prompt_help = "text to continue; - reads it from standard input"
    parser.add_argument("prompt", metavar="PROMPT", type=argument_type(Text()), help=prompt_help)
    add_option(parser, "--max-new-tokens", "maximum number of tokens to add", _COUNT, metavar="N", default=100)
    heat = "below 1 favours likely tokens, above 1 unlikely ones; 0 is greedy"
    add_option(parser, "--temperature", heat, Number(), metavar="T", default=0.8)
    add_option(parser, "--top-k", "keep only the K likeliest tokens; 0 for all", _COUNT, metavar="K", default=50)
    add_option(
        parser, "--top-p", "keep only the likeliest tokens whose total probability reaches P", _PROBABILITY, metavar="P"
    )
    add_option(
        parser, "--min-p", "keep only tokens at least P times as likely as the top one", _PROBABILITY, metavar="P"
    )
    add_option(parser, "--greedy", "always choose the likeliest token", Bool())
    add_option(parser, "--seed", "random seed; the same seed gives the same text", TRAINING_RANGES["seed"], metavar="N")
    add_device(parser)


def generate_command(options: argparse.Namespace) -> int:
    """Prints a prompt, and its continuation as it is generated."""
    device = choose_device(options.device)
    model, tokenizer = load(options.model, device)
    prompt = sys.stdin.buffer.read().decode("utf-8") if options.prompt == "-" else options.prompt
    print(prompt, end="", flush=True)
    for piece in stream_text(
        model,
        tokenizer,
        prompt,
        max_new_tokens=options.max_new_tokens,
        sampler=_sampler(options),
        generator=_generator(options.seed, device),
    ):
        print(piece, end="", flush=True)
    print()
    return 0


def _generator(seed: int | None, device: torch.device) -> torch.Generator:
    generator = torch.Generator(device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def _sampler(options: argparse.Namespace) -> Sampler:
    """Returns the sampler that the options describe: filters first, then the temperature, then the draw."""
    if options.greedy or options.temperature == 0:
        return GreedySampler()
    sampler: Sampler = MultinomialSampler() if options.temperature == 1 else TemperatureSampler(options.temperature)
    if options.min_p is not None:
        sampler = MinPSampler(options.min_p, then=sampler)
    if options.top_p is not None:
        sampler = TopPSampler(options.top_p, then=sampler)
    return TopKSampler(options.top_k, then=sampler) if options.top_k else sampler
