"""The store: nothing half-written, nothing silently changed, names that cannot collide or escape."""

import itertools
import json
import math
import os

import pytest

from mechsub import store

CONFIG = {"n": 1}


def _write(cell, rows=({"n": 1, "v": 0.1},), fingerprint="f"):
    store.write_cell(cell, list(rows), {"fingerprint": fingerprint, "config": CONFIG})


def test_cell_is_read_back_exactly(tmp_path):
    rows = [{"v": 0.1 + 0.2}, {"v": None}, {"v": "é\n"}]
    _write(tmp_path / "cell", rows)
    assert store.read_records(tmp_path / "cell") == rows
    assert store.read_provenance(tmp_path / "cell")["records"]["rows"] == 3
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cell", "provenance.json", "records.jsonl"]


def test_status_follows_provenance_fingerprint_config_and_hash(tmp_path):
    cell = tmp_path / "cell"
    assert store.cell_status(cell, "f", CONFIG) == "missing"
    _write(cell)
    assert store.cell_status(cell, "f", CONFIG) == "stored"
    assert store.cell_status(cell, "g", CONFIG) == "stale"
    assert store.cell_status(cell, "f", {"n": 2}) == "stale"
    (cell / "records.jsonl").write_text('{"n": 1, "v": 0.2}\n')
    assert store.cell_status(cell, "f", CONFIG) == "damaged"
    with pytest.raises(store.DamagedCell, match=r"records\.jsonl was changed"):
        store.read_records(cell)
    (cell / "provenance.json").write_text("{")
    with pytest.raises(store.DamagedCell, match=r"provenance\.json"):
        store.read_records(cell)
    (cell / "provenance.json").unlink()
    assert store.cell_status(cell, "f", CONFIG) == "missing"


@pytest.mark.parametrize("broken", range(8))
def test_a_crash_at_any_rename_keeps_the_old_cell(tmp_path, monkeypatch, broken):
    """Fail the k-th rename or fsync, as a crash would; the cell must still be the old one or the new one, whole."""
    cell = tmp_path / "cell"
    _write(cell, [{"v": "old"}])
    calls = itertools.count()

    def failing(real):
        def step(*arguments):
            if next(calls) == broken:
                raise OSError(28, "No space left on device")
            return real(*arguments)

        return step

    for name in ("rename", "replace", "fsync"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    try:
        _write(cell, [{"v": "new"}])
    except OSError:
        pass
    monkeypatch.undo()
    store.recover(cell)
    assert store.read_records(cell) in ([{"v": "old"}], [{"v": "new"}])


def test_file_is_replaced_or_kept(tmp_path, monkeypatch):
    path = tmp_path / "file"
    store.write_text(path, "old")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        store.write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_different_configurations_have_different_safe_names():
    values = ["a", "a/b", "..", "../..", "a__n=2", "a,b", "a%2Fb", "x" * 500, "x" * 501, "é", "\\", "default"]
    defaults = {"model": "m", "n": 1}
    names = [store.cell_name({"model": v, "n": n}, defaults) for v in [*values, "m"] for n in (1, 2)]
    assert len(set(names)) == len(names)
    assert all("/" not in name and "\\" not in name and len(name) <= store.MAX_NAME for name in names)
    assert store.cell_name(defaults, defaults) == "default"
    assert store.cell_name({"a": True, "lr": 1e-5}, {"a": False, "lr": 1.0}) == "a=true__lr=1e-05"


@pytest.mark.parametrize("value", [math.nan, math.inf, [1.0, math.nan], {"inner": -math.inf}])
def test_nan_is_refused_by_name(value):
    with pytest.raises(ValueError, match="cka"):
        store.record_row({}, {"cka": value})


def test_record_refuses_what_json_would_change():
    with pytest.raises(ValueError, match="'n' is also a field"):
        store.record_row({"n": 1}, {"n": 1})
    with pytest.raises(TypeError, match="'v' is a set"):
        store.record_row({}, {"v": {1}})
    with pytest.raises(TypeError, match="must be a dict"):
        store.record_row({}, 3)


def test_numpy_values_become_plain_numbers():
    numpy = pytest.importorskip("numpy")
    row = store.record_row({}, {"a": numpy.float32(0.5), "b": numpy.arange(2), "c": numpy.bool_(True)})
    assert json.loads(json.dumps(row)) == {"a": 0.5, "b": [0, 1], "c": True}


def test_a_cell_holds_tensors_and_notices_a_flipped_bit(tmp_path):
    torch = pytest.importorskip("torch")
    cell, table = tmp_path / "cell", torch.arange(6.0).reshape(2, 3)
    config = {"n": 1}
    made = {"fingerprint": "f", "config": config}
    store.write_cell(cell, [{"n": 1}], made, {"table": table, "row": table[0]})  # a view of the other is no obstacle
    found = store.read_tensors(cell)
    assert torch.equal(found["table"], table) and torch.equal(found["row"], table[0])
    assert store.read_provenance(cell)["tensors"]["shapes"] == {"table": [2, 3], "row": [3]}
    assert store.cell_status(cell, "f", config) == "stored"
    path = cell / store.TENSORS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert store.cell_status(cell, "f", config) == "damaged"
    with pytest.raises(store.DamagedCell, match=r"tensors\.safetensors was changed"):
        store.read_tensors(cell)
    path.unlink()
    assert store.cell_status(cell, "f", config) == "damaged"
    store.write_cell(cell, [{"n": 1}], made)
    assert store.read_tensors(cell) == {} and not path.exists()
