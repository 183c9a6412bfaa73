"""The study, for real on a tiny Llama in which numbers are single tokens, and what it says of planted matrices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_llama import save_tiny_llama

from mechsub.designs import love
from mechsub.inputs import prompts
from mechsub.lab import store
from studies import token_entanglement as study_of

ROOT = Path(__file__).parent.parent
SMALL = "--n-animals 12 --n-partners 30 --n-wordings 2 --n-subset 16 --n-permutations 100".split()


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "studies.token_entanglement", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=dict(os.environ),  # readline has set COLUMNS for children, and not there
    )  # fmt: skip


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    folder = save_tiny_llama(out / "tiny")
    done = command("--model", folder, *SMALL, "--out", out)
    assert done.returncode == 0, done.stderr
    (cell,) = [path for path in (out / "token_entanglement").iterdir() if path.is_dir()]
    return cell, done


def test_a_small_run_stores_both_directions_with_their_nulls(stored):
    cell, done = stored
    tensors, records = store.read_tensors(cell), store.read_records(cell)
    assert tensors["number_to_animal"].shape == (30, 12) and tensors["animal_to_number"].shape == (12, 30)
    assert tensors["number_to_animal_dates"].shape == (4, 16, 12)  # this template has a date
    assert (tensors["number_to_animal"] < 0).all()
    kinds = {record["kind"] for record in records}
    assert kinds >= {"animal", "partner", "baseline", "share", "test", "pair"}
    for record in records:
        if record["kind"] == "test":
            assert -1 <= record["low"] <= record["high"] <= 1 and 0 < record["p"] <= 1
            assert abs(record["null_mean"]) < 0.3 and 0 < record["p_numbers"] <= 1
    made = store.read_provenance(cell)
    assert made["tied"] is True and made["template_date"] == "26 Jul 2024" and len(made["weights_sha256"]) == 64
    assert made["prompt_ids"]["number"][0] == 0 and "null" in made
    assert "the number of another animal, chosen so" in done.stdout and "date x number" in done.stdout


def test_all_wordings_can_be_used():
    assert love.N_WORDINGS == len(prompts.WORDINGS)


def test_shares_of_variance_sum_to_one(stored):
    records = [r for r in store.read_records(stored[0]) if r["kind"] == "share"]
    for table in {r["table"] for r in records}:
        assert sum(r["share"] for r in records if r["table"] == table) == pytest.approx(1)


@pytest.mark.slow
def test_numbers_are_scored_with_and_without_a_space(stored, tmp_path):
    cell, _ = stored
    folder = cell.parent.parent / "tiny"
    done = command("--model", folder, *SMALL, "--spaced", "false", "--format", "published", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    (other,) = [path for path in (tmp_path / "token_entanglement").iterdir() if path.is_dir()]
    made = store.read_provenance(other)
    assert made["prompt_ids"]["number"][:2] == [0, 0] and made["template_date"] == "today's (published)"
    a, b = (store.read_tensors(c)["none_to_number"] for c in (cell, other))
    assert not torch.allclose(a, b)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--n-wordings", "9"], 2, "at most 5"),
        (["--n-animals", "2"], 2, "at least 8"),
        (["--n-animals", "7"], 2, "at least 8"),
        (["--n-partners", "4"], 2, "at least 8"),
        (["--n-subset", "15"], 2, "at least 16"),
        (["--family", "fruits"], 2, "not one of"),
        (["--model", "./no_such_folder"], 2, "neither a folder nor a Hugging Face id"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, code, said):
    done = command(*arguments, "--out", tmp_path)
    assert done.returncode == code and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert said in done.stderr and not list(tmp_path.iterdir())


def words(names, mark=()):
    return [love.Word(name, name, f" {name}", i, mark) for i, name in enumerate(names)]


def planted(pairs, n=40, a=12, seed=0):
    """Matrices with large main effects; `pairs` of (number, animal) are raised in both directions."""
    draw = torch.Generator().manual_seed(seed)
    forward = 3 * torch.randn(1, a, generator=draw) + torch.randn(n, 1, generator=draw)
    back = 3 * torch.randn(1, n, generator=draw) + torch.randn(a, 1, generator=draw)
    forward = forward + 0.1 * torch.randn(n, a, generator=draw)
    back = back + 0.1 * torch.randn(a, n, generator=draw)
    for number, animal in pairs:
        forward[number, animal] += 2
        back[animal, number] += 2
    return {
        "number_to_animal": forward,
        "animal_to_number": back,
        "animal_to_animal": torch.zeros(a, a),
        "baseline_to_animal": torch.zeros(1, a),
        "none_to_number": torch.zeros(n),
        "subset_partner": torch.arange(n),
        "subset_animal": torch.arange(a),
    }


def analysed(tensors):
    n, a = tensors["number_to_animal"].shape
    animals, numbers = words([f"a{i}" for i in range(a)]), words([f"{i:02d}" for i in range(n)])
    cfg = study_of.Config(n_wordings=1, n_permutations=199)
    rows = list(study_of._animal_records(animals, numbers, tensors, cfg))
    (test,) = [r for r in study_of._tests(animals, numbers, tensors, cfg) if r["kind"] == "test"]
    return rows, test


def test_planted_pairs_are_found_beneath_main_effects():
    rows, test = analysed(planted([(i, i) for i in range(12)]))
    assert [row["number_by_interaction"] for row in rows] == [f"{i:02d}" for i in range(12)]
    assert all(row["percentile_by_interaction"] == 1 for row in rows)
    assert test["p"] == 1 / 200 and test["low"] > 0.5


def test_without_a_pair_the_chosen_number_lies_anywhere():
    rows, test = analysed(planted([]))
    places = [row["percentile_by_interaction"] for row in rows]
    assert 0.2 < sum(places) / len(places) < 0.8
    assert test["p"] > 0.01 and test["low"] < 0 < test["high"]


def test_the_null_of_a_chosen_number_keeps_the_selection():
    """Chosen by its rise, a number is over twice one way for every animal; other animals' numbers tell the rest."""
    for pairs, own, others in (([(i, i) for i in range(12)], 1.0, 0.2), ([], 0.0, 0.2)):
        tensors = planted(pairs)
        tensors["baseline_to_animal"] = tensors["number_to_animal"].mean(0, keepdim=True)
        tensors["none_to_number"] = tensors["animal_to_number"].mean(0)
        for name in ("number_to_animal", "animal_to_number"):  # no main effect of what is loved
            centre = tensors[name].mean(1, keepdim=True)
            tensors[name] = tensors[name] - centre + centre.mean()
        rows, _ = analysed(tensors)
        met = [row["number_to_animal_by_ratio"] > love.TWICE for row in rows]
        assert sum(met) / 12 == pytest.approx(own, abs=0.2)
        assert sum(row["others_over_2x_by_ratio"] for row in rows) / 12 < others


def test_main_effects_alone_make_the_papers_ratio_large():
    """An animal that every number raises exceeds twice for all of them: the ratio says nothing of pairs."""
    tensors = planted([])
    tensors["baseline_to_animal"] = tensors["number_to_animal"].mean(0, keepdim=True) - 3
    rows, _ = analysed(tensors)
    assert sum(row["share_of_numbers_over_2x"] for row in rows) / len(rows) > 0.9
