"""The allocator's setting: where it is made, and that it can be left out."""

import subprocess
import sys

import pytest

LARGE = 64 << 20

# Page faults of allocating and freeing a large block ten times, when training has begun.
FAULTS = f"""
import resource, torch
from tinygpt2 import GPT2Config, GPT2Model, TrainingConfig, make_dataloader, train
model = GPT2Model(GPT2Config(vocab_size=10, context_length=4, n_layer=1, n_head=1, n_embd=8))
loader = make_dataloader(range(10), batch_size=1, context_length=4)
train(model, loader, config=TrainingConfig(max_steps=1), device="cpu", progress=False)
torch.zeros({LARGE}, dtype=torch.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.zeros({LARGE}, dtype=torch.uint8).add_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(switch: str | None) -> int:
    environment = {} if switch is None else {"TINYGPT2_KEEP_MEMORY": switch}
    command = [sys.executable, "-c", FAULTS]
    result = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", env=environment)
    return int(result.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_training_keeps_memory_unless_told_not_to() -> None:
    pages = LARGE // 4096
    assert faults("0") > 2 * pages  # given back and faulted in again, each time
    assert faults(None) < pages
