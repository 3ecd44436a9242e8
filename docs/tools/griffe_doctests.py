"""Shows each ``>>>`` example of a docstring as code, where Markdown would see three nested quotations.

A Griffe extension, which mkdocs.yml names; it is not part of the site.
"""

import re

from griffe import Extension, GriffeLoader, Object

_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)  # up to the first empty line


class DoctestExtension(Extension):
    """Puts a fence around the examples of every docstring."""

    def on_object(self, *, obj: Object, loader: GriffeLoader, **kwargs: object) -> None:  # noqa: ARG002
        """Changes the docstring of an object in place; called once for each."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
