"""Short form of `benchmarks/reproducibility.py`: the same bytes elsewhere, and what additions leave alone."""

import importlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks import reproducibility as r
from mechsub.lab import store, study

TOY = {"precision": "fp32", "d_model": 16, "n_images": 40}
COMMANDS = {"hidden_alignment": TOY, "token_entanglement": {}}
THREADS = {"hidden_alignment": {"OMP_NUM_THREADS": "1"}, "token_entanglement": {}}  # the toy's bytes need not the same


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


def here(name, flags, out):
    """Run a study in this process, which has run others before; its cells."""
    module = importlib.import_module(f"studies.{name}")
    study.command(module.study, [*flags, "--out", str(out)])
    return sorted(path.parent for path in (out / name).glob("*/provenance.json"))


@pytest.fixture(scope="module")
def cells(work):
    """Name -> its cell made in this process."""
    return {name: here(name, r.words(name, work, **more), work / "here")[0] for name, more in COMMANDS.items()}


def test_fresh_processes_store_the_same_bytes_and_the_toy_on_one_thread_too(work, cells):
    with ThreadPoolExecutor(2) as pool:
        jobs = {
            name: pool.submit(r.run, name, r.words(name, work, **more), work / "fresh", THREADS[name])
            for name, more in COMMANDS.items()
        }
    for name, job in jobs.items():
        (fresh,) = job.result()
        assert r.content(fresh) == r.content(cells[name]), name


def test_another_seed_leaves_the_rows_of_the_others(work, cells):
    (more,) = here("hidden_alignment", r.words("hidden_alignment", work, **{**TOY, "n_seeds": 3}), work / "three")
    few, many = r.rows(cells["hidden_alignment"]), r.rows(more)
    assert not r.changed_rows(few, many)  # the controls too: they start from the next seed, whatever others there are


def test_more_words_leave_the_log_probabilities_of_the_others(work, cells):
    flags = r.words("token_entanglement", work, n_animals=12, n_partners=46)
    more = here("token_entanglement", flags, work / "more")[0]
    few, many = (log_probs(cell) for cell in (cells["token_entanglement"], more))
    assert len(few) == 50 and set(few) < set(many)
    assert max(abs(few[key] - many[key]) for key in few) < 1e-4  # other batches round otherwise


def log_probs(cell):
    """Every word's log-probability without any system message, which depends on no other word."""
    rows = [row for row in r.rows(cell) if "log_p_none" in row]
    return {(row["kind"], row.get("animal"), row.get("partner")): row["log_p_none"] for row in rows}


def test_a_sweep_makes_the_cells_of_single_commands(work):
    from benchmarks import soak

    def cell(out, *flags):
        study.main(soak.Config, soak.run, soak.plot, soak.table, [*flags, "--out", str(work / out)])
        return {path.parent.name: r.content(path.parent) for path in (work / out).glob("*/*/provenance.json")}

    sweep = cell("sweep", "--d-model", "32", "16")
    cell("singles", "--d-model", "16")
    assert len(sweep) == 2 and sweep == cell("singles", "--d-model", "32")


def test_a_metric_that_is_only_drawn_changes_no_byte(work, cells):
    cell = cells["hidden_alignment"]
    before = r.content(cell), (cell / store.PROVENANCE).read_bytes()
    flags = [*r.words("hidden_alignment", work, **TOY), "--metric", "cosine"]
    assert here("hidden_alignment", flags, work / "here") == [cell]
    assert (r.content(cell), (cell / store.PROVENANCE).read_bytes()) == before
