"""A package whose public names are imported when the first of them is used."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module


def load_on_demand(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """Returns ``__all__``, ``__getattr__`` and ``__dir__`` of a package.

    The first name that is used imports all of them, so that the ``__module__`` of each can be the package: errors,
    pickles and the documentation then name them by their public path.

    Args:
        package: Name of the package.
        names: Public names in each of its modules, by the module's name within the package.
    """
    public = sorted(name for found in names.values() for name in found)

    def load(name: str) -> object:
        if name not in public:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        for module, found in names.items():
            for each in found:
                value = getattr(import_module(f"{package}.{module}"), each)
                value.__module__ = package
                setattr(sys.modules[package], each, value)  # the next access does not come here
        return vars(sys.modules[package])[name]

    def known() -> list[str]:
        return sorted({*vars(sys.modules[package]), *public})

    return public, load, known
