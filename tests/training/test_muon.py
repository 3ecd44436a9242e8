"""Muon: how orthogonal its updates are, which matrices have them, and what it shares with AdamW."""

import copy
import math
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint.state_dict as dcp
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer

from tinygpt2 import GPT2Config, GPT2Model, NextTokenLoss, TrainingConfig, make_dataloader, make_optimizer, train
from tinygpt2 import training_step as step_of
from tinygpt2.training.muon import (
    COEFFICIENTS,
    MOMENTUM,
    SMALLEST,
    TOLERANCE,
    UPDATE_RMS,
    Muon,
    _orthogonalised,
    hidden_matrices,
    orthogonalised,
)

MUON = TrainingConfig(optimizer="muon", learning_rate=0.02, weight_decay=0.1)
DOUBLE = torch.float64


def with_singular_values(values: Tensor, rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Returns a matrix that has these singular values, and its singular vectors, all in double precision."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(rows, len(values), generator=generator, dtype=DOUBLE))[0]
    right = torch.linalg.qr(torch.randn(columns, len(values), generator=generator, dtype=DOUBLE))[0]
    matrix: Tensor = left * values @ right.mT
    return matrix, left, right


def set_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float32).to(parameter.dtype)


def polar_factor(matrix: Tensor) -> Tensor:
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    product: Tensor = left @ right
    return product


def exactly(matrices: Tensor) -> Tensor:
    return torch.stack([polar_factor(matrix) for matrix in matrices])


# --- orthogonalisation ---


def minimax(low: float, high: float) -> tuple[Tensor, float]:
    """Returns the coefficients of x, x³ and x⁵ whose largest distance from one on an interval is least, and that.

    By Remez's exchange: the distance is reached with alternating signs at both ends and at the two extrema between.
    """
    points = torch.tensor([low + (high - low) * (1 - math.cos(math.pi * k / 3)) / 2 for k in range(4)], dtype=DOUBLE)
    signs = torch.tensor([1, -1, 1, -1], dtype=DOUBLE)
    for _ in range(50):
        *coefficients, distance = torch.linalg.solve(
            torch.stack([points, points**3, points**5, signs], 1), torch.ones(4, dtype=DOUBLE)
        ).tolist()
        a, b, c = coefficients
        root = math.sqrt(9 * b * b - 20 * a * c)  # the extrema: a + 3bx² + 5cx⁴ = 0
        extrema = sorted(math.sqrt((-3 * b + sign * root) / (10 * c)) for sign in (1, -1))
        points = torch.tensor([low, *extrema, high], dtype=DOUBLE)
    return torch.tensor(coefficients, dtype=DOUBLE), abs(distance)


def test_the_coefficients_are_the_best_for_what_they_promise() -> None:
    low, high, distance = SMALLEST, 1.0, 1.0
    for found in COEFFICIENTS:
        expected, distance = minimax(low, high * 1.02)
        torch.testing.assert_close(torch.tensor(found, dtype=DOUBLE), expected, rtol=1e-6, atol=0)
        low, high = 1 - distance, 1 + distance
    assert TOLERANCE - 0.005 < distance < TOLERANCE


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    smallest=st.floats(1e-3, 1),
    magnitude=st.sampled_from([1e-30, 1e-6, 1.0, 1e20]),
    dtype=st.sampled_from([torch.float32, DOUBLE]),
    seed=st.integers(0, 99),
)
def test_singular_vectors_stay_and_values_are_near_one(
    shape: tuple[int, int], smallest: float, magnitude: float, dtype: torch.dtype, seed: int
) -> None:
    values = torch.logspace(0, math.log10(smallest), min(shape), dtype=DOUBLE)
    matrix, left, right = with_singular_values(values, *shape, seed)
    found = orthogonalised((matrix * magnitude).to(dtype).unsqueeze(0))[0]
    assert found.dtype == dtype
    inside = left.mT @ found.double() @ right
    torch.testing.assert_close(left @ inside @ right.mT, found.double(), rtol=0, atol=1e-4)  # nothing outside
    torch.testing.assert_close(inside, inside.diag().diag(), rtol=0, atol=1e-3)
    usual = values >= SMALLEST * (values**8).sum() ** (1 / 8)
    distance = (inside.diag() - 1).abs()
    assert distance[usual].max() < TOLERANCE
    assert inside.diag().min() > 0
    assert inside.diag().max() < 1 + TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", [(64, 64), (64, 256), (256, 64), (1, 7), (7, 1), (1, 1)])
