"""Findings of stored cells: cells of other versions, and of one Config in two folders, are never one sample."""

import sys
import types
from dataclasses import dataclass

import pytest

from mechsub import lab
from mechsub.lab import cells, findings, store
from mechsub.lab.declared import Study, declared_by
from mechsub.lab.stored import read, stored


def study_of(monkeypatch, folder, version: int, usual: int, score: float) -> Study:
    """A study of one option `d`; its name is "moved" in every version."""
    module = types.ModuleType("moved")
    module.__file__ = str(folder / "moved.py")
    monkeypatch.setitem(sys.modules, "moved", module)

    @dataclass(frozen=True)
    class Config:
        d: lab.Count = lab.option(usual, "width")

    def run(cfg):
        for i in range(3):
            yield {"member": i, "score": score + cfg.d + i / 10}

    def found(cell):
        return [findings.mean("all/score", "", {n: row["score"] for n, row in enumerate(cell)}, unit="seeds")]

    module.Config, module.run, module.findings = Config, run, found
    module.study = Study(version, probes=(), module="moved")
    return declared_by(module)


def test_a_stale_cell_is_named_and_left_out(monkeypatch, tmp_path):
    old = study_of(monkeypatch, tmp_path, 1, 1, 100.0)
    for d in (1, 5):
        cells.make_cell(old, old.Config(d=d), tmp_path)
    new = study_of(monkeypatch, tmp_path, 2, 2, 0.0)
    cells.make_cell(new, new.Config(d=1), tmp_path)  # the folder `default` holds d=1 of version 1
    with pytest.warns(UserWarning, match="stale, and left out: .*/moved/.*, and 1 more"):
        (cell,) = stored(new, tmp_path)
    assert (cell.options, cell.findings[0].n, cell.findings[0].value.mean) == ({"d": 1}, 3, pytest.approx(1.1))


def test_a_damaged_cell_is_named_and_left_out(monkeypatch, tmp_path):
    study = study_of(monkeypatch, tmp_path, 1, 1, 0.0)
    for d in (1, 5, 6):
        cells.make_cell(study, study.Config(d=d), tmp_path)
    for name in ("d=5", "d=6"):
        (tmp_path / "moved" / name / store.RECORDS).write_text("")
    with pytest.warns(UserWarning, match=r"damaged, and left out: .*/d=5/records.jsonl was changed .*, and 1 more"):
        (cell,) = stored(study, tmp_path)
    assert cell.options == {"d": 1}


def test_a_cell_that_stepped_aside_is_read(monkeypatch, tmp_path):
    """A process was killed between the two renames of an exchange."""
    study = study_of(monkeypatch, tmp_path, 1, 1, 0.0)
    for d in (1, 5):
        cells.make_cell(study, study.Config(d=d), tmp_path)
    (tmp_path / "moved/d=5").rename(tmp_path / "moved/.d=5.old")
    assert [cell.options["d"] for cell in stored(study, tmp_path)] == [5, 1]
    assert sorted(path.name for path in (tmp_path / "moved").iterdir()) == ["d=5", "default"]


def test_two_folders_of_one_config_are_not_pooled_by_a_command_that_names_both(monkeypatch, tmp_path):
    old = study_of(monkeypatch, tmp_path, 1, 1, 100.0)
    cells.make_cell(old, old.Config(), tmp_path)
    new = study_of(monkeypatch, tmp_path, 2, 2, 0.0)
    cells.make_cell(new, new.Config(d=1), tmp_path)
    with pytest.raises(ValueError, match=r"d=1 and .*default were made with the same options"):
        cells.records_of(new, store.complete_cells(tmp_path / "moved"))
    with pytest.raises(LookupError, match="stale"):
        read(new, ["--d", "1", "2"], tmp_path)
    assert len(cells.records_of(new, store.complete_cells(tmp_path / "moved")[:1])) == 3


def test_a_page_is_not_filled_from_a_stale_cell(monkeypatch, tmp_path):
    old = study_of(monkeypatch, tmp_path, 1, 1, 100.0)
    cells.make_cell(old, old.Config(), tmp_path)
    assert read(old, [], tmp_path)[0].value.mean == pytest.approx(101.1)
    with pytest.raises(LookupError, match=r"the cell default is stale under .*; run its command with --rerun"):
        read(study_of(monkeypatch, tmp_path, 2, 1, 0.0), [], tmp_path)
