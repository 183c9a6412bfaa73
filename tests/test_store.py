"""The store: nothing half-written, nothing silently changed, names that cannot collide or escape."""

import itertools
import json
import math
import os
import resource
import signal
import subprocess
import sys

import pytest
from sweep import ROOT, Sweep, ends, numbers, wait

from mechsub import files, processes
from mechsub.lab import store, verify, versions

CONFIG = {"n": 1}


def _write(cell, rows=({"n": 1, "v": 0.1},)):
    store.write_cell(cell, list(rows), {"version": 1, "config": CONFIG})


def _status(cell, version=1, config=CONFIG):
    return versions.status(cell, version, config, CONFIG, {}.get).kind


def test_cell_is_read_back_exactly(tmp_path):
    rows = [{"v": 0.1 + 0.2}, {"v": None}, {"v": "é\n"}]
    _write(tmp_path / "cell", rows)
    assert store.read_records(tmp_path / "cell") == rows
    assert store.read_provenance(tmp_path / "cell")["records"]["rows"] == 3
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cell", "provenance.json", "records.jsonl"]


@pytest.mark.parametrize("config", [{}, {"n": 1}, {"text": "é, {", "empty": [], "x": 0.1 + 0.2, "none": None}])
@pytest.mark.parametrize("n_rows", [0, 1, 3, 20_000])
def test_rows_leave_out_the_configuration_and_are_read_whole(tmp_path, config, n_rows):
    cell, record = tmp_path / "cell", {"kind": 'a\n{"n": 1}', "v": [0.1, {"w": 2}]}
    rows = [store.record_row(config, {**record, "i": i}) for i in range(n_rows)]
    store.write_cell(cell, rows, {"config": config})
    assert store.read_records(cell) == rows
    whole = "".join(json.dumps(row) + "\n" for row in rows).encode()
    assert store.read_provenance(cell)["records"]["sha256"] == files.sha256(whole)
    assert [path.name for path in cell.glob("records*")] == [
        "records.jsonl.gz" if n_rows == 20_000 else "records.jsonl"
    ]
    if config and n_rows in (1, 3):
        assert all(set(json.loads(line)) == {"kind", "v", "i"} for line in open(cell / "records.jsonl"))
        (cell / "records.jsonl").write_bytes(whole)  # as cells were stored until 2026-11
        assert store.read_records(cell) == rows


def test_rows_that_do_not_begin_with_the_configuration_are_kept_as_they_are(tmp_path):
    for rows in ([{"n": 1}], [{"v": 2, "n": 1}], [{"n": 1, "v": 2}, {"v": 3}]):
        _write(tmp_path / "cell", rows)
        assert store.read_records(tmp_path / "cell") == rows


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-9], lambda data: b"{}" + data, lambda data: b"", lambda data: data[:500] + b"x" + data[501:]],
)
def test_damaged_compressed_records_are_named(tmp_path, damage):
    _write(tmp_path / "cell", [{"n": 1, "v": i} for i in range(40_000)])
    path = tmp_path / "cell" / "records.jsonl.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(store.DamagedCell, match=r"records\.jsonl\.gz was changed after it was written"):
        store.read_records(tmp_path / "cell")


def test_a_folder_that_is_not_there_is_no_damage(tmp_path):
    """A slip in a path is no cell to make again."""
    for read in (store.read_records, store.read_tensors):
        with pytest.raises(
            store.DamagedCell, match=r"there is no cell .*a/b; give a folder that a study stored"
        ) as told:
            read(tmp_path / "a" / "b")
        assert "rerun" not in str(told.value)
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(store.DamagedCell, match="a/b is missing or incomplete; the command of its study, with --rerun"):
        store.read_records(tmp_path / "a" / "b")


