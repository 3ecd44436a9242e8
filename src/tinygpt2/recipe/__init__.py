"""Recipes: the model and the training that suit a text, a machine and some minutes."""
