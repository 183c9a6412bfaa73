"""Metrics that are distances: a smaller number means more alike. Tests, rankings and choices by a metric use `sign`."""

from mechsub import arguments

DISTANCES = ("identity_distance",)  # in all other metrics of similarity and unembedding, larger is more alike


def sign(metric: str) -> int:
    """1 where a larger value means more alike, else -1; a larger `sign(metric) * value` always means more alike."""
    arguments.text(metric, "metric")
    return -1 if metric in DISTANCES else 1
