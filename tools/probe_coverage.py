"""Which lines of measuring code does no probe run?

    python -m tools.probe_coverage        # or: make probe-coverage

Measuring code is what a study's `run` can reach, by the names that functions use: functions of mechsub and studies,
without the harness, and without tables, figures and checks, which make no stored number. Lines that raise do not count.
What is listed in tests/probes/unreached.toml, function by function with the reason, is accepted; exit code 1 where
another line is not run, or a listed function is run whole.
"""

import ast
import inspect
import os
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from mechsub.lab import cells, finder, probes

ROOT = Path(__file__).parents[1]
HARNESS = {
    *("study", "flags", "store", "audit", "provenance", "plot", "colors", "export"),
    *("doctor", "memory", "cores", "packages", "files", "model_files", "pinned", "versions", "probes", "recheck"),
    *("remaking", "terminal", "__main__", "__init__"),
}
DISPLAY = {"table", "plot", "check", "__post_init__", "__repr__", "__str__", "_repr_pretty_"}
ACCEPTED = ROOT / "tests" / "probes" / "unreached.toml"
Function = tuple[Path, str]


def main() -> int:
    wanted = {**probes.ENVIRONMENT, "MECHSUB_PROBE_COVERAGE": "1"}
    if "MECHSUB_PROBE_COVERAGE" not in os.environ:  # the libraries read these when they are loaded
        os.execve(sys.executable, [sys.executable, "-m", "tools.probe_coverage"], {**os.environ, **wanted})
    missing = _missing(_run())
    accepted = tomllib.loads(ACCEPTED.read_text())
    problems = 0
    for (path, name), lines in sorted(missing.items()):
        key = f"{path.relative_to(ROOT)}:{name}"
        if reason := accepted.pop(key, ""):
            print(f"accepted  {key}: {len(lines)} lines; {reason}")
            continue
        problems += 1
        source = path.read_text().splitlines()
        print(f"not run   {key}" + "".join(f"\n          {line}: {source[line - 1].strip()}" for line in lines))
    for key in accepted:
        print(f"outdated  {key} is listed in {ACCEPTED.relative_to(ROOT)}, and all its lines are run")
    print(f"{problems} functions with lines that no probe runs and nobody accepted; {len(accepted)} outdated reasons")
    return 1 if problems or accepted else 0


def _run() -> dict[Path, set[int]]:
    """File -> lines that count and were not run, after all probes ran in this process."""
    import coverage

    with tempfile.TemporaryDirectory() as folder:
        os.environ["MECHSUB_CACHE"] = str(Path(folder) / "cache")
        measured = coverage.Coverage(source_pkgs=["mechsub", "studies"], data_file=None, concurrency="thread")
        measured.start()
        for name in probes.studies():
            for probe in probes.of_study(name):
                cells.make_cell(finder.find_study(name), probe.cfg, Path(folder) / "out")
                print(f"ran       {probe.name}", file=sys.stderr)
        measured.stop()
        found = {}
        for folder_name in ("mechsub", "studies"):
            for path in sorted((ROOT / folder_name).rglob("*.py")):
                found[path] = set(measured.analysis2(str(path))[3])
        return found


def _missing(lines: dict[Path, set[int]]) -> dict[Function, list[int]]:
    trees = {path: ast.parse(path.read_text()) for path in lines}
    functions = {(path, name): node for path, tree in trees.items() for name, node in _functions(tree)}
    missing = {}
    for path, name in _reached(trees, functions):
        if (path.parent.name == "mechsub" and path.stem in HARNESS) or name.split(".")[-1] in DISPLAY:
            continue
        node = functions[path, name]
        refusing = {n for each in ast.walk(node) if isinstance(each, ast.Raise) for n in _span(each)}
        if left := sorted((lines[path] & set(_span(node))) - refusing):
            missing[path, name] = left
    return missing


def _span(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def _functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions of a module and methods of its classes, by name; an inner function is part of its outer one."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")


def _reached(trees: dict[Path, ast.Module], functions: dict[Function, ast.FunctionDef]) -> set[Function]:
    """Functions that a `run` can reach: those of a used name, in the same file or one that the file imports from."""
    named: dict[str, list[Function]] = {}
    for path, name in functions:
        named.setdefault(name.split(".")[-1], []).append((path, name))
    found = [finder.find_study(name) for name in probes.studies()]
    waiting = [(Path(inspect.getfile(inspect.unwrap(study.run))), "run") for study in found if study and study.probes]
    seen: set[Function] = set()
    while waiting:
        path, name = here = waiting.pop()
        if here in seen or here not in functions:
            continue
        seen.add(here)
        near = {path, *_imported(trees[path])}
        for each in ast.walk(functions[here]):
            used = each.id if isinstance(each, ast.Name) else each.attr if isinstance(each, ast.Attribute) else None
            for target in named.get(used or "", []):
                if target[0] in near or "." in target[1]:
                    waiting.append(target)
            if isinstance(each, ast.Name):
                waiting += [(place, f"{each.id}.{method}") for place in near for method in ("__init__", "forward")]
    return seen


def _imported(tree: ast.Module) -> Iterator[Path]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("mechsub", "studies"):
            base = ROOT.joinpath(*(node.module or "").split("."))
            yield from (base / f"{alias.name}.py" for alias in node.names)
            yield base.with_suffix(".py")


if __name__ == "__main__":
    raise SystemExit(main())
