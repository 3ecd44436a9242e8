"""Texts and tokenizers."""
