"""The model and its loss where a computation is traced, compiled, vectorised or faked."""

from typing import TYPE_CHECKING, Any, Literal

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.export import Dim
from torch.func import functional_call, grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from tinygpt2 import GPT2Config, GPT2Model, KVCache, NextTokenLoss
from tinygpt2.kernels.attention import LONG
from tinygpt2.kernels.dropout import Dropout

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # inside the compiler
    pytest.mark.filterwarnings("ignore:There is a performance drop"),  # of vmap
]


def new_model(
    context_length: int = 16, *, n_layer: int = 2, tie_weights: bool = True, dropout: float = 0.0
) -> GPT2Model:
    """Returns a model whose weights are large enough that its logits differ clearly."""
    config = GPT2Config(
        vocab_size=61,
        context_length=context_length,
        n_layer=n_layer,
        n_head=3,
        n_embd=24,
        tie_weights=tie_weights,
        dropout=dropout,
    )
    model = GPT2Model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    return model.eval()


def tokens_of(*shape: int) -> Tensor:
    return torch.randint(61, shape)


def assert_close(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(autouse=True)
def _nothing_compiled() -> None:
    torch.compiler.reset()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("context_length", [16, LONG + 8])
def test_an_exported_model_takes_every_batch_and_length(context_length: int, *, strict: bool) -> None:
    """Whether attention is causal was asked of the shapes, which had to stay as they were."""
    model = new_model(context_length)
    sizes = ({0: Dim("batch", min=1), 1: Dim("length", min=1, max=context_length)},)
    program = torch.export.export(model, (tokens_of(2, 8),), dynamic_shapes=sizes, strict=strict).module()
    for batch, n in ((1, 1), (3, 1), (1, 7), (2, context_length - 1), (2, context_length)):
        tokens = tokens_of(batch, n)
        assert_close(program(tokens), model(tokens))
    with pytest.raises((AssertionError, RuntimeError)):
        program(tokens_of(1, context_length + 1))


def test_an_exported_loss_has_the_value_and_the_gradients() -> None:
    objective = NextTokenLoss(new_model())
    sizes = {0: Dim("batch", min=1), 1: Dim("length", min=1, max=16)}
    example = (tokens_of(2, 8), tokens_of(2, 8))
    program: Any = torch.export.export(objective, example, dynamic_shapes=(sizes, sizes)).module()
    inputs, targets = tokens_of(3, 16), tokens_of(3, 16)
    expected = objective(inputs, targets)
    found = program(inputs, targets)
    assert_close(found, expected)
    gradients = torch.autograd.grad(found, list(program.parameters()))
    assert_close(gradients, torch.autograd.grad(expected, list(objective.parameters())))


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_compiled_model_has_no_breaks(*, dynamic: bool) -> None:
    """With symbols for lengths it failed: whether attention is causal was asked of the shapes."""
    model = new_model(n_layer=1)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for batch, n in ((2, 16), (3, 5), (2, 1)):
        tokens = tokens_of(batch, n)
        assert_close(compiled(tokens), model(tokens))


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_compiled_model_reads_and_fills_a_cache(*, dynamic: bool) -> None:
    model = new_model(n_layer=1)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    tokens = tokens_of(2, 16)
    cache, begin = KVCache(model.config, 2), 0
    with torch.no_grad():
        expected = model(tokens)
        for n in (3, 2, 1, 1, 1, 1, 1, 1, 1, 1) if dynamic else (3, 2, 1):
            assert_close(compiled(tokens[:, begin : begin + n], cache), expected[:, begin : begin + n])
            begin += n
    assert cache.length == begin


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_compiled_loss_has_the_value_and_the_gradients(*, dynamic: bool) -> None:
    objective = NextTokenLoss(new_model(n_layer=1))
    compiled = torch.compile(objective, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for batch, n in ((2, 16), (3, 5)):
        inputs, targets = tokens_of(batch, n), tokens_of(batch, n)
        found, expected = compiled(inputs, targets, 0.25), objective(inputs, targets, 0.25)
        assert_close(found, expected)
        parameters = list(objective.parameters())
        assert_close(torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters))


def test_a_compiled_model_drops_anew_each_time_whatever_its_seed() -> None:
    model = new_model(dropout=0.5).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    tokens = tokens_of(2, 16)
    assert not torch.equal(compiled(tokens), compiled(tokens))


@pytest.mark.parametrize("tie_weights", [True, False])
def test_gradients_of_each_row_at_once_are_those_of_each_row(*, tie_weights: bool) -> None:
    objective = NextTokenLoss(new_model(tie_weights=tie_weights))
    parameters = {name: parameter.detach() for name, parameter in objective.named_parameters()}
    inputs, targets = tokens_of(3, 9), tokens_of(3, 9)

    def loss(values: dict[str, Tensor], one: Tensor, other: Tensor) -> Tensor:
        found: Tensor = functional_call(objective, values, (one[None], other[None]))
        return found

    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, inputs, targets)
    for i in range(3):
        expected = torch.autograd.grad(objective(inputs[i : i + 1], targets[i : i + 1]), list(objective.parameters()))
        assert_close([value[i] for value in found.values()], list(expected))


