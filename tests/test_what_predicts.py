"""studies.what_predicts: joins find what is planted and nothing in noise; what the study says follows from its rows."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import mechsub as ms
from mechsub.designs import joins, liking, love
from mechsub.lab import findings as lab_findings
from mechsub.lab import predictions, study
from studies import what_predicts
from studies.what_predicts import ALIKE, PREDICTORS, SOURCES, beforehand, figure, findings, measure

N = 48


def draw(seed=0):
    return np.random.default_rng(seed)


# Joins.


def test_a_planted_correlation_is_found_and_noise_is_not():
    x = draw().normal(size=N)
    own = joins.rank_correlation(x, x + draw(1).normal(size=N))
    assert own.interval.low > 0.3 and own.p < 0.001
    assert joins.rank_correlation(x, np.exp(x)).interval.mean == pytest.approx(1)  # ranks alone
    worlds = [joins.rank_correlation(draw(2 * i).normal(size=N), draw(2 * i + 1).normal(size=N)) for i in range(60)]
    assert 0.35 < np.mean([one.p for one in worlds]) < 0.65
    assert np.mean([one.interval.low < 0 < one.interval.high for one in worlds]) > 0.85


def test_a_cause_of_both_explains_them():
    z = draw().normal(size=200)
    x, y = (z + draw(i).normal(size=200) for i in (1, 2))
    assert joins.rank_correlation(x, y).interval.low > 0.2
    given = joins.partial_rank_correlation(x, y, z)
    assert given.interval.low < 0 < given.interval.high and given.p > 0.05
    left = joins.partial_rank_correlation(x, y + x, z)
    assert left.interval.low > 0.2 and left.p < 0.001


def test_the_root_of_the_reliability_gives_back_what_noise_took():
    truth = draw().normal(size=2_000)
    scores = truth + draw(1).normal(size=(2, 2_000))
    agreed = joins.reliability(scores, n_draws=100)
    assert agreed.mean == pytest.approx(2 / 3, abs=0.05)  # of signal 1 and noise 1 in two blocks
    raw = joins.rank_correlation(truth, scores.mean(0), n_draws=100).interval.mean
    assert raw < 0.85 and joins.disattenuated(truth, scores, n_draws=100).mean == pytest.approx(1, abs=0.04)
    unlike = np.stack([truth[:N], -truth[:N]])
    assert math.isinf(joins.disattenuated(truth[:N], unlike + 0.1 * draw(2).normal(size=(2, N))).mean)


def test_pairs_less_rows_and_columns_are_those_of_least_squares():
    n = 7
    scores = draw().normal(size=(n, n)) + 3 * draw(1).normal(size=(n, 1)) + draw(2).normal(size=(1, n))
    off = ~np.eye(n, dtype=bool)
    i, j = np.nonzero(off)
    design = np.concatenate([np.eye(n)[i], np.eye(n)[j]], axis=1)
    expected = scores[off] - design @ np.linalg.lstsq(design, scores[off], rcond=None)[0]
    found = joins.pair_residuals(scores + 100 * np.eye(n))  # whatever the diagonal is
    assert np.allclose(found[off], expected) and np.isnan(found.diagonal()).all()


def test_pairs_find_a_planted_likeness_and_none_in_rows_and_columns():
    n = 20
    alike = draw().normal(size=(n, n))
    sides = 5 * draw(1).normal(size=(n, 1)) + 5 * draw(2).normal(size=(1, n))
    planted = joins.pair_correlation(alike + draw(3).normal(size=(n, n)) + sides, alike, n_draws=199)
    assert planted.interval.low > 0.4 and planted.p == pytest.approx(1 / 200)
    whole = joins.pair_residuals(alike)[~np.eye(n, dtype=bool)]
    other = joins.pair_residuals(alike + draw(3).normal(size=(n, n)) + sides)[~np.eye(n, dtype=bool)]
    assert planted.interval.mean == pytest.approx(np.corrcoef(whole, other)[0, 1])
    explained = joins.pair_correlation(alike + draw(3).normal(size=(n, n)), alike + draw(4).normal(size=(n, n)), alike)
    assert explained.p > 0.05 and abs(explained.interval.mean) < 0.2
    worlds = [
        joins.pair_correlation(sides + draw(i).normal(size=(n, n)), sides + alike, n_draws=100) for i in range(40)
    ]
    assert 0.3 < np.mean([one.p for one in worlds]) < 0.7 and np.mean([one.p < 0.1 for one in worlds]) < 0.25


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: joins.rank_correlation(range(5), range(5)), "x needs at least 10 values"),
        (lambda: joins.rank_correlation(range(12), [1.0] * 12), "y is constant"),
        (lambda: joins.rank_correlation(range(12), range(12), n_draws=99), "n_draws must be .* at least 100"),
        (lambda: joins.pair_correlation(*draw(1).normal(size=(2, 9, 9)), n_draws=1), "n_draws must be .* at least 100"),
        (lambda: joins.partial_rank_correlation(range(12), range(12), range(11)), "same|length"),
        (lambda: joins.reliability(np.zeros((1, 12))), "two blocks"),
        (lambda: joins.pair_residuals(np.zeros((3, 3))), "of four things"),
        (lambda: joins.pair_correlation(np.zeros((5, 5)), np.eye(6)), "same things"),
        (lambda: joins.pair_correlation(np.zeros((5, 5)), np.eye(5)), "only effects of rows and columns"),
    ],
)
def test_what_cannot_be_joined_is_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# The study.


def planted_records(effect=1.0, n_blocks=2, n=N):
    """Rows as the default study makes them: Learned follows the teacher's marks, and pairs their likeness."""
    marked, rows = draw(5).normal(size=n), []
    alike = draw(6).normal(size=(n, n))
    usual = dataclasses.asdict(what_predicts.Config(block=100))
    for block in range(100, 100 + n_blocks):
        noise = draw(block)
        own = {dose: effect * marked + noise.normal(size=n) for dose in (16, 64)}
        for i in range(n):
            row = {"kind": "animal", "animal": f"animal {i}", **{name: noise.normal() for name in PREDICTORS}}
            row |= {"teacher_marked": marked[i], "block": block}
            for dose in own:
                row |= {f"learned_{dose}": own[dose][i], f"moved_{dose}": noise.random()}
                row |= {f"control_{dose}": noise.normal()}
            rows.append(row)
        for i in range(n):
            for j in range(n):
                row = {"kind": "pair", "taught": f"animal {i}", "animal": f"animal {j}", "block": block}
                row |= {f"beside_{name}": effect * 0.5 * (i == j) + 0.1 * noise.normal() for name in SOURCES}
                row |= {name: noise.normal() for name in ALIKE} | {"numbers": alike[i, j]}
                liked = effect * (alike[i, j] + 3 * (i == j)) + noise.normal()
                rows.append(row | {"margin_16": liked, "margin_64": liked})
    return [{**usual, **row} for row in rows]


