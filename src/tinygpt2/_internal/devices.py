"""Device, precision and compilation of a model's computation."""

import warnings
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from tinygpt2._internal.checks import first_line

if TYPE_CHECKING:
    from collections.abc import Callable


def choose_device(device: torch.device | str | None = None) -> torch.device:
    """Returns the given device, or else the best available one: CUDA, then MPS, then the CPU.

    Raises:
        TypeError: If it is neither a device nor the name of one.
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
    _check_type(device)
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, ValueError) as error:  # from PyTorch: an unknown name, a missing device
        raise ValueError(f"there is no device {str(device)!r} here; available: {', '.join(available)}") from error
    return chosen


def _check_type(device: object) -> None:
    if isinstance(device, bool) or not isinstance(device, torch.device | str | int):  # a number is a GPU, for PyTorch
        raise TypeError(f"device must be a torch.device or the name of one, such as 'cpu', got {device!r}")


def device_of(module: nn.Module) -> torch.device:
    """Returns the device of a module's parameters, or else of its buffers; the CPU if it has neither."""
    return next((tensor.device for tensor in chain(module.parameters(), module.buffers())), torch.device("cpu"))


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a contiguous tensor of the same values on a device.

    To a CUDA GPU it is copied from pinned memory, while the GPU is still at work on what came before.
    """
    tensor = tensor.contiguous()
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Returns the context in which a forward pass has this precision on this device; weights do not change.

    ``"auto"`` is never fp16: it would need a gradient scaler, whose state every checkpoint would have to hold.
    """
    on_gpu = device.type == "cuda"
    if precision == "bf16" and on_gpu and not computes_bf16(device):
        _warn_of_emulation(device)
    bf16 = precision == "bf16" or (precision == "auto" and on_gpu and computes_bf16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


def computes_bf16(device: torch.device) -> bool:
    """Returns whether a GPU has instructions for bf16; ``torch.cuda.is_bf16_supported()`` is true of emulation, too."""
    if torch.version.hip is not None:  # AMD numbers its GPUs differently, and PyTorch answers for those it runs on
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.cuda.get_device_capability(device) >= (8, 0)


@cache
def _warn_of_emulation(device: torch.device) -> None:
    """Warns once for each device."""
    major, minor = torch.cuda.get_device_capability(device)
    warnings.warn(
        f"{device} has compute capability {major}.{minor} and only emulates bf16, which begins at 8.0: slower than "
        'fp32. Pass precision="fp32" or "auto"',
        RuntimeWarning,
        stacklevel=3,
    )


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
        warnings.warn(f"not compiled, and slower for it: {first_line(error)}", RuntimeWarning, stacklevel=5)