def test_status_follows_provenance_version_config_and_hash(tmp_path):
    cell = tmp_path / "cell"
    assert _status(cell) == "missing"
    _write(cell)
    assert _status(cell) == "stored"
    assert _status(cell, 2) == "stale"
    assert _status(cell, 1, {"n": 2}) == "stale"
    (cell / "records.jsonl").write_text('{"n": 1, "v": 0.2}\n')
    assert _status(cell) == "damaged"
    with pytest.raises(store.DamagedCell, match=r"records\.jsonl was changed"):
        store.read_records(cell)
    (cell / "provenance.json").write_text("{")
    with pytest.raises(store.DamagedCell, match=r"provenance\.json"):
        store.read_records(cell)
    (cell / "provenance.json").unlink()
    assert _status(cell) == "missing"


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
    for record in ({"v": {1: "a", "1": "b"}}, {"v": [{"w": {None: 1, "None": 2}}]}, {1: "a", "1": "b"}):
        with pytest.raises(ValueError, match=r"two keys of .* are '(1|None)' as text"):
            store.record_row({}, record)


def test_numpy_values_become_plain_numbers():
    numpy = pytest.importorskip("numpy")
    row = store.record_row({}, {"a": numpy.float32(0.5), "b": numpy.arange(2), "c": numpy.bool_(True)})
    assert json.loads(json.dumps(row)) == {"a": 0.5, "b": [0, 1], "c": True}


def test_a_cell_holds_tensors_and_notices_a_flipped_bit(tmp_path):
    torch = pytest.importorskip("torch")
    cell, table = tmp_path / "cell", torch.arange(6.0).reshape(2, 3)
    config = {"n": 1}
    made = {"version": 1, "config": config}
    store.write_cell(cell, [{"n": 1}], made, {"table": table, "row": table[0]})  # a view of the other is no obstacle
    found = store.read_tensors(cell)
    assert torch.equal(found["table"], table) and torch.equal(found["row"], table[0])
    assert store.read_provenance(cell)["tensors"]["shapes"] == {"table": [2, 3], "row": [3]}
    assert _status(cell) == "stored"
    path = cell / store.TENSORS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert _status(cell) == "damaged"
    with pytest.raises(store.DamagedCell, match=r"tensors\.safetensors was changed"):
        store.read_tensors(cell)
    path.unlink()
    assert _status(cell) == "damaged"
    store.write_cell(cell, [{"n": 1}], made)
    assert store.read_tensors(cell) == {} and not path.exists()


# Kills.


