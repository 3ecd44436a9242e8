"""A package whose public names are imported when they are first used."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import NamedTuple


def load_on_demand(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """Returns ``__all__``, ``__getattr__`` and ``__dir__`` of a package whose names are imported when first used.

    However such a name is reached, through the package or through its own module, its ``__module__`` is the package:
    errors, pickles and the documentation then name it by its public path.

    Args:
        package: Name of the package.
        names: Public names in each of its modules, by the module's name within the package.
    """
    of_module = {f"{package}.{module}": tuple(found) for module, found in names.items()}
    module_of = {name: module for module, found in of_module.items() for name in found}
    finder = _Finder(package, of_module)
    if finder not in sys.meta_path:  # as after importlib.reload
        sys.meta_path.insert(0, finder)

    def load(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        value = getattr(import_module(module_of[name]), name)
        value.__module__ = package  # as it is, unless the module is not loaded from a source
        setattr(sys.modules[package], name, value)  # the next access does not come here
        return value

    def known() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of})

    return sorted(module_of), load, known


class _Finder(NamedTuple):
    """Finds the modules that define public names."""

    package: str
    names: Mapping[str, Sequence[str]]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.names:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(fullname, spec.loader.path, self)
        return spec


class _Loader(SourceFileLoader):
    """Loads a module, and names its public objects by their public path."""

    def __init__(self, fullname: str, path: str, finder: _Finder) -> None:
        super().__init__(fullname, path)
        self.finder = finder

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        for name in self.finder.names[self.name]:
            getattr(module, name).__module__ = self.finder.package
