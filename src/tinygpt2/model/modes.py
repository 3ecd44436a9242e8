"""Training and evaluation mode, for a while."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module | Sequence[nn.Module]) -> Iterator[None]:
    """Switches dropout off for the duration, then every module back to the mode it was in.

    Args:
        model: A model, or the modules in it, for which a large model need not be walked through anew.
    """
    with _mode(model, training=False):
        yield


@contextmanager
def training_mode(model: nn.Module) -> Iterator[None]:
    """Switches dropout on for the duration, then every module back to the mode it was in."""
    with _mode(model, training=True):
        yield


@contextmanager
def _mode(model: nn.Module | Sequence[nn.Module], *, training: bool) -> Iterator[None]:
    modules = model.modules() if isinstance(model, nn.Module) else model
    switched = [module for module in modules if module.training != training]
    for module in switched:
        module.training = training
    try:
        yield
    finally:
        for module in switched:
            module.training = not training
