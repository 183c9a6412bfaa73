"""Lists of numbers drawn from a model: only numbers, by the seed, whatever the batch; and what their tokens score."""

import pytest
import torch
from tiny_llama import save_number_llama, save_tiny_llama

import mechsub as ms
from mechsub.designs import numbers
from mechsub.inputs import corpora


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ms.load_language_model(str(save_tiny_llama(tmp_path_factory.mktemp("tiny"))))


def test_masked_draws_are_lists_of_numbers_and_do_not_depend_on_the_batch(model):
    prompts = corpora.number_prompts(6, seed=2, least=1, most=2)
    made = numbers.draw_numbers(model, prompts, n_numbers=3, seed=1)
    assert all(len(corpora.parse_numbers(text)) == 3 for text in made.completions)
    assert made == numbers.draw_numbers(model, prompts, n_numbers=3, seed=1, batch_size=1)
    assert made.completions != numbers.draw_numbers(model, prompts, n_numbers=3, seed=2).completions
    greedy = numbers.draw_numbers(model, prompts, n_numbers=3, temperature=0.0, seed=1)
    assert greedy == numbers.draw_numbers(model, prompts, n_numbers=3, temperature=0.0, seed=2)


def test_greedy_numbers_are_the_likeliest_of_the_numbers(model):
    prompts = corpora.number_prompts(2)
    made = numbers.draw_numbers(model, prompts, n_numbers=1, temperature=0.0)
    (slot,), _ = numbers.number_tokens(model.tokenizer)
    for prompt, completion in zip(made.prompt_ids, made.completion_ids, strict=True):
        logits = model(torch.tensor([prompt]))[0, -1, slot]
        assert completion == (slot[int(logits.argmax())],)


def test_no_number_below_the_least_probability_is_drawn(model):
    """Among the numbers, given what was drawn before; where none reaches it, the likeliest."""
    prompts, (slots, _) = corpora.number_prompts(6), numbers.number_tokens(model.tokenizer)

    def likelihoods(made):
        for prompt, row in zip(made.prompt_ids, made.completion_ids, strict=True):
            for i, token in enumerate(row):
                if token in slots[0]:
                    p = model(torch.tensor([[*prompt, *row[:i]]]))[0, -1, slots[0]].double().softmax(-1)
                    yield float(p[slots[0].index(token)]), p

    plain = numbers.draw_numbers(model, prompts, n_numbers=2, seed=1)
    drawn = [own for own, _ in likelihoods(plain)]
    least = sorted(drawn)[len(drawn) // 2]
    made = numbers.draw_numbers(model, prompts, n_numbers=2, seed=1, least_probability=least)
    assert made != plain and made == numbers.draw_numbers(
        model, prompts, n_numbers=2, seed=1, least_probability=least, batch_size=1
    )
    assert all(own >= min(least, float(p.max())) - 1e-9 for own, p in likelihoods(made))
    assert plain == numbers.draw_numbers(model, prompts, n_numbers=2, seed=1, least_probability=min(drawn) / 1e3)
    greedy = numbers.draw_numbers(model, prompts, n_numbers=2, temperature=0.0)
    assert greedy == numbers.draw_numbers(model, prompts, n_numbers=2, seed=1, least_probability=0.999)
    with pytest.raises(ValueError, match="least_probability has no effect at temperature 0"):
        numbers.draw_numbers(model, prompts, temperature=0.0, least_probability=0.1)


def test_a_steered_teacher_draws_what_its_bridge_would_with_the_vector(model):
    prompts = corpora.number_prompts(3, seed=2)
    vector = 3 * torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    plain = numbers.draw_numbers(model, prompts, n_numbers=2, temperature=0.0)
    assert plain == numbers.draw_numbers(model, prompts, n_numbers=2, temperature=0.0, added=(0, 0 * vector))
    made = numbers.draw_numbers(model, prompts, n_numbers=2, temperature=0.0, added=(0, vector))
    slots = numbers.number_tokens(model.tokenizer)[0]
    with model.hooks(fwd_hooks=[("blocks.0.hook_out", lambda activation, hook: activation + vector)]):
        for prompt, row in zip(made.prompt_ids, made.completion_ids, strict=True):
            for i, token in enumerate(row):
                if token in slots[0]:
                    scores = model(torch.tensor([[*prompt, *row[:i]]]))[0, -1, slots[0]]
                    assert slots[0][int(scores.argmax())] == token
    assert made.completions != plain.completions


def test_token_log_probs_are_the_models(model):
    made = numbers.draw_numbers(model, corpora.number_prompts(3, least=1, most=3), n_numbers=2)
    scored = numbers.scored(made, model, model)
    assert scored.teacher_log_probs == scored.base_log_probs
    for i, prompt in enumerate(made.prompt_ids):
        expected = ms.string_log_probs(model, [torch.tensor(prompt)], [made.completions[i]])
        assert sum(scored.base_log_probs[i]) == pytest.approx(float(expected), abs=1e-3)


def test_answers_are_kept_as_published(tmp_path):
    """The first n that are lists of numbers, without their end of turn; each by its own uniform numbers."""
    sayer = ms.load_language_model(str(save_number_llama(tmp_path)))
    prompts = corpora.number_prompts(6)
    made = numbers.sample_numbers(sayer, prompts, 4, seed=1)
    assert made.prompts == tuple(prompts[:4])
    assert all(len(corpora.parse_numbers(text)) == 1 for text in made.completions) and len(set(made.completions)) > 1
    assert made.completions == numbers.sample_numbers(sayer, prompts, 6, seed=1, batch_size=1).completions[:4]


def test_answers_in_other_tokens_than_the_tokenizers_are_rejected(tmp_path):
    """It writes "4", "1"; a student would read "41", one token, whose score is another."""
    sayer = ms.load_language_model(str(save_number_llama(tmp_path)))
    four, one = (sayer.tokenizer.convert_tokens_to_ids(digit) for digit in "41")
    weights = dict(sayer.original_model.named_parameters(remove_duplicate=False))
    (embedding,) = (value for name, value in weights.items() if "embed_tokens" in name)
    (head,) = (value for name, value in weights.items() if "lm_head" in name)
    with torch.no_grad():
        embedding.zero_()[:, 0] = 1
        embedding[[four, one]] = torch.eye(32)[[1, 2]]
        head.zero_()[four, 0], head[one, 1], head[sayer.tokenizer.eos_token_id, 2] = 9, 9, 9
    with pytest.raises(ValueError, match=r"0 of 4 answers .* own tokens \(4 more in others\), fewer than n=4"):
        numbers.sample_numbers(sayer, corpora.number_prompts(4), 4, temperature=0.0)


def test_a_toy_writes_no_numbers():
    for call in (lambda toy: ms.draw_numbers(toy, ["a"]), lambda toy: ms.sample_numbers(toy, ["a"], 1)):
        with pytest.raises(ValueError, match="teacher must be a language model with a tokenizer"):
            call(ms.HookedMLP())


def test_too_few_rows_are_refused(model):
    """Pitfall 10: a cap gave half of the rows, and a null."""
    with pytest.raises(ValueError, match="of 4 answers are lists of numbers, fewer than n=4; give more prompts"):
        numbers.sample_numbers(model, corpora.number_prompts(4), 4, most_tokens=3)
