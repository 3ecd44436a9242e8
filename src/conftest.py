"""What the doctests of the package share."""

from tinygpt2 import train  # noqa: F401 - doctests of a class are found where its __module__ says that it is
