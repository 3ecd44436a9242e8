"""A training step of the same model on the same batch: tinygpt2 against transformers, in turn.

    python benchmarks/train_step.py                       # a small model
    python benchmarks/train_step.py --preset gpt2 --batch-size 2 --rounds 5

Both have the same weights, AdamW, gradient clipping, dtype (fp32) and threads. Before anything is timed, their losses
on the batch are compared, without dropout.
"""

import argparse
import tempfile
from collections.abc import Callable

import torch
from transformers import GPT2LMHeadModel

from _measure import interleaved, report
from tinygpt2 import GPT2Config, GPT2Model, TrainingConfig, TrainState, evaluate, make_dataloader, make_optimizer
from tinygpt2.data import Batch
from tinygpt2.training import _take_step


def ours(model: GPT2Model, batch: Batch) -> Callable[[], object]:
    """Returns a step of `train`, without its evaluations."""
    config = TrainingConfig(max_steps=10**9)
    state = TrainState(
        model, make_optimizer(model, config), config, total_steps=config.max_steps or 1, steps_per_epoch=1
    )
    model.train()
    return lambda: _take_step(state, [batch])


def theirs(model: GPT2LMHeadModel, batch: Batch) -> Callable[[], object]:
    """Returns a step as transformers' users write it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4, weight_decay=0.1)
    inputs, targets = batch
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        logits = model(inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="gpt2-micro")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--context-length", type=int, default=128)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()

    torch.manual_seed(0)
    config = GPT2Config.preset(options.preset, context_length=options.context_length, dropout=options.dropout)
    model = GPT2Model(config)
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        peer = GPT2LMHeadModel.from_pretrained(directory, attn_implementation="sdpa")
    length = options.batch_size * options.context_length + 1
    loader = make_dataloader(
        torch.randint(config.vocab_size, (length,)),
        batch_size=options.batch_size,
        context_length=options.context_length,
    )
    batch = next(iter(loader))
    check_losses_agree(model, peer, batch)

    seconds = interleaved({"tinygpt2": ours(model, batch), "transformers": theirs(peer, batch)}, rounds=options.rounds)
    report(
        f"training step, {options.preset}, {options.batch_size} x {options.context_length} tokens, "
        f"dropout {options.dropout}, tokens/s",
        seconds,
        per_run=batch[0].numel(),
        unit="tokens/s",
        **vars(options),
    )


def check_losses_agree(model: GPT2Model, peer: GPT2LMHeadModel, batch: Batch) -> None:
    """Compares the two models' losses on the batch, without dropout."""
    inputs, targets = batch
    with torch.no_grad():
        logits = peer.eval()(inputs).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).item()
    found = evaluate(model, [batch]).loss
    assert abs(found - expected) < 1e-4, (found, expected)


if __name__ == "__main__":
    main()
