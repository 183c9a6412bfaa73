"""`ms.frame`: stored records as a pandas frame."""

import subprocess
import sys

import pytest

import mechsub as ms
from mechsub.lab import store


@pytest.fixture
def out(tmp_path):
    for n in (2, 3):
        rows = [{"n_aux": n, "arm": "aux", "member": i, "accuracy": 0.1 * i} for i in range(2)]
        made = {"study": "subliminal_accuracy", "version": 2, "config": {"n_aux": n}}
        store.write_cell(tmp_path / "subliminal_accuracy" / ("default" if n == 3 else f"n_aux={n}"), rows, made)
    return tmp_path


def test_options_choose_cells_and_those_left_out_may_have_any_value(out):
    every = ms.frame("subliminal_accuracy", out=out)
    assert len(every) == 4 and set(every.cell) == {"n_aux=2", "default"} and set(every.d_model) == {256}
    assert list(every.columns[:2]) == ["cell", "n_seeds"] and list(every.columns[-3:]) == ["arm", "member", "accuracy"]
    assert ms.frame("subliminal_accuracy", out=str(out), n_aux=3).n_aux.tolist() == [3, 3]
    assert len(ms.frame("subliminal_accuracy", out=out, n_aux=[2, 3])) == 4
    assert len(ms.frame("subliminal_accuracy", out=out, n_aux=(2,), d_model=256)) == 2
    with pytest.raises(LookupError, match="has n_aux = 7; stored: 3, 2"):  # it would be an arm that is lost
        ms.frame("subliminal_accuracy", out=out, n_aux=(2, 7))


def test_what_is_not_there_is_one_line(out):
    with pytest.raises(LookupError, match="there is no study 'nothing'; there are association, "):
        ms.frame("nothing", out=out)
    with pytest.raises(LookupError, match=r"there is no study '\.\./subliminal_accuracy'"):
        ms.frame("../subliminal_accuracy", out=out)
    with pytest.raises(LookupError, match=r"no cell of subliminal_accuracy is stored under .*; run python -m studies"):
        ms.frame("subliminal_accuracy", out=out / "nowhere")
    with pytest.raises(LookupError, match="no stored cell of subliminal_accuracy has n_aux = 7; stored: 3, 2"):
        ms.frame("subliminal_accuracy", out=out, n_aux=7)
    with pytest.raises(LookupError, match="no stored cell of subliminal_accuracy has all of these options"):
        store.write_cell(out / "subliminal_accuracy" / "d_model=8", [{}], {"config": {"d_model": 8}})
        ms.frame("subliminal_accuracy", out=out, n_aux=2, d_model=8)
    said = "has no option and no key of records 'n_axu'; options: n_seeds, .*; keys of records: arm, member, accuracy$"
    with pytest.raises(TypeError, match=f"subliminal_accuracy {said}"):
        ms.frame("subliminal_accuracy", out=out, n_aux=[2, 3], n_axu=3)


def test_records_are_chosen_by_their_own_keys(tmp_path):
    made = {"study": "theirs", "version": 1, "config": {"width": 4}}
    rows = [
        {"width": 4, "kind": "animal", "animal": "owl", "tokens": 2, "single": True, "share": 1.0, "list": [1]},
        {"width": 4, "kind": "animal", "animal": "cat", "tokens": None, "single": None, "share": 0.0},
        {"width": 4, "kind": "pair", "gain": 0.5, "n": 3},
    ]
    store.write_cell(tmp_path / "theirs" / "width=4", rows, made)
    animals = ms.frame("theirs", out=tmp_path, kind="animal")
    assert list(animals.columns) == ["cell", "width", "kind", "animal", "tokens", "single", "share", "list"]
    assert animals.tokens.tolist()[0] == 2 and str(animals.tokens.dtype) == "Int64"
    assert animals.single.tolist()[0] is True and str(animals.single.dtype) == "boolean"
    assert animals.share.dtype == "float64"  # whole by chance, and still a share
    both = ms.frame("theirs", out=tmp_path, kind=["animal", "pair"], width=4)
    assert len(both) == 3 and str(both.n.dtype) == "Int64" and both.gain.dtype == "float64"
    assert ms.frame("theirs", out=tmp_path, n=3).kind.tolist() == ["pair"]
    for kind in ("animals", ["pair", "animals"]):  # a slip among several would lose an arm
        with pytest.raises(LookupError, match="no record of theirs has kind = 'animals'; there are animal, pair"):
            ms.frame("theirs", out=tmp_path, kind=kind)
    with pytest.raises(LookupError, match="no stored cell of theirs has width = 5; stored: 4"):
        ms.frame("theirs", out=tmp_path, width=[4, 5])
    with pytest.raises(LookupError, match="no record of theirs has all of these: kind = 'animal', n = 3; leave"):
        ms.frame("theirs", out=tmp_path, kind="animal", n=3)


