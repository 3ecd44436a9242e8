"""The switch of all kernels, and the conditions for their use."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_globals

KERNELS = "TINYGPT2_KERNELS"
NAMES = ("attention", "cross_entropy", "dropout", "int8", "linear")

_PLAIN = (Tensor, nn.Parameter)
_PLAIN_OR_NONE = {*_PLAIN, type(None)}
_GLOBAL_HOOKS = tuple(
    getattr(module_globals, f"_global_{kind}_hooks") for kind in ("forward", "forward_pre", "backward", "backward_pre")
)

_off: ContextVar[frozenset[str]] = ContextVar(
    "_off", default=frozenset(NAMES if os.environ.get(KERNELS) == "0" else ())
)


@contextmanager
def without_kernels(*names: str) -> Iterator[None]:
    """Replaces kernels with their twins within the block, in this thread: the named ones, or all of them.

    ``TINYGPT2_KERNELS=0`` in the environment does so for all kernels and the whole process.

    >>> with without_kernels("dropout"):
    ...     enabled("dropout"), enabled("attention")
    (False, True)
    """
    if unknown := set(names) - set(NAMES):
        raise ValueError(f"there are no kernels {sorted(unknown)}; expected some of {', '.join(NAMES)}")
    token = _off.set(_off.get() | frozenset(names or NAMES))
    try:
        yield
    finally:
        _off.reset(token)


def enabled(name: str) -> bool:
    """Returns whether a kernel is switched on."""
    return name not in _off.get()


def usable(name: str, *tensors: Tensor) -> bool:
    """Returns whether a kernel may replace its twin: it is enabled, and the tensors and the computation are plain."""
    if not (is_plain_computation() and enabled(name)):
        return False
    for tensor in tensors:  # noqa: SIM110 - a generator would take longer than the question
        if type(tensor) not in _PLAIN or tensor.is_meta:
            return False
    return True


def is_plain_computation() -> bool:
    """Returns whether operations are executed as written: nothing traces, compiles, vectorises or fakes them."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()  # noqa: SLF001 - fake tensors, make_fx; there is no other way
        or torch._C._functorch.peek_interpreter_stack() is not None  # noqa: SLF001 # pyright: ignore[reportAttributeAccessIssue] - vmap, grad
        or torch._C._get_tracing_state() is not None  # noqa: SLF001 - torch.jit.trace
    )


def calls_only(module: nn.Module, forward: Callable[..., Any]) -> bool:
    """Returns whether calling a module runs only this ``forward`` of its class, on plain weights.

    It does not if the module has hooks or a replaced ``forward``, was compiled by ``module.compile()``, or was replaced
    by an adapter or another module.
    """
    own = vars(module)
    return (
        type(module).forward is forward
        and type(module).__call__ is nn.Module.__call__
        and "forward" not in own  # as accelerate replaces it
        and own.get("_compiled_call_impl") is None  # what module.compile() sets
        and not (own["_forward_hooks"] or own["_forward_pre_hooks"])
        and not (own["_backward_hooks"] or own["_backward_pre_hooks"])
        and not any(_GLOBAL_HOOKS)
        and {type(weight) for weight in own["_parameters"].values()} <= _PLAIN_OR_NONE
    )
