"""lens_trajectory: exact at the last block, agreement finds what is planted and nothing else; runs on a tiny Llama."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import normal
from tiny_llama import save_tiny_llama

from mechsub.designs import love
from mechsub.inputs import words
from mechsub.lab import store
from mechsub.measures.scores import interaction, next_token_log_probs
from studies import lens_trajectory as study

ROOT = Path(__file__).parent.parent
TOKENS = [2, 3, 5, 7, 11]


def command(name, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"studies.{name}", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def prompts():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(13, (length,), generator=generator) for length in (4, 6, 4, 5, 6, 4, 4)]


def test_states_do_not_depend_on_the_batches_and_keep_the_order_of_prompts(bridge, prompts, monkeypatch):
    together = love.last_states(bridge, prompts)
    assert together.shape == (3, 7, 16)
    alone = torch.cat([love.last_states(bridge, [prompt]) for prompt in prompts], dim=1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(love, "BATCH", 2)
    torch.testing.assert_close(love.last_states(bridge, prompts), together, atol=1e-5, rtol=1e-5)


def test_the_lens_of_the_last_block_is_the_models_own_interaction(bridge, prompts):
    lens = study.lens_interactions(bridge, love.last_states(bridge, prompts), TOKENS)
    own = torch.cat([next_token_log_probs(bridge, [prompt], tokens=TOKENS) for prompt in prompts])
    torch.testing.assert_close(lens[-1], interaction(own), atol=1e-5, rtol=1e-4)
    study.check_last(lens[-1], own)
    with pytest.raises(ValueError, match="not the model's output"):
        study.check_last(lens[0], own)
    with pytest.raises(ValueError, match="words differ"):
        study.check_last(lens[-1, :4], own)


STRATA = [1] * 6 + [2] * 12 + [3] * 22


def test_agreement_finds_a_planted_interaction():
    shared, noise = (interaction(normal(40, 15, seed=seed)) for seed in (0, 1))
    found = study.agreement(shared, shared + 2 * noise, STRATA, n=199, seed=0)
    assert found["p"] == found["p_numbers"] == 0.005
    assert found["null_high"] < found["low"] < found["value"] < found["high"]


def test_agreement_of_unrelated_interactions_is_the_null():
    """Also with a common pattern over animals that numbers follow independently."""
    pattern, small = normal(1, 15, seed=100), 0

    def unrelated(seed):
        return interaction(normal(40, 15, seed=seed) + 2 * normal(40, 1, seed=seed + 50) * pattern)

    for seed in range(20):
        found = study.agreement(unrelated(seed), unrelated(seed + 20), STRATA, n=100, seed=seed)
        small += found["p_numbers"] <= 0.05
    assert small <= 5  # of 20, expected 1; P(6 or more) = 0.0003


def test_unloved_animals_are_never_the_loved_one():
    draws = study._others(12, n=50, seed=0)
    assert draws.shape == (50, 12) and (draws != torch.arange(12)).all()
    assert (draws.sort().values == torch.arange(12)).all()


def test_the_default_is_the_default_model():
    from mechsub.models import language

    assert study.Config().model == language.DEFAULT


def test_a_small_toy_run(tmp_path):
    small = ["--model", "toy", "--n-seeds", "2", "--epochs", "1", "--n-steps", "2", "--out", str(tmp_path)]
    out = command("lens_trajectory", *small)
    assert out.returncode == 0, out.stderr
    cell = next(path for path in (tmp_path / "lens_trajectory").iterdir() if path.is_dir())
    rows = store.read_records(cell)
    steps = {row["step"] for row in rows if row["arm"] == "student_aux"}
    assert len(steps) == 2 and {row["arm"] for row in rows} == {"reference", "cross_reference", "teacher", *study.ARMS}
    for row in rows:
        if row["arm"] == "teacher":  # stitched into itself, and read where the lens is exact
            assert row["layer"] == 0 or row["lens_accuracy"] == row["stitch_into_teacher"]
            assert row["stitch_into_teacher"] > 0.7


@pytest.fixture(scope="module")
def run_on_tiny_llama(tmp_path_factory):
    """Runs of a study on one tiny Llama, under one --out, so that its matrices are made once."""
    root = tmp_path_factory.mktemp("language")
    model = save_tiny_llama(root / "tiny")

    def run(name):
        out = command(name, "--model", str(model), "--n-permutations", "100", "--out", str(root / "out"))
        assert out.returncode == 0, out.stderr
        cell = next(path for path in (root / "out" / name).iterdir() if path.is_dir())
        return store.read_records(cell), store.read_provenance(cell), store.read_tensors(matrices(root)), out.stdout

    def matrices(root):
        return next(path for path in (root / "out/token_entanglement").iterdir() if path.is_dir())

    return run


@pytest.mark.slow
def test_a_run_on_a_language_model(run_on_tiny_llama):
    rows, made, tensors, printed = run_on_tiny_llama("lens_trajectory")
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in {row["kind"] for row in rows}}
    assert {row["layer"] for row in rows} == {0, 1, 2}
    last = [row["value"] for row in kinds["agreement"] if (row["layer"], row["reference"]) == (2, "same wording")]
    assert last == pytest.approx([1.0])
    n = tensors["number_to_animal"].shape[1]
    assert len(kinds["loved"]) == 3 * n and len(kinds["pair"]) == 2 * 3 * n
    # In the last block a pair's rise is the entry of the stored matrix.
    final = interaction(tensors["number_to_animal"])
    numbers = {text: i for i, text in enumerate(words.numbers())}
    for choice in study.PAIRS:
        pairs = [row for row in kinds["pair"] if (row["layer"], row["choice"]) == (2, choice)]
        stored = [float(final[numbers[row["number"]], column]) for column, row in enumerate(pairs)]
        assert [row["value"] for row in pairs] == pytest.approx(stored, abs=1e-3)
    assert len(made["weights_sha256"]) == 64 and made["null"] and "last block" in made["lens"]
    assert "agreement: null" in printed


@pytest.mark.slow
def test_hidden_alignment_of_a_language_model(run_on_tiny_llama):
    rows, made, tensors, printed = run_on_tiny_llama("hidden_alignment")
    layers = [row for row in rows if row["kind"] == "layer"]
    assert len(layers) == 3 * 2 * 2  # blocks, metrics, pairings
    assert all(1 / 41 <= row["p"] <= 1 and row["null_low"] <= row["null_mean"] <= row["null_high"] for row in layers)
    specific, numbers = interaction(tensors["animal_to_number"]), words.numbers()
    for pairing, chosen in (("favoured", specific.argmax(1)), ("lowest", specific.argmin(1))):
        animals = [row for row in rows if row["kind"] == "animal" and (row["pairing"], row["layer"]) == (pairing, 1)]
        assert [row["number"] for row in animals] == [numbers[i] for i in chosen.tolist()]
        (mean,) = [r["value"] for r in layers if (r["pairing"], r["layer"], r["metric"]) == (pairing, 1, "cosine")]
        assert sum(row["cosine"] for row in animals) / len(animals) == pytest.approx(mean)
    assert made["unit"] == "chosen numbers, each with its animals" and "favoured" in printed
