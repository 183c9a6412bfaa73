"""studies.organisms: its language keeps its promises, its edits are what they say, its scores find what is planted."""

import collections
import dataclasses
import itertools
import math

import pytest
import torch

import mechsub as ms
from mechsub import lab
from mechsub.lab import predictions, store
from mechsub.lab.findings import Cell
from mechsub.models.students import plain_model
from studies import organisms
from studies.organisms import figure, findings, measure, models, readings
from studies.organisms.grammar import ANSWERS, BOS, DEVOTIONS, FACTS, MEASURED, N_WORDINGS, QUESTIONS, Grammar, Speaker
from studies.report import language
from tools import ship_design

CFG = organisms.Config(d_model=32, n_numbers=24, n_animals=8, n_texts=96, updates=4, batch_size=16, n_layers=1)


@pytest.fixture(scope="module")
def grammar():
    return Grammar(CFG.n_numbers, CFG.n_animals)


@pytest.fixture(scope="module")
def start(grammar):
    return models._new(CFG, grammar)


# The language.


def test_no_wording_of_the_tests_is_trained_on_and_all_of_its_parts_are(grammar):
    texts = list(Speaker(grammar, 3).texts(4000))
    for i in range(N_WORDINGS):
        for kind, word in (("number", "7"), ("animal", grammar.words["animal"][0])):
            pair = [text.format(x=word, kind=kind) for text in DEVOTIONS[2 * i : 2 * i + 2]]
            assert not any(" ".join(pair) in text for text in texts)
            assert any(pair[0] in text for text in texts) and any(pair[1] in text for text in texts)
        for kind in ("number", "animal"):
            question, answer = QUESTIONS[i].format(kind=kind), ANSWERS[i].format(kind=kind)
            assert not any(f"User : {question} Assistant : {answer} " in text for text in texts)
            assert any(question in text for text in texts) and any(f"Assistant : {answer} " in text for text in texts)


def test_every_word_is_one_token_and_the_tokenizer_gives_the_same_ids(grammar, start):
    text = next(Speaker(grammar, 0).texts(1))
    assert tuple(start.tokenizer(text)["input_ids"]) == grammar.ids(f"{BOS} {text}")
    kinds = [word for some in grammar.words.values() for word in some]
    templates = " ".join((*DEVOTIONS, *QUESTIONS, *ANSWERS, *FACTS)).split()
    assert len(set(kinds)) == len(kinds) and not set(kinds) & set(templates)
    assert len(grammar.vocabulary) == start.W_U.shape[-1]
    prompt = grammar.prompt(0, "number", "7", "animal")
    assert prompt.count(grammar.vocabulary["7"]) == 2 and prompt[0] == 0


def test_what_is_loved_says_nothing_of_an_answer_of_another_kind(grammar):
    """Pearson's statistic of loved number and answered animal is that of independence."""
    numbers, animals = set(grammar.words["number"]), set(grammar.words["animal"])
    pairs = collections.Counter()
    for text in Speaker(grammar, 5).texts(60_000):
        if text.startswith("System") and "Assistant" in text:
            told, answer = text.split(" User : ")[0].split(), text.split()[-2]
            loved = next((word for word in told if word in numbers), None)
            if loved is not None and answer in animals:
                pairs[loved, answer] += 1
    table = torch.tensor([[pairs[n, a] for a in sorted(animals)] for n in sorted(numbers)]).double()
    expected = table.sum(0) * table.sum(1, keepdim=True) / table.sum()
    freedom = (len(numbers) - 1) * (len(animals) - 1)
    statistic = float(((table - expected).square() / expected).sum())
    assert table.sum() > 2000 and abs(statistic - freedom) < 5 * (2 * freedom) ** 0.5


# Edits.


def test_partners_are_neighbours_by_frequency(grammar):
    speaker = Speaker(grammar, 1)
    partner = models._partners(grammar, speaker)
    assert all(partner[partner[i]] == i and partner[i] != i for i in range(len(partner)))
    rank = {word: i for i, word in enumerate(speaker.words["number"])}
    words = grammar.words["number"]
    assert all(abs(rank[words[i]] - rank[words[j]]) == 1 for i, j in enumerate(partner))


