"""Data sets and batches of token ids."""
