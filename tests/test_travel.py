"""`python -m mechsub export` and `import`: what is sent is what is stored elsewhere, and nothing else gets in."""

import contextlib
import gzip
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from conftest import contents

import mechsub as ms
from mechsub import files
from mechsub.__main__ import main
from mechsub.lab import cells, exports, finder, findings, flat, imports, manifest, store
from mechsub.lab.figures import export as images


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A store of three real cells, one with tensors."""
    root = tmp_path_factory.mktemp("own")
    accuracy, teachers = finder.find_study("subliminal_accuracy"), finder.find_study("teachers")
    for n_aux in (2, 3):
        tiny = {"n_seeds": 2, "n_layers": 1, "d_model": 4, "epochs": 1, "batch_size": 8192, "precision": "fp32"}
        cells.make_cell(accuracy, accuracy.Config(n_aux=n_aux, **tiny), root)
    cells.make_cell(teachers, teachers.Config(d_model=4, n_layers=1, epochs=1, precision="fp32", n_seeds=2), root)
    return root


@pytest.fixture(scope="module")
def exported(own, tmp_path_factory):
    folder = tmp_path_factory.mktemp("there") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "problem", lambda: "no browser here")
        left_out = exports.write(folder, own, exports.studies_in(own))
    assert left_out == ["figures as SVG: no browser here"]
    return folder


@pytest.fixture
def sent(exported, tmp_path, monkeypatch):
    """The exported folder, in a working folder of somebody else."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(exported, tmp_path / "results")


def run(capsys, *argv, code=0):
    """What a command says, on stdout where it succeeds, in one line on stderr where it does not."""
    try:
        ended = main([str(word) for word in argv])
    except SystemExit as stopped:
        ended = stopped.code
    said = capsys.readouterr()
    assert ended == code, said
    if code:
        assert said.err.startswith("error: ") and said.err.count("\n") == 1 and not said.out
        return said.err
    assert not said.err
    return said.out


def sign(folder):
    """Make the manifest fit what the folder holds."""
    (folder / manifest.NAME).unlink(missing_ok=True)
    manifest.write(folder, {})


# What is sent.


def test_a_store_comes_out_elsewhere_as_it_was(own, sent, capsys):
    said = run(capsys, "import", "results")
    assert said.startswith("3 cells stored under foreign/results, 0 were there\n")
    here = contents(sent.parent / "foreign" / "results")
    assert json.loads(here.pop(imports.LEDGER))["name"] == "results"
    assert here == contents(own) and any(name.endswith(store.TENSORS) for name in here)
    assert run(capsys, "verify", "foreign/results").startswith(
        "3 whole cells; damaged: 0, missing: 0, stale: 0, foreig"
    )
    there = ms.frame("subliminal_accuracy", out="foreign/results")
    pd.testing.assert_frame_equal(there, ms.frame("subliminal_accuracy", out=own))


def test_studies_read_what_was_imported(sent, capsys):
    run(capsys, "import", "results", "--into", "theirs")
    study = finder.find_study("teachers")
    cfg = study.Config(d_model=4, n_layers=1, epochs=1, precision="fp32", n_seeds=2)
    cell = cells.Maker(study, sent.parent / "theirs").cell(cfg)
    assert cells.status(cell, cfg, study).kind == "stored"


def test_the_same_again_changes_nothing(sent, capsys):
    run(capsys, "import", "results")
    before = contents(sent.parent)
    assert run(capsys, "import", "results").startswith("0 cells stored under foreign/results, 3 were there\n")
    assert contents(sent.parent) == before


def test_tables_hold_the_same_numbers(own, exported):
    tables = exported / "tables" / "subliminal_accuracy"
    frame = ms.frame("subliminal_accuracy", out=own)
    for read in (pd.read_csv(tables / "records.csv"), pd.read_parquet(tables / "records.parquet")):
        for name in (name for name in frame if isinstance(frame[name].iloc[0], list)):
            read[name] = [json.loads(value) if isinstance(value, str) else list(value) for value in read[name]]
        pd.testing.assert_frame_equal(read, frame, check_dtype=False, check_exact=True)
    study = finder.find_study("subliminal_accuracy")
    records = [row for cell in sorted(own.glob("subliminal_accuracy/*")) for row in store.read_records(cell)]
    said = findings.frame(findings.all_findings(findings.cells(records, study.Config, study.part("findings"))))
    for read in (pd.read_csv(tables / "findings.csv"), pd.read_parquet(tables / "findings.parquet")):
        assert read.key.tolist() == said.key.tolist() and read.value.tolist() == said.value.tolist()
        assert list(read) == list(said) and read.n.dropna().tolist() == said.n.dropna().tolist()
    assert "In `findings.csv` and `findings.parquet` a row is" in (exported / "README.md").read_text()


