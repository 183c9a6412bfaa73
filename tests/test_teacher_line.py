"""Points of the teacher's line in closed form, and the study at two seeds."""

import pytest
import torch
from test_linearised import networks

import mechsub as ms
from mechsub.lab import agreement
from mechsub.measures import teacher_line


def test_shares_of_a_point_are_those_it_was_made_with():
    start, teacher = networks(n_layers=3)
    shares = torch.tensor([[0.1, 0.5, 0.9], [0.0, 1.0, -0.2]])
    point = ms.on_line(start, teacher, shares)
    assert torch.allclose(ms.line_shares(point, start, teacher).float(), shares, atol=1e-5)
    assert torch.equal(point.W_U, start.W_U)
    ends = [ms.on_line(start, teacher, torch.full((2, 3), s)) for s in (0.0, 1.0)]
    assert torch.equal(ends[0].blocks[1].W, start.blocks[1].W)
    assert torch.allclose(ends[1].blocks[1].W, teacher.blocks[1].W, atol=1e-6)


def test_shares_of_another_way_are_zero_and_nothing_is_divided_by_zero():
    start, teacher = networks()
    other = start.replace({"unembed.W_U": start.unembed.W_U + 1})
    assert torch.equal(ms.line_shares(other, start, teacher), torch.zeros(2, 2, dtype=torch.float64))
    assert torch.equal(ms.line_shares(teacher, start, start), torch.zeros(2, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"shares must have the shape \[2, 2\]"):
        ms.on_line(start, teacher, torch.zeros(2, 3))


def test_noise_is_as_long_as_the_rest():
    start, teacher = networks()
    point = ms.on_line(start, teacher, torch.full((2, 2), 0.3))
    noisy = teacher_line.with_noise_of_the_rest(point, teacher)
    for layer in (0, 1):
        far = [(model.blocks[layer].W - point.blocks[layer].W).flatten(1).norm(dim=-1) for model in (noisy, teacher)]
        assert torch.allclose(*far, rtol=1e-4)


def test_agreement_of_a_perfect_and_of_a_constant_prediction():
    true = {f"c{i}": i / 10 for i in range(12)}
    perfect = {f.key: f.value for f in agreement.agreement("a/x", "a", true, true)}
    assert perfect["a/x_error"].mean == perfect["a/x_bias"].mean == 0 and perfect["a/x_slope"] == pytest.approx(1)
    assert perfect["a/x_rank"].mean == pytest.approx(1)
    half = {c: v / 2 for c, v in true.items()}
    found = {f.key: f.value for f in agreement.agreement("a/x", "a", half, true)}
    assert found["a/x_slope"] == pytest.approx(2) and found["a/x_error"].mean == pytest.approx(0.275)
    constant = agreement.agreement("a/x", "a", dict.fromkeys(true, 0.55), true)
    assert [f.key for f in constant] == ["a/x_error", "a/x_bias"]
    assert constant[0].null.mean == pytest.approx(sum(abs(i / 10 - (6.6 - i / 10) / 11) for i in range(12)) / 12)
    for say, least in ((agreement.agreement, 2), (agreement.line_error, 3)):
        few = dict(list(true.items())[: least - 1])
        with pytest.raises(LookupError, match=f"'a/x' is about {least - 1} conditions?; it needs {least}"):
            say("a/x", "a", few, few)
    assert agreement.line_error("q/x", "q", {c: 3 - 5 * v for c, v in true.items()}, true).value.mean < 1e-9


def test_extremes_name_the_worst_condition():
    true = {"a": 0.1, "b": 0.5, "c": 0.9}
    middle, largest = agreement.extremes("k", "what", {"a": 0.2, "b": 0.5, "c": 0.5}, true)
    assert (middle.key, middle.value) == ("k_median", pytest.approx(0.1))
    assert (largest.key, largest.value, largest.label) == ("k_largest", pytest.approx(0.4), "what: largest error: c")
