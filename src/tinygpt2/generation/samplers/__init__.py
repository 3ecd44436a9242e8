"""Samplers, which choose the next token from logits.

A chain of them ends in one of ``draws``. The others change the logits and pass them on to the sampler in ``then``, so
that they compose in the order in which logits flow. Each kind has a file; in the order in which they belong in a chain:
``penalties``, ``bias``, ``bans`` and ``strings``, ``filters``, ``temperature``, ``draws``.
"""