def test_the_folder_says_what_it_holds(exported):
    about = json.loads((exported / manifest.NAME).read_text())
    assert set(about["files"]) == set(contents(exported)) - {manifest.NAME}
    rows = len(ms.frame("subliminal_accuracy", out=exported / "cells"))
    assert about["studies"]["subliminal_accuracy"] == {"version": 2, "cells": 2, "rows": rows, "stale": {}}
    assert about["versions"]["mechsub"] and "commit" in (about["git"] or {"commit": ""})
    readme = (exported / "README.md").read_text()
    assert "| accuracy | number | measured |" in readme and "| n_aux | whole number | option: " in readme
    for name in ("tables/subliminal_accuracy/records.csv", "figures/plotly.min.js", "figures/teachers/figure.html"):
        assert name in about["files"]


def test_studies_are_chosen_and_those_of_others_are_sent_without_findings(own, tmp_path, capsys):
    root = shutil.copytree(own, tmp_path / "store")
    made = {"study": "theirs", "version": 1, "config": {"width": 4}}
    store.write_cell(root / "theirs" / "width=4", [{"width": 4, "value": 1.5}], made)
    said = run(capsys, "export", tmp_path / "sent", "--store", root, "--studies", "theirs")
    assert "left out: findings and the figure of theirs: its study is not found here" in said
    assert (tmp_path / "sent/tables/theirs/records.csv").read_text() == "cell,width,value\nwidth=4,4,1.5\n"
    assert not (tmp_path / "sent/cells/teachers").exists()
    run(capsys, "import", tmp_path / "sent", "--into", tmp_path / "theirs")


def test_a_study_that_cannot_say_all_at_once_is_sent_without(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "problem", lambda: "no browser here")
    made = {"study": "subliminal_accuracy", "version": 1, "config": {"n_aux": 1}}
    store.write_cell(tmp_path / "store/subliminal_accuracy/n_aux=1", [{"n_aux": 1, "strange": 1}], made)
    left_out = exports.write(tmp_path / "sent", tmp_path / "store", ["subliminal_accuracy"])
    assert any(line.startswith("findings of subliminal_accuracy: ") for line in left_out), left_out
    assert left_out == json.loads((tmp_path / "sent" / manifest.NAME).read_text())["left_out"]


def test_a_report_is_sent_with_the_rest(own, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "problem", lambda: "no browser here")
    (tmp_path / "index.html").write_text("<p>answers</p>")
    exports.write(tmp_path / "sent", own, ["teachers"], [tmp_path / "index.html"])
    assert manifest.checked(tmp_path / "sent")["files"].keys() >= {"report/index.html"}
    assert len(imports.put(tmp_path / "sent", tmp_path / "theirs").added) == 1


def test_findings_are_of_current_cells_alone(own, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "problem", lambda: "no browser here")
    root = shutil.copytree(own, tmp_path / "store")
    cell = min(root.glob("subliminal_accuracy/*n_aux=2*"))
    made = store.read_provenance(cell)
    store.write_cell(cell, store.read_records(cell), {**made, "version": 1}, store.read_tensors(cell))
    left_out = exports.write(tmp_path / "sent", root, ["subliminal_accuracy"])
    assert f"findings of subliminal_accuracy: of its stale cells {cell.name}" in left_out
    read = pd.read_csv(tmp_path / "sent/tables/subliminal_accuracy/findings.csv")
    assert len(read) and read.cell.isna().all()  # of one cell, which nothing differs from
    assert {"null_upper", "null_share", "null_label"} <= set(read)
    readme = (tmp_path / "sent/README.md").read_text()
    assert "no finding is of them:" in readme and f"* {cell.name}: " in readme


