"""NextTokenLoss, `evaluate` and ``last_logits`` are what calling the model gives, whatever was done to the model."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from typing_extensions import override

from tinygpt2 import (
    GPT2Config,
    GPT2Model,
    KVCache,
    NextTokenLoss,
    TrainingConfig,
    evaluate,
    make_optimizer,
    training_step,
)
from tinygpt2.losses import IGNORE_INDEX, summed_cross_entropy

TIED = GPT2Config(vocab_size=61, context_length=16, n_layer=2, n_head=3, n_embd=24, dropout=0.0)
UNTIED = GPT2Config(vocab_size=61, context_length=16, n_layer=2, n_head=3, n_embd=24, dropout=0.0, tie_weights=False)

INPUTS = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(1))
TARGETS = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(2))
TARGETS[0, 2:5] = IGNORE_INDEX


def new_model(config: GPT2Config, cls: type[GPT2Model] = GPT2Model) -> GPT2Model:
    """Returns a model whose weights are large enough that nothing that is left out goes unnoticed, in float64."""
    torch.manual_seed(0)
    model = cls(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


# What people do to a model


class Capped(GPT2Model):
    @override
    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        return 3 * torch.tanh(super().forward(tokens, cache) / 3)


class OtherHiddenStates(GPT2Model):
    @override
    def hidden_states(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        return super().hidden_states(tokens, cache).flip(-1)


class OtherHead(GPT2Model):
    @override
    def head(self, hidden: Tensor) -> Tensor:
        return super().head(hidden) - hidden.sum(-1, keepdim=True)


class OtherHeadWeight(GPT2Model):
    @property
    @override
    def head_weight(self) -> Tensor:
        return super().head_weight.flip(0)


class LoRALinear(nn.Module):
    """Hu et al. 2021, as small as it can be."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base
        self.a = nn.Parameter(torch.randn(rank, base.in_features, dtype=torch.float64))
        self.b = nn.Parameter(torch.randn(base.out_features, rank, dtype=torch.float64))

    @override
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        return out + x @ self.a.T @ self.b.T

    def merged(self) -> nn.Linear:
        merged = copy.deepcopy(self.base)
        with torch.no_grad():
            merged.weight += self.b @ self.a
        return merged


class LoRAEmbedding(nn.Module):
    def __init__(self, base: nn.Embedding, rank: int = 2) -> None:
        super().__init__()
        self.base = base
        self.a = nn.Parameter(torch.randn(base.num_embeddings, rank, dtype=torch.float64))
        self.b = nn.Parameter(torch.randn(rank, base.embedding_dim, dtype=torch.float64))

    @override
    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.base(ids)
        return out + F.embedding(ids, self.a) @ self.b

    def merged(self) -> nn.Embedding:
        merged = copy.deepcopy(self.base)
        with torch.no_grad():
            merged.weight += self.a @ self.b
        return merged


def layers(model: GPT2Model) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Embedding)]


def adapt(model: GPT2Model, *names: str) -> None:
    for name in names:
        base = model.get_submodule(name)
        if isinstance(base, nn.Linear):
            model.set_submodule(name, LoRALinear(base))
        elif isinstance(base, nn.Embedding):
            model.set_submodule(name, LoRAEmbedding(base))


def merge(model: GPT2Model) -> None:
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRALinear | LoRAEmbedding):
            model.set_submodule(name, module.merged())


