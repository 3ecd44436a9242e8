"""Faster twins of PyTorch's functions: the same arguments and results, chosen inside by device, dtype and shape.

On a device that a kernel was not made for, or when traced, compiled, vectorised or faked, it calls its twin.
"""
