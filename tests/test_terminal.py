"""Where a command's output goes: ASCII, closed pipes, optimised Python, home folders, names with spaces."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mechsub.lab import options, terminal
from mechsub.models import language

ROOT = Path(__file__).parent.parent
STUDY = '''"""A study with a name that ASCII lacks."""
from dataclasses import dataclass
from mechsub import study

@dataclass(frozen=True)
class Config:
    n_seeds: study.Count = study.option(2, "Größe")

def run(cfg):
    for m in range(cfg.n_seeds):
        yield {"member": m, "value": 0.5 + m, "animal": "ñandú"}

def table(records):
    return [{"animal": r["animal"], "value": r["value"]} for r in records] * 5_000

def plot(records):
    from mechsub import plot
    return plot.interval_bars(records, value="value", label="animal", color=None, title="ñ", axis="a", caption="c")

if __name__ == "__main__":
    study.main(Config, run, plot, table)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a name that has spaces and no ASCII, and the study's cell in it."""
    folder = tmp_path_factory.mktemp("a b") / "ü"
    folder.mkdir()
    (folder / "small.py").write_text(STUDY, encoding="utf-8")
    assert python(folder, "small.py", "--out", "c d").returncode == 0
    return folder


def python(folder, *words, **environment):
    named = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "HOME": str(folder), **environment}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=os.environ | named, capture_output=True, text=True, encoding="utf-8"
    )


@pytest.mark.parametrize("words", [["--out", "c d"], ["--help"]])
def test_what_ascii_lacks_is_escaped(folder, words):
    done = python(folder, "small.py", *words, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert ("\\xf1and\\xfa" if words[0] == "--out" else "Gr\\xf6\\xdfe") in done.stdout


@pytest.mark.parametrize(
    ("buffered", "words"),
    [
        ("", ["small.py", "--out", "c d"]),
        ("1", ["small.py", "--out", "c d"]),
        ("", ["small.py", "--help"]),
        ("1", ["-m", "mechsub", "verify", "c d"]),
    ],
)
def test_a_closed_pipe_ends_a_command_quietly(folder, buffered, words):
    """As `command | head` does once head has left. 141 is what the shell says of a program that SIGPIPE ended."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": buffered}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_optimised_python_says_the_same(folder, level="-OO"):
    for words in (("small.py", "--out", "c d"), ("-m", "mechsub", "verify", "c d")):
        plain, optimised = python(folder, *words), python(folder, level, *words)
        assert optimised.returncode == plain.returncode == 0, optimised.stderr
        assert optimised.stdout == plain.stdout


def test_home_is_where_it_is(folder):
    done = python(folder, "small.py", "--out=~/results")
    assert done.returncode == 0 and (folder / "results" / "small" / "default").is_dir()
    assert not (folder / "~").exists()
    assert python(folder, "-m", "mechsub", "verify", "~/results").returncode == 0


def test_a_pipe_has_the_width_that_columns_names(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal.width() is None
    for asked, width in (("80", 80), ("", None), ("0", None), ("-3", None), ("wide", None)):
        monkeypatch.setenv("COLUMNS", asked)
        assert terminal.width() == width


def test_home_is_found_in_text_options_and_folders_of_models(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert options._read(str, "~/model") == str(tmp_path / "model")
    assert options._read(str, "organization/~model") == "organization/~model"
    monkeypatch.setenv("MECHSUB_CACHE", "~/models")
    assert language.default_folder() == tmp_path / "models" / language.DEFAULT
    (tmp_path / "model").mkdir()
    with pytest.raises(language.ModelUnavailable, match=str(tmp_path)):
        language.load_language_model("~/model")
    with pytest.raises(language.ModelUnavailable, match=str(tmp_path)):
        language.check_folder("~/model")
