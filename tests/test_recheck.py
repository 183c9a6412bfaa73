"""Stored cells and probes made again: what differs is named, what is damaged is refused, and the bound is a bound."""

import json
import os
import random
import shutil
import signal

import pytest
from sweep import Sweep, numbers, wait

from mechsub.lab import recheck, remaking, store


@pytest.fixture
def sweep(tmp_path):
    """A store of six cells of a study that declares two probes."""
    sweep = Sweep(tmp_path)
    source = tmp_path / "studies" / "tiny.py"
    source.write_text(source.read_text() + "\n\nVERSION = 1\nPROBES = (Config(rows=2), Config(rows=3, number=5))\n")
    sweep.run(*numbers(6))
    yield sweep
    sweep.close()


def run(sweep, *argv, code=0):
    output, errors = sweep.run("recheck", *argv, module="mechsub", code=code)
    return output.splitlines(), errors


def edit(sweep, old, new):
    path = sweep.folder / "studies" / "tiny.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_whole_store_made_again(sweep):
    lines, _ = run(sweep, "--all", "--workers", "2")
    assert len(lines) == 7 and all("as stored" in line for line in lines[:-1])
    assert lines[-1].startswith(
        "6 of 6 cells were drawn and made again: 6 came out the same to the last bit, 0 apart by rounding"
    )
    ledger = recheck.ledger(sweep.cells.parent)
    assert {line["cell"] for line in ledger} == {path.name for path in sweep.cells.iterdir() if path.is_dir()}
    assert all(line["same"] and line["apart"] == {} and line["now"]["cpu"] and line["then"]["cpu"] for line in ledger)
    assert not (sweep.cells.parent / ".recheck").exists()
    output, _ = sweep.run("verify", module="mechsub")
    assert "foreign: 0" in output and "unfinished: 0" in output


def test_a_share_is_drawn_and_the_next_draw_is_another(sweep):
    for _ in range(3):
        assert len(run(sweep, "--share", "0.3")[0]) == 3
    lines = recheck.ledger(sweep.cells.parent)
    draws = [{line["cell"] for line in lines if line["draw"] == draw} for draw in range(3)]
    assert len(lines) == 6 and len({frozenset(draw) for draw in draws}) > 1
    assert recheck_result(sweep).drawn == len(set.union(*draws))


def test_cells_that_come_out_otherwise_are_named_with_what_differs(sweep):
    edit(sweep, "draw.random()}", "draw.random() + 0.5 * (member == 7)}")
    lines, _ = run(sweep, "--all", code=1)
    assert "6 otherwise; at 95% at most 100.0%" in lines[-1]
    assert "row 8" in lines[0] and '"member": 7' in lines[0] and "value 0." in lines[0]
    line = recheck.ledger(sweep.cells.parent)[0]
    assert line["apart"] == {"value": pytest.approx(0.5)} and not line["same"]
    # Cells that are made anew since are other cells: the ledger says nothing of them.
    sweep.run(*numbers(6), "--rerun")
    assert recheck_result(sweep) is None


def recheck_result(sweep):
    """As the tiny study's own folder has it: its `studies` is not this process's."""
    current = [("tiny", path.name) for path in sweep.cells.iterdir() if path.is_dir()]
    before, recheck.current_cells = recheck.current_cells, lambda root, names: (current, [])
    try:
        return recheck.result(sweep.cells.parent)
    finally:
        recheck.current_cells = before