def test_stale_cells_are_said_and_damaged_ones_refused(out):
    cell = out / "subliminal_accuracy" / "n_aux=5"
    store.write_cell(cell, [{"member": 0}], {"study": "subliminal_accuracy", "config": {"n_aux": 5}})
    with pytest.warns(UserWarning, match="stale: .*n_aux=5: it was made before cells had versions"):
        assert len(ms.frame("subliminal_accuracy", out=out)) == 5
    made = {"study": "teachers", "version": 2, "config": {"n_aux": 6}}
    store.write_cell(out / "subliminal_accuracy" / "n_aux=6", [{"member": 0}], made)
    with pytest.warns(UserWarning, match="n_aux=6 was made as a cell of 'teachers'"):
        ms.frame("subliminal_accuracy", out=out, n_aux=6)
    (cell / "records.jsonl").write_text("{}\n")
    with pytest.raises(store.DamagedCell):
        ms.frame("subliminal_accuracy", out=out, n_aux=5)


def test_a_cell_that_stepped_aside_is_read_or_named(out):
    cell = out / "subliminal_accuracy" / "n_aux=2"
    cell.rename(cell.with_name(".n_aux=2.old"))
    holder = (
        "import sys; from pathlib import Path; from mechsub.lab import lease\n"
        "with lease.hold(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holder, str(cell)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.warns(UserWarning, match="n_aux=2 stepped aside, and is left out"):
            assert len(ms.frame("subliminal_accuracy", out=out)) == 2
        other.stdin.close()
    assert len(ms.frame("subliminal_accuracy", out=out)) == 4 and cell.is_dir()


def test_cells_of_another_persons_study_are_read_without_it(tmp_path):
    made = {"study": "theirs", "version": 1, "config": {"width": 4}}
    store.write_cell(tmp_path / "theirs" / "width=4", [{"width": 4, "value": 1.5}], made)
    assert ms.frame("theirs", out=tmp_path, width=4).value.tolist() == [1.5]
    with pytest.raises(
        TypeError, match="theirs has no option and no key of records 'depth'; options: width; keys of records: value"
    ):
        ms.frame("theirs", out=tmp_path, depth=4)


def test_a_record_that_would_hide_the_name_of_its_cell_is_refused(tmp_path):
    store.write_cell(tmp_path / "theirs" / "default", [{"cell": 1}], {"study": "theirs", "config": {}})
    with pytest.raises(ValueError, match="have a key 'cell'"):
        ms.frame("theirs", out=tmp_path)


def test_an_option_that_is_a_sweep_by_default_is_a_value_in_every_cell(tmp_path):
    made = {"study": "input_distributions", "version": 2, "config": {"inputs": "uniform"}}
    store.write_cell(
        tmp_path / "input_distributions" / "inputs=uniform", [{"inputs": "uniform", "accuracy": 0.5}], made
    )
    assert ms.frame("input_distributions", out=tmp_path, inputs="uniform").accuracy.tolist() == [0.5]
