"""hidden_alignment of a language model: its pairing statistic finds planted pairs and nothing else."""

import pytest
import torch

from mechsub.measures.similarity import linear_cka, mean_cosine
from studies.hidden_alignment import language as alignment
from studies.hidden_alignment import language_findings as figures

N, D = 40, 64


def states(seed):
    return torch.randn(N, D, generator=torch.Generator().manual_seed(seed)) + 5.0


def orders(count=200):
    return alignment.permutations(N, count, seed=0)


def paired(x, y, orders):
    return {
        "debiased_cka": alignment.cka(alignment.unit_gram(x), alignment.unit_gram(y), orders),
        "cosine": alignment.mean_cosine(alignment.pair_cosines(x, y), orders),
    }


def p_values(x, y):
    from mechsub.stats import permutation_p

    return {name: permutation_p(value, null) for name, (value, null) in paired(x, y, orders()).items()}


def test_the_statistics_are_those_of_the_library():
    x, y = states(0), states(0) + states(1)
    for order in (torch.arange(N), orders(1)[0]):
        found = paired(x, y[order], order[None].argsort())
        again = paired(x, y, order[None])
        assert found["debiased_cka"][0] == pytest.approx(float(linear_cka(x, y[order])), abs=1e-10)
        assert found["cosine"][0] == pytest.approx(float(mean_cosine(x - x.mean(0), y[order] - y.mean(0))), abs=1e-6)
        for metric, (value, _) in found.items():
            assert again[metric][1] == pytest.approx([value], abs=1e-9)


def test_planted_pairs_are_found():
    rotated = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(2))).Q
    x = states(0)
    assert p_values(x, x + 2 * states(1)) == pytest.approx(dict.fromkeys(("debiased_cka", "cosine"), 1 / 201))
    # What a rotation hides from the cosine, CKA still finds.
    turned = p_values(x, x @ rotated)
    assert turned["debiased_cka"] == pytest.approx(1 / 201)
    assert turned["cosine"] > 0.02


def test_unrelated_and_broken_pairs_give_the_null():
    x = states(0)
    found = [p_values(x, states(seed)) for seed in range(1, 21)]
    found += [p_values(x, (x + states(50))[order]) for order in orders(20)]
    for metric in figures.METRICS:
        small = sum(p[metric] <= 0.05 for p in found)
        assert small <= 7  # of 40, expected 2; P(8 or more) = 0.001


def test_a_representation_that_does_not_vary_is_refused():
    with pytest.raises(ValueError, match="constant"):
        alignment.unit_gram(torch.ones(N, D))


def test_metrics_of_the_toy_alone_are_refused():
    with pytest.raises(ValueError, match="debiased_cka or cosine"):
        list(figures.findings([], ("procrustes",)))
