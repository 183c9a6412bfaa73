"""Which metrics call what is more alike by a smaller number. Whoever tests, ranks or selects by a metric asks here."""

DISTANCES = ("identity_distance",)  # of all other metrics of mechsub.similarity and mechsub.unembedding, larger is more


def sign(metric: str) -> int:
    """1 where larger is more alike, -1 where smaller is: `sign(metric) * value` can be ranked, and the largest taken."""
    return -1 if metric in DISTANCES else 1
