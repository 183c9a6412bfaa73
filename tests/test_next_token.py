"""studies.next_token, for real with two seeds and few steps; its model, its language, and planted students."""

import pytest
import torch
from conftest import generator

import mechsub as ms
from mechsub.lab import store, study
from mechsub.models import tiny_transformer as models
from mechsub.models.hooked import HookedModel
from studies import next_token
from studies.next_token import text

SMALL = ["--n-seeds", "2", "--d-model", "16", "--pretraining-steps", "60", "--n-strings", "256", "--steps", "16"]


@pytest.fixture(scope="module")
def model():
    return models.EnsembleTransformer(models.Shape(d_model=16, n_layers=2), (0, 1, 2))


# The model.


def test_it_is_a_hooked_model_that_the_shared_tools_read(model):
    assert isinstance(model, HookedModel)
    tokens = text.corpus(6, generator())
    cache = ms.cache_activations(model, tokens)
    assert list(cache) == ["blocks.0.hook_out", "blocks.1.hook_out"]
    assert cache["blocks.1.hook_out"].shape == (3, 6, 12, 16)
    logits = model(tokens)
    last = {"blocks.1.hook_out": cache["blocks.1.hook_out"]}
    assert torch.equal(ms.run_patched(model, tokens, last), logits)
    by_hand = ms.unembedding.unembed(model, cache["blocks.1.hook_out"].flatten(1, 2))
    assert torch.allclose(by_hand, logits.flatten(1, 2), atol=1e-5)
    assert ms.unembed_projection(model, [0, 1], [70], "centered_cosine").shape == (3, 2, 1)
    assert torch.equal(model.W_U, model.W_E.mT)


def test_no_position_sees_what_comes_after_it(model):
    tokens = text.corpus(4, generator())
    changed = tokens.clone()
    changed[:, 7:] = 0
    before, after = model(tokens), model(changed)
    assert torch.allclose(before[:, :, :7], after[:, :, :7], atol=1e-6)
    assert not torch.allclose(before[:, :, 7:], after[:, :, 7:], atol=1e-2)


def test_a_member_is_the_same_in_any_ensemble(model):
    tokens = text.corpus(8, generator())
    alone = models.EnsembleTransformer(model.cfg, (1,))
    assert all(torch.equal(a[1:2], b) for a, b in zip(model.parameters(), alone.parameters(), strict=True))
    assert torch.allclose(model(tokens)[1], alone(tokens)[0], atol=1e-6)
    batches = [(tokens, tokens)] * 3
    rates = [1e-2] * 3
    trained = [models.trained(m, batches, next_token._next, rates) for m in (alone, model.select([1]))]
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in trained), strict=True))


def test_too_many_tokens_and_divergence_are_said(model):
    with pytest.raises(ValueError, match="13 tokens are more than the 12"):
        model(torch.zeros(1, 13, dtype=torch.long))
    tokens = text.corpus(4, generator())
    with pytest.raises(ValueError, match="seed 0 diverged"):
        models.trained(model.select([0]), [(tokens, tokens)] * 2, next_token._next, [1e38] * 2)


# The language.


def test_rows_are_of_the_language():
    rows = text.corpus(400, generator())
    assert rows.shape == (400, text.N_CTX) and rows[:, 0].unique().tolist() == [text.BOS]
    strings = rows[rows[:, 1] == text.NUM]
    assert len(strings) == 200 and strings[:, 2:].max() < text.NUMBERS.stop
    assert text.D_VOCAB == 128 and text.successors().sum(1) == pytest.approx(1)
    sentences = rows[rows[:, 1] == text.TXT][:, 2:].reshape(-1, 5)
    assert sentences[:, -1].unique().tolist() == [text.STOP]
    likes = sentences[sentences[:, 1] == text.LIKES]
    assert 0.3 < len(likes) / len(sentences) < 0.7 and len(likes[:, 3].unique()) == text.N_ANIMALS
    loving = text.texts(30, generator(), liked=5)[:, 2:].reshape(-1, 5)
    assert loving[:, 3].unique().tolist() == [text.ANIMALS.start + 5] and set(loving[:, 1].tolist()) == {text.LIKES}


def test_numbers_follow_their_successors():
    strings = text.number_strings(4_000, generator())[:, 2:]
    n = text.N_NUMBERS
    pairs = torch.bincount((strings[:, :-1] * n + strings[:, 1:]).flatten(), minlength=n * n).view(n, n)
    found = pairs / pairs.sum(1, keepdim=True)
    assert float((found - text.successors()).abs().max()) < 0.12


# Students, planted.


def planted(seed=0):
    """An untrained model, and one whose number 3 is likelier, or less likely, than in the first."""
    reference = models.EnsembleTransformer(models.Shape(d_model=16), (seed,))
    other = reference.select([0])
    other.W_E[:, 3] *= 4
    return reference, other


def test_a_threshold_leaves_no_rare_number_and_other_tokens_never_come():
    _, other = planted()
    free, likely = (next_token.drawn(other, 300, generator(), at) for at in (0.0, 0.04))
    assert max(int(free[:, 2:].max()), int(likely[:, 2:].max())) < text.N_NUMBERS
    p = next_token.number_log_probs(other, likely).exp().gather(-1, likely[:, 2:, None])[..., 0]
    assert ((p > 0.04) | (p >= next_token.number_log_probs(other, likely).exp().amax(-1) - 1e-6)).all()
    rare = next_token.number_log_probs(other, free).exp().gather(-1, free[:, 2:, None])[..., 0]
    assert (rare < 0.04).any()


