"""Notebooks of the examples: each `# %%` script as an .ipynb beside it, with a first cell that installs.

    python tools/notebooks.py

tests/test_notebooks.py says when one is older than its script, and runs them without a browser.
"""

import json
import re
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "examples"
INSTALL = """\
# Installs mechsub where it is not there. A runtime without a GPU works.
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

SOURCE = ".."  # a checkout, or what else pip takes, such as git+https://...
spec = importlib.util.find_spec("mechsub")
if spec is None or spec.origin is None:  # a folder called mechsub that holds a clone is a package without a file
    if SOURCE == ".." and not Path("..", "pyproject.toml").is_file():
        raise SystemExit("There is no checkout above this notebook; set SOURCE to one, or to its git+https://...")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", SOURCE], check=True)
if Path.cwd().name == "examples":
    os.chdir("..")  # stored cells are read from the checkout"""


def notebook(script: str) -> dict:
    """The notebook of a script, in the format 4.5 of Jupyter."""
    parts = re.split(r"^# %%", script, flags=re.MULTILINE)[1:]
    cells = [_cell(part) for part in parts]
    cells.insert(0, _code(INSTALL))
    return {
        "cells": [{"id": f"cell-{i}", **cell} for i, cell in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _cell(part: str) -> dict:
    first, _, body = part.partition("\n")
    if first.strip() != "[markdown]":
        return _code(body.strip("\n"))
    text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.strip("\n").splitlines())
    return {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}


def _code(text: str) -> dict:
    source = text.splitlines(keepends=True)
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}


def written(script: Path) -> str:
    """What the script's notebook holds."""
    return json.dumps(notebook(script.read_text(encoding="utf-8")), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    for script in sorted(FOLDER.glob("*.py")):
        script.with_suffix(".ipynb").write_text(written(script), encoding="utf-8")


if __name__ == "__main__":
    main()
