"""Which code made a cell: the sha256 of the syntax of everything that a study's `run` can reach.

The fingerprint says whether a stored number could differ if it were computed today. It goes by definition, not by file:
functions, classes and constants of mechsub and of the studies that `run` names, and what these name in turn. It
ignores what cannot change a number: comments, docstrings, help texts, messages of errors, display options, figures,
tables and the store.
A new function beside the others, or another study's new option, leaves stored cells as they are.

All of it is static. A module that is used otherwise than by attribute (`getattr(data, name)`) counts as a whole.
Another study whose stored cell is built upon (`study.stored_cell(other, ...)`) does not count: the sums of its files
are in the provenance. Not seen: definitions that are only reached through a registry that another module fills, files
that code reads without a checksum of its own, packages within the package, and a model whose weights have moved (its
sum is in the provenance; only `check_stored` of the studies that build on a cell looks at the model again).
"""

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
FIGURE_MODULES = {
    f"mechsub.{name}" for name in ("study", "flags", "store", "lease", "executor", "provenance", "fingerprint", "plot")
}
_EVERYTHING = "*"
_SCOPES = (ast.FunctionDef, ast.Lambda, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

Reached = tuple[str, str]  # module, name


def source_fingerprint(study: Path, run: str = "run") -> str:
    """sha256 over all definitions that `run` of the study's file reaches, and over its Config.

    Where `run` is a generator that another function chose, that function's own text counts too, but not its reach.
    """
    own = f"{study.parent.name}.{study.stem}"
    roots = {"mechsub": PACKAGE, study.parent.name: study.parent}
    found: dict[str, set[str]] = {}
    waiting: list[Reached] = [(own, run), (own, "Config")]
    while waiting:
        module, name = waiting.pop()
        path = _module_file(module, roots)
        if path is None or module in FIGURE_MODULES or name in found.setdefault(module, set()):
            continue
        code = _parsed(path, path.read_bytes(), module.rpartition(".")[0])
        if not found[module]:
            waiting += [(module, other) for other in code.always]
        found[module].add(name)
        waiting += code.reached(module, name, roots)
    # The study is hashed without its name, so that moving a file keeps its cells.
    found[own].add("run")
    parts = [f"{'' if name == own else name}\n{_text(name, found[name], roots)}" for name in sorted(found)]
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


def _text(module: str, names: set[str], roots: dict[str, Path]) -> str:
    path = _module_file(module, roots)
    code = _parsed(path, path.read_bytes(), module.rpartition(".")[0])  # type: ignore[union-attr]
    return "\n".join(_dump(node) for node in code.body if _EVERYTHING in names or code.names_of(node) & names)


class _Code:
    """A parsed module: its statements by the names they define, and what its imports bind."""

    def __init__(self, tree: ast.Module, package: str):
        tree = _without_texts(tree)
        self.body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
        self.bound: dict[str, list[list[str]]] = {}
        for name, path in _bindings(tree, package):
            self.bound.setdefault(name, []).append(path)
        self.defined: dict[str, list[ast.stmt]] = {}
        for i, node in enumerate(self.body):
            for name in _defines(node) or {f"statement {i}"}:
                self.defined.setdefault(name, []).append(node)
        self.always = [name for name in self.defined if name.startswith("statement ")]

    def names_of(self, node: ast.stmt) -> set[str]:
        return {name for name, nodes in self.defined.items() if any(other is node for other in nodes)}

    def reached(self, module: str, name: str, roots: dict[str, Path]) -> Iterator[Reached]:
        if name == _EVERYTHING:
            yield from ((module, other) for other in self.defined)
        if name not in self.defined:  # imported here from elsewhere, by name or by star
            for path in self.bound.get(name, []) + self.bound.get(_EVERYTHING, []):
                yield from _resolved(path, roots)
        for node in self.defined.get(name, []):
            own = _locals(node) - set(self.bound)
            outside = {id(use) for part in _outside(node) for use in ast.walk(part)}
            for head, *rest, use in _uses(node):
                if head in own and id(use) not in outside:
                    continue
                if head in self.defined:
                    yield module, head
                for path in self.bound.get(head, []):
                    yield from _resolved([*path, *rest], roots)
                for path in self.bound.get(_EVERYTHING, []):
                    yield from _resolved(path, roots)


@cache
def _parsed(path: Path, source: bytes, package: str) -> _Code:
    return _Code(ast.parse(source), package)


def _defines(node: ast.stmt) -> set[str]:
    """Names that a top-level statement defines; none for one that does something else, which always counts."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    flat = [item for target in targets for item in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return {item.id for item in flat} if flat and all(isinstance(item, ast.Name) for item in flat) else set()  # type: ignore[attr-defined]


def _outside(node: ast.stmt) -> list[ast.AST]:
    """Parts of a function that are read in the scope around it."""
    if not isinstance(node, ast.FunctionDef):
        return []
    return [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]


def _locals(node: ast.stmt) -> set[str]:
    """Arguments and variables of a function's own scope, which hide the module's names in all of it."""
    if not isinstance(node, ast.FunctionDef):
        return set()
    found = {inner.arg for inner in ast.iter_child_nodes(node.args) if isinstance(inner, ast.arg)}
    waiting: list[ast.AST] = list(node.body)
    shared: set[str] = set()
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, ast.Global):
            shared |= set(inner.names)
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            found.add(inner.id)
        if not isinstance(inner, _SCOPES):
            waiting += ast.iter_child_nodes(inner)
    return found - shared


def _bindings(tree: ast.Module, package: str) -> Iterator[tuple[str, list[str]]]:
    """Local name -> dotted path, for imports anywhere in the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                path = alias.name.split(".")
                yield (alias.asname, path) if alias.asname else (path[0], path[:1])
        elif isinstance(node, ast.ImportFrom):
            base = [package] * bool(node.level) + ([node.module] if node.module else [])
            for alias in node.names:
                yield alias.asname or alias.name, [*".".join(base).split("."), alias.name]


def _uses(node: ast.AST) -> Iterator[list]:
    """Dotted paths that code names, each with its node: `data.mnist` as [data, mnist, node], `data` as [data, node]."""
    if isinstance(node, ast.Attribute | ast.Name):
        path = _path(node)
        if path:
            yield [*path, node]
            return
    skipped = node.args[0] if isinstance(node, ast.Call) and _called(node) == "stored_cell" and node.args else None
    for child in ast.iter_child_nodes(node):
        if child is not skipped:
            yield from _uses(child)


def _path(node: ast.AST) -> list[str] | None:
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (base := _path(node.value)):
        return [*base, node.attr]
    return None


def _resolved(path: list[str], roots: dict[str, Path]) -> Iterator[Reached]:
    """The definition that a dotted path of an import names, or the whole module where it names no more than that."""
    if path[0] not in roots:
        return
    if path[0] == "mechsub" and len(path) > 1 and _module_file(".".join(path[:2]), roots) is None:
        # A public name of the package: `from mechsub import linear_cka` is code of mechsub.similarity.
        home = getattr(sys.modules.get("mechsub"), "_NAMES", {}).get(path[1])
        path = ["mechsub", home, *path[1:]] if home else path
    module = ".".join(path[:2])
    yield module, path[2] if len(path) > 2 else _EVERYTHING


def _module_file(name: str, roots: dict[str, Path]) -> Path | None:
    package, *rest = name.split(".")
    path = roots[package].joinpath(*rest).with_suffix(".py") if package in roots and rest else None
    return path if path is not None and path.is_file() else None


# What cannot change a number.


def _without_texts(tree: ast.Module) -> ast.Module:
    """Drop docstrings, help texts, messages of errors, display options, what notebooks show of an object, the
    `__main__` block, imports of what draws."""
    tree.body = [node for node in tree.body if not _is_main_block(node)]
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [child for child in map(_calculating, body) if child is not None]  # type: ignore[attr-defined]
        if isinstance(node, ast.Call) and _called(node) == "option":
            node.args = node.args[:1]
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "help"]
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc.args, node.exc.keywords = [], []
    return tree


