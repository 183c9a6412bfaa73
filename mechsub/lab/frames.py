"""Records of a study's stored cells as a pandas frame, for notebooks."""

from pathlib import Path
from typing import Any

from mechsub.lab import finder, store
from mechsub.lab.cells import defaults_of


def frame(study: str, /, *, out: str | Path = "artifacts", **options: Any) -> Any:
    """A row for every record of every stored cell with these options: the cell, all its options, and what was measured.

    An option takes one value or a list of values; one that is not given may have any, and its column says which. Raises
    LookupError for a study that is not found or no such cell, TypeError for an unknown option, and DamagedCell.
    """
    import pandas as pd

    known = finder.find_study(study)
    if known is None:
        raise LookupError(f"there is no study {study!r}; there are {', '.join(finder.all_names())}")
    defaults = defaults_of(known.Config)
    if unknown := sorted(set(options) - set(defaults)):
        raise TypeError(f"{study} has no option {unknown[0]!r}; it has {', '.join(defaults)}")
    wanted = {name: value if isinstance(value, list | tuple) else [value] for name, value in options.items()}
    rows: list[dict] = []
    for path in sorted((Path(out).expanduser() / study).glob(f"*/{store.PROVENANCE}")):
        cell = path.parent
        config = {**defaults, **(store.read_provenance(cell) or {})["config"]}
        if all(config[name] in values for name, values in wanted.items()):
            rows += [{"cell": cell.name, **config, **row} for row in store.read_records(cell)]
    if not rows:
        raise LookupError(f"no stored cell of {study} under {out} has these options; run python -m studies.{study}")
    return pd.DataFrame(rows)