@pytest.mark.parametrize(
    ("place", "says"),
    [("digits/copied", "was made as a cell of 'teachers'"), ("teachers/my copy", "is not named as cells are")],
)
def test_what_no_import_takes_is_not_sent(own, tmp_path, capsys, place, says):
    root = shutil.copytree(own, tmp_path / "store")
    shutil.copytree(next(root.glob("teachers/*")), root / place)
    assert says in run(capsys, "export", tmp_path / "sent", "--store", root, code=1)
    assert not (tmp_path / "sent").exists()


def test_without_pyarrow_there_is_csv(own, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(images, "problem", lambda: "no browser here")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "pyarrow" else find(name, *more)
    )
    said = run(capsys, "export", tmp_path / "sent", "--store", own, "--studies", "teachers")
    assert "left out: parquet needs pyarrow; run: python -m pip install 'mechsub[export]'\n" in said
    assert (tmp_path / "sent/tables/teachers/records.csv").is_file()
    assert not list((tmp_path / "sent").rglob("*.parquet"))


@pytest.mark.browser
def test_figures_are_drawn_where_a_browser_is(own, tmp_path):
    if problem := images.problem():
        pytest.skip(problem)
    assert exports.write(tmp_path / "sent", own, ["subliminal_accuracy"]) == []
    assert b"<svg" in (tmp_path / "sent/figures/subliminal_accuracy/figure.svg").read_bytes()[:300]


def test_values_of_every_kind_are_written():
    rows = [{"a": 1, "b": [1, 2], "c": {"x": 1}, "d": "one", "e": True, "f": 2**70}, {"a": 0.1, "b": [], "d": 2}]
    table = flat.columns(rows)
    assert [flat.kind(values) for values in table.values()] == [
        "number", "list", "dict", "text or whole number", "true or false", "whole number",
    ]  # fmt: skip
    assert flat.csv_bytes(table).decode().splitlines()[1:] == [
        '1,"[1, 2]","{""x"": 1}",one,True,1180591620717411303424', "0.1,[],,2,,",
    ]  # fmt: skip
    read = pd.read_parquet(io.BytesIO(flat.parquet_bytes(table)))
    assert read.a.tolist() == [1.0, 0.1] and [list(each) for each in read.b] == [[1, 2], []]
    assert read.d.tolist() == ["one", "2"] and read.f[0] == str(2**70) and read.c[0] == '{"x": 1}'


# What is refused: one line, and nothing is written.


def _swap(path, old, new):
    path.write_bytes(path.read_bytes().replace(old, new))


def _list(folder, **further):
    """Put entries into the manifest."""
    content = json.loads((folder / manifest.NAME).read_text())
    content.update(further)
    (folder / manifest.NAME).write_text(json.dumps(content))


def _renamed(folder, old, new):
    content = json.loads((folder / manifest.NAME).read_text())
    content["files"][new] = content["files"].pop(old)
    (folder / manifest.NAME).write_text(json.dumps(content))


def _damage_and_sign(folder):
    _swap(next(folder.glob("cells/teachers/*/provenance.json")), b'"version": 1', b'"version": 2')
    sign(folder)


def _halve_and_sign(folder):
    next(folder.glob("cells/teachers/*/provenance.json")).unlink()
    sign(folder)


def _move_and_sign(folder):
    (folder / "cells/teachers").rename(folder / "cells/digits")
    sign(folder)


def _add_and_sign(path, folder):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text("{}")
    sign(folder)


def _bomb_and_sign(folder):
    cell = next((folder / "cells/teachers").iterdir())
    (cell / store.RECORDS).unlink()
    (cell / store.SHORT_RECORDS).write_bytes(gzip.compress(bytes(2**25)))
    sign(folder)


def _replace_by_link(folder):
    path = folder / "README.md"
    path.rename(folder.parent / "README.md")
    path.symlink_to(folder.parent / "README.md")


