"""Texts and documents."""