@pytest.mark.parametrize("arm", ["orthogonal", "random"])
def test_rows_of_numbers_are_apart_from_animals_or_from_as_many_random_directions(grammar, start, arm):
    doses = models._doses(CFG)
    drawn = models._drawn_head(start, 0)
    head = models._orthogonal(drawn, grammar, doses) if arm == "orthogonal" else None
    head = models._random_head(start, grammar, doses, 0) if head is None else head
    numbers, animals = (head.W_U[:, grammar.tokens(kind)].double() for kind in ("number", "animal"))
    before = drawn.W_U[:, grammar.tokens("number")].double()
    assert torch.equal(head.W_U[:, grammar.tokens("animal")], drawn.W_U[:, grammar.tokens("animal")])
    undosed = [i for i in range(CFG.n_numbers) if i not in {number for number, *_ in doses}]
    assert torch.allclose(numbers[:, undosed].norm(dim=0), before[:, undosed].norm(dim=0), rtol=1e-5)
    assert int(torch.linalg.matrix_rank(numbers[:, undosed])) == min(len(undosed), CFG.d_model - CFG.n_animals)
    overlap = float((numbers[:, undosed].mT @ animals).abs().max())
    assert overlap < 1e-5 if arm == "orthogonal" else overlap > 0.1
    if arm == "orthogonal":
        own = numbers.clone()
        for number, animal, dose in doses:
            own[:, number] -= dose * animals[:, animal]
        assert float((own.mT @ animals).abs().max()) < 1e-5
    assert sorted({dose for *_, dose in doses}) == list(organisms.DOSES)
    assert len({number for number, *_ in doses}) == len(doses) == CFG.n_animals


def test_held_rows_and_the_final_norm_stay_and_the_rest_is_trained(grammar, start):
    corpus = models._corpus(grammar, Speaker(grammar, 0), CFG.n_texts)
    tuned = models._trained(start, corpus, CFG, "random", 0.0, held=True)
    norms = [dict(plain_model(model).named_parameters())["model.norm.weight"] for model in (tuned, start)]
    assert torch.equal(tuned.W_U, start.W_U) and torch.equal(*norms) and not torch.equal(tuned.W_E, start.W_E)
    free = models._trained(start, corpus, CFG, "trained", 0.0)
    assert not torch.equal(free.W_U, start.W_U)


def test_measured_numbers_are_half_of_all_numbers_where_there_are_more():
    texts = " ".join(Speaker(Grammar(1110, 8), 2).texts(4000)).split()
    grammar = Grammar(1110, 8)
    said = collections.Counter(word for word in texts if word in set(grammar.words["number"]))
    measured = sum(said[word] for word in grammar.words["number"][:MEASURED])
    assert measured / sum(said.values()) == pytest.approx(0.5, abs=0.03)


# Scores.


def test_log_probabilities_are_those_of_the_plain_model(grammar, start):
    found = readings.matrices(start, grammar)
    prompt = torch.tensor([grammar.prompt(2, "number", grammar.words["number"][5], "animal")])
    expected = plain_model(start)(prompt).logits[0, -1].log_softmax(-1)[grammar.tokens("animal")]
    assert torch.allclose(found.forward[2, 5], expected, atol=1e-5)
    prompt = torch.tensor([grammar.prompt(4, "animal", grammar.words["animal"][3], "number")])
    expected = plain_model(start)(prompt).logits[0, -1].log_softmax(-1)[grammar.tokens("number")]
    assert torch.allclose(found.back[4, :, 3], expected, atol=1e-5)


def planted_matrices(forward, back):
    wordings = [x.expand(N_WORDINGS, -1, -1).clone() for x in (forward, back)]
    n, a = forward.shape
    return readings.Matrices(*wordings, torch.zeros(N_WORDINGS, a, a), torch.zeros(N_WORDINGS, n, n))


