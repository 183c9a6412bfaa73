"""Rounding: the step of a block, noise within half of it, and what a study of planted matrices says of it."""

import pytest
import torch
from tiny_families import FAMILIES, Draw
from tiny_llama import save_tiny_llama

import mechsub as ms
from mechsub.lab import findings
from mechsub.models import weights
from studies import rounding


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_step_of_a_quantised_matrix_is_its_own():
    levels = torch.randint(0, 16, (6, 64), generator=torch.Generator().manual_seed(0)).float()
    levels[:, [0, 32]], levels[:, [1, 33]] = 0, 15  # both ends of every block are used
    size = 0.01 + torch.rand(6, 2, generator=torch.Generator().manual_seed(1)).repeat_interleave(32, 1)
    torch.testing.assert_close(weights.steps(size * levels - 0.3), size)


def test_a_last_block_may_be_short():
    found = weights.steps(torch.arange(40.0)[None])
    assert found[0, 0] == pytest.approx(31 / 15) and found[0, 39] == pytest.approx(7 / 15)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny_llama(tmp_path_factory.mktemp("tiny")))


def parameters(folder: str, name: str) -> dict:
    return dict(ms.load_language_model(folder, weights=name).original_model.named_parameters())


def test_noise_stays_within_half_a_step_and_leaves_embeddings_and_norms(folder):
    own, moved, again, other = (parameters(folder, name) for name in ("trained", *["rounding-0"] * 2, "rounding-1"))
    for name, value in own.items():
        assert torch.equal(moved[name], again[name])
        if value.ndim < 2 or "embed" in name or "lm_head" in name:
            assert torch.equal(moved[name], value)
        else:
            share = (moved[name] - value) / weights.steps(value)
            assert 0.4 < float(share.abs().max()) <= 0.501 and not torch.equal(moved[name], other[name])


