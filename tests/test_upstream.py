"""Cells that cells are built on: made first, kept by their sums as they were read, shown beforehand, never guessed."""

import importlib
import sys
import types

import pytest

from mechsub.lab import cells, store, study
from mechsub.lab.cells import Maker
from mechsub.lab.declared import imported

SOURCE = """
import dataclasses
from mechsub import lab

@dataclasses.dataclass(frozen=True)
class Config:
    n: lab.Count = lab.option(1, "a number")

study = lab.Study()
"""
LOWER = (
    SOURCE
    + """
def run(cfg):
    yield {"value": cfg.n}
"""
)
UPPER = (
    SOURCE
    + """
def upstream(cfg):
    return {"lower": lab.upstream("lower", n=cfg.n), "other": lab.upstream("gone", optional=True)}

meanwhile = []

def run(cfg, lower, other):
    value = lower.records()[0]["value"]
    for act in meanwhile:
        act()
    yield {"value": 10 * value, "other": other is None}
"""
)


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """A package of two studies, of which one is built on the other."""
    package = f"package_{tmp_path.name}"
    (tmp_path / package).mkdir()
    for name, text in {"__init__": "", "lower": LOWER, "upper": UPPER, "broken": "import no_such_module"}.items():
        (tmp_path / package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield types.SimpleNamespace(
        package=package, **{name: importlib.import_module(f"{package}.{name}") for name in ("lower", "upper")}
    )
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def test_what_a_cell_is_built_on_is_made_first_and_handed_over(pair, tmp_path):
    cell = cells.make_cell(pair.upper.study, pair.upper.Config(n=3), tmp_path / "out")
    assert store.read_records(cell)[0] | {"n": 3} == {"n": 3, "value": 30, "other": True}
    made = store.read_provenance(cell)
    assert made["made_from"] == {"lower/n=3": store.sums(tmp_path / "out" / "lower" / "n=3")}
    assert made["upstream_versions"] == {"lower": 1}


def test_a_cell_that_is_made_anew_during_the_run_makes_this_one_stale(pair, tmp_path):
    """The sums are those from before the run, so that numbers of an older making are not taken for those of a newer."""
    out, cfg = tmp_path / "out", pair.upper.Config()
    lower = cells.make_cell(pair.lower.study, pair.lower.Config(), out)
    then = store.sums(lower)

    def make_anew():
        made = {key: value for key, value in store.read_provenance(lower).items() if key not in ("records", "seal")}
        store.write_cell(lower, [{"n": 1, "value": 2}], made)

    pair.upper.meanwhile.append(make_anew)
    cell = cells.make_cell(pair.upper.study, cfg, out)
    assert store.read_provenance(cell)["made_from"] == {"lower/default": then} != {"lower/default": store.sums(lower)}
    assert "lower/default, which was made anew since" in cells.status(cell, cfg, pair.upper.study).reason


def test_a_dry_run_shows_what_is_made_before(pair, tmp_path, capsys):
    study.command(pair.upper.study, ["--n", "3", "--out", str(tmp_path / "out"), "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["missing", str(tmp_path / "out" / "upper" / "n=3")]
    assert lines[1:] == [f"  built on {tmp_path / 'out' / 'lower' / 'n=3'}: missing"]


def test_a_study_that_is_not_there_is_named_and_a_broken_one_is_not_taken_for_it(pair, tmp_path):
    gone = types.SimpleNamespace(study="gone", options={}, optional=False)
    pair.upper.upstream = lambda cfg: {"lower": gone}
    with pytest.raises(ValueError, match="upper is built on the study 'gone', which is not found"):
        cells.planned_upstream(Maker(pair.upper.study, tmp_path), pair.upper.Config())
    assert imported(f"{pair.package}.gone") is None and imported("no_such_package.lower") is None
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        pair.upper.study.sibling("broken")
