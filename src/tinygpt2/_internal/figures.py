"""A figure that notebooks show. This is the one module that imports matplotlib, an extra that takes time to import."""

import io

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A ``Figure`` that is shown as the last value of a notebook's cell.

    Those of pyplot are shown through its global list of figures, to which this one does not belong.
    """

    def _repr_png_(self) -> bytes:
        """Returns the figure as PNG: IPython's protocol, which Jupyter, Colab and VS Code follow."""
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()
