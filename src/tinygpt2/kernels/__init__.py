"""Faster twins of PyTorch's functions: the same arguments, the same results, chosen by device, dtype and shape inside.

Where a computation is traced, compiled, vectorised or faked, each is its twin, as on the devices it was not made for.
"""
