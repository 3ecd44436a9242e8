"""A model on a GPU: training steps and generation, tinygpt2 against its peers, in turn.

    python benchmarks/gpu.py train --nanogpt PATH        # 124M, 32 x 1,024 tokens in 2 micro-batches, dropout 0
    python benchmarks/gpu.py decode                      # 124M, one text, 256 new tokens, bf16
    python benchmarks/gpu.py train decode --device cpu --preset gpt2-nano --batch-size 1 --length 64 --rounds 1

transformers takes part where it is installed, nanoGPT from a checkout. All train in bf16 by autocast, with fused AdamW,
clipping and torch.compile, unless --no-compile; before anything is timed, their losses on a batch are compared, without
compilation. In the same turns the device's own rates of multiplying bf16 matrices and of copying memory are measured,
which are the limits; a maker's figure for the first, --peak, gives the utilisation that others report.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from _measure import Step, interleaved, report
from _peers import (
    BETAS,
    LEARNING_RATE,
    MAX_GRAD_NORM,
    WEIGHT_DECAY,
    Work,
    _transformers_model,
    nanogpt_model,
    num_parameters,
    present,
)
from tinygpt2 import GPT2Config, NextTokenLoss, TrainingConfig, generate, make_optimizer, training_step
from tinygpt2._internal.devices import Compiled
from train_step import operations

PEAK = {"H100 PCIe": 756, "H100": 989, "H200": 989, "A100": 312, "L4": 121, "4090": 165}
"""The makers' bf16 TFLOP/s without sparsity, by a part of the name."""


class Device:
    """Where everything runs."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        self.compile: bool = options.compile
        self.accumulate: int = options.accumulate
        self.is_gpu = self.device.type == "cuda"

    def wait(self) -> None:
        """Waits until the device has done what was asked of it."""
        if self.is_gpu:
            torch.cuda.synchronize()

    def micro_batches(self, work: Work) -> list[tuple[Tensor, Tensor]]:
        """Returns the parts of the work's batch, on the CPU, where a loader would have them."""
        inputs, targets = (each.chunk(self.accumulate) for each in work.batch())
        return list(zip(inputs, targets, strict=True))

    def bf16(self) -> torch.autocast:
        """Returns the context of training in bf16."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def timed(self, step: Step) -> Step:
        """Returns the step that ends when the device has ended."""

        def whole() -> None:
            step()
            self.wait()

        return whole

    def limits(self) -> dict[str, float]:
        """Returns operations a second in bf16, and bytes a second of a copy, read and written."""
        n = 8192 if self.is_gpu else 512
        left, right = torch.randn(2, n, n, device=self.device, dtype=torch.bfloat16).unbind(0)
        block = torch.zeros(1 << (30 if self.is_gpu else 24), dtype=torch.uint8, device=self.device)
        target = torch.empty_like(block)

        def rate(work: float, run: Step) -> float:
            times = []
            for _ in range(5):
                self.wait()
                began = time.perf_counter()
                self.timed(run)()
                times.append(time.perf_counter() - began)
            return work / min(times)

        return {
            "bf16 products": rate(2 * n**3, partial(torch.mm, left, right)),
            "copy": rate(2 * block.nbytes, partial(target.copy_, block)),
        }


# --- training ---
def tinygpt2_trains(work: Work, where: Device) -> tuple[float, Step]:
    """The step of `train`."""
    model, parts = work.model().to(where.device).train(), where.micro_batches(work)
    objective = NextTokenLoss(model)
    config = TrainingConfig(learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=BETAS)
    optimizer = make_optimizer(model, config)
    with torch.no_grad(), where.bf16():
        loss = sum(float(objective(*(each.to(where.device) for each in part))) for part in parts)
    called = Compiled(objective) if where.compile else objective

    def step() -> None:
        training_step(called, optimizer, parts, max_grad_norm=MAX_GRAD_NORM, precision="bf16", seed=0)

    return loss / (work.batch_size * work.length), step


def nanogpt_trains(work: Work, where: Device) -> tuple[float, Step]:
    """The loop of its train.py."""
    model = nanogpt_model(work).to(where.device)
    optimizer = model.configure_optimizers(WEIGHT_DECAY, LEARNING_RATE, BETAS, where.device.type)
    return _plain(work, where, model, optimizer, lambda called, inputs, targets: called(inputs, targets)[1])


def transformers_trains(work: Work, where: Device) -> tuple[float, Step]:
    """The loop of its documentation, with SDPA, which is its default."""
    model = _transformers_model(work).to(where.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=BETAS, fused=True
    )

    def loss(called: Any, inputs: Tensor, targets: Tensor) -> Tensor:  # noqa: ANN401
        return F.cross_entropy(called(inputs).logits.float().flatten(0, 1), targets.flatten())

    return _plain(work, where, model, optimizer, loss)


def _plain(
    work: Work, where: Device, model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[..., Any]
) -> tuple[float, Step]:
    parts = where.micro_batches(work)
    called = torch.compile(model) if where.compile else model

    def losses(module: Any) -> Iterator[Any]:  # noqa: ANN401
        for pair in parts:
            ids = [each.pin_memory() if where.is_gpu else each for each in pair]
            with where.bf16():
                yield loss(module, *(each.to(where.device, non_blocking=True) for each in ids)) / len(parts)

    model.eval()
    with torch.no_grad():
        found = sum(float(each) for each in losses(model))
    model.train()

    def step() -> None:
        for each in losses(called):
            each.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return found, step


# --- generation ---


def tinygpt2_writes(work: Work, where: Device) -> tuple[Any, Step]:
    model, prompts = work.model().to(where.device, work.dtype), _prompts(work, where)

    def step() -> Tensor:
        return generate(model, prompts, max_new_tokens=work.length)

    return step().tolist(), step


def transformers_writes(work: Work, where: Device) -> tuple[Any, Step]:
    """Its generate, as it is without options."""
    model, prompts = _transformers_model(work).eval().to(where.device), _prompts(work, where)
    options = {"max_new_tokens": work.length, "min_new_tokens": work.length, "do_sample": False, "pad_token_id": 0}

    def step() -> Any:  # noqa: ANN401
        return model.generate(prompts, attention_mask=torch.ones_like(prompts), **options)

    return step().tolist(), step


def _prompts(work: Work, where: Device) -> Tensor:
    return work.batch()[0][:, :8].to(where.device)


def _memory(where: Device) -> int:
    return torch.cuda.max_memory_allocated() if where.is_gpu else 0


def _prepared(makers: dict[str, Any], work: Work, where: Device) -> tuple[dict[str, Any], dict[str, Step]]:
    """Returns each contestant's answer, and its step, run once; prints the memory that it needs."""
    answers, steps = dict[str, Any](), dict[str, Step]()
    for name in present(makers, work):
        if where.is_gpu:
            torch.cuda.reset_peak_memory_stats()
        before = _memory(where)
        answers[name], step = makers[name](work, where)
        began = time.perf_counter()
        steps[name] = where.timed(step)
        steps[name]()
        memory = f", {(_memory(where) - before) / 1e9:.2f} GB of memory" if where.is_gpu else ""
        print(f"{name}: first step {time.perf_counter() - began:.1f} s{memory}")
    return answers, steps


