"""The figures of `studies.defences`: what is left of trait and task in every arm, and who can tell the lists."""

import mechsub as ms
from studies.defences.findings import shown


def plot(records: list[dict]):
    return ms.kinds.findings(shown(records, True), "What is left of trait (kept) and task, as shares of the undefended")


def plot_detection(records: list[dict]):
    return ms.kinds.findings(shown(records, False), "Who can tell the teacher's lists from the base's?")
