"""unembed_projection: its rank statistics against scipy and planted matrices, its exact splits, and its commands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import normal
from scipy.stats import spearmanr
from tiny_llama import save_tiny_llama

import mechsub as ms
from mechsub.lab import store
from studies import unembed_projection as study
from studies.unembed_projection import compare as comparing
from studies.unembed_projection import findings, states
from studies.unembed_projection import ranks as ranking
from studies.unembed_projection import toy as toys

ROOT = Path(__file__).parent.parent
N, A = 60, 12
STRATA = [1] * 6 + [2] * 14 + [3] * 40


def compare(x, y, covariates=None, n=199):
    covariates = normal(N, 3, seed=99) if covariates is None else covariates
    return ranking.compare([ranking.View(x, torch.arange(A))], y, covariates, STRATA, n=n, seed=0)


# Ranks.


def test_correlations_are_those_of_scipy():
    x, y = normal(N, A, seed=0).round(decimals=1), normal(N, A, seed=1)  # with ties
    found = compare(x + 0.5 * y, y).values
    table = torch.tensor([[spearmanr((x + 0.5 * y)[:, i], y[:, j]).statistic for j in range(A)] for i in range(A)])
    torch.testing.assert_close(found["spearman"], table.diagonal())
    torch.testing.assert_close(found["spearman_mismatched"], (table.sum(0) - table.diagonal()) / (A - 1))


def test_the_partial_correlation_is_that_of_residual_ranks():
    x, y, given = normal(N, A, seed=0), normal(N, A, seed=1), normal(N, 2, seed=2)
    x, y = x + 2 * given[:, :1], y + 2 * given[:, :1]
    found = compare(x, y, torch.cat([given, given, torch.ones(N, 1)], dim=1)).values  # collinear and constant: no harm
    design = torch.cat([torch.ones(N, 1), ranking.ranks(given)], dim=1).double()
    left = [r - design @ torch.linalg.lstsq(design, r).solution for r in map(ranking.ranks, (x, y))]
    expected = torch.stack(
        [torch.corrcoef(torch.stack([a, b]))[0, 1] for a, b in zip(left[0].T, left[1].T, strict=True)]
    )
    torch.testing.assert_close(found["partial"], expected)
    assert found["spearman"].mean() > 0.5 > 0.2 > found["partial"].mean().abs()


def test_two_views_of_one_metric_are_that_metric():
    x, y, halves = normal(N, A, seed=0), normal(N, A, seed=1), torch.randperm(A).tensor_split(2)
    views = [ranking.View(x, half) for half in halves]
    split = ranking.compare(views, y, normal(N, 3, seed=99), STRATA, n=19, seed=0)
    for name, values in compare(x, y).values.items():
        torch.testing.assert_close(split.values[name], values)


def test_a_matched_relation_is_found_and_a_common_one_is_not():
    y = normal(N, A, seed=1)
    own = compare(y + normal(N, A, seed=0), y).summary
    assert own["p"] == own["p_animals"] == 1 / 200 and own["partial_difference_low"] > 0.4
    common = normal(N, 1, seed=3)  # tells of every animal what it tells of any
    shared = compare(common + normal(N, A, seed=0), common + normal(N, A, seed=4)).summary
    assert shared["spearman_low"] > 0.2 and shared["spearman_mismatched"] > 0.2
    assert shared["partial_difference_low"] < 0 < shared["partial_difference_high"] and shared["p_animals"] > 0.02


def test_unrelated_matrices_give_the_null():
    found = [compare(normal(N, A, seed=s), normal(N, A, seed=s + 50), n=59).summary for s in range(30)]
    for p in ("p", "p_animals"):
        assert sum(row[p] <= 0.05 for row in found) <= 6  # of 30, expected 1.5; P(7 or more) < 0.001
    held = sum(row["partial_difference_low"] <= 0 <= row["partial_difference_high"] for row in found)
    assert held >= 24


def test_a_constant_metric_correlates_zero():
    found = compare(torch.ones(N, A).double(), normal(N, A, seed=0))
    assert all(float(values.abs().max()) == 0 for values in found.values.values())
    assert found.summary["p"] == found.summary["p_animals"] == 1


def test_partners_move_within_their_stratum():
    generator = torch.Generator().manual_seed(0)
    orders = [ranking._within(STRATA, generator) for _ in range(20)]
    strata = torch.tensor(STRATA)
    assert all(torch.equal(strata[order], strata) and order.sort().values.equal(torch.arange(N)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 20


# Units: strings of the same tokens are one where a metric cannot tell them apart.


def compared(groups, side, views, n=199):
    known, lengths = normal(N, 2, seed=98), torch.full((N,), 3)
    return comparing.grouped(known, lengths, torch.as_tensor(groups), n, 0, side, views)


def test_groups_of_one_change_nothing():
    x, y = normal(N, A, seed=0), normal(N, A, seed=1)
    side = comparing.Side(y, torch.arange(N), torch.arange(A))
    one = compared(range(N), side, [ranking.View(x, torch.arange(A))])
    direct = ranking.compare([ranking.View(x, torch.arange(A))], y, normal(N, 2, seed=98), [3] * N, n=199, seed=0)
    assert one.summary == direct.summary


def test_an_order_blind_metric_is_not_counted_twice():
    """Metric and outcome are alike within pairs, and unrelated; string by string that looks like twice the evidence."""
    groups, small = torch.arange(N) // 2, {"pairs": 0, "strings": 0}
    for seed in range(60):
        metric = normal(N // 2, A, seed=seed)[groups]
        outcome = normal(N // 2, A, seed=seed + 100)[groups] + 0.1 * normal(N, A, seed=seed + 200)
        side, views = comparing.Side(outcome, torch.arange(N), torch.arange(A)), [ranking.View(metric, torch.arange(A))]
        for name, unit in (("pairs", groups), ("strings", range(N))):
            found = compared(unit, side, views, n=39).summary
            small[name] += found["p"] <= 0.05
            assert found["n_partners"] == (N // 2 if name == "pairs" else N)
    assert small["pairs"] <= 9 < small["strings"]  # of 60; expected 3, P(10 or more) = 0.0007


def test_a_part_of_the_partners_and_animals_is_compared_as_if_it_were_all():
    x, y, some, few = normal(N, A, seed=0), normal(N, A, seed=1), torch.arange(0, N, 2), torch.arange(0, A, 3)
    halves = [ranking.View(x, torch.arange(A)[A // 2 :]), ranking.View(x, torch.arange(A // 2))]
    part = compared(range(N), comparing.Side(y[some][:, few], some, few), halves)
    cut = [ranking.View(x[some][:, few], torch.arange(len(few)))]
    whole = ranking.compare(cut, y[some][:, few], normal(N, 2, seed=98)[some], [3] * len(some), n=199, seed=0)
    torch.testing.assert_close(part.values["partial"], whole.values["partial"])
    torch.testing.assert_close(part.draws, whole.draws)  # resampled alike, whatever the order of the views


# The exact split of a change of log-probabilities.


def test_the_parts_are_the_change_of_log_probabilities(bridge):
    x, x0 = (torch.randn(n, 4, 16, generator=torch.Generator().manual_seed(n)) for n in (5, 1))
    tokens, concepts = [3, 1, 7], [2, 4, 6, 8, 10]
    parts = states.split(bridge, x, x0, tokens, concepts)
    with torch.no_grad():
        after, before = (ms.unembed(bridge, v).double().log_softmax(-1)[..., tokens] for v in (x, x0))
    total = parts.common + parts.concept + parts.rest + parts.scale + parts.normaliser
    torch.testing.assert_close(total, after - before, atol=1e-4, rtol=1e-4)


def test_a_change_along_concepts_is_concept_and_one_that_all_share_is_common(bridge):
    x0 = torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(1))
    own = torch.nn.functional.normalize(ms.token_directions(bridge, [2, 2, 4], basis="centered"), dim=-1)
    signs = 0.1 * torch.tensor([1.0, -1, 0])[:, None, None]
    pushed = states.split(bridge, x0 + signs * own[:, None], x0, [3], [2, 2, 4])
    assert pushed.rest.abs().max() < 0.02 * pushed.concept.abs().max() and pushed.concept[2].abs().max() < 1e-4
    crossed = states.split(bridge, x0 + signs * own[2], x0, [3], [2, 2, 4])
    along_other = (crossed.concept + crossed.rest)[:2] - crossed.concept[:2]
    torch.testing.assert_close(crossed.other[:2], (along_other + 2 * crossed.concept[:2]) / 2, atol=1e-4, rtol=0.1)
    shared = states.split(bridge, x0 + 0.1 * own[:1, None], x0, [3, 1], [2, 4, 6])
    assert max(shared.concept.abs().max(), shared.rest.abs().max()) < 1e-6 < shared.common.abs().max()


def test_a_final_norm_that_is_no_norm_is_refused(bridge):
    hook = bridge.hook_dict["ln_final.hook_out"]
    hook.add_hook(lambda h, hook: torch.tanh(h), is_permanent=True)
    try:
        with pytest.raises(ValueError, match="gain is not defined"):
            states.split(bridge, torch.randn(2, 1, 16), torch.randn(1, 1, 16), [3], [2, 4])
    finally:
        hook.remove_hooks(including_permanent=True)


def test_shares_of_the_parts_sum_to_one():
    parts = {"a": normal(N, A, seed=0), "b": 3 * normal(N, A, seed=1)}
    parts["total"] = parts["a"] + parts["b"] + 5 * torch.tensor(STRATA).double()[:, None]
    parts["length"] = parts["total"] - parts["a"] - parts["b"]
    found = comparing.shares(parts, torch.tensor(STRATA))
    torch.testing.assert_close(sum(found.values()), torch.ones(A).double())
    assert found["length"].abs().max() < 1e-10 and 0.02 < found["a"].mean() < 0.25


# The toy.


def test_every_statistic_names_its_own_highest_metric():
    """Above other animals; the total of dla is no metric of its own, and is in no row of `ranked`."""
    own = {"kind": "summary", "direction": "number_to_animal", "unit": "string", "part": "all"}
    ranked = [
        own | {"metric": "causal", "partial_difference": 0.3, "spearman": 0.5, "spearman_mismatched": 0.4},
        own | {"metric": "cosine", "partial_difference": 0.2, "spearman": 0.4, "spearman_mismatched": 0.1},
    ]
    ceiling = [own | {"metric": "causal", "of_ceiling": 0.1}, own | {"metric": "cosine", "of_ceiling": 0.2}]
    ceiling.append(own | {"metric": "dla", "part": "total", "of_ceiling": 0.9})
    found = {finding.key: finding.value for finding in findings.highest(ranked, ceiling)}
    names = {"partial": "causal", "spearman": "cosine", "pearson": "cosine"}
    assert found == {f"number_to_animal/highest_by_{name}": metric for name, metric in names.items()}
    assert list(findings.highest(ranked[:1], [])) == []


def test_scores_are_projections_on_the_auxiliary_directions(toy):
    W = toy.W_U[1].double()
    basis, _ = torch.linalg.qr(W[:, 10:])
    digit = W[:, 4] / W[:, 4].norm()
    assert float(toys.scores(toy, "cosine")[1, 4]) == pytest.approx(float((basis.T @ digit).norm()), abs=1e-6)
    assert float(toys.scores(toy, "dot")[1, 4]) == pytest.approx(float((W[:, 10:].T @ W[:, 4]).norm()), abs=1e-5)
    planted = toy.W_U.clone()
    planted[..., 4] = planted[..., 11] - 2 * planted[..., 12]
    for metric in study.TOY_METRICS[:5]:
        scores = toys.scores(toy.replace({"unembed.W_U": planted}), metric)
        assert (scores.argmax(-1) == 4).all() or metric == "causal"
    inside = toys.scores(toy.replace({"unembed.W_U": planted}), "cosine")[:, 4]
    torch.testing.assert_close(inside, torch.ones(3).double(), atol=1e-6, rtol=0)


def test_a_change_within_the_auxiliary_span_is_all_written_there():
    model = ms.HookedMLP(ms.MLPConfig(d_in=20, d_model=64), seeds=range(4))
    images, labels = torch.randn(40, 20, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 10
    span = torch.linalg.qr(model.W_U[..., model.cfg.aux]).Q

    def moved(directions):
        """The last block's output moves by a positive amount on every image (its bias is large: no unit is off)."""
        raised = model.replace({"blocks.1.b": torch.full_like(model.blocks[1].b, 30.0)})
        return raised, raised.replace({"blocks.1.b": raised.blocks[1].b + directions})

    inside = moved((span @ torch.ones(3)) / 3)
    outside = moved(torch.randn(4, 64, generator=torch.Generator().manual_seed(1)))
    for (start, student), low, high in ((inside, 0.999, 1.001), (outside, -0.3, 0.4)):
        rows = list(toys.share_records("student_aux", start, student, images, labels, 0))
        assert len(rows) == 4 and all(low < row["share"] < high for row in rows)
        assert all(abs(row["share_random"]) < 0.3 for row in rows)
    rows = list(toys.share_records("student_aux", *inside, images, labels, 0))
    assert all(row["accuracy_span"] == row["accuracy_student"] for row in rows)
    assert all(row["accuracy_rest"] == row["accuracy_start"] for row in rows)