def _limits(where: Device, rounds: int) -> dict[str, float]:
    found = [where.limits() for _ in range(rounds)]
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def train(options: argparse.Namespace, where: Device) -> None:
    length = options.length or 1024
    config = GPT2Config.preset(options.preset, dropout=0.0, context_length=max(length, 128))
    work = Work(config, options.batch_size or 32, length, options.nanogpt)
    makers = {"tinygpt2": tinygpt2_trains, "nanoGPT": nanogpt_trains, "transformers": transformers_trains}
    answers, steps = _prepared(makers, work, where)
    worst = max(abs(loss - answers["tinygpt2"]) for loss in answers.values())
    assert worst < 0.02, answers
    seconds = interleaved(steps, rounds=options.rounds, warmup=3)
    limits = _limits(where, 3)
    tokens, done = work.batch_size * length, operations(work) / statistics.median(seconds["tinygpt2"])
    title = f"training step, {num_parameters(config):,} parameters, {work.batch_size} x {length} tokens, bf16"
    report(f"{title}; losses agree to {worst:.0e}", seconds, per_run=tokens, unit="tokens/s", limits=limits,
           name=_name(where), operations_a_second=done, **vars(options))  # fmt: skip
    print(f"bf16 products: {limits['bf16 products'] / 1e12:.0f} TFLOP/s measured; tinygpt2 {done / 1e12:.1f} TFLOP/s, "
          f"{done / limits['bf16 products']:.0%} of it")  # fmt: skip
    if peak := options.peak or next((value for name, value in PEAK.items() if name in _name(where)), 0):
        print(f"utilisation of the maker's {peak:g} TFLOP/s: {done / 1e12 / peak:.0%}")


def decode(options: argparse.Namespace, where: Device) -> None:
    config = GPT2Config.preset(options.preset, dropout=0.0)
    work = Work(config, options.texts, options.tokens, dtype=torch.bfloat16)
    makers = {"tinygpt2": tinygpt2_writes, "transformers": transformers_writes}
    answers, steps = _prepared(makers, work, where)
    agree = {name: tokens == answers["tinygpt2"] for name, tokens in answers.items()}
    seconds = interleaved(steps, rounds=options.rounds, warmup=1)
    limits = _limits(where, 3)
    read = 2 * (num_parameters(config) - config.context_length * config.n_embd)
    bound = work.batch_size * limits["copy"] / read
    title = f"generation, {num_parameters(config):,} parameters, bf16, {work.batch_size} x {work.length} new tokens"
    report(f"{title}; the same tokens: {all(agree.values())}", seconds, per_run=work.batch_size * work.length,
           unit="tokens/s", limits=limits, name=_name(where), **vars(options))  # fmt: skip
    print(f"reading the weights at {limits['copy'] / 1e9:,.0f} GB/s: {bound:,.0f} tokens/s")


def _name(where: Device) -> str:
    return torch.cuda.get_device_name() if where.is_gpu else "CPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=("train", "decode"), metavar="PART", help="train, decode")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--preset", default="gpt2")
    parser.add_argument("--batch-size", type=int, help="of a step")
    parser.add_argument("--accumulate", type=int, default=2, help="micro-batches of a step")
    parser.add_argument("--length", type=int, help="tokens of a window")
    parser.add_argument("--texts", type=int, default=1, help="that are generated together")
    parser.add_argument("--tokens", type=int, default=256, help="new tokens a text")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peak", type=float, metavar="X", help="the maker's bf16 TFLOP/s")
    parser.add_argument("--nanogpt", metavar="PATH")
    options = parser.parse_args()
    for part in dict.fromkeys(options.parts):
        {"train": train, "decode": decode}[part](options, Device(options))


if __name__ == "__main__":
    main()
