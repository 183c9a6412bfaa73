"""Packages that take long to import, each imported when something of it is first used.

So `import mechsub` and `--help` are quick, and a module names at its top what it uses.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import plotly.graph_objects as go
    import scipy.stats as scipy_stats
    import torch
    import transformer_lens.utilities as utilities
else:

    class _Late(ModuleType):
        def __getattr__(self, name: str) -> Any:
            return getattr(importlib.import_module(self.__name__), name)

    np, go, scipy_stats = _Late("numpy"), _Late("plotly.graph_objects"), _Late("scipy.stats")
    torch, utilities = _Late("torch"), _Late("transformer_lens.utilities")

__all__ = ["go", "np", "scipy_stats", "torch", "utilities"]
