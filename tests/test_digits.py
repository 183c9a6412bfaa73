"""studies.digits: the split into digits and whole numbers, on planted matrices."""

import pytest
import torch
from conftest import normal

from mechsub.inputs import words
from studies import digits as study

NUMBERS = words.numbers()
A = 20
CFG = study.Config(n_permutations=60)


def by_digit(seed):
    return study.design(NUMBERS) @ normal(60, A, seed=seed)


def test_digits_in_their_positions_span_57_dimensions():
    assert study.design(NUMBERS).shape == (1110, 60)  # 10 x (1 + 2 + 3), each position summing to the length's column
    onto = study.projection(NUMBERS)
    assert float(onto.trace()) == pytest.approx(57)
    torch.testing.assert_close(onto @ onto, onto)
    torch.testing.assert_close(onto @ by_digit(0), by_digit(0))


def test_the_share_is_all_of_planted_digits_and_the_rank_of_noise():
    assert study.digit_share(by_digit(0), NUMBERS, CFG)["share"] == pytest.approx(1)
    noise = study.digit_share(normal(1110, A, seed=1), NUMBERS, CFG)
    assert noise["share"] == pytest.approx(57 / 1110, abs=0.01) and noise["null_most"] > noise["share"] - 0.01


def test_a_relabelling_keeps_equal_digits_equal():
    order = study.relabelled(NUMBERS, [1, 2, 3, 4, 5, 6, 7, 8, 9, 0])
    named = {text: NUMBERS[place] for text, place in zip(NUMBERS, order.tolist(), strict=True)}
    assert named["7"] == "8" and named["09"] == "10" and named["455"] == "566"
    assert sorted(order.tolist()) == list(range(1110))


def test_what_is_planted_in_digits_or_in_whole_numbers_is_found_there_and_only_there():
    shared, noise = by_digit(0), [2 * normal(1110, A, seed=seed) for seed in (1, 2)]
    found = study.agreements(shared + noise[0], shared + noise[1], NUMBERS, CFG)
    assert found["digits"]["value"] > 0.9 and found["digits"]["p"] < 0.05
    assert abs(found["whole numbers"]["value"]) < 0.03 and found["whole numbers"]["p"] > 0.05
    whole, apart = 2 * normal(1110, A, seed=3), [by_digit(seed) for seed in (4, 5)]
    found = study.agreements(whole + apart[0] + noise[0], whole + apart[1] + noise[1], NUMBERS, CFG)
    assert found["whole numbers"]["value"] > 0.4 and found["whole numbers"]["low"] > 0.3
    assert abs(found["digits"]["value"]) < 0.4 and found["digits"]["low"] < 0 < found["digits"]["high"]


def test_weighted_correlation_is_that_of_repeated_rows_and_columns():
    x, y = normal(6, 4, seed=0), normal(6, 4, seed=1)
    rows, columns = torch.tensor([2.0, 1, 0, 1, 1, 1]).double(), torch.tensor([1.0, 1, 2, 0]).double()
    r, c = torch.tensor([0, 0, 1, 3, 4, 5]), torch.tensor([0, 1, 2, 2])
    one, other = study.correlation(x, y, rows, columns), study.correlation(x[r][:, c], y[r][:, c])
    assert one == pytest.approx(other)
