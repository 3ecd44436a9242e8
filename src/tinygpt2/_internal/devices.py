"""Where a model trains, in which precision, and from which random numbers."""

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch


def choose_device(device: torch.device | str | None = None) -> torch.device:
    """Returns the device asked for, or else the best there is: CUDA, then MPS, then the CPU.

    Raises:
        ValueError: If PyTorch does not know the device, or this machine does not have it.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if device is None:
        return torch.device(available[0])
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # PyTorch's, for an unknown name and for a missing device
        raise ValueError(f"there is no device {str(device)!r} here; available: {', '.join(available)}") from error
    return chosen


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Returns the context in which a forward pass has this precision on this device; weights stay as they are."""
    bf16 = precision == "bf16" or (precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported())
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Returns `torch.compile(function)`, which becomes ``function`` itself, with a warning, where compiling fails.

    Compiling happens at the first calls, and where it fails there is no saying how: no C++ compiler, no Triton, a
    version of Python that is too new. If the function itself fails, its error is raised.
    """
    attempts: list[Callable[P, R]] = []

    def give_up(error: Exception) -> None:
        attempts.clear()
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        warnings.warn(f"not compiled, and slower for it: {reason}", RuntimeWarning, stacklevel=4)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if attempts:
            try:
                return attempts[0](*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - a compiler may fail in any way
                result = function(*args, **kwargs)  # or fails itself, and that is the error to tell
                give_up(error)
                return result
        return function(*args, **kwargs)

    try:
        attempts.append(torch.compile(function))
    except RuntimeError as error:
        give_up(error)
    return call