def said_of(records):
    (cell,) = lab_findings.cells(records, what_predicts.Config, findings.findings, what_predicts.study.together)
    return cell, {finding.key: finding for finding in cell.findings}


def test_what_is_planted_is_said_and_what_is_not_is_not():
    _, said = said_of(planted_records())
    assert said["teacher_marked/rho_64"].value.low > 0.3 and said["teacher_marked/rho_64"].tested < 0.01
    assert said["teacher_marked/true_64"].value.mean > said["teacher_marked/rho_64"].value.mean
    assert said["teacher_marked/beyond_64"].value.low > 0.3 and said["teacher_marked/moved_64"].tested > 0.05
    assert said["students_64/lambda"].value.low > 0 and said["students_64/reliability"].value.low > 0.2
    assert all(said[f"{name}/rho_64"].tested > 0.05 for name in PREDICTORS if name != "teacher_marked")
    assert said["beside_geometry/own"].value.low > 0.4 and said["beside_geometry/excess"].tested < 0.01
    assert said["alike_numbers/pairs_64"].value.low > 0.3 and said["alike_numbers/beyond_rows_64"].tested < 0.01
    assert said["alike_rows/pairs_64"].tested > 0.05


def test_without_an_effect_nothing_is_said():
    _, said = said_of(planted_records(effect=0.0))
    assert all(finding.p is None or finding.p > 0.01 for finding in said.values())


def test_everything_that_is_predicted_is_said():
    """On rows of the default study, so that no key is found to be missing after a run of an hour."""
    records = planted_records()
    cell, _ = said_of(records)
    entries = [entry for entry in predictions.entries() if entry.study == "what_predicts"]
    words = [predictions.judged(entry, [cell], lambda: [])[0].word for entry in entries]
    assert len(words) >= 20 and "untested" not in words
    assert study.table_of(what_predicts.study, records, {}) and figure.plot(records).data


