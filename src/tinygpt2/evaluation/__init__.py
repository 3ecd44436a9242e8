"""Measurement of models: data sets and texts to losses."""