def _calculating(node: ast.stmt) -> ast.stmt | None:
    """The statement less what only serves reading and drawing; None where nothing is left."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return None
    if isinstance(node, ast.FunctionDef) and node.name == "_repr_pretty_":  # what a notebook shows
        return None
    if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call) and _is_display(node.value):
        return None
    if isinstance(node, ast.Import | ast.ImportFrom):
        node.names = [alias for alias in node.names if not _only_draws(node, alias.name)]
        return node if node.names else None
    return node


def _only_draws(node: ast.Import | ast.ImportFrom, name: str) -> bool:
    module = (getattr(node, "module", None) or "mechsub") if isinstance(node, ast.ImportFrom) else name
    return module in FIGURE_MODULES or f"{module}.{name}" in FIGURE_MODULES or module.split(".")[0] == "plotly"


def _called(call: ast.Call) -> str | None:
    return getattr(call.func, "attr", getattr(call.func, "id", None))


def _is_display(call: ast.Call) -> bool:
    shown = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
    return _called(call) == "option" and shown.get("display") is True


def _is_main_block(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and any(getattr(inner, "id", None) == "__name__" for inner in ast.walk(node.test))


def _dump(node) -> str:
    """Like `ast.dump`, but without empty fields, which differ between Python versions."""
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, []) and name != "kind"]
        return f"{type(node).__name__}({', '.join(f'{name}={_dump(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    return repr(node)
