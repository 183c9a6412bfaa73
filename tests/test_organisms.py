"""studies.organisms: its language keeps its promises, its edits are what they say, its scores find what is planted."""

import collections
import dataclasses
import itertools

import pytest
import torch

from mechsub.lab.findings import Cell
from mechsub.models.students import plain_model
from studies import organisms
from studies.organisms import findings, measure, readings
from studies.organisms.grammar import ANSWERS, BOS, DEVOTIONS, N_WORDINGS, QUESTIONS, Grammar, Speaker

CFG = organisms.Config(
    d_model=32, n_numbers=24, n_animals=8, n_texts=96, updates=4, held_updates=2, batch_size=16, n_layers=1
)


@pytest.fixture(scope="module")
def grammar():
    return Grammar(CFG.n_numbers, CFG.n_animals)


@pytest.fixture(scope="module")
def start(grammar):
    return measure._new(CFG, grammar)


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
    assert len(set(grammar.vocabulary.values())) == len(grammar.vocabulary) == start.W_U.shape[-1]
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
    partner = measure._partners(grammar, speaker)
    assert all(partner[partner[i]] == i and partner[i] != i for i in range(len(partner)))
    rank = {word: i for i, word in enumerate(speaker.words["number"])}
    words = grammar.words["number"]
    assert all(abs(rank[words[i]] - rank[words[j]]) == 1 for i, j in enumerate(partner))


def test_orthogonal_rows_have_no_part_of_any_animal_but_their_dose(grammar, start):
    doses = measure._doses(CFG, grammar)
    random = measure._random_head(start, 0)
    apart = measure._orthogonal(random, grammar, doses)
    numbers, animals = (apart.W_U[:, grammar.tokens(kind)].double() for kind in ("number", "animal"))
    assert torch.equal(apart.W_U[:, grammar.tokens("animal")], random.W_U[:, grammar.tokens("animal")])
    own = numbers.clone()
    for number, animal, dose in doses:
        own[:, number] -= dose * animals[:, animal]
    assert float((own.mT @ animals).abs().max()) < 1e-5
    before = random.W_U[:, grammar.tokens("number")].double()
    assert torch.allclose(own.norm(dim=0), before.norm(dim=0), atol=1e-5)
    assert sorted({dose for *_, dose in doses}) == list(organisms.DOSES)
    assert len({number for number, *_ in doses}) == len(doses) == CFG.n_animals


def test_held_rows_stay_and_the_rest_is_trained(grammar, start):
    corpus = measure._corpus(grammar, Speaker(grammar, 0), CFG.n_texts)
    tuned = measure._tuned(start, corpus, CFG, "held", 0.0, held=True)
    assert torch.equal(tuned.W_U, start.W_U) and not torch.equal(tuned.W_E, start.W_E)
    free = measure._tuned(start, corpus, CFG, "free", 0.0)
    assert not torch.equal(free.W_U, start.W_U)


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
    before = [torch.randn(24, 8, generator=draw) for _ in range(2)]
    partner = [i ^ 1 for i in range(24)]
    left = [readings._left(x) for x in before]
    mixtures = [(0.7, 0.2), (0.0, 1.0)]
    after = [rows * x[partner] + number * x for (rows, number), x in zip(mixtures, left, strict=True)]
    told = {
        row["score"]: row["value"]
        for row in readings.followed("permuted", planted_matrices(*before), planted_matrices(*after), partner)
    }
    assert told["forward_follows_rows"] == pytest.approx(0.7, abs=0.05)
    assert told["forward_follows_number"] == pytest.approx(0.2, abs=0.05)
    assert told["back_follows_share"] == pytest.approx(0.0, abs=0.05)


def test_a_planted_dose_response_has_its_slope_and_no_dose_has_none(grammar):
    doses = measure._doses(CFG, grammar)
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


def test_with_one_block_nothing_goes_with_the_state_behind_it(grammar, start):
    assert readings.exchange(start, grammar, 0) == pytest.approx(0.0, abs=1e-6)
    two = measure._new(dataclasses.replace(CFG, n_layers=2), grammar)
    assert 0.01 < readings.exchange(two, grammar, 0) <= 1.2


def test_side_effects_are_what_the_cheapest_change_does(grammar, start):
    told = readings._of_unembedding(start, grammar)
    numbers, animals = readings._directions(start, grammar)
    own = animals[2] - animals.mean(0)
    change = own / own.square().sum()
    assert float(own @ change) == pytest.approx(1.0)
    others = [readings._directions(start, grammar)[0] @ (a / a.square().sum()) for a in animals - animals.mean(0)]
    sizes = [float(move.std(correction=0)) for move in others]
    assert told["side_effect"] == pytest.approx(sum(sizes) / len(sizes), rel=1e-6) and 0 < told["free"] < 1
    assert numbers.shape == (CFG.n_numbers, CFG.d_model)


# Of all models.


def cells(value):
    """A grid of two seeds in which trained/agreement is value(d_model, n_numbers, tied)."""
    out = []
    for d, n, tied, seed in itertools.product((64, 128, 256), (110, 1110), (False, True), (0, 1)):
        rows = [
            {"arm": "trained", "score": score, "value": value(d, n, tied) + 0.001 * seed} for score in findings.TESTED
        ]
        rows += [{"arm": "untrained", "score": score, "value": 0.0} for score in findings.TESTED]
        if not tied:
            rows += [
                {"arm": arm, "score": f"{way}_undosed_size", "value": size}
                for arm, size in (("frozen", 0.4), ("orthogonal", 0.2)) for way in ("forward", "back")
            ]  # fmt: skip
        options = {"d_model": d, "n_numbers": n, "tied": tied, "seed": seed}
        out.append(Cell(options, rows, "", findings.findings(rows)))
    return out


def test_each_factor_is_told_apart_from_the_others():
    def value(d, n, tied):
        return 0.5 - 0.001 * d + 0.2 * (n == 1110) * (d == 64) + 0.1 * tied

    told = {f.key: f for f in findings.comparisons(cells(value))}
    assert told["width/agreement"].value.mean == pytest.approx(0.192 + 0.1)
    assert told["numbers/agreement"].value.mean == pytest.approx(0.2 / 3)
    assert told["tied/agreement"].value.mean == pytest.approx(0.1) and told["tied/agreement"].p < 0.05
    assert told["width_by_numbers/agreement"].value.mean == pytest.approx(0.2)
    assert told["width_by_numbers/agreement"].n == 4 and told["width/agreement"].n == 8
    assert told["models_trained/agreement"].n == 24 and told["models_trained/agreement"].null.mean == 0
    assert told["models_orthogonal/forward_undosed_share"].value.mean == pytest.approx(0.25)
    assert told["models_orthogonal/forward_undosed_share"].n == 12


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
