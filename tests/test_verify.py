"""`python -m mechsub verify`: what is wrong with a store is named, and every flipped bit is something wrong."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from sweep import ROOT, Sweep, numbers

from mechsub.lab import store, versions
from mechsub.lab import verify as audit

MADE = {"study": "tiny", "version": 1, "config": {"n": 1}}


@pytest.fixture
def sweep(tmp_path):
    """A store of three cells and a figure."""
    sweep = Sweep(tmp_path)
    sweep.run(*numbers(3))
    return sweep


def verify(sweep, code=0, *argv):
    """The findings, line by line, and the summary."""
    output, errors = sweep.run("verify", *argv, module="mechsub", code=code)
    assert errors == ""
    *lines, summary = output.splitlines()
    return [line.split(maxsplit=1) for line in lines], summary


def test_a_whole_store(sweep):
    summary = "3 whole cells; damaged: 0, missing: 0, stale: 0, foreign: 0, unsealed: 0, unfinished: 0, unknown: 0"
    assert verify(sweep) == ([], summary)


def _damage(path: Path, position: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(bytes(data))


def test_everything_wrong_is_named_and_only_damage_and_loss_are_failures(sweep):
    cells = sweep.cells
    (sweep.cells.parent / "notes.txt").touch()
    (sweep.cells.parent / "other").mkdir()
    (cells / "figure.png").touch()
    (cells / "default" / "notes").mkdir()
    (cells / ".default.0123456789ab-0000-12-34.tmp").mkdir()
    (cells / ".number=1.lease").touch()
    found, _ = verify(sweep)
    assert sorted(found) == [
        ["foreign", "artifacts/notes.txt is no study's folder"],
        ["foreign", "artifacts/other is no study's folder"],
        ["foreign", "artifacts/tiny/default/notes is not recorded in the cell's provenance"],
        ["foreign", "artifacts/tiny/figure.png is neither a cell nor a figure"],
        ["unfinished", "artifacts/tiny/.default.0123456789ab-0000-12-34.tmp is in the making, or left by a process "
         "that was killed"],
        ["unfinished", "artifacts/tiny/.number=1.lease is in the making, or left by a process that was killed"],
    ]  # fmt: skip
    _damage(cells / "number=1" / "records.jsonl")
    (cells / "number=2" / "records.jsonl").unlink()
    (cells / "number=3").mkdir()
    (cells / "number=3" / "records.jsonl").touch()
    os.rename(cells / "default", cells / ".default.old")
    found, summary = verify(sweep, 1)
    failures = [f"{kind} {line}" for kind, line in found if kind in audit.FAILURES]
    assert failures[0].startswith("missing artifacts/tiny/default stepped aside and was not replaced; the study's next")
    assert failures[1].startswith("damaged artifacts/tiny/number=1/records.jsonl was changed after it was written (sha")
    assert failures[2:] == [
        "missing artifacts/tiny/number=2/records.jsonl is missing",
        "missing artifacts/tiny/number=3 has no provenance.json: it is half-written",
    ]
    assert summary.startswith("0 whole cells; damaged: 1, missing: 3")


def test_damage_is_never_read_and_is_recomputed_on_request(sweep):
    before = sweep.records()
    _damage(sweep.cells / "number=1" / "provenance.json", 40)
    _, errors = sweep.run(*numbers(3), code=1)
    assert "number=1/provenance.json" in errors and "with --rerun, makes it again" in errors and errors.count("\n") == 1
    sweep.run("--number", "1", "--rerun")
    assert verify(sweep)[0] == [] and sweep.records() == before


def test_cells_of_another_version_or_other_options_are_stale_and_no_failure(sweep):
    source = sweep.folder / "studies" / "tiny.py"
    text = source.read_text()
    source.write_text(text + "\n\nVERSION = 2\n")
    found, summary = verify(sweep)
    why = "number=1: it was made by version 1 of its study, and this is 2"
    assert [kind for kind, _ in found] == ["stale"] * 3 and why in found[1][1]
    assert summary.startswith("3 whole cells; damaged: 0, missing: 0, stale: 3")
    source.write_text(text.replace("study.option(20,", "study.option(21,"))
    assert "tiny/default would be named rows=20 today" in verify(sweep)[0][0][1]
    source.write_text(text.replace("rows: study.Count", "n_rows: study.Count"))
    assert "default has options that its study no longer takes" in verify(sweep)[0][0][1]
    source.write_text(text)
    os.rename(sweep.cells, sweep.cells.with_name("renamed"))
    assert verify(sweep)[0][0] == ["foreign", "artifacts/renamed/default was made as a cell of 'tiny'"]


@pytest.mark.parametrize(
    "changed",
    [
        *({"version": version} for version in ("1", None, True, 1.5, 0)),
        *({"certified": by} for by in ("me", [], {"fingerprint": "f"}, {"fingerprint": "f", "commit": None})),
        *({"config": []}, {"code": [1]}, {"made_from": ["x"]}, {"upstream_versions": {"tiny": "1"}}),
        *({"read": read} for read in ([1], {"words": {}}, {"words": {"sha256": "f"}})),
    ],
)
def test_a_sealed_provenance_of_another_form_is_damage(changed, tmp_path):
    rows = [{"v": 1}]
    store.write_cell(tmp_path / "tiny" / "default", rows, {**MADE, "certified": {"fingerprint": "f", "commit": "c"}})
    assert {kind for kind, _ in audit.findings(tmp_path)} == {"cell", "unknown"}
    store.write_cell(tmp_path / "tiny" / "default", rows, {**MADE, **changed})
    (found,) = audit.findings(tmp_path)
    assert found == ("damaged", f"{tmp_path / 'tiny' / 'default' / store.PROVENANCE} is not a provenance file")


def test_a_cell_of_a_newer_version_is_not_replaced(sweep):
    source = sweep.folder / "studies" / "tiny.py"
    text = source.read_text()
    source.write_text(text.replace("\n\nif __name__", "\n\nVERSION = 2\n\nif __name__"))
    sweep.run(*numbers(3), "--rerun")
    before = sweep.records()
    source.write_text(text)
    _, errors = sweep.run("--number", "1")
    assert "which is newer than this one (1); update the code\n" in errors and "--rerun" not in errors
    _, errors = sweep.run("--number", "1", "--rerun", code=1)
    assert "update the code, or give another --out" in errors and errors.count("\n") == 1
    assert sweep.records() == before and "stale: 3" in verify(sweep)[1]


def test_a_cell_from_a_cell_that_was_made_anew_is_stale(sweep):
    first, second = sweep.cells.parent / "first" / "default", sweep.cells / "default"
    store.write_cell(first, [{"v": 1}], {**MADE, "study": "first"})
    made = store.read_provenance(second)
    store.write_cell(second, store.read_records(second), {**made, "made_from": {"first/default": store.sums(first)}})
    assert {kind for kind, _ in verify(sweep)[0]} == {"unknown"}
    store.write_cell(first, [{"v": 2}], {**MADE, "study": "first"})
    anew = "artifacts/tiny/default: it was built on first/default, which was made anew since"
    assert ["stale", anew] in verify(sweep)[0]
    _damage(first / "provenance.json")
    assert {"damaged", "stale"} == {kind for kind, _ in verify(sweep, 1)[0]}


def test_a_provenance_file_cannot_have_other_code_imported(tmp_path):
    sweep = Sweep(tmp_path)
    (tmp_path / "evil.py").write_text("open('executed', 'w')")
    for name in ("evil", "..evil", "studies.evil", "os.path", "\n"):
        made = {**MADE, "study": name, "command": ["python", "-m", "evil"]}
        store.write_cell(tmp_path / "artifacts" / name / "default", [{"v": 1}], made)
    found, _ = verify(sweep)
    assert [kind for kind, _ in found] == ["unknown"] * 5 and not (tmp_path / "executed").exists()


def test_bad_paths_are_one_line_and_2(sweep):
    for path, words in (("nosuch", "not a folder"), ("artifacts/tiny", "a part"), ("artifacts/tiny/default", "a part")):
        _, errors = sweep.run("verify", path, module="mechsub", code=2)
        assert errors.startswith("error: ") and words in errors and errors.count("\n") == 1
    for argv in (["verfiy"], [], ["verify", "a", "b"], ["verify", "--fix"]):
        _, errors = sweep.run(*argv, module="mechsub", code=2)
        assert errors.startswith("error: ") and errors.count("\n") == 1


def test_a_flipped_bit_or_a_cut_anywhere_is_damage(tmp_path):
    cell = tmp_path / "tiny" / "default"
    made = {**MADE, "note": "é\n", "versions": {"torch": "2"}}
    store.write_cell(cell, [{"n": 1, "v": 0.1}], made, {"matrix": torch.arange(4.0)})

    def status():
        return versions.status(cell, 1, {"n": 1}, {"n": 1}, {}.get).kind

    assert status() == "stored"
    for file in (store.RECORDS, store.TENSORS, store.PROVENANCE):
        path = cell / file
        data = path.read_bytes()
        broken = [data[:length] for length in range(0, len(data), 7)]
        broken += [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in range(len(data))]
        found = Counter()
        for each in broken:
            path.write_bytes(each)
            found[status()] += 1
        path.write_bytes(data)
        assert found == {"damaged": len(broken)}, file
    assert status() == "stored"


def test_a_provenance_that_was_read_can_be_stored_again(tmp_path):
    store.write_cell(tmp_path / "a", [{"n": 1}], MADE)
    store.write_cell(tmp_path / "b", [{"n": 1}], {**store.read_provenance(tmp_path / "a"), "note": 1})
    assert store.checked(tmp_path / "b")["note"] == 1


def test_provenance_of_the_first_format_is_read_and_reported_as_unsealed(sweep):
    path = sweep.cells / "number=1" / "provenance.json"
    made = json.loads(path.read_text())
    made.pop("seal")
    path.write_text(json.dumps(made))
    sweep.run(*numbers(3), code=1)  # the format says that a seal is missing
    made.pop("format")
    path.write_text(json.dumps(made))
    sweep.run(*numbers(3))
    assert verify(sweep)[0] == [["unsealed", "artifacts/tiny/number=1/provenance.json has no checksum of its own"]]


def test_what_is_committed_is_whole():
    done = subprocess.run([sys.executable, "-m", "mechsub", "verify"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "damaged: 0, missing: 0" in done.stdout and "unknown: 0" in done.stdout


def test_a_study_that_cannot_be_imported_is_one_line_and_the_rest_goes_on(sweep):
    broken = sweep.folder / "studies" / "broken.py"
    broken.write_text("import no_such_module\n")
    store.write_cell(sweep.cells.parent / "broken" / "default", [{"v": 1}], {**MADE, "study": "broken"})
    found, summary = verify(sweep)
    why = "studies.broken cannot be imported (ModuleNotFoundError: No module named 'no_such_module'); mend it"
    assert found == [["unknown", f"artifacts/broken/default: {why}"]] and summary.startswith("4 whole cells")
    output, errors = sweep.run("export", "out", module="mechsub")
    assert f"left out: findings and the figure of broken: {why}" in output and errors == ""
    assert {path.name for path in (sweep.folder / "out" / "tables").iterdir()} == {"broken", "tiny"}
    _, errors = sweep.run("recheck", module="mechsub", code=1)
    assert errors == f"error: {why}\n"
    output, _ = sweep.run("recheck", "--all", "--studies", "tiny", module="mechsub")
    assert "3 of 3 cells were drawn and made again" in output
    broken.unlink()
    (broken.with_suffix("")).mkdir()
    study = "from mechsub import lab\nstudy = lab.Study(version=1)\n"
    broken.with_suffix("").joinpath("__init__.py").write_text(study)
    broken.with_suffix("").joinpath("measure.py").write_text("1 +\n")
    assert verify(sweep)[0][0][1].startswith("artifacts/broken/default: studies.broken cannot be imported (SyntaxError")