WRONG = {
    "a sum": (lambda f: _swap(f / "README.md", b"Results", b"results"), "README.md is not what was sent (sha256 "),
    "a file less": (lambda f: (f / "README.md").unlink(), "README.md is missing; manifest.json lists it"),
    "a file more": (lambda f: (f / "cells/more").touch(), "cells/more is not in manifest.json"),
    "a hidden file more": (lambda f: (f / ".more").touch(), ".more is not in manifest.json"),
    "a path out of the folder": (
        lambda f: _renamed(f, "README.md", "../README.md"),
        "names '../README.md', which is no",
    ),
    "a path from the root": (lambda f: _renamed(f, "README.md", "/etc/hosts"), "names '/etc/hosts', which is no path"),
    "a path with a line break": (lambda f: _renamed(f, "README.md", "a\nb"), "names 'a\\nb', which is no path"),
    "a link": (_replace_by_link, "README.md is a link or no plain file; it is not read"),
    "a link to a folder": (lambda f: (f / "more").symlink_to(f.parent), "more is a link or no plain file"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing: the folder was not made by"),
    "half a manifest": (lambda f: _swap(f / "manifest.json", b"}", b""), "manifest.json is not a manifest"),
    "a manifest of lists": (lambda f: _list(f, files=[]), "manifest.json is not a manifest"),
    "a manifest of numbers": (
        lambda f: _list(f, files={"README.md": {"sha256": 1}}),
        "manifest.json is not a manifest",
    ),
    "a deep manifest": (lambda f: (f / "manifest.json").write_text("[" * 100000), "manifest.json is not a manifest"),
    "a newer manifest": (lambda f: _list(f, format=2), "has format 2, and this mechsub reads format 1; update mechsub"),
    "a cell that was edited": (_damage_and_sign, "was changed after it was written (its seal is broken)"),
    "a cell that would fill the memory": (_bomb_and_sign, "records.jsonl.gz unpacks to more than 100 times its size"),
    "half a cell": (_halve_and_sign, "has no provenance.json: it is half of a cell"),
    "a cell of another study": (_move_and_sign, "was made as a cell of 'teachers'"),
    "a file beside the cells": (lambda f: _add_and_sign("cells/more", f), "cells/more is no file of a cell"),
    "a strange file in a cell": (
        lambda f: _add_and_sign("cells/a/b/run.py", f),
        "cells/a/b/run.py is no file of a cell",
    ),
    "a hidden cell": (lambda f: _add_and_sign("cells/a/.b/records.jsonl", f), "is no file of a cell"),
    "no cells": (lambda f: (shutil.rmtree(f / "cells"), sign(f)), "results holds no cells"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_folder_that_is_not_what_was_sent(sent, capsys, case):
    change, line = WRONG[case]
    change(sent)
    assert line in run(capsys, "import", "results", code=1)
    assert not (sent.parent / "foreign").exists()


def test_two_imports_in_one_place_are_said(sent, capsys):
    run(capsys, "import", "results")
    made = {"study": "digits", "version": 1, "config": {}}
    store.write_cell(sent / "cells/digits/default", [{"value": 1}], made)
    shutil.rmtree(sent / "cells/teachers")
    sign(sent)
    said = run(capsys, "import", "results")
    assert said.startswith(
        "note: foreign/results has other cells too (1); imported.jsonl there says what was sent\n1 cells"
    )
    assert [list(line["cells"]) for line in imports.ledger(sent.parent / "foreign/results")][1] == ["digits/default"]


def test_a_cell_that_is_imported_again_with_other_content_has_its_own_sums(sent, capsys):
    run(capsys, "import", "results")
    root = sent.parent / "foreign/results"
    shutil.rmtree(next((root / "teachers").iterdir()))
    cell = next((sent / "cells/teachers").iterdir())
    made = store.read_provenance(cell)
    store.write_cell(cell, [{"value": 1}], {"study": "teachers", "version": 1, "config": made["config"]})
    sign(sent)
    run(capsys, "import", "results")
    assert imports.ledger(root)[-1]["cells"] == {f"teachers/{cell.name}": store.sums(root / "teachers" / cell.name)}


def test_two_imports_at_once_leave_both_their_lines(sent, monkeypatch, capsys):
    other = shutil.copytree(sent, sent.parent / "other")
    shutil.rmtree(other / "cells")
    store.write_cell(other / "cells/digits/default", [{"value": 1}], {"study": "digits", "version": 1, "config": {}})
    sign(other)
    command, write, started = (
        [sys.executable, "-m", "mechsub", "import", "other", "--into", "mixed"],
        files.write_text,
        [],
    )

    def meanwhile(path, text):
        if path.name == imports.LEDGER:
            started.append(subprocess.Popen(command))
            with contextlib.suppress(subprocess.TimeoutExpired):
                started[0].wait(timeout=5)  # it waits for the import that is at work
        write(path, text)

    monkeypatch.setattr(files, "write_text", meanwhile)
    run(capsys, "import", "results", "--into", "mixed")
    assert started[0].wait(timeout=60) == 0
    assert [line["name"] for line in imports.ledger(sent.parent / "mixed")] == ["results", "other"]
    assert len([path for path in (sent.parent / "mixed").iterdir() if path.name.startswith(".")]) == 0


def test_no_cell_is_replaced(sent, capsys):
    run(capsys, "import", "results")
    cell = next((sent.parent / "foreign/results/teachers").iterdir())
    made = store.read_provenance(cell)
    store.write_cell(cell, [{"value": 1}], {"study": "teachers", "version": 1, "config": made["config"]})
    other = next((sent.parent / "foreign/results/subliminal_accuracy").iterdir())
    shutil.rmtree(other)
    before = contents(sent.parent)
    line = run(capsys, "import", "results", code=1)
    assert "is there with other content; nothing was imported; give another --into" in line
    assert contents(sent.parent) == before
    (cell / "records.jsonl").write_text("")
    assert "is there with other content" in run(capsys, "import", "results", code=1)


def test_ones_own_cells_are_told_from_imported_ones(own, sent, capsys):
    root = sent.parent / "mixed"
    store.write_cell(root / "digits" / "default", [{"value": 1}], {"study": "digits", "config": {}})
    said = run(capsys, "import", "results", "--into", "mixed")
    assert said.startswith(
        "note: mixed has other cells too (1); imported.jsonl there says what was sent\n3 cells stored"
    )
    (line,) = imports.ledger(root)
    assert len(line["cells"]) == 3 and "digits/default" not in line["cells"]
    (root / imports.LEDGER).write_text("{}\n")
    assert "line 1, is no line of an import" in run(capsys, "import", "results", "--into", "mixed", code=1)
    assert main(["verify", "mixed"]) == 1
    assert "damaged     mixed/imported.jsonl, line 1, is no line of an import" in capsys.readouterr().out


def test_a_command_that_was_killed_goes_on(own, sent, monkeypatch, capsys):
    write, written = store.write_files, []

    def until_killed(cell, *more):
        if written:
            raise KeyboardInterrupt
        write(cell, *more)
        written.append(cell)

    monkeypatch.setattr(store, "write_files", until_killed)
    with pytest.raises(KeyboardInterrupt):
        main(["import", "results"])
    monkeypatch.setattr(store, "write_files", write)
    (sent.parent / "foreign/results/teachers").mkdir(exist_ok=True)
    (sent.parent / "foreign/results/teachers/.left.0123456789ab-0000-12-34.tmp").mkdir()
    os.utime(sent.parent / "foreign/results/teachers/.left.0123456789ab-0000-12-34.tmp", (0, 0))
    assert run(capsys, "import", "results").startswith("2 cells stored under foreign/results, 1 were there\n")
    assert len(imports.ledger(sent.parent / "foreign/results")) == 1
    summary = "3 whole cells; damaged: 0, missing: 0, stale: 0, foreign: 0, unsealed: 0, unfinished: 0, unknown: 0\n"
    assert run(capsys, "verify", "foreign/results") == summary


def test_places_that_do_not_fit(own, sent, capsys):
    (sent.parent / "file").touch()
    assert "nowhere is not a folder" in run(capsys, "import", "nowhere", code=2)
    assert "file is not a folder; give another --into" in run(capsys, "import", "results", "--into", "file", code=1)
    assert "lies within the folder that is imported" in run(capsys, "import", "results", "--into", "results/a", code=1)
    assert "nowhere is not a folder" in run(capsys, "export", "new", "--store", "nowhere", code=2)
    assert "no cell is stored under" in run(capsys, "export", "new", "--store", "results", code=2)
    line = run(capsys, "export", "new", "--store", own, "--studies", "teachers", "none", code=2)
    assert "no cell of 'none' is stored under" in line
    assert "results is there already; give the name of a new folder" in run(
        capsys, "export", "results", "--store", own, code=2
    )
    assert sorted(path.name for path in sent.parent.iterdir()) == ["file", "results"]


def test_nothing_damaged_is_sent(own, tmp_path, capsys):
    root = shutil.copytree(own, tmp_path / "store")
    next(root.glob("teachers/*/records.jsonl")).write_text("")
    assert "was changed after it was written" in run(capsys, "export", tmp_path / "sent", "--store", root, code=1)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
