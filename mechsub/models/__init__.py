"""Hooked models: the toy, language models, and properties of a model that are found by running it."""
