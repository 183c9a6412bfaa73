"""Which metrics call what is more alike by a smaller number. Whoever tests, ranks or selects by a metric asks here."""

from mechsub import arguments

DISTANCES = ("identity_distance",)  # in all other metrics of similarity and unembedding, larger is more alike


def sign(metric: str) -> int:
    """1 where larger is more alike, -1 where smaller is: of `sign(metric) * value` the largest is."""
    arguments.text(metric, "metric")
    return -1 if metric in DISTANCES else 1