def test_kills_at_any_point_and_several_processes_leave_no_fault():
    """The short form of benchmarks/crash_safety.py: 21 kills, and 9 stores that several processes share."""
    command = [sys.executable, "benchmarks/crash_safety.py", "--kills", "7", "--shared", "3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("torn files: 0") == 6 and done.stdout.endswith("faults: 0\n")


def test_a_killed_run_is_cleaned_up_by_the_next_one(tmp_path):
    sweep = Sweep(tmp_path)
    (sweep.folder / "go").touch()
    sweep.run(*numbers(2), "--hang", "4")
    (sweep.folder / "go").unlink()
    before = sweep.records()
    command = sweep.start(*numbers(4), "--hang", "4")
    wait(lambda: sweep.starts(2), command)
    command.kill()
    ends(command, -signal.SIGKILL)
    assert [path.name for path in sweep.hidden()] == [".number=2__hang=4.lease"]
    owner = "-".join([*processes.owner().split("-")[:2], str(command.pid), "1"])
    os.rename(sweep.cells / "hang=4", sweep.cells / ".hang=4.old")  # as if it had been killed in an exchange
    (sweep.cells / f".number=1.{owner}.tmp").mkdir()
    (sweep.cells / f".number=1.html.{owner}.tmp").touch()
    (sweep.cells.parent / f".plotly.min.js.{owner}.tmp").touch()
    sweep.run("--number", "1", "--hang", "4")
    assert sweep.hidden() == [] and sweep.records() == before and len(sweep.starts(0)) == 1


def test_only_what_the_dead_left_is_removed(tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    machine, boot, pid, started = processes.owner().split("-")
    names = {
        "living": f".cell.{machine}-{boot}-{pid}-{started}.tmp",
        "dead": f".cell.{machine}-{boot}-{pid}-1.tmp",
        "elsewhere": ".cell.0123456789ab-0000-12-34.tmp",
        "long ago elsewhere": ".cell.0123456789ab-0000-12-35.tmp",
        "not ours": ".notes.tmp",
        "not hidden": "cell.tmp",
    }
    for name in names.values():
        (study / name).touch()
    os.utime(study / names["long ago elsewhere"], (0, 0))
    store.clean(study)
    kept = {key for key, name in names.items() if (study / name).exists()}
    assert kept == {"living", "elsewhere", "not ours", "not hidden"}


def test_a_reader_never_meets_half_an_exchange(tmp_path):
    """Another process makes the cell again and again; each reading finds one making of it, whole."""
    cell, made = tmp_path / "study" / "cell", {"version": 1, "config": CONFIG}
    store.write_cell(cell, [{"v": -1}], made)
    code = f"""
import sys
from pathlib import Path
from mechsub import store
for number in range(100):
    store.write_cell(Path(sys.argv[1]), [{{"v": number}}] * 50, {made})
"""
    writer = subprocess.Popen([sys.executable, "-c", code, str(cell)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    seen = set()
    while writer.poll() is None:
        rows = store.read_records(cell)
        assert len({row["v"] for row in rows}) == 1
        seen.add(rows[0]["v"])
    assert writer.returncode == 0 and len(seen) > 1


# Faults of the file system.


def _complains(sweep, code, words, *argv, **options):
    """One line, the exit code, and a store in which whatever is there is whole."""
    _, errors = sweep.run(*argv, code=code, **options)
    error = errors.splitlines()[-1]
    assert error.startswith("error: ") and words in error and errors.count("error: ") == 1, errors
    if sweep.cells.parent.exists():
        assert {kind for kind, _ in verify.findings(sweep.cells.parent)} <= {"cell", "unknown", "unfinished"}


@pytest.fixture
def small_disk(tmp_path):
    """A sweep whose store is on a file system of 4 MB."""
    sweep = Sweep(tmp_path)
    sweep.cells.parent.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(sweep.cells.parent)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system is not permitted")
    yield sweep
    subprocess.run(["umount", "-l", str(sweep.cells.parent)], check=True)


def test_a_full_disk_keeps_what_is_stored(small_disk):
    words = [*numbers(3), "--rows", "300000"]
    _complains(small_disk, 1, "number=1__rows=300000 failed: OSError: [Errno 28] No space left on device", *words)
    assert list(small_disk.records()) == ["rows=300000"] and small_disk.hidden() == []
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk.cells.parent)], check=True)
    small_disk.run(*words)
    assert len(small_disk.records()) == 3 and len(small_disk.starts(0)) == 1


def test_a_file_that_may_not_grow_keeps_what_is_stored(tmp_path):
    sweep = Sweep(tmp_path)
    sweep.run("--number", "0")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # noqa: E731
    _complains(sweep, 1, "rows=30000 failed: OSError: [Errno 27] File too large", "--rows", "30000", preexec_fn=limit)
    assert list(sweep.records()) == ["default"] and sweep.hidden() == []


def test_a_disk_that_becomes_read_only(small_disk):
    command = small_disk.start(*numbers(2), "--hang", "2", "--rows", "10")
    wait(lambda: small_disk.starts(0), command)
    place = str(small_disk.cells.parent)  # a lease is an open file, and a disk with one is not remounted: one on top is
    subprocess.run(["mount", "--bind", place, place], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
    (small_disk.folder / "go").touch()
    _, errors = ends(command, 1)
    assert "failed: OSError: [Errno 30] Read-only file system" in errors and errors.count("error: ") == 1
    _complains(small_disk, 2, "cannot be written", *numbers(2))
    subprocess.run(["umount", place], check=True)
    subprocess.run(["mount", "-o", "remount,size=40m", place], check=True)
    small_disk.run(*numbers(2), "--hang", "2", "--rows", "10")
    assert len(small_disk.records()) == 2 and small_disk.hidden() == []


@pytest.mark.parametrize("vanishes", ["artifacts/tiny", "artifacts"])
def test_a_folder_that_vanishes(tmp_path, vanishes):
    sweep = Sweep(tmp_path)
    sweep.environment["VANISHES"] = vanishes
    _complains(sweep, 1, "number=1__one=vanish failed: FileNotFoundError: artifacts/tiny has vanished",
               *numbers(3), "--one", "vanish")  # fmt: skip
    assert not sweep.cells.exists()
    sweep.run(*numbers(3))
    assert len(sweep.records()) == 3 and sweep.hidden() == []
