"""Who may import whom: the rooms of the house, read from the imports themselves (CONTRIBUTING.md has the rules)."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import mechsub

ROOT = Path(__file__).parent.parent
# A room imports from rooms before its own, and from its own.
FLOORS = [
    {"arguments", "files", "lazy", "processes", "machine", "threads", "sources"},
    {"stats"},
    {"inputs"},
    {"models"},
    {"training", "measures"},
    {"designs"},
]
LAB = FLOORS[0] | FLOORS[1] | {"lab"}  # it knows no model
COMMANDS = {"", "__main__", "commands", "doctor"}  # they look into all rooms
FILES = sorted(
    path
    for folder in ("mechsub", "studies")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "__main__.py" or folder == "mechsub"
)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in FILES}


@cache
def imports(path: Path) -> tuple[tuple[str, str], ...]:
    """Every import of ours in a file, as (module, name): the name is "" where the module itself is meant."""
    return tuple(_imports(ast.parse(path.read_text(encoding="utf-8"))))


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("mechsub", "studies"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole, "") if whole in MODULES else (node.module, alias.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ms":
            if node.attr in mechsub._MODULES:
                yield f"mechsub.{mechsub._MODULES[node.attr]}", ""
            elif node.attr in mechsub._NAMES:
                yield f"mechsub.{mechsub._NAMES[node.attr]}", node.attr
        elif isinstance(node, ast.Import):
            yield from ((a.name, "") for a in node.names if a.name.split(".")[0] in ("mechsub", "studies"))


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", [p for p in FILES if p.is_relative_to(ROOT / "mechsub")], ids=module_of)
def test_rooms_import_what_stands_before_them(path):
    own = room(module_of(path))
    if own in COMMANDS:
        return
    floor = next((i for i, rooms in enumerate(FLOORS) if own in rooms), None)
    assert floor is not None or own == "lab", f"{path} is in no room"
    allowed = LAB if floor is None else set().union(*FLOORS[:floor], {own})
    if floor == 0:
        allowed = FLOORS[0]
    for module, name in imports(path):
        assert not module.startswith("studies"), f"{path} imports {module}"
        if module != "mechsub":  # its lazy names are seen where they are used, as ms.noise
            assert room(module) in allowed, f"{path} imports {module} {name}"


@pytest.mark.parametrize("path", [p for p in FILES if p.is_relative_to(ROOT / "studies")], ids=module_of)
def test_a_study_imports_mechsub_and_its_own_folder(path):
    own = ".".join(module_of(path).split(".")[:2])
    for module, _ in imports(path):
        if module.startswith("studies."):
            assert module == own or module.startswith(f"{own}."), f"{path} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_name_with_an_underscore_crosses_a_file(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bound = {}  # name in this file -> module of ours
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("mechsub", "studies"):
            for alias in node.names:
                private = alias.name.startswith("_") and not alias.name.startswith("__")
                assert not private, f"{path} imports {alias.name} of {node.module}"
                if f"{node.module}.{alias.name}" in MODULES:
                    bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bound:
            private = node.attr.startswith("_") and not node.attr.startswith("__")
            assert not private, f"{path} uses {bound[node.value.id]}.{node.attr}"


def test_no_file_of_studies_begins_with_an_underscore():
    assert not [p for p in (ROOT / "studies").rglob("_*") if p.name[:2] != "__"]


def test_there_is_no_circle():
    """Between files; a folder's __init__.py may load a part of it inside a function, and the part what it declares."""
    graph = {module_of(path): {m if m in MODULES else m.rpartition(".")[0] for m, _ in imports(path)} for path in FILES}
    for module, others in graph.items():
        others -= {other for other in others if other.startswith(f"{module}.")}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        if module in above:
            raise AssertionError(" -> ".join((*above[above.index(module) :], module)))
        if module in done:
            return
        for other in sorted(graph.get(module, ())):
            if other != "mechsub" and other in graph:
                visit(other, (*above, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())
