"""Padded batches, one string for a list, ids of another vocabulary: one line each, and what is right stays allowed."""

import pytest
import torch
from tiny_families import pair
from tiny_llama import save_tiny_llama

import mechsub as ms
from mechsub.inputs import prompts
from mechsub.measures import divergence, scores, steering

pytestmark = pytest.mark.usefixtures("as_users_run_it")
TEXTS = ["You love 087", "You love 087 all the time"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ms.load_language_model(str(save_tiny_llama(tmp_path_factory.mktemp("llama"))))


def calls(model):
    """name -> every function that takes token ids, with a batch [prompt, pos] or its rows."""
    name = ms.hidden_names(model)[-1]
    one = torch.tensor([5, 6])
    return {
        "cache_activations": lambda ids: ms.cache_activations(model, ids, pos=-1),
        "run_patched": lambda ids: ms.run_patched(model, ids, {name: torch.zeros(len(ids), 32)}, pos=-1),
        "logit_lens": lambda ids: ms.logit_lens(model, ids, pos=-1),
        "direct_logit_attribution": lambda ids: ms.direct_logit_attribution(model, ids, [5], pos=-1),
        "next_token_log_probs": lambda ids: ms.next_token_log_probs(model, ids),
        "rows": lambda ids: ms.next_token_log_probs(model, list(ids)),
        "string_log_probs": lambda ids: ms.string_log_probs(model, list(ids), [" owl"]),
        "prompt_divergence": lambda ids: divergence.prompt_divergence(model, list(ids), one, one),
        "likeliest": lambda ids: divergence.likeliest(model, list(ids), one),
    }


NAMES = [
    "cache_activations", "run_patched", "logit_lens", "direct_logit_attribution", "next_token_log_probs", "rows",
    "string_log_probs", "prompt_divergence", "likeliest",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("texts", [TEXTS, ["You love", "You love 087"]], ids=["by several", "by two or one"])
def test_padded_batches_are_refused(model, name, side, texts):
    k = model.tokenizer
    ids = k(texts, return_tensors="pt", padding=True, padding_side=side)["input_ids"]
    assert (ids == k.pad_token_id).any()
    with pytest.raises(ValueError, match=r"padd(ing|ed).*without padding") as raised:
        calls(model)[name](ids)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["steered_logits", "sampled"])
def test_a_padded_prompt_is_refused(model, name):
    ids = model.tokenizer(TEXTS, return_tensors="pt", padding=True, padding_side="right")["input_ids"][0]
    with pytest.raises(ValueError, match="without padding"):
        if name == "steered_logits":
            steering.steered_logits(model, ids, [0], torch.zeros(1, 32), [5])
        else:
            divergence.sampled(model, ids, 1, [5, 6], torch.Generator())


@pytest.mark.parametrize("name", ["behind", "answer", "neutral"])
def test_padding_is_refused_wherever_prompts_are_read(model, name):
    k, one = model.tokenizer, torch.tensor([5, 6])
    ids = k(TEXTS, return_tensors="pt", padding=True, padding_side="right")["input_ids"]
    calls = {
        "behind": lambda: prompts.single_tokens(k, [" owl"], behind=list(ids)),
        "answer": lambda: divergence.likeliest(model, [one], ids[0]),
        "neutral": lambda: divergence.prompt_divergence(model, [one], ids[0], one),
    }
    with pytest.raises(ValueError, match=rf"^{name}(\[0\])? ends with .*without padding"):
        calls[name]()


def test_prompts_that_end_a_turn_stay_allowed(model):
    """One turn's end at the end of a prompt is no padding: alone, in all prompts, or in prompts of another length."""
    k = model.tokenizer
    whole = [torch.tensor(k(text + "<|eot|>")["input_ids"]) for text in TEXTS]
    open_ = torch.tensor(k("You love")["input_ids"])
    assert len(ms.next_token_log_probs(model, whole)) == 2
    assert len(ms.next_token_log_probs(model, [whole[0], open_])) == 2
    assert len(ms.cache_activations(model, whole[0][None], pos=-1)) == 3
    published = prompts.prompt(k, "Hello", system="You love 087.", answer="My", format="published")
    assert published[:2].tolist() == [k.bos_token_id] * 2  # two BOS are what is measured
    assert len(ms.next_token_log_probs(model, [published])) == 1


def test_a_pad_token_of_its_own_is_refused_wherever_a_prompt_has_it_at_an_end(model):
    k = model.tokenizer
    before = k.pad_token
    try:
        k.pad_token = "<|unknown|>"
        with pytest.raises(ValueError, match=r"prompts\[0\] ends with padding"):
            ms.next_token_log_probs(model, [torch.tensor([0, 7, k.pad_token_id])])
    finally:
        k.pad_token = before


WRONG = {
    "a batch": (
        lambda k: k(TEXTS, return_tensors="pt", padding=True),
        "a list of prompts.*own ids, without padding",
    ),
    "batches": (
        lambda k: [k(text, return_tensors="pt") for text in TEXTS],
        "be token ids.*own ids, without padding",
    ),
    "a text": (lambda k: "You love", "must be a list of prompts.*make them with mechsub.chat"),
    "texts": (lambda k: TEXTS, "must be token ids.*make them with mechsub.chat"),
    "a set": (lambda k: {1, 2}, "must be (a list of prompts|token ids)"),
    "one prompt": (lambda k: torch.tensor([5, 6]), "must be (a list of prompts|token ids)"),
    "a batch within a list": (lambda k: [torch.tensor([[5, 6]])], "must be (a list of prompts|token ids)"),
    "floats": (lambda k: [torch.tensor([5.0, 6.0])], "whole numbers"),
    "truth values": (lambda k: [torch.tensor([True, False])], "whole numbers"),
    "an empty prompt": (lambda k: [torch.tensor([5]), torch.tensor([], dtype=torch.long)], "empty"),
    "no prompt": (lambda k: [], "no prompt"),
    "too large an id": (lambda k: [torch.tensor([5, 10**6])], "must hold token ids of at least 0"),
    "a negative id": (lambda k: [torch.tensor([5, -1])], "must hold token ids of at least 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_are_no_prompts_is_one_line(model, case):
    make, said = WRONG[case]
    given = make(model.tokenizer)
    for call in (
        lambda: ms.next_token_log_probs(model, given),
        lambda: ms.string_log_probs(model, given, [" owl"]),
        lambda: divergence.likeliest(model, given, torch.tensor([5])),
    ):
        with pytest.raises((TypeError, ValueError), match=said) as raised:
            call()
        assert "\n" not in str(raised.value)


def test_ids_as_lists_are_no_prompts(model):
    with pytest.raises(ValueError, match="must be token ids as a tensor"):
        ms.next_token_log_probs(model, [[5, 6], [7]])


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ({"input_ids": torch.tensor([[5, 6]])}, "must be token ids.*as its own ids, without padding"),
        ([[5, 6]], "must be a tensor"),
        (torch.tensor([5, 6]), "must be a tensor"),
        (torch.zeros(0, 3, dtype=torch.long), "must be a tensor"),
        (torch.tensor([[5, 10**6]]), "must hold token ids of at least 0"),
        (torch.tensor([[True, False]]), "whole numbers"),
    ],
)
def test_what_is_no_batch_is_one_line(model, ids, said):
    for call in (ms.cache_activations, ms.logit_lens, lambda m, i: ms.direct_logit_attribution(m, i, [5], pos=-1)):
        with pytest.raises((TypeError, ValueError), match=said):
            call(model, ids)


@pytest.mark.parametrize("given", [" owl", 5])
def test_one_string_or_a_set_for_a_list_is_one_line(model, given):
    prompt = [torch.tensor([5, 6])]
    for call in (
        lambda: ms.string_log_probs(model, prompt, given),
        lambda: prompts.encode(model.tokenizer, given),
        lambda: ms.single_tokens(model.tokenizer, given),
    ):
        with pytest.raises((TypeError, ValueError), match="must be a list"):
            call()


def test_a_generator_keeps_its_order(model):
    words = [" owl", " cat", " dog"]
    assert list(ms.single_tokens(model.tokenizer, (word for word in words))) == [
        word for word in words if word in ms.single_tokens(model.tokenizer, words)
    ]


@pytest.mark.parametrize("tokens", [{5, 6}, "56", [5, -1], [10**6], [5.5], [True]])
def test_outputs_are_a_list_of_ids(model, tokens):
    prompt = torch.tensor([5, 6])
    for call in (
        lambda: ms.next_token_log_probs(model, [prompt], tokens=tokens),
        lambda: ms.direct_logit_attribution(model, prompt[None], tokens, pos=-1),
        lambda: steering.steered_logits(model, prompt, [0], torch.zeros(1, 32), tokens),
    ):
        with pytest.raises((TypeError, ValueError)) as raised:
            call()
        assert "\n" not in str(raised.value)


def test_the_states_of_a_trie_are_of_checked_prompts(model):
    (trie,) = scores.build_tries([(5, 6)])
    with pytest.raises(ValueError, match="must hold token ids of at least 0"):
        scores.string_states(model, [torch.tensor([10**6])], trie)


@pytest.fixture(scope="module", params=[-40, 40], ids=["fewer outputs than ids", "more outputs than ids"])
def uneven(request, model, tmp_path_factory):
    """A bridge of one's own whose outputs are fewer, as in Llama's vision models, or more than its embedding has rows;
    and Hugging Face's model."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM

    folder = save_tiny_llama(tmp_path_factory.mktemp("uneven"), tied=False)
    both = []
    for _ in range(2):
        theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            theirs.lm_head = torch.nn.Linear(32, theirs.config.vocab_size + request.param, bias=False)
        both.append(theirs)
    bridge = TransformerBridge.boot_transformers(str(folder), hf_model=both[0], tokenizer=model.tokenizer, device="cpu")
    return bridge.eval(), both[1], both[1].config.vocab_size + request.param


@torch.no_grad()
def test_ids_are_those_of_the_embedding(uneven):
    """The last id of the embedding is read as Hugging Face reads it; the first beyond it is one line."""
    bridge, theirs, n_outputs = uneven
    n_ids = theirs.config.vocab_size
    ids = torch.tensor([[0, 7, n_ids - 1]])
    expected = theirs(ids).logits[:, -1]
    assert expected.shape[-1] == n_outputs != n_ids
    assert torch.allclose(ms.next_token_log_probs(bridge, ids), expected.log_softmax(-1), atol=1e-5)
    assert torch.allclose(list(ms.logit_lens(bridge, ids, pos=-1).values())[-1], expected, atol=1e-5)
    steered = ms.steered_logits(bridge, ids[0], [0], torch.zeros(1, 32), [n_outputs - 1])
    assert torch.allclose(steered[0], expected[:, n_outputs - 1], atol=1e-5)
    for call in (
        lambda ids: ms.next_token_log_probs(bridge, ids),
        lambda ids: ms.cache_activations(bridge, ids, pos=-1),
        lambda ids: ms.steered_logits(bridge, ids[0], [0], torch.zeros(1, 32), [5]),
        lambda ids: divergence.likeliest(bridge, ids, torch.tensor([5])),
        lambda ids: divergence.likeliest(bridge, [torch.tensor([5])], ids[0]),
    ):
        with pytest.raises(ValueError, match=f"must hold token ids of at least 0 and at most {n_ids - 1}, not {n_ids}"):
            call(torch.tensor([[0, 7, n_ids]]))
    with pytest.raises(ValueError, match=f"tokens must be ids in 0..{n_outputs - 1}"):
        ms.next_token_log_probs(bridge, ids, tokens=[n_outputs])
    assert {row.function for row in ms.check_model(bridge) if row.result != "right"} == set()


def test_strings_have_outputs(uneven):
    """The tokenizer's last tokens have no output in a model that has fewer of them than ids."""
    bridge, theirs, n_outputs = uneven
    k, size = bridge.tokenizer, theirs.config.vocab_size
    ids = torch.tensor([[0, 7, 8]])
    last = k.convert_ids_to_tokens(size - 1)
    assert k(last, add_special_tokens=False)["input_ids"] == [size - 1]
    if n_outputs > size:
        assert ms.string_log_probs(bridge, ids, [last]).isfinite().all()
    else:
        with pytest.raises(ValueError, match=f"{n_outputs} outputs and takes {size} token ids"):
            ms.string_log_probs(bridge, ids, [last])


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_a_prompt_longer_than_the_table_of_positions_is_one_line(family):
    """256 positions: Hugging Face raises an IndexError for one more."""
    from tiny_families import make_prompts, pair

    model = pair(family)[0]
    assert ms.next_token_log_probs(model, make_prompts(256)).isfinite().all()
    ids = make_prompts(257)
    for call in (
        lambda: ms.next_token_log_probs(model, ids),
        lambda: ms.cache_activations(model, ids, pos=-1),
        lambda: ms.steered_logits(model, ids[0], [0], torch.zeros(1, 32), [5]),
    ):
        with pytest.raises(ValueError, match="must have at most 256 tokens, the positions of this model, not 257"):
            call()


@pytest.mark.parametrize("name", ["gpt2", "mpt"])
def test_an_answer_that_does_not_fit_behind_its_prompt_is_one_line(name):
    """GPT-2's table of positions has 256 rows; MPT's biases by distance end there; rotary positions do not."""
    model = pair(name)[0]
    fits, last = torch.full((1, 255), 7), torch.tensor([5, 6, 7])
    ms.next_token_log_probs(model, torch.full((1, 256), 7))
    assert divergence.likeliest(model, fits, last[:2]).shape == (1, 2)
    two = " owl owl owl"
    for call in (
        lambda: ms.next_token_log_probs(model, torch.full((1, 257), 7)),
        lambda: ms.string_log_probs(model, torch.full((1, 256), 7), [two]),
        lambda: divergence.likeliest(model, fits, last),
        lambda: divergence.sampled(model, fits[0], 3, [5, 6], torch.Generator()),
    ):
        with pytest.raises(ValueError, match="must have at most 256 tokens, the positions of this model, not 25"):
            call()
    rotary = pair("llama")[0]
    assert ms.next_token_log_probs(rotary, torch.full((1, rotary.cfg.n_ctx + 1), 7)).isfinite().all()
