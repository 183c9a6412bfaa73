"""Which code, machine and versions made a cell: the source fingerprint and the environment.

The fingerprint says whether a stored number could differ if it were computed today. It therefore ignores what cannot
change a number: comments, docstrings, help texts, display options, figures and tables.
"""

import ast
import hashlib
import os
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent
FIGURE_MODULES = {f"mechsub.{name}" for name in ("study", "flags", "store", "lease", "executor", "provenance", "plot")}
PACKAGES = ("mechsub", "torch", "transformer-lens", "numpy")
CPU_FEATURES = {"avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8", "asimd", "bf16", "sve"}


def source_fingerprint(study: Path, run: str = "run") -> str:
    """sha256 of the syntax of all code that the study's `run` can reach.

    That is the study's file and, transitively and statically (imports inside functions too), every `mechsub` module
    and every neighbouring study that it imports. Functions of the study that only its figure or table use, and the
    modules that only draw, store or summarise, do not count.
    """
    roots = {"mechsub": PACKAGE, study.parent.name: study.parent}
    tree = _computing_part(ast.parse(study.read_text(encoding="utf-8")), run)
    found = {f"{study.parent.name}.{study.stem}": tree}
    waiting = _imports(tree, study.parent.name)
    while waiting:
        name = waiting.pop()
        path = _module_file(name, roots)
        if path is None or name in found or name in FIGURE_MODULES:
            continue
        found[name] = _without_texts(ast.parse(path.read_text(encoding="utf-8")))
        waiting |= _imports(found[name], name.rpartition(".")[0])
    # The study is hashed without its name, so that moving a file keeps its cells.
    parts = [_dump(tree), *(f"{name}\n{_dump(found[name])}" for name in sorted(found) if found[name] is not tree)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _computing_part(tree: ast.Module, run: str) -> ast.Module:
    """The module without the functions that neither `run` nor any top-level statement reaches."""
    tree = _without_texts(tree)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.decorator_list}
    kept = [node for node in tree.body if functions.get(getattr(node, "name", None)) is not node]
    reached, waiting = set(), {run}.union(*map(_names, kept))
    while waiting:
        name = waiting.pop()
        if name in functions and name not in reached:
            reached.add(name)
            waiting |= _names(functions[name])
    tree.body = [node for node in tree.body if node in kept or node.name in reached]
    return tree


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _without_texts(tree: ast.Module) -> ast.Module:
    """Drop docstrings, help texts, display options, the `__main__` block and imports of what only draws."""
    tree.body = [node for node in tree.body if not _is_main_block(node)]
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [child for child in map(_calculating, body) if child is not None]
        if isinstance(node, ast.Call) and _called(node) == "option":
            node.args = node.args[:1]
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "help"]
    return tree


def _calculating(node: ast.stmt) -> ast.stmt | None:
    """The statement less what only serves reading and drawing; None where nothing is left."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
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
    return isinstance(node, ast.If) and "__name__" in _names(node.test)


def _imports(tree: ast.AST, package: str) -> set[str]:
    """Dotted names of everything that the code imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, [package if node.level else None, node.module]))
            names |= {module} - {"mechsub"} | {_home(module, alias.name) for alias in node.names}
    if "mechsub" in names:
        names |= _attributes_used(tree)
    return names


def _attributes_used(tree: ast.AST) -> set[str]:
    """What code takes from a bare `import mechsub as ms`: the homes of all `ms.<name>`."""
    imported = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    aliases = {alias.asname or "mechsub" for alias in imported if alias.name == "mechsub"}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {_home("mechsub", node.attr) for node in attributes if getattr(node.value, "id", None) in aliases}


def _home(module: str, name: str) -> str:
    """Where an imported name lives: `from mechsub import linear_cka` is code of `mechsub.similarity`."""
    public = getattr(sys.modules.get("mechsub"), "_NAMES", {}) if module == "mechsub" else {}
    return f"{module}.{public.get(name, name)}"


def _module_file(name: str, roots: dict[str, Path]) -> Path | None:
    package, *rest = name.split(".")
    path = roots[package].joinpath(*rest).with_suffix(".py") if package in roots and rest else None
    return path if path is not None and path.is_file() else None


def _dump(node) -> str:
    """Like `ast.dump`, but without empty fields, which differ between Python versions."""
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, []) and name != "kind"]
        return f"{type(node).__name__}({', '.join(f'{name}={_dump(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    return repr(node)


def environment(source: Path) -> dict:
    """The code's commit, the versions and the machine: what a reader needs to judge a difference in numbers."""
    return {"git": git_state(source.parent), "versions": versions(), **_torch_state(), "cpu": cpu()}


def git_state(folder: Path) -> dict | None:
    """Commit of the checkout that holds the source, and whether its code was changed since; None outside git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    # Results are written into the same checkout, so only changed code makes it dirty.
    changed = _git(folder, "status", "--porcelain", "--", ":/*.py", ":/pyproject.toml")
    return {"commit": commit, "dirty": bool(changed)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str | None]:
    from importlib import metadata

    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = getattr(sys.modules.get(name), "__version__", None)
    return found


def _torch_state() -> dict:
    """Device and threads as torch has them, if the run used torch at all."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {"device": "cpu", "threads": os.cpu_count()}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"device": device, "threads": torch.get_num_threads()}


def cpu() -> dict:
    """Model and the features that change numbers or speed of bfloat16 (from Linux; empty elsewhere)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", fields.get("Features", "")).split()
    return {"model": fields.get("model name"), "features": sorted(CPU_FEATURES.intersection(flags))}


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