def test_several_models_at_once_are_each_of_them() -> None:
    models = [new_model(), new_model(tie_weights=True)]
    with torch.no_grad():
        models[1].wpe.weight.mul_(-1)
    parameters, _ = torch.func.stack_module_state(list(models))
    tokens = tokens_of(2, 9)
    found = vmap(lambda values: functional_call(models[0], values, (tokens,)))(parameters)
    for logits, model in zip(found, models, strict=True):
        assert_close(logits, model(tokens))


@pytest.mark.parametrize("training", [True, False])
def test_fake_tensors_have_the_shapes_and_nothing_else(*, training: bool) -> None:
    with FakeTensorMode():
        model = new_model(dropout=0.1).train(training)
        tokens = tokens_of(2, 9)
        logits = model(tokens)
        loss = NextTokenLoss(model)(tokens, tokens)
        loss.backward()
        cached = model(tokens, KVCache(model.config, 2))
        last = model.last_logits(tokens)
    assert [type(value) for value in (logits, loss, cached, last)] == [FakeTensor] * 4
    assert [value.shape for value in (logits, loss, cached, last)] == [(2, 9, 61), (), (2, 9, 61), (2, 61)]
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


@pytest.mark.parametrize("mode", ["real", "symbolic"])
def test_a_graph_of_the_operations_computes_what_they_do(mode: Literal["real", "symbolic"]) -> None:
    model = new_model()
    objective = NextTokenLoss(model)
    calls: list[Callable[[Tensor], Tensor]] = [
        model,
        lambda tokens: objective(tokens, tokens),
        lambda tokens: model.last_logits(tokens),  # noqa: PLW0108 - make_fx cannot look into a method
    ]
    for call in calls:
        graph = make_fx(call, tracing_mode=mode, _allow_non_fake_inputs=True)(tokens_of(2, 8))
        for n in (8,) if mode == "real" else (8, 3, 16):
            tokens = tokens_of(2, n)
            assert_close(graph(tokens), call(tokens))


def test_a_trace_takes_every_length() -> None:
    model = new_model()
    trace = torch.jit.trace(model, (tokens_of(2, 8),))  # type: ignore[no-untyped-call]
    for n in (1, 8, 16):
        tokens = tokens_of(2, n)
        assert_close(trace(tokens), model(tokens))


def test_nothing_is_made_on_the_default_device() -> None:
    """The mask of attention and the random numbers of dropout were: a model on the CPU failed beside a default GPU."""
    model = new_model(dropout=0.1)
    tokens = tokens_of(2, 9)
    expected = model(tokens), NextTokenLoss(model)(tokens, tokens)
    padded = KVCache(model.config, 2, padding=torch.tensor([0, 2]))
    with torch.device("meta"):
        assert_close((model(tokens), NextTokenLoss(model)(tokens, tokens)), expected)
        assert model(tokens[:, :5], padded).device.type == "cpu"
        assert model(tokens[:, 5:], padded).device.type == "cpu"
        assert_close(model.last_logits(tokens), expected[0][:, -1])
        model.train()
        NextTokenLoss(model)(tokens, tokens).backward()
        for module in model.modules():
            if isinstance(module, Dropout):
                module.seed = 3
        assert_close(model(tokens), model(tokens))