def replace_forward(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """As accelerate does it."""
    before: Callable[..., Tensor] = module.forward
    module.forward = lambda *args, **kwargs: change(before(*args, **kwargs))


def doubled(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
    return 2 * output


def doubled_input(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return 2 * inputs[0], *inputs[1:]


def other_tokens(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return inputs[0].flip(0), *inputs[1:]


def doubled_gradient(_module: nn.Module, gradients: tuple[Tensor | None, ...], _: object) -> tuple[Tensor | None, ...]:
    return tuple(None if gradient is None else 2 * gradient for gradient in gradients)


def doubled_output_gradient(_module: nn.Module, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(2 * gradient for gradient in gradients)


def with_biased_head(model: GPT2Model) -> None:
    assert model.lm_head is not None
    biased = nn.Linear(24, 61, dtype=torch.float64)
    biased.weight = model.lm_head.weight
    model.lm_head = biased


@dataclass
class Change:
    """Something done to a model.

    Attributes:
        name: Of the case.
        act: Does it.
        config: Of the model.
        cls: Of the model.
        fast: Whether the head and the loss may still be computed as one.
    """

    name: str
    act: Callable[[GPT2Model], object] = lambda _: None
    config: GPT2Config = TIED
    cls: type[GPT2Model] = GPT2Model
    fast: bool = False

    def model(self) -> GPT2Model:
        model = new_model(self.config, self.cls)
        self.act(model)
        return model


def head(model: GPT2Model) -> nn.Module:
    return model.get_submodule("lm_head")


CHANGES = [
    Change("nothing, tied", fast=True),
    Change("nothing, untied", config=UNTIED, fast=True),
    Change("a subclass's forward", cls=Capped),
    Change("a subclass's hidden states", cls=OtherHiddenStates, fast=True),
    Change("a subclass's head", cls=OtherHead),
    Change("a subclass's weight of the head", cls=OtherHeadWeight),
    Change("a hook on the model", lambda m: m.register_forward_hook(doubled)),
    Change("a pre-hook on the model", lambda m: m.register_forward_pre_hook(other_tokens)),
    Change("a backward hook on the model", lambda m: m.register_full_backward_pre_hook(doubled_output_gradient)),
    Change("a hook on the head", lambda m: head(m).register_forward_hook(doubled), UNTIED),
    Change("a pre-hook on the head", lambda m: head(m).register_forward_pre_hook(doubled_input), UNTIED),
    Change("a backward hook on the head", lambda m: head(m).register_full_backward_hook(doubled_gradient), UNTIED),
    Change("a hook on the embedding", lambda m: m.wte.register_forward_hook(doubled), fast=True),
    Change("a hook on the last norm", lambda m: m.ln_f.register_forward_hook(doubled), fast=True),
    Change("a backward hook on a block", lambda m: m.h[0].register_full_backward_hook(doubled_gradient), fast=True),
    Change("compiled", lambda m: m.compile(backend="eager")),
    Change("a compiled head", lambda m: head(m).compile(backend="eager"), UNTIED),
    Change("another forward in the model", lambda m: replace_forward(m, torch.tanh)),
    Change("another forward in the head", lambda m: replace_forward(head(m), torch.tanh), UNTIED),
    Change("another forward in the embedding", lambda m: replace_forward(m.wte, torch.tanh), fast=True),
    Change("another head method in the model", lambda m: setattr(m, "head", lambda x: x @ m.wte.weight.T * 2)),
    Change("a head with a bias", with_biased_head, UNTIED),
    Change("weight norm in the head", lambda m: parametrizations.weight_norm(head(m)), UNTIED, fast=True),
    Change("weight norm in the embedding", lambda m: parametrizations.weight_norm(m.wte), fast=True),
    Change("an adapted embedding", lambda m: adapt(m, "wte"), fast=True),
    Change("all adapted, tied", lambda m: adapt(m, *layers(m)), fast=True),
    Change("all adapted, untied", lambda m: adapt(m, *layers(m)), UNTIED),
]
changes = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)


def gradients(model: GPT2Model, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters, materialize_grads=True), strict=True))


def assert_close(actual: object, expected: object, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@contextmanager
def calls_counted() -> Iterator[list[int]]:
    """Counts the calls of every module, by a hook on all of them."""
    counts = [0]

    def count(*_: object) -> None:
        counts[0] += 1

    handle = nn.modules.module.register_module_forward_hook(count)
    try:
        yield counts
    finally:
        handle.remove()


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # for the tokens have no gradient
@changes
def test_the_loss_and_its_gradients_are_those_of_calling_the_model(change: Change) -> None:
    """A subclass's forward, hooks and adapters were passed over by `train` and `evaluate`, without a word."""
    model = change.model()
    loss = NextTokenLoss(model)(INPUTS, TARGETS, 0.5)
    expected = 0.5 * summed_cross_entropy(model(INPUTS), TARGETS)
    assert_close(loss, expected)
    assert_close(gradients(model, loss), gradients(model, expected))


@changes
def test_an_evaluation_and_the_last_logits_are_those_of_calling_the_model(change: Change) -> None:
    model = change.model()
    with torch.no_grad():
        logits = model(INPUTS)
        assert_close(model.last_logits(INPUTS), logits[:, -1])
        found = evaluate(model, [(INPUTS, TARGETS), (INPUTS[:1], TARGETS[:1])])
        total = summed_cross_entropy(logits, TARGETS) + summed_cross_entropy(model(INPUTS[:1]), TARGETS[:1])
    assert found.loss == pytest.approx(total.item() / found.tokens, rel=1e-9)


@changes
def test_the_fast_path_is_taken_where_it_may_be_and_nowhere_else(change: Change) -> None:
    """Otherwise these tests would hold one thing against itself."""
    assert change.model().splits() is change.fast


@pytest.mark.parametrize("config", [TIED, UNTIED], ids=["tied", "untied"])
def test_a_hook_on_all_modules_sees_the_model_and_its_head(config: GPT2Config) -> None:
    model = new_model(config)
    with calls_counted() as of_a_call:
        model(INPUTS)
    for call in (NextTokenLoss(model), lambda inputs, _: model.last_logits(inputs)):
        with calls_counted() as counts:
            call(INPUTS, TARGETS)
        assert counts[0] - isinstance(call, NextTokenLoss) == of_a_call[0]


def test_an_adapter_of_the_head_is_heard_and_learns() -> None:
    """It had no effect and no gradient: the loss read the weight of the layer beneath."""
    model = new_model(UNTIED)
    before = NextTokenLoss(model)(INPUTS, TARGETS)
    model.requires_grad_(requires_grad=False)
    adapt(model, "lm_head")
    assert (NextTokenLoss(model)(INPUTS, TARGETS) - before).abs() > 1e-3
    adapter = model.get_submodule("lm_head")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses = [training_step(NextTokenLoss(model), optimizer, [(INPUTS, TARGETS)]).loss for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {"lm_head.a", "lm_head.b"}
    assert isinstance(adapter, LoRALinear)


@pytest.mark.parametrize("config", [TIED, UNTIED], ids=["tied", "untied"])
def test_merged_adapters_are_what_they_were(config: GPT2Config, tmp_path: Path) -> None:
    """The tied head read the embedding without its adapter, so that merging changed the logits."""
    model = new_model(config)
    adapt(model, *layers(model))
    expected = model(INPUTS)
    with pytest.raises(ValueError, match=r"not those of its class.*: h\.0\.attn\.c_attn\.a, .* more"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    merge(model)
    assert_close(model(INPUTS), expected)
    model.save_pretrained(tmp_path)
    assert_close(GPT2Model.from_pretrained(tmp_path).double()(INPUTS), expected, 1e-3)


@pytest.mark.parametrize("config", [TIED, UNTIED], ids=["tied", "untied"])
def test_peft_adapts_every_layer_and_merges(config: GPT2Config, tmp_path: Path) -> None:
    peft: Any = pytest.importorskip("peft")
    model = new_model(config)
    targets = sorted({name.split(".")[-1] for name in layers(model)} - {"wpe"})
    lora = peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied weights, which it knows by names of its own
        adapted = peft.get_peft_model(model, lora).double()
    expected = adapted(INPUTS)
    assert not torch.allclose(expected, new_model(config)(INPUTS))
    for outer in (model, adapted):
        loss = NextTokenLoss(outer)(INPUTS, TARGETS)
        assert_close(loss, summed_cross_entropy(expected, TARGETS))
        trained = [p for p in model.parameters() if p.requires_grad]
        assert len(trained) == 2 * (len(layers(new_model(config))) - 1)
        assert all(gradient.any() for gradient in torch.autograd.grad(loss, trained))
    assert_close(model.last_logits(INPUTS), expected[:, -1])
    with pytest.raises(ValueError, match="merge_and_unload"):
        model.save_pretrained(tmp_path)
    merged = adapted.merge_and_unload()
    assert merged is model
    assert_close(merged(INPUTS), expected)
    merged.save_pretrained(tmp_path)
    assert_close(GPT2Model.from_pretrained(tmp_path).double()(INPUTS), expected, 1e-3)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:UserWarning")
@pytest.mark.parametrize("config", [TIED, UNTIED], ids=["tied", "untied"])
def test_quantised_models_are_called(config: GPT2Config, tmp_path: Path) -> None:
    """No linear layer was found, because they were of a subclass; and a quantised head was read as if it were plain."""
    model = new_model(config).float()
    quantised = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
        model, {nn.Linear}, dtype=torch.qint8
    )
    found = [name for name, module in quantised.named_modules() if "quantized" in type(module).__module__]
    linear = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    assert [name for name in found if not name.endswith("_packed_params")] == linear
    with torch.no_grad():
        logits = quantised(INPUTS)
        assert not torch.equal(logits, model(INPUTS))
        torch.testing.assert_close(quantised.last_logits(INPUTS), logits[:, -1], rtol=0.05, atol=0.05)
        expected = summed_cross_entropy(logits, TARGETS)
        torch.testing.assert_close(NextTokenLoss(quantised)(INPUTS, TARGETS), expected)
    found_loss = evaluate(quantised, [(INPUTS, TARGETS)])
    assert found_loss.loss == pytest.approx(expected.item() / found_loss.tokens, rel=1e-5)
    with pytest.raises(ValueError, match="save a quantised model before"):
        quantised.save_pretrained(tmp_path)


def test_the_tied_head_reads_an_embedding_whose_forward_was_replaced() -> None:
    """As accelerate's hooks do it: the head read the bare weight."""
    model = new_model(TIED)
    replace_forward(model.wte, lambda embedded: 3 * embedded)
    assert_close(model(INPUTS), 3 * F.linear(model.hidden_states(INPUTS), model.wte.weight))


def test_any_model_of_tokens_to_logits_has_a_loss() -> None:
    model = nn.Sequential(nn.Embedding(61, 8), nn.Linear(8, 61))
    loss = NextTokenLoss(model)(INPUTS, TARGETS, 0.25)
    torch.testing.assert_close(loss, 0.25 * summed_cross_entropy(model(INPUTS), TARGETS))
    assert evaluate(model, [(INPUTS, TARGETS)]).loss == pytest.approx(4 * loss.item() / 15, rel=1e-5)


def test_a_copy_of_the_objective_learns_alone() -> None:
    objective = NextTokenLoss(new_model(TIED))
    other = copy.deepcopy(objective)
    before = objective(INPUTS, TARGETS)
    assert_close(other(INPUTS, TARGETS), before)
    training_step(other, make_optimizer(other, TrainingConfig(learning_rate=0.1)), [(INPUTS, TARGETS)])
    assert torch.equal(objective(INPUTS, TARGETS), before)
    assert other(INPUTS, TARGETS) != before


@pytest.mark.parametrize("fused", [True, False])
def test_targets_are_ids_of_any_integer_type(*, fused: bool) -> None:
    model = new_model(TIED)
    objective = NextTokenLoss(model if fused else nn.Sequential(model))
    expected = objective(INPUTS, TARGETS)
    for dtype in (torch.int32, torch.int16):
        assert torch.equal(objective(INPUTS, TARGETS.to(dtype)), expected)
    for wrong in (-1, 61):
        with pytest.raises(ValueError, match=f"from 0 to 60, but one is {wrong}; .* does not count use -100"):
            objective(INPUTS, torch.full_like(TARGETS, wrong))
    for other in (TARGETS.float(), TARGETS > 3):
        with pytest.raises(ValueError, match=r"targets must be ids, int64, got torch\.(float32|bool)"):
            objective(INPUTS, other)


def test_the_loss_of_a_target_that_does_not_count_is_nothing() -> None:
    loss = NextTokenLoss(new_model(TIED))(INPUTS, torch.full_like(TARGETS, IGNORE_INDEX))
    assert loss.item() == 0


# --- arguments ---


@pytest.mark.parametrize("scale", [0.5, np.float32(0.5), np.float64(0.5), torch.tensor(0.5), torch.tensor([0.5])[0]])
def test_a_scale_is_any_number(scale: Any) -> None:  # noqa: ANN401
    expected = NextTokenLoss(new_model(TIED))(INPUTS, TARGETS) / 2
    for model in (new_model(TIED), nn.Sequential(new_model(TIED))):
        assert_close(NextTokenLoss(model)(INPUTS, TARGETS, scale), expected)


@pytest.mark.parametrize("scale", [None, True, "1", torch.ones(2), torch.tensor(True), [1.0], 10**400])
def test_what_is_no_number_is_no_scale(scale: Any) -> None:  # noqa: ANN401
    """A tensor of several numbers was broadcast where the model is called, and failed where it is not."""
    for model in (new_model(TIED), nn.Sequential(new_model(TIED))):
        with pytest.raises((TypeError, ValueError), match="scale must be a "):
            NextTokenLoss(model)(INPUTS, TARGETS, scale)


def test_a_list_is_no_target_and_a_function_no_model() -> None:
    with pytest.raises(TypeError, match=r"targets must be a tensor of ids, \(B, T\), got \[\["):
        NextTokenLoss(new_model(TIED))(INPUTS, TARGETS.tolist())
    with pytest.raises(ValueError, match=r"inputs of shape \(2, 9\) need targets of shape \(2, 9\), got \(1, 9\)"):
        NextTokenLoss(new_model(TIED))(INPUTS, TARGETS[:1])
    for wrong in (new_model(TIED).forward, GPT2Model, None):
        with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got"):
            NextTokenLoss(wrong)  # type: ignore[arg-type]
