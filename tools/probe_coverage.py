"""Which lines of measuring code does no probe run?

    python -m tools.probe_coverage        # or: make probe-coverage

Measuring code is what a study's `run` can reach, by the names that its functions use: functions and methods of mechsub
and studies, without the harness (the command line, the store, checks of arguments), without tables, figures and checks,
which make no stored number, and without what only refuses.

tests/probes/unreached.toml accepts lines with a reason: a function that no probe enters by its name, any other line by
its function and its text. So code may be moved to other files. Exit code 1 where another line is not run, or where
what is listed is run, or gone (run: but for entries with `sometimes`, which depend on the machine).
"""

import ast
import importlib
import importlib.util
import inspect
import os
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import mechsub
from mechsub.lab import cells, finder, probes

ROOT = Path(__file__).parents[1]
HARNESS = {"arguments", "commands", "doctor", "files", "lab", "machine", "processes", "sources"}  # in mechsub
DISPLAY = {"table", "plot", "check", "__post_init__", "__repr__", "__str__", "_repr_pretty_"}
REFUSING = ("refuse", "_refuse")  # functions of these names raise
ACCEPTED = ROOT / "tests" / "probes" / "unreached.toml"


class Name(NamedTuple):
    """A function, a class or a variable of a module; a method with its class's name."""

    path: Path
    name: str


class Lines(NamedTuple):
    counted: set[int]
    missed: set[int]


def main() -> int:
    wanted = {**probes.ENVIRONMENT, "MECHSUB_PROBE_COVERAGE": "1"}
    if "MECHSUB_PROBE_COVERAGE" not in os.environ:  # the libraries read these when they are loaded
        os.execve(sys.executable, [sys.executable, "-m", "tools.probe_coverage"], {**os.environ, **wanted})
    return report(run_probes(), tomllib.loads(ACCEPTED.read_text(encoding="utf-8")))


def run_probes() -> dict[Path, Lines]:
    """File -> lines of statements, and those of them that did not run while all probes ran in this process."""
    import coverage

    with tempfile.TemporaryDirectory() as folder:
        os.environ["MECHSUB_CACHE"] = str(Path(folder) / "cache")
        os.environ["MECHSUB_CHECKPOINTS"] = str(Path(folder) / "checkpoints")
        measured = coverage.Coverage(source_pkgs=["mechsub", "studies"], data_file=None, concurrency="thread")
        measured.start()
        for name in probes.studies():
            for probe in probes.of_study(name):
                try:
                    cells.make_cell(finder.find_study(name), probe.cfg, Path(folder) / "out")
                except Exception as error:
                    raise SystemExit(f"error: {probe.name} cannot be made: {type(error).__name__}: {error}") from None
                print(f"ran       {probe.name}", file=sys.stderr)
        measured.stop()
        found = {}
        for path in _files():
            _, statements, _, missed, _ = measured.analysis2(str(path))
            found[path] = Lines(set(statements), set(missed))
        return found


def _files() -> list[Path]:
    return [path for package in ("mechsub", "studies") for path in sorted((ROOT / package).rglob("*.py"))]


