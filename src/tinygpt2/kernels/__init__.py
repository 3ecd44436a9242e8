"""Faster twins of PyTorch's functions."""
