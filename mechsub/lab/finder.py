"""Studies by their names. This is the only file of mechsub that knows where studies stand; it imports no other code."""

import importlib
import pkgutil
from pathlib import Path

from mechsub.lab.declared import Study, declared_by, imported

PACKAGE = "studies"


def find_study(name: str) -> Study | None:
    """The study of that name, None if there is none. No other code is imported, whatever a provenance file says.

    A study that exists and cannot be imported raises: it does not count as absent.
    """
    if not isinstance(name, str) or not name.isidentifier():
        return None
    module = imported(f"{PACKAGE}.{name}")
    return None if module is None else declared_by(module)


def folder() -> Path:
    """The folder of the studies."""
    return Path(importlib.import_module(PACKAGE).__path__[0])


def all_names() -> list[str]:
    """Names of all studies, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules([str(folder())]) if module.name[0] != "_")
    return [name for name in names if find_study(name) is not None]