def test_killed_it_goes_on_with_the_same_draw(sweep):
    process = sweep.start("recheck", "--all", module="mechsub")
    ledger = sweep.cells.parent / "rechecks.jsonl"
    wait(lambda: ledger.is_file() and len(ledger.read_text().splitlines()) >= 2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = ledger.read_text()
    assert 2 <= len(before.splitlines()) < 6 and (sweep.cells.parent / ".recheck").is_dir()
    _, errors = run(sweep, "--share", "0.5", code=1)
    assert "a recheck with --share 1 is not finished" in errors and errors.count("\n") == 1
    lines, _ = run(sweep, "--all")
    assert ledger.read_text().startswith(before) and len(ledger.read_text().splitlines()) == 6
    assert len(lines) == 7 - len(before.splitlines())


def test_what_a_killed_command_made_is_not_taken_for_todays(sweep):
    """It may be half a copy, or of code that was edited since."""
    process = sweep.start("recheck", "--all", module="mechsub")
    ledger, scratch = sweep.cells.parent / "rechecks.jsonl", sweep.cells.parent / ".recheck"
    wait(lambda: ledger.is_file(), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = {line["cell"] for line in recheck.ledger(sweep.cells.parent)}
    for place in (path for path in scratch.iterdir() if path.is_dir()):  # all that was left is finished
        for cell in sweep.cells.iterdir():
            if cell.is_dir() and cell.name not in done:
                shutil.copytree(cell, place / "tiny" / cell.name, dirs_exist_ok=True)
    edit(sweep, "draw.random()}", "draw.random() + 0.5}")
    run(sweep, "--all", code=1)
    lines = recheck.ledger(sweep.cells.parent)
    assert len(lines) == 6 and all(line["same"] == (line["cell"] in done) for line in lines) and len(done) < 6


def test_a_cell_that_cannot_be_made_again_counts_as_different(sweep):
    edit(
        sweep, "    draw = random", "    if cfg.number == 3:\n        raise RuntimeError('no luck')\n    draw = random"
    )
    lines, _ = run(sweep, "--all", code=1)
    assert any("number=3: differs" in line and "no luck" in line for line in lines)
    assert "1 otherwise" in lines[-1]


def test_cells_are_made_again_without_the_checkpoints_that_their_training_left(sweep):
    """studies.train_organism goes on from them: with these, it would read its old weights and train nothing."""
    told = "raise RuntimeError(f'of its own: {bool(kept) and os.listdir(kept) == []}')"
    edit(sweep, "    draw = random", f"    kept = os.environ.get('MECHSUB_CHECKPOINTS')\n    {told}\n    draw = random")
    lines, _ = run(sweep, "--all", code=1)
    assert len(lines) == 7 and all("of its own: True" in line for line in lines[:-1])


def test_bad_input_is_one_line_and_nothing_is_overwritten(sweep):
    root = sweep.cells.parent
    for argv, words in (
        (["--share", "0"], "--share"), (["--share", "nan"], "--share"), (["--share", "2"], "--share"),
        (["--workers", "0"], "--workers"), (["--studies", "nosuch"], "no study 'nosuch'"), (["--record"], "--probes"),
        (["--store", "nosuch"], "not a folder"), (["--typo"], "--typo"),
    ):  # fmt: skip
        _, errors = run(sweep, *argv, code=2)
        assert errors.startswith("error: ") and words in errors and errors.count("\n") == 1
    run(sweep, "--share", "0.1")
    ledger, plan = root / "rechecks.jsonl", root / ".recheck" / "plan.json"
    line = ledger.read_bytes()
    for text, words in (
        (b'{"draw": 0}\n', "line 1, is no line of a ledger"), (line + b"no JSON\n", "line 2, is no line of a ledger"),
        (line[:-9], "line 1, is no line"), (line.replace(b'"draw": 0', b'"draw": "0"'), "line 1, is no line"),
        (b"[" * 100_000, "line 1, is no line"), (b"\xff\n", "cannot be read"),
    ):  # fmt: skip
        ledger.write_bytes(text)
        _, errors = run(sweep, "--all", code=1)
        assert errors.count("\n") == 1 and f"rechecks.jsonl{',' * ('line' in words)} {words}" in errors
        assert ledger.read_bytes() == text and not plan.parent.exists()
        output, errors = sweep.run("verify", module="mechsub", code=1)
        assert errors == "" and words in output and "damaged: 1" in output
    ledger.write_bytes(line)
    plan.parent.mkdir()
    for text, words in (
        ("[]", "plan.json is damaged"), ('{"draw"', "plan.json is damaged"),
        ('{"draw": 1, "share": 1.0, "studies": [], "cells": [["tiny", "gone"]]}', "tiny/gone was drawn and is not"),
    ):  # fmt: skip
        plan.write_text(text)
        _, errors = run(sweep, "--all", code=1)
        assert errors.count("\n") == 1 and words in errors and plan.read_text() == text


def test_stale_cells_are_not_drawn(sweep):
    edit(sweep, "VERSION = 1", "VERSION = 2")
    _, errors = run(sweep, "--all", code=1)
    assert "no cell that is stored" in errors


def test_cells_of_an_accelerator_are_not_drawn(sweep):
    """They would be made again on the CPU, which adds in another order."""
    cell = sweep.cells / "number=1"
    made = store.read_provenance(cell)
    (cell / store.PROVENANCE).write_bytes(store._sealed(made | {"device": "cuda:0 (a GPU, 80 GiB)"}))
    lines, _ = run(sweep, "--all")
    assert len(lines) == 6 and not any("number=1" in line for line in lines)
    assert lines[-1].endswith("; 1 cells were made on an accelerator, and are not drawn")


# The bound.


def test_the_bound_of_simple_draws_is_at_least_the_exact_one():
    """60 of 273 and none wrong: the hypergeometric bound, which knows that draws are without replacement, is lower."""
    from scipy.stats import hypergeom

    upper = recheck.upper_share({"a": 273}, {"a": 60}, 0)
    exact = max(k for k in range(273) if hypergeom(273, k, 60).cdf(0) >= 0.05)
    assert exact / 273 <= upper <= (exact + 3) / 273
    two = max(k for k in range(273) if hypergeom(273, k, 60).cdf(2) >= 0.05)
    assert two / 273 <= recheck.upper_share({"a": 273}, {"a": 60}, 2) <= (two + 4) / 273
    assert recheck.upper_share({"a": 5}, {"a": 5}, 0) == 0.2 and recheck.upper_share({"a": 5}, {"a": 5}, 5) == 1.0


@pytest.mark.parametrize("where", ["small", "large", "spread"])
def test_the_bound_covers_however_the_wrong_cells_lie(where):
    """20 wrong of 140, in studies drawn at different rates: the bound holds in at least 95 of 100 draws."""
    population = {"a": 100, "b": 20, "c": 20}
    drawn = {"a": 10, "b": 4, "c": 10}
    wrong = {"small": {"c": 20}, "large": {"a": 20}, "spread": {"a": 14, "b": 3, "c": 3}}[where]
    generator, held = random.Random(0), 0
    for _ in range(400):
        seen = sum(
            sum(cell < wrong.get(name, 0) for cell in generator.sample(range(n), drawn[name]))
            for name, n in population.items()
        )
        held += recheck.upper_share(population, drawn, seen) >= 20 / 140
    assert held / 400 >= 0.94


def test_every_study_is_drawn_from_and_the_draw_repeats():
    cells = [("a", str(i)) for i in range(40)] + [("b", "x")]
    draw = recheck.drawn_cells(cells, 0.1, 0)
    assert sorted(name for name, _ in draw) == ["a"] * 4 + ["b"] and draw == recheck.drawn_cells(cells[::-1], 0.1, 0)
    assert draw != recheck.drawn_cells(cells, 0.1, 1)


def test_differences_of_rows():
    a = [{"member": 0, "v": 1.0, "w": [1.0, 2.0], "s": "x"}, {"member": 1, "v": 2.0, "w": [1.0, 2.0], "s": "x"}]
    b = [{**a[0]}, {**a[1], "v": 2.5, "w": [1.0, 4.0]}]
    assert remaking.rows_apart(a, a) == {} and remaking.rows_apart(a, b) == {"v": 0.5, "w": 2.0}
    assert remaking.rows_apart(a, [b[0]]) == {"rows": "2 and 1"}
    assert remaking.rows_apart(a, [a[0], {**a[1], "s": "y", "v": 1}]) == {"s": "differs", "v": "differs"}
    assert remaking.first_difference(a, b) == (
        'row 2 ({"member": 1, "s": "x"}): v 2.0 -> 2.5, w [1.0, 2.0] -> [1.0, 4.0]'
    )


# Probes.


def probes(sweep, *argv, code=0):
    return run(sweep, "--probes", *argv, code=code)[0]


def test_probes_notice_numbers_and_nothing_else(sweep):
    folder = sweep.folder / "tests" / "probes" / "tiny"
    assert "is missing or cannot be read" in probes(sweep, code=1)[0]
    assert probes(sweep, "--record")[-1].startswith("2 probes, 0 with a problem")
    assert sorted(path.name for path in folder.iterdir()) == ["number=5__rows=3.jsonl", "rows=2.jsonl"]
    assert probes(sweep)[-1].startswith("2 probes, 0 with a problem")
    edit(sweep, "draw = random.Random(cfg.number)", "generator = draw = random.Random(cfg.number)")
    probes(sweep)
    edit(sweep, "draw.random()}", "draw.random() + (member == 2)}")
    lines = probes(sweep, code=1)
    assert sum("the same" in line for line in lines) == 1
    problem = next(line for line in lines if "row 3" in line)
    assert "value 0." in problem and "Mend the code; or" in problem and "raise the version of studies.tiny" in problem
    lines = probes(sweep, "--record", code=1)
    assert "the version of studies.tiny is still 1; raise it first" in "".join(lines)
    edit(sweep, "VERSION = 1", "VERSION = 2")
    assert "is of version 1, and studies.tiny says 2; record it" in probes(sweep, code=1)[0]
    probes(sweep, "--record")
    assert probes(sweep)[-1].startswith("2 probes, 0 with a problem")


def test_on_another_processor_a_probe_has_its_tolerance(sweep):
    probes(sweep, "--record")
    for path in (sweep.folder / "tests" / "probes" / "tiny").iterdir():
        head, _, body = path.read_text().partition("\n")
        first = json.loads(head)
        assert set(first["tolerance"]) == {"value"} and first["loose"] == [] and first["processor"]["features"]
        first["processor"]["model"] = "another"
        first["tolerance"]["value"] = 0.1
        path.write_text(json.dumps(first) + "\n" + body)
    edit(sweep, "draw.random()}", "draw.random() + 0.05}")
    probes(sweep)
    edit(sweep, "draw.random() + 0.05}", "draw.random() + 0.2}")
    probes(sweep, code=1)
    assert "raise it first" in probes(sweep, "--record", code=1)[0]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_text(path.read_text()[:-5]), "is damaged"),
        (lambda path: path.write_text(""), "is damaged"),
        (lambda path: path.write_text("[" * 100_000), "is damaged"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "cannot be read"),
        (lambda path: path.write_text(path.read_text().replace('"version": 1', '"version": "1"', 1)), "is damaged"),
        (lambda path: path.write_text(path.read_text().replace('"processor": {', '"none": {', 1)), "is damaged"),
        (lambda path: path.write_text(path.read_text().replace('"version": 1', '"version": 2', 1)), "update the code"),
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.rename(path.with_name("rows=9.jsonl")), "is of no probe"),
    ],
)
def test_a_missing_torn_or_foreign_probe_is_one_line(sweep, damage, words):
    probes(sweep, "--record")
    path = sweep.folder / "tests" / "probes" / "tiny" / "rows=2.jsonl"
    damage(path)
    lines, errors = run(sweep, "--probes", code=1)
    assert sum(words in line for line in lines) == 1 and errors == ""
    if path.exists():  # nor is it overwritten by a command that would keep what is made now
        before = path.read_bytes()
        lines, errors = run(sweep, "--probes", "--record", code=1)
        assert sum(words in line for line in lines) == 1 and errors == "" and path.read_bytes() == before


