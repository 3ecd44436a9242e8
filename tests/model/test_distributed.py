"""Training on two processes, through PyTorch's own wrappers, held against one process on the whole batch.

Run as a program this file is one of the two processes: ``test_distributed.py RANK DIRECTORY``.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from tinygpt2 import GPT2Config, GPT2Model, NextTokenLoss, TrainingConfig, evaluate, make_optimizer, training_step

PROCESSES = 2
STEPS = 2
CONFIG = GPT2Config(vocab_size=61, context_length=16, n_layer=2, n_head=3, n_embd=24, dropout=0.0)

Result = dict[str, Tensor]

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this PyTorch cannot train on several processes"
)


def new_model() -> GPT2Model:
    """In double precision: AdamW would make much of a rounding error where the gradient is nothing else."""
    torch.manual_seed(0)
    return GPT2Model(CONFIG).double()


def whole_batch(*, equal: bool) -> tuple[Tensor, Tensor]:
    """Returns a batch of four rows, whose halves have as many targets that count as one another, or not."""
    tokens = torch.randint(CONFIG.vocab_size, (4, 17), generator=torch.Generator().manual_seed(1))
    inputs, targets = tokens[:, :-1], tokens[:, 1:].clone()
    targets[0, 3:9] = -100
    if equal:
        targets[3, 1:7] = -100
    return inputs, targets


def part(rank: int | None, *, equal: bool) -> tuple[Tensor, Tensor]:
    inputs, targets = whole_batch(equal=equal)
    return (inputs, targets) if rank is None else (inputs.chunk(PROCESSES)[rank], targets.chunk(PROCESSES)[rank])


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


# What both the two processes and the one do; each is given its rank, None where it is alone.


def gradients(rank: int | None) -> Result:
    model = new_model()
    objective: nn.Module = NextTokenLoss(model)
    if rank is not None:
        objective = DistributedDataParallel(objective)
    count = int((whole_batch(equal=False)[1] != -100).sum())
    share = 1 if rank is None else PROCESSES  # DistributedDataParallel takes the mean over processes
    objective(*part(rank, equal=False), share / count).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def steps(rank: int | None, wrap: Callable[[GPT2Model], nn.Module]) -> Result:
    """Returns the weights after two steps whose halves have equally many targets, and the loss of each step."""
    model = new_model()
    objective = NextTokenLoss(model) if rank is None else wrap(model)
    optimizer = make_optimizer(model, TrainingConfig(learning_rate=1e-2))
    batch = part(rank, equal=True)
    results = [training_step(objective, optimizer, [batch], max_grad_norm=0.5) for _ in range(STEPS)]
    found = {name: whole(parameter) for name, parameter in model.named_parameters()}
    losses = torch.tensor([result.loss for result in results])
    if rank is not None:
        dist.all_reduce(losses)
        losses /= PROCESSES
    found |= {"losses": losses, "grad_norms": torch.tensor([result.grad_norm for result in results])}
    if wrap is not sharded_with_the_objective:  # there the model alone has no call that gathers its weights
        found["evaluation"] = torch.tensor(evaluate(model, [whole_batch(equal=True)]).loss)
        with torch.no_grad():
            found["last_logits"] = model.last_logits(whole_batch(equal=True)[0])
    return found


def replicated(model: GPT2Model) -> nn.Module:
    return DistributedDataParallel(NextTokenLoss(model))


def sharded_blocks(model: GPT2Model) -> GPT2Model:
    for block in model.h:
        fully_shard(block)
    return model


def sharded_with_the_objective(model: GPT2Model) -> nn.Module:
    objective = NextTokenLoss(sharded_blocks(model))
    fully_shard(objective)
    return objective


def sharded_itself(model: GPT2Model) -> nn.Module:
    fully_shard(sharded_blocks(model))
    return NextTokenLoss(model)


WRAPPERS = [replicated, sharded_with_the_objective, sharded_itself]


def run_process(rank: int, directory: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/init", rank=rank, world_size=PROCESSES)
    found = {"gradients": gradients(rank)} | {wrap.__name__: steps(rank, wrap) for wrap in WRAPPERS}
    if rank == 0:
        torch.save(found, directory / "found.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """What two processes found, which are started once for all tests."""
    directory = tmp_path_factory.mktemp("distributed")
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else None,
        )
        for rank in range(PROCESSES)
    ]
    try:
        outputs = [process.communicate(timeout=100)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * PROCESSES, "\n".join(outputs)
    return cast("dict[str, Result]", torch.load(directory / "found.pt"))


def assert_all_close(found: Result, expected: Result) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-7, msg=f"{name} differs")


def test_gradients_on_two_processes_are_those_on_one(found: dict[str, Result]) -> None:
    """The loss went round the model's call, so that DistributedDataParallel never synchronised its gradients."""
    assert_all_close(found["gradients"], gradients(None))


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_step_on_two_processes_is_the_step_on_one(
    found: dict[str, Result], wrap: Callable[[GPT2Model], nn.Module]
) -> None:
    """FSDP2 raised, because a model whose own call did not come first had its weights in pieces."""
    alone = steps(None, wrap)
    assert_all_close(found[wrap.__name__], alone)
    assert alone["losses"][1] < alone["losses"][0]


if __name__ == "__main__":
    run_process(int(sys.argv[1]), Path(sys.argv[2]))
