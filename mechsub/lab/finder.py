"""Studies by their names. This is the only file of mechsub that knows where studies stand; it imports none of them."""

import contextlib
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

from mechsub.lab import store, terminal
from mechsub.lab.declared import Study, declared_by, imported

PACKAGE = "studies"


class CannotImport(ImportError, terminal.Told):
    """A study exists, and its code cannot be imported; the message is one line that names it."""


def find_study(name: str) -> Study | None:
    """The study of that name, None if there is none. No other code is imported, whatever a provenance file says.

    Raises CannotImport for a study that exists and cannot be imported: it does not count as absent.
    """
    if not isinstance(name, str) or not name.isidentifier():
        return None
    with _named(name):
        module = imported(f"{PACKAGE}.{name}")
    return None if module is None else declared_by(module)


def usable_study(name: str) -> Study | None:
    """`find_study`, with the file that holds its Config imported too, so that what is wrong there is said here."""
    study = find_study(name)
    if study is not None:
        with _named(name):
            study.Config  # noqa: B018
    return study


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise CannotImport(f"{PACKAGE}.{name} cannot be imported ({type(error).__name__}: {said}); mend it") from error


def folder() -> Path:
    """The folder of the studies."""
    return Path(importlib.import_module(PACKAGE).__path__[0])


def results_elsewhere(out: str | Path) -> Path | None:
    """The results of the checkout that holds the studies, where `out` is the usual folder and is not here."""
    theirs = folder().parent / store.USUAL
    here = Path(out)
    return theirs if here == Path(store.USUAL) and not here.exists() and theirs.is_dir() else None


def all_names() -> list[str]:
    """Names of all studies, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules([str(folder())]) if module.name[0] != "_")
    return [name for name in names if find_study(name) is not None]
