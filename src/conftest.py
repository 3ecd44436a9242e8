"""What the doctests of the package share."""

import tinygpt2

# Doctests of a public class are found where its ``__module__`` says it is, in the package, if it is loaded there.
for _name in vars(tinygpt2)["__all__"]:
    getattr(tinygpt2, _name)
