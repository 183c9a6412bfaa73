"""Commands, cells, findings and pages: the laboratory round the instrument. It knows no model.

A study imports this module, and declares itself:

    study = lab.Study(version=1, probes=[Config(n_seeds=2)])

    if __name__ == "__main__":
        lab.main(study)
"""

from mechsub.lab.cells import by_cell, part
from mechsub.lab.declared import Study
from mechsub.lab.findings import Finding, by_arm
from mechsub.lab.options import Count, Index, NonNegative, Positive, Replicates, Resamples, option, refuse_ignored
from mechsub.lab.study import command as main
from mechsub.lab.study import show_progress, span
from mechsub.lab.tables import format_table
from mechsub.lab.upstream import Stored, Upstream, upstream

__all__ = [
    "Count",
    "Finding",
    "Index",
    "NonNegative",
    "Positive",
    "Replicates",
    "Resamples",
    "Stored",
    "Study",
    "Upstream",
    "by_arm",
    "by_cell",
    "format_table",
    "main",
    "option",
    "part",
    "refuse_ignored",
    "show_progress",
    "span",
    "upstream",
]
