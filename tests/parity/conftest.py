"""What the comparisons with transformers share."""

from collections.abc import Iterator

import pytest

transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """No progress bars among the test results."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity(verbosity)
    transformers.logging.enable_progress_bar()
