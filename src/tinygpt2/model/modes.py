"""Temporary training and evaluation modes."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import RLock
from weakref import WeakKeyDictionary

from torch import nn


def evaluation_mode(model: nn.Module, modules: Sequence[nn.Module] | None = None) -> AbstractContextManager[None]:
    """Switches dropout off within the block, then returns every module to its previous mode.

    Several threads may share one model: the first to enter switches it, and the last to leave switches it back.

    Args:
        model: The model.
        modules: ``list(model.modules())``, for a caller that enters repeatedly: traversing a large model takes longer
            than switching it.
    """
    return _mode(model, modules, training=False)


def training_mode(model: nn.Module) -> AbstractContextManager[None]:
    """Switches dropout on within the block, then returns every module to its previous mode.

    An `evaluation_mode` inside it, such as that of a callback that generates, takes precedence until it ends. While one
    thread trains a model, another must not generate with it: both read the mode from the modules.
    """
    return _mode(model, None, training=True)


@dataclass
class _Hold:
    """A mode that one or more callers hold a model in."""

    training: bool
    switched: list[nn.Module]
    holders: int = 0


# The holds of each model, innermost last. Only models in use have an entry.
_holds: WeakKeyDictionary[nn.Module, list[_Hold]] = WeakKeyDictionary()
_lock = RLock()  # re-entered where the garbage collector closes a generator that was inside


@contextmanager
def _mode(model: nn.Module, modules: Sequence[nn.Module] | None, *, training: bool) -> Iterator[None]:
    modules = list(model.modules()) if modules is None else modules
    with _lock:
        hold = _enter(model, modules, training=training)
    try:
        yield
    finally:
        with _lock:
            _leave(model, hold)


def _enter(model: nn.Module, modules: Sequence[nn.Module], *, training: bool) -> _Hold:
    holds = _holds.setdefault(model, [])
    if not holds or holds[-1].training != training:
        holds.append(_Hold(training, []))
    hold = holds[-1]
    switched = [module for module in modules if module.training != training]
    for module in switched:
        module.training = training
    hold.switched += switched
    hold.holders += 1
    return hold


def _leave(model: nn.Module, hold: _Hold) -> None:
    hold.holders -= 1
    holds = _holds[model]
    # A hold that ends below another, which must be another thread's, waits for it: its modules are in use.
    while holds and not holds[-1].holders:
        ended = holds.pop()
        for module in ended.switched:
            module.training = not ended.training
    if not holds:
        del _holds[model]