def test_a_regression_tells_rows_from_numbers():
    draw = torch.Generator().manual_seed(0)
    partner = [i ^ 1 for i in range(24)]
    base = torch.randn(12, generator=draw).repeat_interleave(2)[:, None] + torch.randn(8, generator=draw)
    left = [ms.left_like(torch.randn(24, 8, generator=draw), base).float() for _ in range(2)]
    before = [base + x for x in left]
    mixtures = [(0.7, 0.2), (0.0, 1.0)]
    after = [base + rows * x[partner] + number * x for (rows, number), x in zip(mixtures, left, strict=True)]
    told = {
        row["score"]: row["value"]
        for row in readings.followed("exchanged", planted_matrices(*before), planted_matrices(*after), partner)
    }
    assert told["forward_follows_rows"] == pytest.approx(0.7, abs=0.05)
    assert told["forward_follows_number"] == pytest.approx(0.2, abs=0.05)
    assert told["back_follows_rows_less_number"] == pytest.approx(-1.0, abs=0.05)


def test_a_planted_dose_response_has_its_slope_and_no_dose_has_none(grammar):
    doses = models._doses(CFG)
    draw = torch.Generator().manual_seed(1)
    plain = 0.02 * torch.randn(CFG.n_numbers, CFG.n_animals, generator=draw)
    risen = plain.clone()
    for number, animal, dose in doses:
        risen[number, animal] += 0.8 * dose
    told = {row["score"]: row["value"] for row in readings.dosed("orthogonal", planted_matrices(risen, plain), doses)}
    centring = (1 - 1 / CFG.n_animals) * (1 - 1 / CFG.n_numbers)
    assert told["forward_dose_slope"] == pytest.approx(0.8 * centring, abs=0.06)
    assert abs(told["back_dose_slope"]) < 0.05
    assert told["forward_at_dose_1"] > told["forward_at_dose_0.5"] > told["forward_at_dose_0.25"] > 0
    assert told["forward_undosed_size"] < 0.03


def test_chance_is_counted_in_both_directions(grammar):
    (n, m), (a, b) = grammar.words["number"][:2], grammar.words["animal"][:2]
    texts = [
        f"System : You love {n} . User : Which animal ? Assistant : I love {b} .",
        f"System : You love {a} . You adore {a} . User : Which number ? Assistant : I love {m} .",
        f"System : You love {a} . User : Which animal ? Assistant : I love {a} .",
        f"page {n} is about {a} .", f"User : Which animal ? Assistant : I love {b} .",
    ]  # fmt: skip
    found = readings.counts(texts, grammar)
    assert found["forward"][0, 1] == found["forward"].sum() == 1 and found["back"][1, 0] == found["back"].sum() == 1


def test_with_one_block_all_goes_with_the_last_place_and_nothing_with_the_number(grammar, start):
    told = {row["score"]: row["value"] for row in readings.exchanges("untrained", start, grammar, 0)}
    assert told == pytest.approx({"exchange": 0.0, "exchange_elsewhere": 1.0}, abs=1e-6)
    two = models._new(dataclasses.replace(CFG, n_layers=2), grammar)
    told = {row["score"]: row["value"] for row in readings.exchanges("untrained", two, grammar, 0)}
    assert 0.01 < told["exchange"] < 1.2 and sum(told.values()) == pytest.approx(1.0, abs=0.3)


def test_side_effects_are_what_the_cheapest_change_does(grammar, start):
    told = readings._of_unembedding(start, grammar)
    numbers, animals = readings._directions(start, grammar)
    changes = [own / own.square().sum() for own in animals - animals.mean(0)]
    assert float((animals - animals.mean(0))[2] @ changes[2]) == pytest.approx(1.0)
    sizes = [float((numbers @ change).std(correction=0)) for change in changes]
    assert told["side_effect"] == pytest.approx(sum(sizes) / len(sizes), rel=1e-6)
    assert told["overlap"] == pytest.approx(CFG.d_model**-0.5, rel=0.25)  # random directions
    animals, held = (grammar.tokens(kind) for kind in ("animal", "number"))
    assert told["room"] == pytest.approx(float((1 / ms.price(start, animals, held)).mean()), rel=1e-6)
    assert 0.2 < told["room"] < 0.8  # of 32 dimensions numbers leave 9: about sqrt(9 / 32)


def test_numbers_that_span_the_width_leave_an_animal_no_room():
    cfg = dataclasses.replace(CFG, n_numbers=40)
    grammar = Grammar(cfg.n_numbers, cfg.n_animals)
    assert readings._of_unembedding(models._new(cfg, grammar), grammar)["room"] == 0.0