def test_tensors_are_kept_too(tmp_path):
    import torch

    from mechsub.lab import probes as kept

    store.write_cell(tmp_path / "c", [{"n": 1, "v": 2}], {"config": {"n": 1}}, {"m": torch.arange(1000.0).view(2, 500)})
    row, tensor = kept.rows_of_cell(tmp_path / "c")
    assert row == {"v": 2} and tensor["shape"] == [2, 500] and tensor["sum"] == 499500.0
    assert tensor["values"] == [3.0 * i for i in range(334)]


@pytest.mark.parametrize(
    ("apart", "rounding"),
    [
        ({"value": 3e-16, "low": 9e-10}, True),
        ({"value": 3e-16, "low": 2e-9}, False),
        ({"value": 3e-16, "kind": "differs"}, False),
        ({"error": "no luck"}, False),
    ],
)
def test_rounding_is_told_apart_from_other_numbers(apart, rounding):
    assert recheck.by_rounding({"apart": apart}) is rounding


def test_cells_apart_by_rounding_are_counted_and_are_no_fault(sweep):
    edit(sweep, "draw.random()}", "draw.random() * (1 + 1e-13)}")
    lines, _ = run(sweep, "--all")
    assert " 6 apart by rounding (at most 1e-09), 0 otherwise; " in lines[-1]
    edit(sweep, "(1 + 1e-13)", "(1 + 1e-6)")
    lines, _ = run(sweep, "--all", code=1)
    assert " 0 apart by rounding (at most 1e-09), 6 otherwise; at 95% at most 100.0%" in lines[-1]
