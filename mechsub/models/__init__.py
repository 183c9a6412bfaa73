"""Hooked models: the toy, language models, and what holds of them by running them."""