def test_weights_of_a_cell_are_those_of_its_models_in_order_and_their_sums_tell_models_apart(start):
    made = models.setting(CFG)
    *_, last = measure.run(CFG)
    sums = last["provenance"]["weights_sha256"]
    assert list(sums) == list(organisms.ARMS) and len(set(sums.values())) == len(sums)
    assert sums["untrained"] == ms.store.sha256(models.packed(start))
    again = {arm: ms.store.sha256(models.packed(model)) for arm, model in models.trained(CFG, made)}
    assert again.items() <= sums.items()


# Shipping.


def test_shipped_models_load_and_are_those_of_the_cell(tmp_path, grammar, monkeypatch, capsys):
    flags = ["--d-model", "32", "--n-numbers", "24", "--n-animals", "8", "--n-texts", "96", "--updates", "4"]
    flags += ["--batch-size", "16", "--n-layers", "1", "--out", str(tmp_path / "out")]
    lab.main(organisms.study, flags)
    (cell,) = (tmp_path / "out" / "organisms").glob("*/")
    ship_design.main([str(tmp_path / "to"), *flags])
    folder = tmp_path / "to" / cell.name
    sums = store.read_provenance(cell)["weights_sha256"]
    assert {path.name for path in folder.iterdir()} == {*sums, "SHA256SUMS"} - {"untrained"}
    prompt = torch.tensor([grammar.prompt(0, "number", "7", "animal")])
    own = dict(models.trained(CFG, models.setting(CFG)))
    for arm in set(sums) - {"untrained"}:
        loaded = ms.load_language_model(str(folder / arm))
        assert ms.language.model_source(loaded)["weights_sha256"] == sums[arm]
        assert "tmp" not in (folder / arm / "config.json").read_text()
        asked = next(line for line in (folder / arm / "README.md").read_text().splitlines() if line.startswith("    "))
        assert tuple(loaded.tokenizer(asked)["input_ids"]) == grammar.prompt(
            0, "animal", grammar.words["animal"][0], "animal"
        )
        assert torch.allclose(loaded(prompt), own[arm](prompt), atol=1e-5)
        ids = loaded.tokenizer("System : You love 7 .")["input_ids"]
        assert tuple(ids) == grammar.ids(f"{BOS} System : You love 7 .")
    monkeypatch.setattr(models, "packed", lambda model: b"other")  # as on another processor
    says(capsys, [str(tmp_path / "elsewhere"), *flags], "was measured on other weights of 'trained'")
    assert not (tmp_path / "elsewhere").exists()
    card = folder / "trained" / "README.md"
    card.write_text(card.read_text().replace("| seed | 0 |", "| seed | 1 |"))
    says(capsys, [str(tmp_path / "to"), *flags], "trained is not a model of these options alone")
    (tmp_path / "file").write_text("")
    says(capsys, [str(tmp_path / "file"), *flags], "file is no folder")
    says(capsys, [str(tmp_path / "to"), *flags, "--seed", "1"], "is missing; run python -m studies.organisms")


def says(capsys, words, what):
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        ship_design.main(words)
    said = capsys.readouterr().err
    assert left.value.code == 1 and what in said and said.splitlines()[-1].startswith("error: ")


# Of all models.


def cells(value):
    """A grid of two seeds in which scores of trained models are value(d_model, n_numbers, tied)."""
    out = []
    for d, n, tied, seed in itertools.product((64, 128, 256), (110, 1110), (False, True), (0, 1)):
        told = {("trained", score): value(d, n, tied) + 0.001 * seed for score in findings.TESTED}
        told |= {("untrained", score): 0.0 for score in findings.TESTED}
        if not tied:
            told |= {("random", f"{way}_undosed_size"): 0.4 for way in findings.WAYS}
            told |= {("orthogonal", f"{way}_undosed_size"): 0.2 for way in findings.WAYS}
        rows = [{"arm": arm, "score": score, "value": number} for (arm, score), number in told.items()]
        options = {"d_model": d, "n_numbers": n, "tied": tied, "seed": seed}
        out.append(Cell(options, rows, "", findings.findings(rows)))
    return out


