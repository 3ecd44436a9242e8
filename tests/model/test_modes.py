"""Modes that are switched for a while: what is inside sees one mode, and what is outside its own."""

import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tinygpt2.model import modes
from tinygpt2.model.modes import evaluation_mode, training_mode


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.Linear(2, 2)), nn.Dropout())


def modes_of(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@given(st.lists(st.booleans(), min_size=6, max_size=6), st.lists(st.booleans(), max_size=5))
def test_each_block_has_its_mode_inside_and_all_is_as_before_outside(before: list[bool], nested: list[bool]) -> None:
    model = network()
    for module, training in zip(model.modules(), before, strict=True):
        module.training = training
    with ExitStack() as stack:
        for training in nested:
            stack.enter_context(training_mode(model) if training else evaluation_mode(model))
            assert set(modes_of(model)) == {training}
    assert modes_of(model) == before
    assert model not in modes._holds


@given(st.integers(2, 5), st.data())
def test_the_mode_holds_until_the_last_one_is_out_in_whatever_order(holders: int, data: st.DataObject) -> None:
    """Threads do not leave in the order in which they came."""
    model = network()
    order = data.draw(st.permutations(range(holders)))
    blocks = [evaluation_mode(model) for _ in range(holders)]
    for block in blocks:
        block.__enter__()
    for left, i in enumerate(order, start=1):
        assert not any(modes_of(model))
        blocks[i].__exit__(None, None, None)
        assert all(modes_of(model)) == (left == holders)


def test_a_training_that_ends_before_the_generation_beside_it_leaves_the_right_mode_behind() -> None:
    model = network().eval()
    training, evaluation = training_mode(model), evaluation_mode(model)
    training.__enter__()
    evaluation.__enter__()
    training.__exit__(None, None, None)
    assert not any(modes_of(model))
    evaluation.__exit__(None, None, None)
    assert not any(modes_of(model))
    assert model not in modes._holds


def test_a_module_that_was_switched_inside_is_switched_back_by_whoever_comes_next() -> None:
    """A callback calls ``model.eval()`` and then trains another way, with the same library."""
    model = network()
    with training_mode(model):
        model.eval()
        with training_mode(model):
            assert all(modes_of(model))


@pytest.mark.parametrize("mode", [evaluation_mode, training_mode])
def test_an_exception_restores(mode: Callable[[nn.Module], object]) -> None:
    model = network()
    model.get_submodule("1").eval()
    before = modes_of(model)
    with pytest.raises(KeyError), mode(model):  # type: ignore[attr-defined]
        raise KeyError
    assert modes_of(model) == before


def test_models_do_not_hold_one_another() -> None:
    one, other = network(), network()
    with evaluation_mode(one):
        assert all(modes_of(other))
        with evaluation_mode(other):
            pass
        assert all(modes_of(other))


def test_a_list_of_the_modules_spares_the_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    modules = list(model.modules())
    monkeypatch.setattr(nn.Module, "modules", None)
    with evaluation_mode(model, modules):
        assert not any(module.training for module in modules)
    assert all(module.training for module in modules)


def test_many_threads_never_see_the_other_mode() -> None:
    model = network()
    modules = list(model.modules())
    wrong: list[int] = []

    def work() -> None:
        for _ in range(300):
            with evaluation_mode(model, modules):
                wrong.extend(1 for _ in range(3) if any(module.training for module in modules))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(modes_of(model))
