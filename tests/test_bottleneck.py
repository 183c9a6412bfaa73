"""The price of holding outputs: by hand, against an independent solver, planted, and done in the model."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import normal
from tiny_llama import save_tiny_llama

import mechsub as ms
from mechsub.designs import love
from mechsub.lab import store
from mechsub.measures import ablation, bottleneck
from studies import bottleneck as study

ROOT = Path(__file__).parent.parent


def planted(W):
    """A toy of one member whose unembedding is W [d, output]."""
    model = ms.HookedMLP(ms.MLPConfig(d_in=4, d_model=W.shape[0], n_classes=W.shape[1] - 3))
    return model.replace({"unembed.W_U": W[None].float()})


def test_the_price_by_hand():
    held = torch.tensor([[0.0, 0, 0], [1, 0, 0]]).double()  # their difference is the first axis
    concepts = torch.tensor([[1.0, 1, 0], [0, 3, 0], [2, 0, 0]]).double()
    assert bottleneck.price_of(concepts, held).tolist() == pytest.approx([2**0.5, 1, torch.inf])
    assert bottleneck.isotropic_price(4, 3) == 2 and bottleneck.isotropic_price(4, 4) == torch.inf


def test_the_price_is_that_of_least_squares():
    """An independent way: w less its least-squares fit by the held differences."""
    model = planted(normal(12, 30, seed=0))
    rows = model.W_U[0].double().T
    held, concepts = list(range(20, 27)), [0, 1, 2, 3]
    w = (rows[concepts] - rows[concepts].mean(0)).T
    spanning = (rows[held[1:]] - rows[held[0]]).T
    left = w - spanning @ torch.linalg.lstsq(spanning, w).solution
    found = ms.price(model, concepts, held)[0]
    torch.testing.assert_close(found, w.norm(dim=0) / left.norm(dim=0), atol=1e-6, rtol=1e-6)
    assert bottleneck.held_rank(model, held) == 6


def test_planted_none_some_and_full():
    W = torch.zeros(12, 30).double()
    W[:6, :5], W[6:, 5:] = normal(6, 5, seed=1), normal(6, 25, seed=2)  # concepts and the held share no dimension
    free = ms.price(planted(W), range(5), range(5, 30))[0]
    torch.testing.assert_close(free, torch.ones(5).double(), atol=1e-6, rtol=0)
    full = ms.price(planted(normal(12, 30, seed=3)), range(5), range(5, 30))  # 24 dimensions held, of 12
    assert bool((full == torch.inf).all())


def test_random_directions_pay_what_isotropy_says():
    found = torch.stack([bottleneck.price_of(normal(40, 60, seed=s), normal(31, 60, seed=s + 50)) for s in range(5)])
    assert float(found.mean()) == pytest.approx(bottleneck.isotropic_price(60, 30), rel=0.03)


def log_odds(logits):
    log_p = logits.double().log_softmax(-1)
    return log_p - torch.log1p(-log_p.exp())


@pytest.mark.parametrize("among", [None, [1, 2, 3]])
def test_the_cheapest_change_does_what_is_asked_in_the_model(bridge, among):
    x, concepts, held = normal(3, 16, seed=0), [1, 2], [4, 5, 6, 7]
    found = ms.cheapest_change(bridge, x, concepts, held, rise=0.5, among=among)
    free = ms.cheapest_change(bridge, x, concepts, rise=0.5, among=among)
    assert bool(found.reached.all()) and bool((found.length >= free.length).all())
    before = ms.unembed(bridge, x.float()).detach()
    after = ms.unembed(bridge, found.resid.float()).detach()
    for i, concept in enumerate(concepts):
        if among is None:
            moved = log_odds(after[:, i]) - log_odds(before)
            torch.testing.assert_close(moved[:, concept], torch.full((3,), 0.5).double(), atol=1e-5, rtol=0)
            assert moved[:, held].abs().max() < 1e-5
        else:
            moved = (after[:, i] - before).double()
            rise = moved[:, concept] - moved[:, among].mean(-1)
            torch.testing.assert_close(rise, torch.full((3,), 0.5).double(), atol=1e-5, rtol=0)
            assert (moved[:, held] - moved[:, held].mean(-1, keepdim=True)).abs().max() < 1e-5
    # The norm's scale stays: the residual is turned, not stretched.
    torch.testing.assert_close(found.resid.norm(dim=-1), x.norm(dim=-1, keepdim=True).expand(3, 2), atol=1e-4, rtol=0)


def test_no_shorter_change_does_it():
    """Without a norm the problem among outputs is linear: its solution is the pseudo-inverse's."""
    model = planted(normal(12, 30, seed=0))
    x, held = torch.rand(1, 2, 12), [20, 21, 22, 23]
    found = ms.cheapest_change(model, x, [0], held, among=[0, 1, 2])
    rows = model.W_U[0].detach().double().T
    A = torch.cat([(rows[0] - rows[:3].mean(0))[None], rows[held] - rows[held].mean(0)])
    wanted = torch.zeros(len(A)).double()
    wanted[0] = 1
    expected = torch.linalg.pinv(A, rtol=1e-9) @ wanted
    change = (found.resid[:, :, 0].double() - x.double())[0]
    torch.testing.assert_close(change, expected.expand(2, -1), atol=1e-5, rtol=1e-4)