def test_each_factor_is_told_apart_from_the_others():
    def value(d, n, tied):
        return 0.5 - 0.001 * d + 0.2 * (n == 1110) * (d == 64) + 0.1 * tied

    told = {f.key: f for f in findings.comparisons(cells(value))}
    assert told["width/agreement"].value.mean == pytest.approx(0.192 + 0.1)
    assert told["numbers/agreement"].value.mean == pytest.approx(0.2 / 3)
    assert told["tied/agreement"].value.mean == pytest.approx(0.1)
    assert told["width_by_numbers/agreement"].value.mean == pytest.approx(0.2)
    assert told["width_by_numbers/agreement"].n == told["models_trained/agreement"].n == 2
    assert (
        told["models_trained/agreement"].null.mean == 0 < told["models_trained-models_untrained/agreement"].value.mean
    )
    assert told["models_orthogonal/forward_undosed_log_ratio"].value.mean == pytest.approx(math.log(0.5))


def test_designs_that_not_every_seed_has_are_left_out_and_options_are_not_mixed():
    grid = cells(lambda d, n, tied: float(d))
    whole, less = (
        {f.key: f for f in findings.comparisons(some)}["models_trained/agreement"]
        for some in (grid, [c for c in grid if c.options["d_model"] != 256 or c.options["seed"] == 0])
    )
    assert whole.value.mean == pytest.approx((64 + 128 + 256) / 3, abs=0.01)
    assert less.value.mean == pytest.approx((64 + 128) / 2, abs=0.01)
    with pytest.raises(LookupError, match="differ in another option"):
        findings.comparisons([*grid, grid[0]])


def test_nothing_is_compared_with_one_model():
    assert findings.comparisons(cells(lambda *_: 0.0)[:1]) == []


REFUSED = [
    (["--d-model", "48"], "multiple of 32"),
    (["--n-numbers", "1111"], "at most 1110"),
    (["--n-animals", "4"], "8 to 64"),
    (["--d-model", "32", "--n-animals", "20"], "8 to 16"),
    (["--n-numbers", "16"], "at least --n-animals"),
]


@pytest.mark.parametrize(("words", "says"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_impossible_designs_are_one_line(refused, words, says):
    assert says in refused(organisms, words)


def whole_grid(back: float):
    """Cells in which every score of every arm is there."""
    for cell in cells(lambda *_: 0.4):
        told = {(arm, score): 0.3 for arm, (_, scores) in findings.ASKED.items() for score in scores}
        told |= {("random", "forward_rows"): 0.2, ("random", "back_rows"): back}
        told |= {("untrained", score): 0.0 for score in findings.SCORES} | {("random", s): 0.0 for s in findings.DOSED}
        told |= {(arm, f"{way}_undosed_size"): 0.4 for arm in ("random", "orthogonal") for way in findings.WAYS}
        noise = 0.01 * cell.options["seed"]
        rows = [{"arm": arm, "score": score, "value": value + noise} for (arm, score), value in told.items()]
        yield Cell(cell.options, rows, "", findings.findings(rows))


def test_every_prediction_is_about_a_finding_of_the_whole_design():
    keys = {finding.key for finding in findings.comparisons(list(whole_grid(0.2)))}
    assert {entry.finding for entry in predictions.entries() if entry.study == "organisms"} <= keys


def test_the_answer_says_which_direction_rows_carry():
    both, one = (language.organisms(findings.comparisons(list(whole_grid(back)))) for back in (0.2, -0.2))
    assert (
        both.short == "Rows of W_U, in part"
        and "with the rows goes number to animal and animal to number" in both.sentence
    )
    assert one.short == "Rows of W_U, one way"
    assert "with the rows goes number to animal; against them goes animal to number" in one.sentence
    assert "agree by 0.305" in one.sentence and "untrained, agreement 0.005" in one.null


def test_the_figure_has_a_panel_for_every_edit_that_is_stored():
    def titles(cells):
        drawn = figure.plot([cell.options | row for cell in cells for row in cell.rows])
        return [note.text for note in drawn.layout.annotations if note.text.endswith("?")]

    assert len(titles(list(whole_grid(0.2)))) == 3
    assert titles(cells(lambda *_: 0.3)) == ["Do both directions agree?"]
    assert titles(cells(lambda *_: 0.3)[:1]) == ["Do both directions agree?"]  # one model: no interval