def family(name: str):
    """A tiny model of a family, with Hugging Face's own first weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FAMILIES[name].make(Draw()).eval()


@pytest.mark.parametrize("name", ["gpt2", "mixtral", "gpt_oss, window"])
def test_matrices_that_are_no_linear_layers_move_too(name):
    model = family(name)
    own = {name: value.clone() for name, value in model.named_parameters()}
    weights.put(model, "rounding-0")
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, own[name])}
    beside = ("embed_tokens.weight", "wte.weight", "wpe.weight", "lm_head.weight", "bias")
    assert moved == {name for name, value in own.items() if value.ndim > 1 and not name.endswith(beside)}


def test_linear_layers_have_the_draws_that_they_always_had():
    """Stored results are of these draws."""
    own, model, draw = family("llama").state_dict(), family("llama"), torch.Generator().manual_seed(0)
    weights.put(model, "rounding-0")
    for name, value in model.named_parameters():
        if value.ndim == 2 and "embed" not in name and "lm_head" not in name:
            step = weights.steps(own[name])
            assert torch.equal(value, own[name] + (torch.rand(step.shape, generator=draw) - 0.5) * step)


def test_random_weights_are_of_their_seed_and_leave_the_global_draws_alone(folder):
    before = torch.random.get_rng_state()
    own, drawn, again, other = (parameters(folder, name) for name in ("trained", *["random-4"] * 2, "random-5"))
    assert torch.equal(torch.random.get_rng_state(), before)
    matrices = [name for name, value in own.items() if value.ndim == 2]
    for name in matrices:
        assert torch.equal(drawn[name], again[name])
        assert not torch.equal(drawn[name], own[name]) and not torch.equal(drawn[name], other[name])


def test_provenance_says_what_the_weights_are(folder):
    source = ms.language.model_source(ms.load_language_model(folder, weights="random-3"))
    assert "weights_sha256" not in source and len(source["config_sha256"]) == 64 and "seed 3" in source["weights_are"]
    source = ms.language.model_source(ms.load_language_model(folder, weights="rounding-3"))
    assert len(source["weights_sha256"]) == 64 and source["weights"] == "rounding-3"


def test_other_names_of_weights_are_refused(folder):
    for name in ("random", "random-01", "rounding-x", ""):
        with pytest.raises(ValueError, match="weights must be"):
            ms.load_language_model(folder, weights=name)
    with pytest.raises(ValueError, match="leave out the adapter"):
        ms.load_language_model(folder, weights="random-0", adapter=folder)


# What a study says of matrices that are planted.


def said(noise: float) -> dict:
    cfg = rounding.Config(n_draws=3)
    words = ms.words.numbers()
    own = [normal(1110, 20, seed=0), normal(20, 1110, seed=1)]
    found = [dict(zip((rounding.FORWARD, rounding.BACK), own, strict=True))]
    for i in range(3):
        drawn = (normal(*side.shape, seed=10 * i + k) for k, side in enumerate(own, 5))
        moved = [side + noise * other if noise < 9 else other for side, other in zip(own, drawn, strict=True)]
        found.append(dict(zip((rounding.FORWARD, rounding.BACK), moved, strict=True)))
    return {finding.key: finding for finding in rounding.findings(list(rounding.kept(found, words, cfg)))}


def test_what_survives_is_told():
    found = said(1.0)
    for key in ("number_to_animal/kept_all", "animal_to_number/kept_left"):
        assert found[key].value.mean == pytest.approx(0.5**0.5, abs=0.03) and found[key].value.low > found[key].null
    assert found["number_to_animal/draws_all"].value == pytest.approx(0.5, abs=0.03)
    assert found["number_to_animal/size_all"].value.mean == pytest.approx(2, abs=0.1)


def test_of_other_matrices_nothing_survives():
    found = said(9.0)
    assert abs(found["number_to_animal/kept_all"].value.mean) < 0.02
    assert abs(found["directions/agreement_all"].value.mean) < 0.02


def test_intervals_of_three_draws_stay_within_what_a_ratio_or_a_correlation_can_be():
    """Values of the stored cell: with Student's t as they are, the ratio would reach below 0."""
    keys = {"of": "all", "direction": rounding.FORWARD, "null_95": 0.1}
    rows = [
        row
        for part in rounding.PARTS
        for direction in (rounding.FORWARD, rounding.BACK)
        for kind, values in (("kept", (0.98, 0.6, 0.9)), ("size", (0.5, 0.8, 1.5)), ("draws", (0.5,)))
        for row in (
            keys | {"kind": kind, "of": part, "direction": direction, "draw": i, "value": value, "pairs": 3}
            for i, value in enumerate(values)
        )
    ]
    rows += [{"kind": "directions", "of": part, "draw": i, "value": 0.1 * i, "own": 0.1}
             for part in rounding.PARTS for i in range(3)]  # fmt: skip
    said = {finding.key: finding for finding in rounding.findings(rows)}
    kept, size = said["number_to_animal/kept_all"], said["number_to_animal/size_all"]
    assert ms.stats.student_t([0.98, 0.6, 0.9]).high > 1 > kept.value.high > kept.value.mean > kept.value.low > -1
    assert ms.stats.student_t([0.5, 0.8, 1.5]).low < 0 < size.value.low < size.value.high
    assert size.value.mean == pytest.approx((0.5 * 0.8 * 1.5) ** (1 / 3)) and size.value.n == 3
    assert "first draw alone" in kept.null_label


def test_a_correlation_of_one_has_an_interval_and_none_beyond_one_is_taken():
    same = findings.scaled("a/kept", "", {0: 1.0, 1: 1.0 + 2e-16}, findings.FISHER, unit="draws")
    assert same.value.low == pytest.approx(1) and same.value.high <= 1
    for wrong in (1.5, float("nan")):
        with pytest.raises(ValueError):
            findings.scaled("a/kept", "", {0: 0.5, 1: wrong}, findings.FISHER, unit="draws")
