"""Short form of `benchmarks/scaling.py`: the fits, and what can be measured of cells in a second."""

import sys

import pytest

from benchmarks import scaling


def test_fits_find_a_power_and_a_line():
    sizes = [1, 3, 10, 30, 100]
    assert scaling.power_law(sizes, [2 * n**1.5 for n in sizes])[0] == pytest.approx(1.5)
    c, d, worst = scaling.line(sizes, [5 + 0.25 * n for n in sizes])
    assert (c, d) == (pytest.approx(5), pytest.approx(0.25)) and worst < 1e-9
    assert scaling.line(sizes, [n**2 for n in sizes])[2] > 0.2  # and says where there is none


def test_cells_are_measured_as_studies_store_them(tmp_path):
    scaling.fill(tmp_path / "synthetic", 101)
    found = scaling.look(101, tmp_path / "synthetic")
    assert min(value for name, value in found.items() if not name.startswith("memory")) > 0
    assert len(list((tmp_path / "synthetic").iterdir())) == 101
    for measure in (scaling.planned, scaling.cell_of_rows):
        assert measure(10)[0] > 0


def test_commands_over_stored_cells_are_timed(tmp_path):
    flags = scaling.grid_of_factors(1, 2, tmp_path / "artifacts")
    command = [sys.executable, "-m", "studies.factors", *flags, "--out", str(tmp_path / "artifacts"), "--dry-run"]
    assert min(scaling.of_command(command, 2)) > 0
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "__init__.py").touch()
    (tmp_path / "studies" / "many.py").write_text(scaling.SHOWN)
    said, seconds, busy = scaling.timed([sys.executable, "-m", "studies.many", "--number", "0", "1"], tmp_path)
    assert "number=1" in said and min(seconds, busy) > 0
