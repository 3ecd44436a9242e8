"""Documents: the texts that files, tables and data sets hold, one at a time."""

from collections.abc import Iterable, Iterator

from tinygpt2._internal.checks import of_type
from tinygpt2._internal.texts import check_text, check_texts


def documents_of(name: str, source: object, field: str = "text") -> Iterable[str]:
    """Returns the documents that a value holds, lazily and in its order.

    Args:
        name: Name of the value in error messages.
        source: Several ``str``: a list, a column of a table or of a data set, any other iterable; or a table or a data
            set with a column of texts.
        field: Name of that column.

    Raises:
        TypeError: If it is anything else, or an item is no ``str``; during iteration.
        ValueError: If an item has a lone surrogate; during iteration.
    """
    return _checked(name, check_texts(name, source))


def _checked(name: str, items: Iterable[object]) -> Iterator[str]:
    for i, item in enumerate(items):
        if not isinstance(item, str):
            raise TypeError(f"{name}[{i}] must be a str, got {of_type(item)}")
        yield check_text(f"{name}[{i}]", item)
