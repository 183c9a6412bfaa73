"""planted_shares: what is planted is there by another way of looking, and the functions of contributions find it."""

import dataclasses

import pytest
import torch

import mechsub as ms
from mechsub.designs import love
from mechsub.lab.findings import Cell
from mechsub.measures.scores import matrix_correlation
from studies import planted_shares as study
from studies.planted_shares import findings, planted

CFG = study.Config(n_models=2, n_numbers=24, n_animals=12, n_pairs=6, n_resamples=60)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = planted.save_blank(tmp_path_factory.mktemp("blank"), CFG.n_numbers + CFG.n_animals)
    model = ms.load_language_model(str(folder))
    cfg = love.Asking(
        model="planted", format="plain", spaced=False, n_animals=CFG.n_animals, n_partners=CFG.n_numbers, n_wordings=1
    )
    return love.LovePrompts(model, love.choose_animals(model.tokenizer, cfg), love.choose_partners(cfg), cfg)


def effects(asked, wording=0):
    n, a = range(CFG.n_numbers), range(CFG.n_animals)
    forward = asked.animals_after([asked.love(i, wording) for i in n])
    back = asked.partners_after([asked.love_animal(i, wording) for i in a])
    return ms.interaction(forward), ms.interaction(back)


@pytest.mark.parametrize("law", ["isotropic", "five"])
@pytest.mark.parametrize("rows, middle", [(1.0, 0.0), (0.0, 1.0), (0.6, 0.8)])
def test_a_model_does_what_was_planted(asked, rows, middle, law):
    """Without noise the model's own outputs are the planted tables, up to a factor for the prompt."""
    tables = planted.plant(asked, planted.Strengths(rows, middle, 0.0), 3, law)
    for seen, told in zip(effects(asked), tables, strict=True):
        assert matrix_correlation(seen, ms.interaction(told.rows + told.middle)) > 0.999
        if law == "isotropic":
            assert told.share == pytest.approx(rows**2 / (rows**2 + middle**2), abs=0.12)


def test_rows_of_the_law_five_are_nearly_five_dimensional_and_alike_within_a_kind():
    law, draw = planted.law("five", 3), torch.Generator().manual_seed(0)
    numbers, animals = law.words(800, 0, draw), law.words(800, 1, draw)
    for rows in (numbers, animals):
        assert 4 < float(ms.spectra.participation_ratio(torch.linalg.svdvals(rows - rows.mean(0)).square())) < 6.5
        assert 0.2 < float(rows.norm(dim=1).log().std()) < 0.6
    means = torch.nn.functional.normalize(torch.stack([rows.mean(0) for rows in (numbers, animals)]), dim=-1)
    assert float((torch.nn.functional.normalize(numbers, dim=-1) @ means[0]).mean()) > 0.2
    assert torch.equal(planted.law("isotropic", 3).sizes, torch.ones(planted.N_OUTPUTS))


def test_shares_of_five_dimensions_are_those_of_the_models_that_are_planted(asked):
    """By the words of eight models together; the closed form belongs to isotropic rows and is not theirs."""
    strengths, seeds = planted.Strengths(0.8, 0.6, 0.0), range(8)
    told = [planted.plant(asked, strengths, seed, "five") for seed in seeds]
    for of_way in zip(*told, strict=True):
        own, known = (sum(values) / 8 for values in ([p.share for p in of_way], [p.expected.own for p in of_way]))
        assert own == pytest.approx(known, abs=0.06)
        assert all(p.expected.other > 2 / planted.N_OUTPUTS for p in of_way)
    (isotropic, _) = planted.plant(asked, strengths, 0)
    assert isotropic.expected == (pytest.approx(0.64), 1 / planted.N_OUTPUTS)


def test_what_is_planted_in_one_part_alone_is_all_of_it_or_nothing():
    none = torch.zeros(planted.N_OUTPUTS)
    for rows, middle in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0)):
        found = planted.expected(planted.Strengths(rows, middle, 0.7), "five", 0, "forward", none)
        assert found.own == rows


def test_the_vocabularys_mean_is_no_part_of_a_row():
    """Removing the mean of numbers' rows from all rows leaves rows of numbers that are alike no more."""
    strengths, law = planted.Strengths(0.7, 0.7, 0.0), planted.law("five", 5)
    kept, gone = (
        planted.expected(strengths, "five", 5, "forward", removed).own
        for removed in (torch.zeros(planted.N_OUTPUTS), law.means[0])
    )
    assert gone > kept + 0.02


def test_a_plant_taken_out_leaves_the_other(asked):
    """The planted share by knocking out the block that writes along the rows: another way than taking rows away."""
    (told, _) = planted.plant(asked, planted.Strengths(0.6, 0.8, 0.0), seed=4)
    whole, _ = effects(asked)
    with torch.no_grad():
        asked.model.blocks[2].attn.o.weight.zero_()
    left, _ = effects(asked)
    share = float(((whole - left) * whole).sum() / whole.square().sum())
    assert share == pytest.approx(told.share, abs=0.005)


def test_noise_is_of_one_wording(asked):
    planted.plant(asked, planted.Strengths(0.0, 0.0, 0.7), seed=5)
    tables = [effects(asked, w)[0] for w in range(planted.N_WORDINGS)]
    assert all(float(table.std()) > 0.05 for table in tables)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert abs(matrix_correlation(tables[i], tables[j])) < 0.2


@pytest.mark.parametrize("law", ["isotropic", "five"])
def test_contributions_finds_what_was_planted(asked, law):
    cfg = dataclasses.replace(CFG, rows=law)
    rows = {row["quantity"]: row for row in study.model_records(asked, "both", 1, cfg)}
    assert set(rows) == set(study.known(planted.Shares(0.75, 0.1), planted.Shares(0.75, 0.1)))
    for quantity in (study.ROWS, "rows, animal to number"):
        assert law == "five" or rows[quantity]["planted"] == 0.75
        assert rows[quantity]["share"] == pytest.approx(rows[quantity]["realised"], abs=0.15)
    number, final = (rows[f"the {place}, after the middle block"]["share"] for place in ("number", "final position"))
    assert number + final == pytest.approx(1, abs=0.01)  # nothing else holds anything


def test_nothing_planted_has_no_share_of_its_own(asked):
    rows = list(study.model_records(asked, "none", 0, CFG))
    assert {row["quantity"] for row in rows} == {study.ROWS, "rows, animal to number"}
    assert all(row["realised"] is None and row["planted"] == 0 for row in rows)


def made(share, width=0.2, kind="both"):
    return {"kind": kind, "planted": 0.5, "realised": 0.5, "share": share, "low": share - width / 2,
            "high": share + width / 2, "agreement": 0.7, "quantity": study.ROWS}  # fmt: skip


def test_coverage_is_counted():
    cell = [{"model": i, **made(share)} for i, share in enumerate((0.5, 0.55, 0.7, 0.45))]
    cell.append({"model": 4, **made(0.9, kind="none")})  # which is not counted
    said = Cell({}, cell, findings=list(findings.findings(cell)))
    coverage, bias = (
        said.finding(f"rows_number_to_animal_all_but_none/{score}").value for score in ("coverage", "bias")
    )
    assert (coverage.mean, coverage.n) == (0.75, 4) and bias.mean == pytest.approx(0.05)
    assert "in 3, 0.750" in findings.sentence(said) and "fewer than the 0.9" in findings.sentence(said)
    wide = list(findings.findings([row | {"low": 0, "high": 1} for row in cell]))
    assert "as asked" in findings.sentence(Cell({}, cell, findings=wide))
