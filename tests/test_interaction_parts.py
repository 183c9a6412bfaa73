"""The interaction by parts: exact where each is planted; the study's shares and intervals on planted matrices."""

import inspect

import pytest
import torch
from conftest import normal

import mechsub as ms
from studies import interaction_spectrum as spectrum

WORDS = [f"{n:0{k}d}" for k in (1, 2) for n in range(10**k)]  # 110 numbers
N_ANIMALS = 24


def planted(*, slopes=0.0, length=0.0, digits=0.0, pairs=0.0, seed=0) -> torch.Tensor:
    """Scores [number, animal] with main effects, and interactions of these sizes."""
    known = spectrum.features(WORDS)
    rows, columns = normal(len(WORDS), seed=seed), normal(N_ANIMALS, seed=seed + 1)
    both = rows[:, None] + columns
    both = both + slopes * normal(len(WORDS), seed=seed + 2)[:, None] * columns
    both = both + length * known["length"] @ normal(2, N_ANIMALS, seed=seed + 3)
    both = both + digits * known["digits"] @ normal(30, N_ANIMALS, seed=seed + 4)
    return both + pairs * normal(len(WORDS), N_ANIMALS, seed=seed + 5)


@pytest.mark.parametrize("part", ["slopes", "length", "digits"])
def test_a_planted_part_is_all_of_the_interaction(part):
    scores = planted(**{part: 1.0})
    parts = ms.interaction_parts(scores, spectrum.features(WORDS))
    whole = ms.interaction(scores)
    assert torch.allclose(sum(parts.values()), whole, atol=1e-10)
    others = ("slopes", "length", "digits", "left")[("slopes", "length", "digits").index(part) + 1 :]
    assert all(float(parts[name].square().sum()) < 1e-12 * float(whole.square().sum()) for name in others)
    assert float(parts[part].square().sum()) > 0.8 * float(whole.square().sum())  # slopes may hold some of any


def test_parts_are_orthogonal_and_do_not_depend_on_main_effects():
    scores, known = planted(slopes=1.0, length=1.0, digits=0.5, pairs=1.0), spectrum.features(WORDS)
    parts = ms.interaction_parts(scores, known)
    names = list(parts)
    assert names == ["slopes", "length", "digits", "left"]
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert abs(float((parts[a] * parts[b]).sum())) < 1e-8 * float(scores.square().sum())
    left = parts["left"]
    assert left.sum(0).abs().max() < 1e-9 and left.sum(1).abs().max() < 1e-9
    assert float((left.T @ known["digits"]).abs().max()) < 1e-9
    assert ms.interaction_parts(scores)["left"].square().sum() >= left.square().sum()


def test_the_part_left_as_in_another_table_is_what_is_left_of_itself_and_adds_up():
    one, other, known = planted(slopes=1.0, digits=0.5, pairs=1.0), planted(pairs=1.0, seed=9), spectrum.features(WORDS)
    assert torch.allclose(ms.left_like(one, one, known), ms.interaction_parts(one, known)["left"], atol=1e-9)
    both = ms.left_like(one, other, known) + ms.left_like(other, other, known)
    assert torch.allclose(ms.left_like(one + other, other, known), both, atol=1e-9)
    planted_digits = ms.left_like(planted(digits=1.0), one, known)
    assert float(planted_digits.square().sum()) < 1e-12 * float(planted(digits=1.0).square().sum())


def test_of_main_effects_alone_there_is_no_part():
    parts = ms.interaction_parts(planted(), spectrum.features(WORDS))
    assert all(float(part.abs().max()) == 0 for part in parts.values())


def test_names_and_rows_of_features_are_checked():
    with pytest.raises(ValueError, match="other names than slopes and left"):
        ms.interaction_parts(planted(pairs=1.0), {"left": torch.ones(110, 1)})
    with pytest.raises(ValueError, match="a row for each of the 110 of scores, not 5"):
        inspect.unwrap(ms.interaction_parts)(planted(pairs=1.0), {"length": torch.ones(5, 1)})


def test_shares_of_pairs_and_of_axes():
    known = spectrum.features(WORDS)
    pairs = spectrum._shares(planted(pairs=1.0), known)
    axes = spectrum._shares(planted(slopes=3.0, pairs=0.1), known)
    assert pairs["left"] > 0.5 > 0.1 > axes["left"]
    assert pairs["ratio_all"] > 15 > 4 > axes["ratio_all"]  # of 23 animals' dimensions


def test_words_that_are_no_numbers_have_lengths_and_no_digits():
    assert list(spectrum.features(["Anna", "Bo", "Cy"])) == ["length"]
    assert spectrum.features(["Anna", "Bo", "Cy"])["length"].tolist() == [[0, 1], [1, 0], [1, 0]]


def test_a_number_counts_as_often_as_its_digits_are_drawn():
    drawn = spectrum._drawn(WORDS, torch.Generator().manual_seed(0)).bincount(minlength=len(WORDS))
    counts = {word: int(n) for word, n in zip(WORDS, drawn, strict=True)}
    assert all(counts[word] == counts[word[0]] * counts[word[1]] for word in WORDS if len(word) == 2)
    assert sum(counts[str(d)] for d in range(10)) == 10


@pytest.mark.slow
def test_intervals_of_agreements_cover_the_truth():
    """Five axes, slopes, lengths and digits that both directions share, as real matrices do, and half of what is left.

    Numbers and animals are drawn anew every time; the truth is what is found on average.
    """
    n, found, known = 60, [], spectrum.features(WORDS)
    for seed in range(0, 1000 * n, 1000):
        axes = sum(normal(110, seed=seed + i)[:, None] * normal(N_ANIMALS, seed=seed + 50 + i) for i in range(5))
        both = planted(slopes=0.5, length=0.5, digits=0.3, pairs=0.5, seed=seed + 200) + 0.5 * axes
        sides = [both + 0.5 * normal(110, N_ANIMALS, seed=seed + k) for k in (101, 102)]

        def agreement(r, c, sides=sides):
            parts = [spectrum._parts(side[r][:, c], spectrum.of_rows(known, r)) for side in sides]
            agreed = {name: spectrum._correlation(*(part[name] for part in parts)) for name in ("all", "left")}
            return agreed | spectrum._shares(sides[0][r][:, c], spectrum.of_rows(known, r))

        found.append(spectrum.intervals(agreement, WORDS, N_ANIMALS, 99, torch.Generator().manual_seed(seed)))
    for name in found[0]:
        truth = sum(one[name]["value"] for one in found) / n
        covered = sum(one[name]["low"] <= truth <= one[name]["high"] for one in found)
        assert covered >= 0.88 * n, (name, covered)


@pytest.mark.parametrize("reliable", [True, False])
def test_wordings_that_bring_nothing_back_have_no_disattenuated_agreement(reliable):
    """Of two wordings that contradict each other nothing can be divided by; the other rows are there."""
    one, other = planted(pairs=1.0), planted(pairs=1.0, seed=5)
    sign = 1.0 if reliable else -0.5
    tensors = {
        "subset_partner": torch.arange(len(WORDS)), "subset_animal": torch.arange(N_ANIMALS),
        "number_to_animal_wordings": torch.stack([one, sign * one + 0.1 * other]),
        "animal_to_number_wordings": torch.stack([one, sign * one + 0.1 * other]).mT,
    }  # fmt: skip
    cfg = spectrum.Config(n_resamples=4)
    rows = list(spectrum._wordings(tensors, WORDS, cfg, torch.Generator().manual_seed(0)))
    assert {"wording", "wordings"} <= {row["over"] for row in rows}
    assert any(row["over"] == "disattenuated" for row in rows) == reliable