def test_extreme_matrices_are_no_danger(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Rounding must not leave the interval above, where the polynomials explode, nor make an eigenvalue negative."""
    rows, columns = shape
    outer = torch.randn(rows, 1) @ torch.randn(1, columns)
    matrices = torch.stack([
        torch.zeros(shape),
        torch.ones(shape),
        outer,
        outer + 1e-6 * torch.randn(shape),
        outer + torch.randn(rows, 1) @ torch.randn(1, columns),
        torch.eye(*shape),
        torch.randn(shape) * torch.logspace(-9, 0, rows).unsqueeze(1),
        torch.randn(shape),
        torch.full(shape, 1e-37),
    ])  # fmt: skip
    found = _orthogonalised(matrices, dtype).double()
    assert torch.isfinite(found).all()
    assert not found[0].any()
    norms = torch.linalg.matrix_norm(found, 2)
    limit = 1 + TOLERANCE + (0.03 if dtype == torch.bfloat16 else 1e-4)
    assert norms.max() < limit
    assert norms[1:].min() > 2 - limit


def test_bf16_is_nearly_as_good() -> None:
    matrix, left, right = with_singular_values(torch.logspace(0, -1.5, 64, dtype=DOUBLE), 64, 96)
    found = _orthogonalised(matrix.unsqueeze(0), torch.bfloat16)[0].double()
    assert ((left.mT @ found @ right).diag() - 1).abs().max() < TOLERANCE + 0.25


@pytest.mark.parametrize("shape", [(24, 24), (24, 96), (96, 24)])
def test_matrices_of_a_batch_are_alone_and_of_any_size(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape)
    scaled = matrices * torch.tensor([1e-6, 1.0, 1e9]).view(3, 1, 1)
    torch.testing.assert_close(orthogonalised(scaled), orthogonalised(matrices), rtol=1e-4, atol=1e-5)
    for matrix, found in zip(matrices, orthogonalised(matrices), strict=True):
        torch.testing.assert_close(orthogonalised(matrix.unsqueeze(0))[0], found, rtol=1e-4, atol=1e-5)


# --- which matrices ---


def matrices_of(model: nn.Module) -> dict[str, int]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: parts for parameter, parts in hidden_matrices(model).items()}


@pytest.mark.parametrize("tied", [True, False])
def test_hidden_are_the_matrices_of_the_blocks(config: GPT2Config, tied: bool) -> None:
    model = GPT2Model(replace(config, tie_weights=tied))
    expected = {
        f"h.{layer}.{name}.weight": 3 if name == "attn.c_attn" else 1
        for layer in range(2)
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    assert matrices_of(model) == expected
    assert matrices_of(NextTokenLoss(model)) == {f"model.{name}": parts for name, parts in expected.items()}


def test_what_is_not_a_weight_of_a_linear_layer_is_not_hidden() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.head, self.out = nn.Embedding(9, 4), nn.Linear(4, 9), nn.Linear(4, 9)
            self.head.weight = self.wte.weight
            self.blocks = nn.ModuleList(
                [nn.Sequential(nn.Linear(4, 4), nn.Conv1d(4, 4, 1), nn.Embedding(4, 4)), nn.Linear(4, 4)]
            )
            self.blocks.append(nn.ModuleList([nn.Linear(4, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))]))
            self.blocks[1].requires_grad_(requires_grad=False)

    net = Net()
    assert matrices_of(net) == {"blocks.0.0.weight": 1, "blocks.2.0.weight": 1}
    groups = make_optimizer(net, MUON).param_groups
    assert {p for group in groups for p in group["params"]} == {p for p in net.parameters() if p.requires_grad}


@pytest.mark.parametrize("everything", [False, True])
def test_every_trainable_parameter_is_in_one_group(model: GPT2Model, everything: bool) -> None:
    model.h[0].get_submodule("mlp").requires_grad_(requires_grad=False)
    optimizer = make_optimizer(model, replace(MUON, decay_all_parameters=everything, betas=(0.8, 0.9)))
    assert type(optimizer) is Muon
    found = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(found) == len(set(found))
    assert set(found) == {parameter for parameter in model.parameters() if parameter.requires_grad}
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"]) == (0.02, (0.8, 0.9))
        decays = everything or all(parameter.dim() >= 2 for parameter in group["params"])
        assert group["weight_decay"] == (0.1 if decays else 0)


def test_a_model_without_hidden_matrices_is_refused() -> None:
    for model in (nn.Linear(3, 2), nn.ModuleList([nn.Embedding(3, 3)])):
        with pytest.raises(ValueError, match=r'no hidden matrix for Muon: .*; pass optimizer="adamw"'):
            make_optimizer(model, MUON)


# --- updates ---


def test_a_step_is_the_papers_formula(model: GPT2Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jordan 2024, with a gradient of which query, key and value are orthogonalised one by one."""
    monkeypatch.setattr("tinygpt2.training.muon.orthogonalised", exactly)
    model = model.double()
    optimizer = make_optimizer(model, MUON)
    weights = {p: p.detach().clone() for p in hidden_matrices(model)}
    averages = {p: torch.zeros_like(p) for p in weights}
    for step in range(4):
        set_gradients(model, step)
        optimizer.step()
        for parameter, parts in hidden_matrices(model).items():
            assert parameter.grad is not None
            averages[parameter] = MOMENTUM * averages[parameter] + (1 - MOMENTUM) * parameter.grad
            update = MOMENTUM * averages[parameter] + (1 - MOMENTUM) * parameter.grad
            direction = torch.cat([
                UPDATE_RMS * max(part.shape) ** 0.5 * polar_factor(part) for part in update.chunk(parts)
            ])  # fmt: skip
            weights[parameter] -= 0.02 * 0.1 * weights[parameter] + 0.02 * direction
            torch.testing.assert_close(parameter.detach(), weights[parameter])


def test_an_update_is_that_of_pytorch_within_the_tolerance() -> None:
    """PyTorch's in bf16, with so many steps of a slower iteration that it ends at one."""
    blocks = nn.ModuleList([nn.Linear(48, 16, bias=False), nn.Linear(16, 48, bias=False)])
    others = copy.deepcopy(blocks)
    optimizer = make_optimizer(blocks, MUON)
    reference = torch.optim.Muon(
        others.parameters(), lr=0.02, weight_decay=0.1, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw",
        ns_coefficients=(1.5, -0.5, 0.0), ns_steps=25,
    )  # fmt: skip
    for step in range(3):
        before = [parameter.detach().clone() for parameter in blocks.parameters()]
        for module, each in ((blocks, optimizer), (others, reference)):
            set_gradients(module, step)
            each.step()
        unit = 0.02 * UPDATE_RMS * math.sqrt(48)
        for weight, theirs, old in zip(blocks.parameters(), others.parameters(), before, strict=True):
            assert torch.linalg.matrix_norm(weight - theirs, 2) < unit * (TOLERANCE + 0.03)
            assert torch.linalg.matrix_norm(weight - old, 2) > unit * (1 - TOLERANCE)
            theirs.data.copy_(weight.data)


def test_the_rest_is_pytorchs_adamw_bit_for_bit(model: GPT2Model) -> None:
    plain = copy.deepcopy(model)
    optimizer, reference = make_optimizer(model, MUON), make_optimizer(plain, replace(MUON, optimizer="adamw"))
    for step in range(4):
        for module, each in ((model, optimizer), (plain, reference)):
            set_gradients(module, step)
            each.step()
    hidden = matrices_of(model)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs) == (name not in hidden)
        if name not in hidden:
            for key, value in reference.state[theirs].items():
                assert torch.equal(optimizer.state[ours][key], value)