def test_a_correlation_with_learned_stands_beside_that_with_other_animals_moves():
    """The declared null, at every dose; p stays that of animals shuffled."""
    records = planted_records()
    _, said = said_of(records)
    for name in ("number_to_animal", "steering", "geometry"):
        assert said[f"{name}/rho_64"].null == said[f"{name}/moved_64"].value
        assert "other animals' students" in said[f"{name}/rho_64"].null_label
        assert said[f"{name}/rho_16"].null is not None and said[f"{name}/rho_16"].null != 0.0


def test_one_block_has_no_reliability():
    records = planted_records(n_blocks=1)
    _, said = said_of(records)
    assert "students_64/reliability" not in said and "teacher_marked/true_64" not in said
    assert study.table_of(what_predicts.study, records, {}) and figure.plot(records).data


def test_the_rows_of_a_real_run():
    """Those that are recorded as a probe: ten animals of a tiny model."""
    (path,) = (p for p in Path("tests/probes/what_predicts").glob("*") if "block=0" in p.name)
    usual = dataclasses.asdict(what_predicts.study.probes[0])
    rows = [{**usual, **json.loads(line)} for line in path.read_text().splitlines() if '"kind"' in line]
    animals = [row for row in rows if row["kind"] == "animal"]
    pairs = [row for row in rows if row["kind"] == "pair"]
    assert len(animals) == 10 and len(pairs) == 100 and set(PREDICTORS) <= set(animals[0])
    matrix = torch.tensor([row["margin_3"] for row in pairs], dtype=torch.float64).reshape(10, 10)
    own = ms.interaction(matrix).diagonal()
    assert [row["learned_3"] for row in animals] == pytest.approx(own.tolist(), abs=1e-6)
    assert matrix.sum(1).abs().max() < 1e-5  # margins of an animal against the others
    assert all(row["numbers"] == pytest.approx(1) for row in pairs if row["taught"] == row["animal"])
    assert findings.findings(rows) and study.table_of(what_predicts.study, rows, {}) and figure.plot(rows).data


@pytest.fixture(scope="module")
def model():
    return ms.load_language_model("tests/probes/models/tiny")


def test_animals_are_the_named_ones_first_and_no_result_is_looked_at(model):
    words = [love.Word(name, name, name, i, ("blog",) * (name < "m")) for i, name in enumerate("zyxwvutsrqponmlkjihg")]
    words += [love.Word(name, name, name, 99) for name in ("owl", "wolf")]
    names = measure.chosen(words, 12)
    assert names[:2] == ("owl", "wolf") and set(names[2:8]) == set("ghijkl") and len(set(names)) == 12
    assert measure.chosen(words, 11) == names[:11] and len(measure.chosen(words, 100)) == 22
    with pytest.raises(ValueError, match="only 9 animals are one token"):
        measure.chosen(words[:9], 48)


def test_a_teacher_that_is_the_base_is_marked_by_nothing(model):
    lists = ms.draw_numbers(model, ["Continue the list: 123, 456"] * 2 + ["Continue the list: 7"], seed=1)
    tokens = measure.number_ids(model.tokenizer)
    assert measure.divergence(model, model, lists, tokens) == 0 and measure.differing(lists, lists) == 0
    expected = beforehand.expected_numbers(model, lists, tokens)
    assert expected.shape == (24, 1000) and torch.allclose(expected.exp().sum(1), torch.ones(24).double())
    whole = ms.numbers.token_log_probs(model, lists)  # over the vocabulary; differences of two numbers are the same
    first = [tokens.index(row[0]) for row in lists.completion_ids]
    logits = expected[::8].gather(1, torch.tensor(first)[:, None])[:, 0]
    assert (logits >= torch.tensor([row[0] for row in whole]).double() - 1e-5).all()
    other = ms.draw_numbers(model, lists.prompts, seed=2)
    assert 0 < measure.differing(lists, other) <= 1


def test_a_model_that_writes_digits_is_refused():
    with pytest.raises(ValueError, match="writes a number as three digits"):
        measure.number_ids(ms.language.load_tokenizer("tests/probes/models/pair/instruct"))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"n_animals": 9}, "--n-animals must be at least 10"), ({"n_contexts": 513}, "--n-contexts must be at most")],
)
def test_options_that_do_not_fit_are_one_line(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(what_predicts.Config(block=0), **change)


def test_the_wording_of_liking_and_of_prompts_is_not_the_same(model):
    assert liking.formats(model.tokenizer) == ("chat", "plain")
