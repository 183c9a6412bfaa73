"""The declaration of a study: its version, its probes, and the places of its parts."""

import importlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

FILES = ("measure", "findings", "figure")  # of a study that is a folder, beside its __init__.py
MEASURED = ("Config", "run", "check", "upstream")  # parts for which measure.py is loaded, and torch with it
NOTEBOOK = "notebook"  # the study's name where `run` stands in a notebook's cells and has no file


def _declaring() -> str:
    """Name of the module (or notebook) whose top-level code is running: it declares the study."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and not frame.f_code.co_name.startswith(("<module>", "<cell")):
        frame = frame.f_back
    return "__main__" if frame is None else frame.f_globals["__name__"]


@runtime_checkable
class Options(Protocol):
    """An instance of a study's Config, a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field]]


@dataclass(frozen=True, eq=False)
class Study:
    """One question, as a module or a folder asks it.

    version: raise it when you mean to change the numbers of stored cells; these are stale then. probes: tiny Configs
    that CI makes again; None for a study without probes. The declaring module has the parts: Config and run(cfg);
    optional are plot(records), check(cfg), upstream(cfg), findings(cell), comparisons(cells) and table(records). In a
    folder the parts may stand in measure.py, findings.py and figure.py, which are loaded when they are needed.
    """

    version: Any = 1  # checked below, so that the message says whose it is
    probes: Sequence[Options] | None = None
    module: str = field(default_factory=_declaring)
    given: Mapping[str, object] = field(default_factory=dict)  # parts that stand in no module
    together: Sequence[str] = ()  # options whose levels are parts of one cell, to a reader: findings are of all of them
    judged: bool = False  # whether its table, where it has none of its own, ends with verdicts on its predictions

    def __post_init__(self):
        if isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 1:
            raise TypeError(f"the version of {self.module} must be an integer from 1 on, not {self.version!r}")

    def part(self, name: str, default: object = None) -> Any:
        """A part of the study by its name; `default` where the study has no such part."""
        if name in self.given:
            return self.given[name]
        home = sys.modules[self.module]
        value = getattr(home, name, None)
        if value is not None and not inspect.ismodule(value):
            return value
        if hasattr(home, "__path__"):
            for file in FILES if name in MEASURED else FILES[1:]:
                if importlib.util.find_spec(f"{self.module}.{file}") is not None:
                    value = getattr(importlib.import_module(f"{self.module}.{file}"), name, None)
                    if value is not None and not inspect.ismodule(value):
                        return value
        return default

    def needed(self, name: str) -> Any:
        """A part of the study by its name. Raises AttributeError where the study has no such part."""
        value = self.part(name)
        if value is None:
            raise AttributeError(f"the study {self.name} has no {name}")
        return value

    @property
    def Config(self) -> type:
        return self.needed("Config")

    @property
    def run(self) -> Callable:
        return self.needed("run")

    @property
    def source(self) -> Path | None:
        """The study's file, or its folder's __init__.py; None in a notebook."""
        file = getattr(sys.modules[self.module], "__file__", None)
        return Path(file).resolve() if file else None

    @property
    def folder(self) -> Path:
        """The study's folder, or the folder of its file."""
        source = self.source
        return Path.cwd() if source is None else source.parent

    @property
    def name(self) -> str:
        """The name of the study's file or folder."""
        source = self.source
        if source is None:
            return NOTEBOOK
        return source.parent.name if source.stem == "__init__" else source.stem

    @property
    def dotted(self) -> str:
        """The study's name behind `python -m`."""
        source = self.source
        if source is None:
            return NOTEBOOK
        return f"{(source.parent if source.stem == '__init__' else source).parent.name}.{self.name}"

    @property
    def doc(self) -> str | None:
        return sys.modules[self.module].__doc__

    @property
    def command(self) -> list[str]:
        """The command by which another process can run the study: `python` and its arguments."""
        spec = getattr(sys.modules[self.module], "__spec__", None)
        return [sys.executable, *(["-m", spec.name] if spec else [str(self.source)])]

    def sibling(self, name: str) -> "Study | None":
        """Another study of the same package, or one that this process has loaded; None where no such study is found."""
        package = _package(sys.modules[self.module])
        module = (imported(f"{package}.{name}") if package else None) or sys.modules.get(name)
        return None if module is None else declared_by(module)


def imported(name: str) -> types.ModuleType | None:
    """A module by its whole name; None where the module, or a package around it, does not exist.

    Raises the module's own errors, also where it imports something that does not exist.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        return None


def _package(module: types.ModuleType) -> str:
    """Name of the package of a study; "" for a study in a script."""
    spec = getattr(module, "__spec__", None)
    if spec is None:
        return getattr(module, "__package__", None) or ""
    return spec.name.rpartition(".")[0] if spec.submodule_search_locations else spec.parent


def declared_by(module: types.ModuleType) -> Study | None:
    """The study that a module declares as `study`, or by VERSION and PROBES beside its Config and run."""
    declared = getattr(module, "study", None)
    if isinstance(declared, Study):
        return declared
    if not hasattr(module, "Config") or not hasattr(module, "run"):
        return None
    return Study(getattr(module, "VERSION", 1), getattr(module, "PROBES", None), module.__name__)