def test_updates_of_both_have_the_same_size(config: GPT2Config) -> None:
    """That of AdamW in a run is about 0.2 to 0.4 times the learning rate; here, of Muon's, for full rank."""
    model = GPT2Model(replace(config, n_embd=48))
    before = {p: p.detach().clone() for p in hidden_matrices(model)}
    optimizer = make_optimizer(model, replace(MUON, weight_decay=0.0))
    set_gradients(model, 0)
    optimizer.step()
    for parameter, old in before.items():
        assert (parameter - old).square().mean().sqrt().item() == pytest.approx(0.2 * 0.02, rel=0.2)


def test_without_a_gradient_a_parameter_stays_and_has_no_state(model: GPT2Model) -> None:
    before = copy.deepcopy(model.state_dict())
    optimizer = make_optimizer(model, MUON)
    assert optimizer.step() is None
    trained = {"h.0.mlp.c_fc.weight", "wpe.weight"}
    for name, parameter in model.named_parameters():
        parameter.grad = torch.ones_like(parameter) if name in trained else None
    optimizer.step()
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == trained
    assert set(optimizer.state) == {model.get_parameter(name) for name in trained}


def test_a_closure_and_a_rate_as_tensor_work_as_in_pytorch(model: GPT2Model) -> None:
    twin = copy.deepcopy(model)
    first, second = make_optimizer(model, MUON), make_optimizer(twin, MUON)
    for group in second.param_groups:
        group["lr"] = torch.tensor(0.02, dtype=DOUBLE)

    def closure() -> float:
        assert torch.is_grad_enabled()
        set_gradients(model, 1)
        return 2.5

    assert first.step(closure) == 2.5
    set_gradients(twin, 1)
    second.step()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_large_matrices_are_taken_in_parts(model: GPT2Model, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = copy.deepcopy(model)
    for module, size in ((model, 1 << 24), (twin, 1)):
        monkeypatch.setattr("tinygpt2.training.muon._BATCH", size)
        optimizer = make_optimizer(module, MUON)
        set_gradients(module, 1)
        optimizer.step()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


# --- state ---


def copied(optimizer: Optimizer, model: nn.Module, how: str) -> tuple[nn.Module, Optimizer]:
    """Returns copies of a model and its optimizer, in one of the ways in which programs do that."""
    if how == "deepcopy":
        return copy.deepcopy((model, optimizer))
    if how == "pickle":
        pair: tuple[nn.Module, Optimizer] = pickle.loads(pickle.dumps((model, optimizer)))  # noqa: S301 - our own
        return pair
    twin = copy.deepcopy(model)
    other = make_optimizer(twin, MUON)
    if how == "state_dict":
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    else:
        flat = dcp.StateDictOptions(flatten_optimizer_state_dict=True)
        saved = copy.deepcopy(dcp.get_optimizer_state_dict(model, optimizer, options=flat))
        dcp.set_optimizer_state_dict(twin, other, saved, options=flat)
    return twin, other


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "state_dict", "flattened"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_copy_takes_the_same_steps(model: GPT2Model, how: str, dtype: torch.dtype) -> None:
    model = model.to(dtype)
    optimizer = make_optimizer(model, MUON)
    for step in range(3):
        set_gradients(model, step)
        optimizer.step()
    twin, other = copied(optimizer, model, how)
    for module, each in ((model, optimizer), (twin, other)):
        set_gradients(module, 3)
        each.step()
    assert all(map(torch.equal, model.parameters(), twin.parameters()))
    assert all(parameter.dtype == dtype for parameter in twin.parameters())


# --- training ---

TOKENS = torch.arange(500).mul(7).remainder(61)


def losses(**changes: Any) -> list[float]:  # noqa: ANN401 - any of the configuration
    torch.manual_seed(3)
    model = GPT2Model(GPT2Config(vocab_size=61, context_length=16, n_layer=2, n_head=2, n_embd=32))
    loader = make_dataloader(TOKENS, batch_size=4, context_length=16, shuffle=True)
    config = replace(MUON, learning_rate=5e-3, max_steps=25, eval_every=25, schedule="linear", **changes)
    return train(model, loader, config=config, device="cpu", progress=False).train_losses


def test_a_run_learns_and_gives_the_same_bits_again() -> None:
    found = losses()
    assert found == losses()
    assert found[-1] < found[0] - 0.5
    assert losses(precision="bf16")[-1] == pytest.approx(found[-1], abs=0.1)


def test_micro_batches_are_one_batch(config: GPT2Config) -> None:
    inputs, targets = torch.randint(61, (4, 16)), torch.randint(61, (4, 16))
    model = GPT2Model(config).double().eval()
    twin = copy.deepcopy(model)
    step_of(NextTokenLoss(model), make_optimizer(model, MUON), [(inputs, targets)])
    parts = [(inputs[:1], targets[:1]), (inputs[1:], targets[1:])]
    step_of(NextTokenLoss(twin), make_optimizer(twin, MUON), parts)
    for ours, theirs in zip(hidden_matrices(model), hidden_matrices(twin), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
