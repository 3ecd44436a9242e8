"""Device, precision and compilation of a model's computation."""

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable


def choose_device(device: torch.device | str | None = None) -> torch.device:
    """Returns the given device, or else the best available one: CUDA, then MPS, then the CPU.

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
    except (RuntimeError, AssertionError) as error:  # from PyTorch, for an unknown name or a missing device
        raise ValueError(f"there is no device {str(device)!r} here; available: {', '.join(available)}") from error
    return chosen


def device_of(module: nn.Module) -> torch.device:
    """Returns the device of a module's parameters; the CPU if it has none."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Returns the context in which a forward pass has this precision on this device; weights do not change."""
    bf16 = precision == "bf16" or (precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported())
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


class Compiled(nn.Module):
    """A module whose calls are compiled; if that fails, it warns and calls the module uncompiled from then on.

    Compilation happens at the first calls, and can fail with any error: no C++ compiler, no Triton, a version of Python
    that is too new. If the module itself fails, its error is raised.

    Args:
        module: Any module.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._attempts: list[Callable[..., Any]] = []
        try:
            self._attempts.append(torch.compile(module))
        except RuntimeError as error:
            self._give_up(error)

    @override
    def forward(self, *args: Any) -> Any:
        if self._attempts:
            try:
                return self._attempts[0](*args)
            except Exception as error:  # noqa: BLE001 - a compiler may fail in any way
                result = self.module(*args)  # or fails itself, which is the error to report
                self._give_up(error)
                return result
        return self.module(*args)

    def _give_up(self, error: Exception) -> None:
        self._attempts.clear()
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        warnings.warn(f"not compiled, and slower for it: {reason}", RuntimeWarning, stacklevel=5)