def test_to_first_order_the_change_costs_the_price(bridge):
    """A small rise on the sphere: the ratio of lengths is the price of directions that lie along the sphere."""
    x, held, among = normal(1, 16, seed=0), [4, 5, 6, 7], [1, 2, 3]
    lengths = [ms.cheapest_change(bridge, x, [1], some, rise=1e-3, among=among).length[0, 0] for some in (held, [])]
    gain = bridge.ln_final.weight.detach().double()[:, None]
    rows = (bridge.W_U.detach().double() * gain).T
    y = torch.nn.functional.normalize(x[0], dim=0)
    w, fixed = rows[1] - rows[among].mean(0), rows[held] - rows[held].mean(0)
    unheld = w - (w @ y) * y
    basis = torch.linalg.svd(torch.cat([fixed[1:], y[None]]), full_matrices=False)[2]
    left = w - basis.T @ (basis @ w)
    assert float(lengths[0] / lengths[1]) == pytest.approx(float(unheld.norm() / left.norm()), rel=1e-3)


def test_what_cannot_be_done_is_infinite_and_changes_nothing():
    model = planted(normal(12, 30, seed=3))
    found = ms.cheapest_change(model, torch.rand(1, 2, 12), [0, 1], range(5, 30))
    assert not found.reached.any() and bool((found.length == torch.inf).all())
    assert "0 of 4 reached" in repr(found)


def test_bad_input_is_refused(bridge):
    with pytest.raises(ValueError, match=r"ids in 0\.\.12"):
        ms.price(bridge, [1, 2], [99])
    with pytest.raises(ValueError, match="at least two concepts"):
        ms.price(bridge, [1], [4, 5])
    hook = bridge.hook_dict["ln_final.hook_out"]
    hook.add_hook(lambda h, hook: h + 1, is_permanent=True)
    try:
        with pytest.raises(ValueError, match="no RMS norm"):
            ms.cheapest_change(bridge, normal(1, 16, seed=0), [1])
    finally:
        hook.remove_hooks(including_permanent=True)


def test_w_u_stays_as_it_is(bridge):
    before = bridge.W_U.detach().clone()
    columns = ablation.ablated_columns(bridge, [3, 4], ablation.direction_basis(bridge, [1]))
    assert torch.equal(bridge.W_U, before) and not torch.equal(columns, before[:, [3, 4]])
    along = (columns - before[:, [3, 4]]).T * bridge.ln_final.weight
    direction = ms.token_directions(bridge, [1], basis="centered")
    assert torch.linalg.matrix_rank(torch.cat([along, direction]).detach(), rtol=1e-4) == 1


# The study.


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """d_model 32, 1,110 numbers of one token each."""
    folder = save_tiny_llama(tmp_path_factory.mktemp("tiny"), tied=False)
    return folder, ms.load_language_model(str(folder))


@pytest.mark.parametrize(("n_numbers", "rank"), [(12, 11), (40, 32)])
def test_a_model_pays_for_as_many_numbers_as_it_has(tiny, n_numbers, rank):
    """Planted: more numbers than dimensions cannot be held, in the weights nor in the model; a dozen can."""
    folder, model = tiny
    cfg = love.Asking(model=str(folder), n_animals=8, n_partners=n_numbers, spaced=False)
    asked = love.LovePrompts(model, love.choose_animals(model.tokenizer, cfg), love.choose_partners(cfg), cfg)
    held = sorted(token for (token,) in ms.prompts.encode(model.tokenizer, asked.strings))
    own = study.Config(model=str(folder), n_draws=2)
    matched = study.matched_tokens(asked, held, own)
    assert all(len(some) == n_numbers and not set(some) & {*held, *asked.tokens} for some in matched)
    rows = [row for row in study.price_records(asked, held, matched, own) if row["kind"] == "price"]
    changes = list(study.change_records(asked, held, matched[0]))
    assert len(rows) == 8 and {row["rank"] for row in rows} == {rank} and len(changes) == 16
    for row in rows:
        assert (row["price"] is None) == (row["isotropic"] is None) == (rank == 32)
    for row in changes:
        assert abs(row["rise_none"] - 1) < 1e-3
        assert (row["length_numbers"] is None) or (row["moved_numbers"] < 1e-3 and abs(row["rise_numbers"] - 1) < 1e-3)
    assert any(row["length_numbers"] for row in changes) == (rank < 32)


