"""Measures of models: one noun a file."""