def test_numbers_are_drawn_from_the_models_own_probabilities():
    reference, _ = planted()
    strings = next_token.drawn(reference, 3_000, generator())
    first = torch.bincount(strings[:, 2], minlength=64) / len(strings)
    said = next_token.number_log_probs(reference, strings[:1])[0, 0].exp()
    assert float((first - said).abs().max()) < 0.025


def test_soft_targets_are_the_mean_of_hard_ones():
    """Gradients of probabilities and of numbers drawn from them agree where the draws are many."""
    reference, other = planted()
    strings = text.number_strings(1, generator()).expand(4_000, -1)
    p = next_token.number_log_probs(other, strings[:1]).exp()
    drawn = torch.multinomial(p[0], 4_000, replacement=True, generator=generator()).T

    def gradient(wanted):
        model = reference.select([0]).requires_grad_()
        next_token._of_numbers(model(strings[: len(wanted)])[0], wanted).backward()
        return torch.cat([value.grad.flatten() for value in model.parameters()])

    soft, hard = gradient(p), gradient(drawn)
    assert float((hard - soft).norm() / soft.norm()) < 0.1


def test_positions_that_are_not_seen_teach_nothing():
    reference, _ = planted()
    strings = text.number_strings(64, generator())
    numbers = next_token._numbers(strings)
    half = numbers.clone()
    half[:, 5:] = next_token._UNSEEN
    loss = next_token._of_numbers(reference(strings)[0], half)
    log_p = reference(strings)[0].log_softmax(-1)[:, 1:6].gather(-1, numbers[:, :5, None])
    assert float(loss) == pytest.approx(-float(log_p.mean()), rel=1e-5)
    nothing = torch.full_like(numbers, next_token._UNSEEN)
    cfg = next_token.Config(steps=2)
    kept = next_token._taught(cfg, reference, strings, nothing, 0)
    assert torch.equal(kept.W_E, reference.W_E)


def test_the_preference_is_the_log_odds_against_the_mean_of_others():
    reference, _ = planted()
    log_p = reference(text.asked())[0, :, -1].log_softmax(-1)[:, text.ANIMALS].mean(0)
    others = [float(log_p[a]) for a in range(16) if a != 4]
    assert next_token.preference(reference, 4) == pytest.approx(float(log_p[4]) - sum(others) / 15, abs=1e-5)


def test_geometry_finds_a_teacher_that_moved_along_the_liked_row_and_nothing_in_noise():
    """The planted teacher's last state moves along the animal's row at every position; the null adds noise to W_E."""
    held_out = text.number_strings(100, generator())
    for seed in range(3):
        reference = models.EnsembleTransformer(models.Shape(d_model=32), (seed,))
        for W in (reference.blocks[0].W_O, reference.blocks[0].W_out):
            W.zero_()  # the last state is embedding and position alone
        along, noisy = reference.select([0]), reference.select([0])
        along.W_pos += 0.5 * reference.W_E[:, text.ANIMALS.start + 2][:, None]
        noisy.W_E += 0.1 * torch.randn(noisy.W_E.shape, generator=generator(seed))
        found = next_token._geometry(reference, along, 2, held_out)
        assert found["row_liked"] > 0.6 > 0.35 > abs(found["row_others"]) and found["steering"] > 0.6
        null = next_token._geometry(reference, noisy, 2, held_out)
        assert abs(null["row_liked"]) < 0.45 and abs(null["steering_random"]) < 0.2


# The study.


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("next_token")
    command = [*SMALL, "--lr", "0.003", "--teacher-lr", "0.003", "--out", str(folder)]
    study.command(next_token.study, command)
    return store.read_records(next((folder / "next_token").glob("*/provenance.json")).parent)


def test_a_small_run_has_every_arm_and_passes_a_preference_on(rows):
    found = {(r["arm"], r["member"]): r for r in rows}
    for member in (0, 1):
        assert {arm for arm, m in found if m == member} >= {*next_token.TITLES, *next_token.GEOMETRY, "reference"}
        teacher = found["teacher", member]
        assert teacher["gain"] > 1 and teacher["liked"] == next_token.liked_animal(member)
        assert found["start_other", member]["number_loss"] < 4.4  # untrained: 4.66
        assert found["reference", member]["diverging"] == 0 < found["teacher_numbers", member]["diverging"]


def test_the_table_has_a_verdict_for_every_prediction_and_the_figure_every_student(rows):
    table = study.table_of(next_token.study, rows, {})
    assert sum("verdict" in row for row in table) == 11
    assert len(next_token.plot(rows).data) == 2 * (len(next_token.TITLES) - 1)


def test_a_member_does_not_depend_on_the_others(rows):
    cfg = next_token.Config(
        n_seeds=2, d_model=16, pretraining_steps=60, n_strings=256, steps=16, lr=0.003, teacher_lr=0.003
    )
    alone = list(next_token._member(cfg, *(next_token._pretrained(cfg, seed) for seed in (1, 2))))
    stored = {r["arm"]: r for r in rows if r["member"] == 1}
    assert all(stored[row["arm"]] | row == stored[row["arm"]] for row in alone)  # to the last bit


REFUSED = [
    (["--n-seeds", "1"], "an integer >= 2"),
    (["--d-model", "18"], "multiple of 4"),
    (["--n-strings", "63"], "at least 64"),
    (["--threshold", "1"], "below 1"),
    (["--threshold", "-0.1"], "finite number >= 0"),
    (["--steps", "0"], "not an integer >= 1"),
    (["--d-model", "400000"], "are needed"),
]


@pytest.mark.parametrize(("words", "says"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_impossible_combinations_are_one_line_before_anything_is_trained(refused, words, says):
    assert says in refused(next_token, words)
