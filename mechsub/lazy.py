"""Packages that take long to import; each is imported at its first use.

So `import mechsub` and `--help` are quick, and a module still names its packages at its top.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING


class _Late(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._package = name  # not __name__, which a reader of modules (pdoc) may write over

    def __getattr__(self, name: str) -> object:
        return getattr(importlib.import_module(self._package), name)


def late(name: str) -> ModuleType:
    """A module of ours that imports such packages, imported late; type checkers read an ordinary import beside it."""
    return _Late(name)


if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import plotly.graph_objects as go
    import scipy.special as scipy_special
    import scipy.stats as scipy_stats
    import torch
    import transformer_lens.utilities as utilities
else:
    np, go = late("numpy"), late("plotly.graph_objects")
    scipy_special, scipy_stats = late("scipy.special"), late("scipy.stats")
    pd, torch, utilities = late("pandas"), late("torch"), late("transformer_lens.utilities")

__all__ = ["go", "late", "np", "pd", "scipy_special", "scipy_stats", "torch", "utilities"]