@pytest.mark.slow
def test_a_model_with_more_numbers_than_dimensions_pays_an_infinite_price(tmp_path):
    """Its null, in the same table: two tokens held cost nearly nothing."""
    folder = save_tiny_llama(tmp_path / "tiny", tied=False)
    command = [sys.executable, "-m", "studies.bottleneck", "--model", folder, "--n-draws", 2, "--n-animals", 8]
    done = subprocess.run(
        [*map(str, command), "--spaced", "false", "--out", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "price of holding (1110 tokens held, 32 dimensions, of 32)" in done.stdout
    assert re.search(r"dimensions, of 32\)\s+infinite\s+infinite", done.stdout)
    (cell,) = (path for path in (tmp_path / "bottleneck").iterdir() if path.is_dir())
    records = store.read_records(cell)
    assert all(r["price"] is None and r["rank"] == 32 for r in records if r["kind"] == "price")
    few = [r["price"] for r in records if r["kind"] == "curve" and r["n_held"] == 2]
    assert len(few) == 8 and max(few) < 1.1
    changes = [r for r in records if r["kind"] == "change"]
    assert {r["log_odds"] for r in changes} == {"among", "all"}
    assert all(r["length_numbers"] is None and abs(r["rise_none"] - 1) < 1e-4 for r in changes)


def test_prices_of_the_curve_are_medians_whose_intervals_lie_between_prices():
    """A mean of prices with a long tail is that of the tail; its interval reaches below 1, which no price can be."""
    prices = [1.5 + 0.01 * i for i in range(19)] + [900.0]
    usual = {"kind": "curve", "d_model": 576, "n_held": 576, "n_draws": 1}
    rows = [usual | {"animal": str(i), "price": price} for i, price in enumerate(prices)]
    mean, found = study._curve(rows)
    assert mean.value.mean == pytest.approx(sum(prices) / 20) and mean.value.low == 1  # as it was predicted
    assert ms.stats.student_t(prices).low < 1 and found.value.mean == pytest.approx(1.595) and not found.scores
    assert (found.value.low, found.value.high) == (pytest.approx(1.55), pytest.approx(1.64))  # the 6th and the 15th
    assert found.null == pytest.approx(35.54, abs=0.01)  # of directions that point anywhere, the median too
    (some,) = study._curve([{**rows[0], "price": None}, *rows[1:]])  # which have no median with an interval
    assert some.value == "infinite for 1 of 20 animals" and study._isotropic_median(60, 60, 3) == math.inf
    assert [f.key for f in study._curve(rows[:5])] == ["held_576/price"]  # nor have so few


def test_the_null_of_a_median_is_of_means_of_as_many_draws():
    """A stored price is a mean over three sets of tokens, whose median lies above that of one price."""
    draw = torch.Generator().manual_seed(0)
    flat = torch.stack([study.spectral_price(torch.ones(60).double(), 4000, 58, draw) for _ in range(3)])
    for n in (1, 2, 3):
        found = float(flat[:n].mean(0).median())
        assert found == pytest.approx(study._isotropic_median(60, 57, n), rel=0.02)
    usual = {"kind": "curve", "d_model": 60, "n_held": 58, "n_draws": 10}
    found = list(study._curve([usual | {"animal": str(i), "price": 6.0 + i} for i in range(8)]))
    assert found[1].null == study._isotropic_median(60, 57, 3) > 1.1 * study._isotropic_median(60, 57, 1)


def test_the_cheapest_change_says_that_its_null_is_one_set():
    assert "one set" in study.HELD["matched"] and "one set of matched tokens" in " ".join(study.__doc__.split())


def test_the_spectral_null_of_flat_directions_is_isotropic():
    generator = torch.Generator().manual_seed(0)
    found = study.spectral_price(torch.ones(60).double(), 40, 31, generator)
    assert float(found.mean()) == pytest.approx(bottleneck.isotropic_price(60, 30), rel=0.05)
