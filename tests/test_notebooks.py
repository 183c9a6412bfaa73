"""The notebooks of the examples are those of their scripts, and run cell by cell as Jupyter runs them."""

import importlib.machinery
import importlib.util
import json
import sys
from pathlib import Path

import pytest

import mechsub as ms
from tests.test_examples import SMALL
from tools import notebooks

SCRIPTS = sorted(notebooks.FOLDER.glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_is_that_of_its_script(script):
    path = script.with_suffix(".ipynb")
    again = "run python tools/notebooks.py"
    assert path.is_file() and path.read_text(encoding="utf-8") == notebooks.written(script), again


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_has_the_form_of_jupyter(script):
    book = json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    first, title = book["cells"][:2]
    assert first["cell_type"] == "code" and "pip" in "".join(first["source"])
    assert title["cell_type"] == "markdown" and title["source"][0].startswith("# ")
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def run(path: Path, replaced: dict[str, str], monkeypatch) -> dict:
    """The names that are there after all cells; the first cell stands in the folder of examples, as Jupyter does."""
    shell = pytest.importorskip("IPython.core.interactiveshell").InteractiveShell.instance()
    monkeypatch.setitem(sys.modules, "__main__", shell.user_module)
    monkeypatch.chdir(path.parent)
    try:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                text = "".join(cell["source"])
                for old, new in replaced.items():
                    text = text.replace(old, new)
                shell.run_cell(text).raise_error()
        return dict(shell.user_ns)
    finally:
        shell.clear_instance()


@pytest.mark.parametrize("hidden", ["nothing", "a folder with a clone"])
def test_the_first_cell_says_what_to_set_where_there_is_no_checkout(tmp_path, monkeypatch, hidden):
    """pip would speak of a folder that is no project."""
    (tmp_path / "mechsub" / "mechsub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mechsub")
    found = None if hidden == "nothing" else importlib.machinery.ModuleSpec("mechsub", None, is_package=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with pytest.raises(SystemExit, match=r"^There is no checkout above this notebook; set SOURCE to .*$"):
        exec(notebooks.INSTALL, {})


def test_your_hooks_runs(monkeypatch):
    assert isinstance(run(notebooks.FOLDER / "your_hooks.ipynb", {}, monkeypatch)["toy"], ms.HookedMLP)


def test_subliminal_learning_runs_in_small(monkeypatch):
    names = run(notebooks.FOLDER / "subliminal_learning.ipynb", SMALL, monkeypatch)
    assert names["figure"].data and Path.cwd().name != "examples"


@pytest.mark.slow
def test_token_entanglement_runs(one_model, monkeypatch):
    names = run(notebooks.FOLDER / "token_entanglement.ipynb", {}, monkeypatch)
    assert names["scores"].shape == (4, 4)