def report(lines: dict[Path, Lines], accepted: dict) -> int:
    """Say what is not run, is not accepted, or is accepted in vain."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in lines}
    entries = accepted["unreached"]
    whole = dict.fromkeys((name for entry in entries for name in entry.get("functions", ())), False)
    single = dict.fromkeys((line for entry in entries for line in entry.get("lines", ())), False)
    total = run = problems = 0
    for path, name in sorted(measuring(trees)):
        node, source = _functions(trees[path])[name], path.read_text(encoding="utf-8").splitlines()
        counted = (lines[path].counted & _body(node)) - _refusing(node)
        missed = sorted(counted & lines[path].missed)
        total, run = total + len(counted), run + len(counted) - len(missed)
        if missed and set(missed) == counted and name in whole:
            whole[name] = True
            continue
        for number in missed:
            line = f"{name}: {source[number - 1].strip()}"
            if line in single:
                single[line] = True
            else:
                problems += 1
                print(f"not run   {path.relative_to(ROOT)}:{number}: {line}")
    sometimes = {name for entry in entries if entry.get("sometimes") for name in _listed(entry)}
    idle = [name for name, used in {**whole, **single}.items() if not used and name not in sometimes]
    for name in idle:
        print(f"outdated  {name} is listed in {ACCEPTED.relative_to(ROOT)}, and is run, or gone")
    left = f"{total - run - problems} of the others are accepted, {problems} are not; {len(idle)} outdated entries"
    print(f"{run} of {total} measuring lines are run by the probes ({run / total:.1%}); {left}")
    return 1 if problems or idle else 0


def _listed(entry: dict) -> list[str]:
    return [*entry.get("functions", ()), *entry.get("lines", ())]


# What a `run` can reach.


def measuring(trees: dict[Path, ast.Module]) -> set[Name]:
    """The functions and methods that make numbers, by their names."""
    studies = [finder.find_study(name) for name in probes.studies()]
    waiting = [Name(Path(inspect.getfile(inspect.unwrap(each.run))), "run") for each in studies if each and each.probes]
    reached: set[Name] = set()
    classes: set[Name] = set()
    attributes = {"forward"}
    while waiting or (waiting := list(_methods(classes, attributes, trees, reached))):
        here = waiting.pop()
        if here in reached or here.path not in trees or _outside(here):
            continue
        reached.add(here)
        node = _definitions(trees[here.path]).get(here.name)
        if node is None:
            continue
        if isinstance(node, ast.ClassDef):
            classes.add(here)
        waiting += _used(node, here.path, trees[here.path])
        attributes |= {each.attr for each in ast.walk(_own(node)) if isinstance(each, ast.Attribute)}
    return {each for each in reached if each.name in _functions(trees[each.path])}


def _outside(name: Name) -> bool:
    """Whether it is of the harness, or for display."""
    place = name.path.relative_to(ROOT)
    harness = place.parts[0] == "mechsub" and bool(HARNESS & {*place.parts[1:-1], place.stem})
    return harness or bool(DISPLAY & set(name.name.split(".")))


def _methods(classes: Iterable[Name], used: set[str], trees: dict[Path, ast.Module], reached: set[Name]) -> set[Name]:
    """Methods of reached classes that reached functions may call: by an attribute of that name, or by Python itself."""
    found = set()
    for path, name in classes:
        for method in _functions(trees[path]):
            of, _, last = method.rpartition(".")
            if of == name and (last in used or (last.startswith("__") and last.endswith("__"))):
                found.add(Name(path, method))
    return {each for each in found - reached if not _outside(each)}


def _own(node: ast.AST) -> ast.AST:
    """Of a class what runs when it is defined: its methods are reached by their own names."""
    if not isinstance(node, ast.ClassDef):
        return node
    rest = [each for each in node.body if not isinstance(each, ast.FunctionDef)]
    return ast.Module(body=[*rest, *map(ast.Expr, [*node.bases, *node.decorator_list])], type_ignores=[])


def _used(node: ast.AST, path: Path, tree: ast.Module) -> Iterator[Name]:
    """The names of mechsub and studies that a definition uses, where they are defined."""
    known, imported = _definitions(tree), _imported(path, tree)
    for each in ast.walk(_own(node)):
        if isinstance(each, ast.Name):
            if each.id in known:
                yield Name(path, each.id)
            elif (target := imported.get(each.id)) and not isinstance(target, ModuleType):
                yield target
        elif isinstance(each, ast.Attribute) and (module := _module(each.value, imported)):
            if target := _of_module(module, each.attr):
                yield target
        elif isinstance(each, ast.Call) and getattr(each.func, "id", "") == "getattr":  # by a name that is told later
            if module := _module(each.args[0], imported):
                told = {str(one.value) for one in ast.walk(tree) if isinstance(one, ast.Constant)}
                functions = [name for name in told & set(vars(module)) if inspect.isfunction(getattr(module, name))]
                yield from filter(None, (_of_module(module, name) for name in functions))


def _module(node: ast.AST, imported: dict[str, ModuleType | Name]) -> ModuleType | None:
    """The module of ours that an expression is: a name that was imported, or `ms.noise`."""
    if isinstance(node, ast.Name):
        found = mechsub if node.id == "ms" else imported.get(node.id)
    elif isinstance(node, ast.Attribute):
        found = getattr(_module(node.value, imported), node.attr, None)
    else:
        return None
    return found if isinstance(found, ModuleType) else None


def _imported(path: Path, tree: ast.Module) -> dict[str, ModuleType | Name]:
    """Name -> what any `from ... import ...` of a file binds to it, if it is of mechsub or studies."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    found: dict[str, ModuleType | Name] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            if base.split(".")[0] in ("mechsub", "studies"):
                for alias in node.names:
                    try:
                        target = importlib.import_module(f"{base}.{alias.name}")
                    except ImportError:
                        target = _of_module(importlib.import_module(base), alias.name)
                    if target:
                        found[alias.asname or alias.name] = target
    return found


def _of_module(module: ModuleType, name: str) -> Name | None:
    """Where a module's name is defined: a package hands out functions of its modules."""
    value = getattr(module, name, None)
    home = str(getattr(value, "__module__", ""))
    if getattr(value, "__name__", None) == name and home.split(".")[0] in ("mechsub", "studies"):
        module = sys.modules[home]
    return Name(Path(module.__file__), name) if module.__file__ else None


def _definitions(tree: ast.Module) -> dict[str, ast.AST]:
    """Functions, classes, methods, and variables of a module with the statement that sets them."""
    found: dict[str, ast.AST] = {**_functions(tree)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {each.id: node for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    return found


def _functions(tree: ast.AST, prefix: str = "") -> dict[str, ast.FunctionDef]:
    """Functions of a module and methods of its classes, by name; an inner function is part of its outer one."""
    found = {}
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            found[prefix + node.name] = node
        elif isinstance(node, ast.ClassDef):
            found |= _functions(node, f"{prefix}{node.name}.")
    return found


# Lines that count.


def _body(node: ast.FunctionDef) -> set[int]:
    """Without the line of `def`, which runs when the module is imported."""
    return {number for statement in node.body for number in _span(statement)}


def _refusing(node: ast.FunctionDef) -> set[int]:
    """Lines that only raise: with what is built for it, and an `except` that does nothing else."""
    found: set[int] = set()
    for each in ast.walk(node):
        if isinstance(each, ast.If | ast.ExceptHandler) and _raises(each.body[-1]):
            if all(isinstance(one, ast.Assign) for one in each.body[:-1]):
                found |= {number for statement in each.body for number in _span(statement)}
                found |= {each.lineno} if isinstance(each, ast.ExceptHandler) else set()
        elif isinstance(each, ast.stmt) and _raises(each):
            found |= _span(each)
    return found


def _raises(node: ast.stmt) -> bool:
    if isinstance(node, ast.Raise):
        return True
    called = node.value.func if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
    return getattr(called, "attr", getattr(called, "id", "")) in REFUSING


def _span(node: ast.stmt | ast.ExceptHandler) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


if __name__ == "__main__":
    raise SystemExit(main())