def test_digit_rows_that_move_are_refused(toy):
    other = toy.replace({"unembed.W_U": toy.W_U + 1})
    with pytest.raises(ValueError, match="digit rows"):
        list(toys.share_records("student_aux", toy, other, torch.randn(5, 20), torch.arange(5), 0))


# Commands.


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "studies.unembed_projection", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "toy"], "steering needs a language model; for the toy: --metric cosine dot"),
        (["--model", "toy", "--metric", "embedding"], "embedding needs a language model"),
        (["--metric", "cosin"], "did you mean cosine?"),
        (["--model", "toy", "--metric", "dla", "--n-seeds", "1"], "at least 2"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, said):
    done = command(*arguments, "--out", tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert said in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_tiny_llama_gets_all_metrics(tmp_path):
    folder = save_tiny_llama(tmp_path / "tiny", tied=False)
    done = command("--model", folder, "--n-permutations", 19, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    for name in (*study.METRICS[:5], "dla: concept", "steering", "embedding", "ceiling: other wordings"):
        assert name in done.stdout
    cells = [path for path in (tmp_path / "unembed_projection").iterdir() if path.is_dir()]
    assert len(cells) == len(study.METRICS)
    for cell in cells:
        records = store.read_records(cell)
        assert {(r["direction"]) for r in records if r["kind"] == "ceiling"} == {"number_to_animal", "animal_to_number"}
        made = json.loads((cell / "provenance.json").read_text())
        assert made["tied"] is False and "null" in made
    assert "1 cells" not in done.stdout
    done = command("--model", folder, "--n-permutations", 19, "--out", tmp_path, "--metric", "dot", "--spaced", "false")
    assert done.returncode == 0, done.stderr
    assert {path.name.split("__")[-1] for path in (tmp_path / "token_entanglement").iterdir()} >= {"spaced=false"}


@pytest.mark.slow
def test_the_toy_gets_its_metrics(tmp_path):
    metrics = ["--metric", "cosine", "causal", "dla"]
    done = command("--model", "toy", *metrics, "--n-seeds", 2, "--epochs", 1, "--n-permutations", 19, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "causal: rank correlation with recall" in done.stdout
    assert "dla: accuracy, only the part through the auxiliary span" in done.stdout
