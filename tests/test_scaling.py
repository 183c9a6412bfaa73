"""Short form of `benchmarks/scaling.py`: the fits, and what can be measured of cells in a second."""

import sys

import pytest

from benchmarks import one_card, scaling


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


@pytest.mark.parametrize("name", one_card.MODELS)
def test_parameters_of_the_configurations_are_those_of_the_model_cards(name):
    assert f"{one_card.n_weights(name) / 1e9:.3g}" == f"{one_card.MODELS[name][2]:.3g}"


def test_what_fits_on_one_card_follows_from_the_sizes():
    said = {name: one_card.fits(name) for name in one_card.MODELS}
    assert said["Llama-3.1-8B"] == "all, fp32" and said["Qwen2.5-14B"] == "all, bf16"
    assert "all but base_vs_instruct" in said["Qwen2.5-32B"] and 'device_map="auto"' in said["Llama-3.3-70B"]
    assert one_card.demanded("Llama-3.2-1B", "bf16", 1) == 2.25 * 2 * one_card.n_weights("Llama-3.2-1B")
    assert one_card.trains("Llama-3.3-70B") == "none" and "prompted" in one_card.trains("Llama-3.1-8B")
    whole = 4 * one_card.n_weights("Llama-3.2-1B")
    assert one_card.one_teacher("Llama-3.2-1B") == 7 * whole < one_card.tuned_teachers("Llama-3.2-1B") < 18 * whole


def test_the_page_has_the_tables_of_one_card(capsys):
    one_card.print_tables()
    rows = [line for line in capsys.readouterr().out.splitlines() if line]
    page = (one_card.ROOT / "docs" / "scaling.md").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 2 * (2 + len(one_card.MODELS)) and set(rows) <= set(page)
