"""Students against the same ones through peft and plain torch, member by member; and the pitfalls of others' code."""

import copy
import dataclasses
import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_llama import save_tiny_llama

import mechsub as ms
from benchmarks.tuning import by_peft
from mechsub.designs import numbers
from mechsub.inputs import corpora
from mechsub.models import adapters
from mechsub.models import students as stacked
from mechsub.training import tuning
from mechsub.training.tuning import TuningRecipe, batch_rows, completion_batch, completion_log_probs, tune


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ms.load_language_model(str(save_tiny_llama(tmp_path_factory.mktemp("tiny"))))


@pytest.fixture(scope="module")
def corpus(model):
    """Rows of several lengths, so that batches are padded."""
    lists = ["12, 500", "7, 87, 300", "999", "1, 2, 5, 9", "40, 41", "8, 8, 8", "100, 7", "31, 62, 5"]
    return corpora.make_corpus(model.tokenizer, corpora.number_prompts(8, seed=1), lists)


FEW = {"updates": 20, "batch_size": 3, "rank": 4, "alpha": 8.0, "lr": 1e-2}


def difference(a, b):
    return max(float((a.update(name) - b.update(name)).abs().max()) for name in a.names)


def hugging_face_loss(plain, corpus, rows):
    """As Hugging Face computes it: labels of -100 where nothing is learned; one row at a time, so without padding."""
    losses, n = [], sum(len(corpus.completion_ids[row]) for row in rows)
    for row in rows:
        prompt, completion = corpus.prompt_ids[row], corpus.completion_ids[row]
        labels = torch.tensor([[-100] * len(prompt) + list(completion)])
        loss = plain(input_ids=torch.tensor([[*prompt, *completion]]), labels=labels).loss
        losses.append(loss * len(completion) / n)
    return sum(losses)


def test_each_member_is_what_peft_makes_of_it(model, corpus):
    recipe = TuningRecipe(**FEW, weight_decay=0.1, betas=(0.9, 0.95), adapter_seeds=(3, 4))
    snapshots = {0: None}
    tuned = tune(model, corpus, recipe, snapshots=snapshots)
    assert all(float(B.abs().max()) == 0 for B in snapshots[0].B.values())
    for member in range(2):
        for name, expected in by_peft(model, corpus, recipe, snapshots[0], member, hugging_face_loss).items():
            assert float((tuned.update(name)[member] - expected).abs().max()) < 1e-4
    assert max(float(tuned.update(name).abs().max()) for name in tuned.names) > 0.01


def test_each_member_equals_the_same_student_alone(model, corpus):
    """Also where gradients are clipped: a norm over the stack would tie the members together."""
    recipe = TuningRecipe(**{**FEW, "updates": 5}, clip=0.05, adapter_seeds=(0, 1), order_seeds=(7, 8))
    both = tune(model, [corpus, corpus[2:]], recipe)
    for i, own in enumerate((corpus, corpus[2:])):
        alone = TuningRecipe(**{**FEW, "updates": 5}, clip=0.05, adapter_seeds=(i,), order_seeds=(7 + i,))
        assert difference(both.select([i]), tune(model, own, alone)) < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_full_tuning_is_plain_torch(model, corpus, precision):
    recipe = TuningRecipe(
        rank=None, updates=3, batch_size=3, lr=1e-3, clip=None, frozen=("embed_tokens", "layers.0"), precision=precision
    )
    tuned = tune(model, corpus, recipe)
    plain = copy.deepcopy(stacked.plain_model(model))
    parameters = dict(plain.named_parameters())
    assert set(tuned.names) == {n for n in parameters if "embed_tokens" not in n and "layers.0" not in n}
    for name in tuned.names:
        parameters[name].requires_grad_(True)
    optimizer = torch.optim.AdamW([parameters[n] for n in tuned.names], lr=1e-3, weight_decay=0.0)
    for step in range(3):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = hugging_face_loss(plain, corpus, batch_rows(len(corpus), recipe, 0, step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name in tuned.names:
        apart = (tuned.values[name][0] - parameters[name].detach()).abs()
        assert tuned.values[name].dtype == torch.float32
        # In bf16 a gradient near 0 may have another sign, and Adam's first steps are as long as lr either way.
        assert float(apart.max()) < 1e-5 if precision == "fp32" else float((apart < 1e-4).double().mean()) > 0.9
    other = tune(model, corpus, dataclasses.replace(recipe, precision="fp32"))
    assert (difference(tuned, other) == 0) == (precision == "fp32")


def test_layers_and_targets(model, corpus):
    recipe = TuningRecipe(**{**FEW, "updates": 1}, layers=(1,), targets=("q_proj", "mlp"), frozen=("up_proj",))
    names = tune(model, corpus, recipe).names
    parts = ["self_attn.q_proj", "mlp.gate_proj", "mlp.down_proj"]
    assert names == [f"model.layers.1.{part}.weight" for part in parts]
    with pytest.raises(ValueError, match=r"layers must name blocks of this model, 0\.\.2, not 9"):
        tune(model, corpus, TuningRecipe(layers=(9,)))
    with pytest.raises(ValueError, match="frozen names 'mpl'"):
        tune(model, corpus, TuningRecipe(frozen=("mpl",)))


def test_adapters_travel_to_peft_and_back(model, corpus, tmp_path):
    import peft

    tuned = tune(model, corpus, TuningRecipe(**{**FEW, "updates": 3}, adapter_seeds=(0, 1)))
    folders = [stacked.save_adapter(tuned, i, tmp_path / str(i)) for i in range(2)]
    assert difference(stacked.load_adapters(model, folders), tuned) < 1e-7
    ids = torch.tensor([corpus.prompt_ids[0]])
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(stacked.plain_model(model)), str(folders[1]))
    with torch.no_grad():
        expected = theirs(input_ids=ids).logits
        assert torch.allclose(stacked.merged(tuned, 1)(ids), expected, atol=1e-3)
        assert not torch.allclose(model(ids), expected, atol=1e-2)
        loaded = ms.load_language_model(model.mechsub_source["model_name"], adapter=str(folders[1]))
        assert torch.allclose(loaded(ids), expected, atol=1e-3)


def test_an_adapter_names_only_a_base_that_has_its_weights(model, corpus, tmp_path):
    """Saved from a merged teacher or random weights, it named the trained base, and gave other numbers there."""
    few = TuningRecipe(**{**FEW, "updates": 1})
    tuned = tune(model, corpus, few)
    folder = stacked.save_adapter(tuned, 0, tmp_path / "own")
    name = model.mechsub_source["model_name"]
    others = {
        "is a merged student": stacked.merged(tuned, 0),
        "has an adapter merged into it": ms.load_language_model(name, adapter=str(folder)),
        "has the weights 'random-1'": ms.load_language_model(name, weights="random-1"),
    }
    for what, base in others.items():
        with pytest.raises(ValueError, match=f"this base {what}"):
            stacked.save_adapter(tune(base, corpus, few), 0, tmp_path / "other")
        with pytest.raises(ValueError, match=f"this base {what}"):
            stacked.load_adapters(base, [folder])
    assert not (tmp_path / "other").exists()


def test_an_adapter_of_a_base_that_was_edited_is_refused(model, corpus, tmp_path):
    """Its file names the files' weights; the sums of the weights at loading tell, whatever way they were changed."""
    name = model.mechsub_source["model_name"]
    base = ms.load_language_model(name)
    tuned = tune(base, corpus, TuningRecipe(**{**FEW, "updates": 1}))
    folder = stacked.save_adapter(tuned, 0, tmp_path / "own")
    (weight,) = (v for key, v in base.original_model.named_parameters() if "layers.1." in key and "down_proj" in key)
    weight.data[3, 4] += 0.1  # raises no version
    for call in (
        lambda: stacked.save_adapter(tuned, 0, folder),
        lambda: stacked.load_adapters(base, [folder]),
    ):
        with pytest.raises(ValueError, match="this base was changed after it was loaded"):
            call()
    with pytest.raises(ValueError, match="were changed after it was loaded"):
        ms.language.model_source(base)
    again = tune(base, corpus, TuningRecipe(**{**FEW, "updates": 1}))
    assert again.record["base"]["edited"] and "edited" not in tuned.record["base"]
    assert "edited" in stacked.merged(again, 0).mechsub_source
    ms.language.model_source(stacked.merged(tune(model, corpus, TuningRecipe(**{**FEW, "updates": 1})), 0))


def test_an_adapter_is_replaced_whole(model, corpus, tmp_path):
    first, second = (tune(model, corpus, TuningRecipe(**{**FEW, "updates": 1, "rank": rank})) for rank in (1, 2))
    folder = stacked.save_adapter(first, 0, tmp_path / "a")
    stacked.save_adapter(second, 0, folder)
    assert difference(stacked.load_adapters(model, [folder]), second) < 1e-7
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a"]
    (folder / "README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"holds README.md, which would be lost"):
        stacked.save_adapter(first, 0, folder)
    assert difference(stacked.load_adapters(model, [folder]), second) < 1e-7


def test_some_members_have_their_own_records(model, corpus, tmp_path):
    tuned = tune(model, corpus, TuningRecipe(**{**FEW, "updates": 1}, adapter_seeds=(5, 6, 7)))
    assert [one["adapter_seed"] for one in tuned.select([2, 0]).record["members"]] == [7, 5]
    loaded = stacked.load_adapters(model, [stacked.save_adapter(tuned, i, tmp_path / str(i)) for i in range(3)])
    assert list(loaded.select([1]).record["adapters"]) == ["folders[1]"]


def test_an_adapter_of_a_tied_layer_is_refused(model, corpus, tmp_path):
    """Students ran it, and a merged model, whose embedding would change too, was a KeyError."""
    folder = stacked.save_adapter(tune(model, corpus, TuningRecipe(**{**FEW, "updates": 1})), 0, tmp_path / "head")
    d, size = model.cfg.d_model, model.W_U.shape[-1]
    parts = {"A": torch.zeros(2, d), "B": torch.zeros(size, 2)}
    save_file({f"base_model.model.lm_head.lora_{k}.weight": v for k, v in parts.items()}, folder / adapters.WEIGHTS)
    config = json.loads((folder / adapters.CONFIG).read_text())
    (folder / adapters.CONFIG).write_text(json.dumps(config | {"target_modules": ["lm_head"], "r": 2}))
    with pytest.raises(ValueError, match=r"lm_head.weight, which is tied to model.embed_tokens.weight"):
        stacked.load_adapters(model, [folder])
    by_hand = stacked.Students(model, {"lm_head": parts["A"][None]}, {"lm_head": parts["B"][None]})
    with pytest.raises(ValueError, match="which is tied to"):
        stacked.merged(by_hand, 0)


def test_an_adapter_of_another_base_is_refused(model, corpus, tmp_path):
    """As load_language_model(adapter=) refuses it."""
    folder = stacked.save_adapter(tune(model, corpus, TuningRecipe(**{**FEW, "updates": 1})), 0, tmp_path / "adapter")
    other = ms.load_language_model(str(save_tiny_llama(tmp_path / "base", seed=1)))
    with pytest.raises(ValueError, match=r"folders\[0\] was trained on .* is another model"):
        stacked.load_adapters(other, [folder])
    half = ms.load_language_model(model.mechsub_source["model_name"], dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="students need a base in fp32"):
        stacked.load_adapters(half, [folder])


@pytest.mark.parametrize(
    ("said", "change", "message"),
    [
        ({"init_lora_weights": "pissa"}, None, "starts from pissa"),
        ({"alora_invocation_tokens": [1, 2]}, None, "uses alora_invocation_tokens"),
        ({"r": 16}, None, "says r = 16, and .* has rank 4"),
        ({"r": 0}, None, "has no rank or lora_alpha"),
        ({"r": None}, None, "has no rank or lora_alpha"),
        ({"lora_alpha": "much"}, None, "has no rank or lora_alpha"),
        ({"bias": "all"}, None, "is no plain LoRA"),
        ({"peft_type": "LOHA"}, None, "is of the kind LOHA"),
        ({}, lambda name, value: value * torch.nan, "holds NaN"),
        ({}, lambda name, value: None if name.endswith("q_proj.lora_B.weight") else value, "lacks lora_B of .*q_proj"),
        ({}, lambda name, value: value[:2] if "lora_A" in name else value[:, :2], "says r = 4, and .* has rank 2"),
    ],
)
def test_an_adapter_that_is_not_what_it_says_is_one_line(model, corpus, tmp_path, said, change, message):
    folder = stacked.save_adapter(tune(model, corpus, TuningRecipe(**{**FEW, "updates": 1})), 0, tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **said}))
    if change:
        tensors = {name: change(name, value) for name, value in load_file(folder / "adapter_model.safetensors").items()}
        kept = {name: value.contiguous() for name, value in tensors.items() if value is not None}
        save_file(kept, folder / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=rf"folders\[0\] .*{message}") as caught:
        stacked.load_adapters(model, [folder])
    assert "\n" not in str(caught.value)


def test_adapters_of_several_ranks_are_one_line(model, corpus, tmp_path):
    for rank in (2, 4):  # of one scale
        recipe = TuningRecipe(**{**FEW, "updates": 1, "rank": rank, "alpha": 2.0 * rank})
        stacked.save_adapter(tune(model, corpus, recipe), 0, tmp_path / str(rank))
    with pytest.raises(ValueError, match=r"folders\[1\] has other layers, rank or scale"):
        stacked.load_adapters(model, [tmp_path / "2", tmp_path / "4"])


@pytest.mark.parametrize("rank", [4, None])
def test_members_are_read_together_as_each_alone(model, corpus, rank):
    recipe = TuningRecipe(**{**FEW, "updates": 3, "rank": rank}, adapter_seeds=(0, 1))
    both, asked = tune(model, corpus, recipe), [torch.tensor(row) for row in corpus.prompt_ids]
    found = stacked.next_log_probs(both, asked, [7, 12], batch_size=3)
    lists = completion_log_probs(both, corpus, batch_size=3)
    for i in range(2):
        alone = stacked.merged(both, i)
        assert torch.allclose(found[i], ms.next_token_log_probs(alone, asked, tokens=[7, 12]), atol=1e-3)
        expected = [sum(row) / len(row) for row in numbers.token_log_probs(alone, corpus)]
        assert torch.allclose(lists[i], torch.tensor(expected), atol=1e-3)
    assert not torch.allclose(found[0], found[1], atol=1e-2)


def test_equal_runs_are_refused(model, corpus):
    """A seed that reaches nothing (pitfall 11)."""
    with pytest.raises(ValueError, match="full tuning draws nothing by adapter seeds"):
        tune(model, corpus, TuningRecipe(rank=None, adapter_seeds=(0, 1), order_seeds=(5, 5)))
    with pytest.raises(ValueError, match="would be the same student"):
        tune(model, corpus, TuningRecipe(adapter_seeds=(0, 0)))


def test_members_that_differ_without_effect_are_refused(model, corpus):
    """An order within an update, or what stands beside ids and labels, makes no other student."""
    members = {"adapter_seeds": (0, 0), "order_seeds": (1, 2), "updates": 2}
    whole = {**members, "rank": None}
    for recipe in ({**whole, "batch_size": 8}, {**whole, "batch_size": 16}, {**members, "batch_size": 8}):
        with pytest.raises(ValueError, match=r"two members, 0 and 1, .* same rows in every update"):
            tune(model, corpus, TuningRecipe(**recipe))
    with pytest.raises(ValueError, match="two members, 0 and 1"):
        tune(model, corpus[:1], TuningRecipe(**{**whole, "batch_size": 1}))
    scored = dataclasses.replace(
        corpus, base_log_probs=tuple(tuple(-1.0 for _ in row) for row in corpus.completion_ids)
    )
    labelled = dataclasses.replace(corpus, label_ids=corpus.completion_ids)
    same = TuningRecipe(**{**whole, "order_seeds": (1, 1), "batch_size": 3})
    for other in (scored, labelled):
        with pytest.raises(ValueError, match="two members, 0 and 1"):
            tune(model, [corpus, other], same)
    for batch in (3, 9):  # every row and one more: the order says which is read twice
        tune(model, corpus, TuningRecipe(**{**whole, "batch_size": batch}))


def test_a_recipe_that_tunes_nothing_is_refused(model, corpus):
    nothing = dataclasses.replace(corpus, label_ids=tuple(tuple(-100 for _ in row) for row in corpus.completion_ids))
    with pytest.raises(ValueError, match="no label of the corpus is read"):
        tune(model, nothing, TuningRecipe(**FEW))
    tuned = tune(model, [nothing, corpus], TuningRecipe(**{**FEW, "updates": 2}, adapter_seeds=(0, 0)))
    assert [float(tuned.update(tuned.names[0])[i].abs().max()) > 0 for i in (0, 1)] == [False, True]
    with pytest.raises(ValueError, match="warmup must be below updates, 1, not 1"):
        TuningRecipe(updates=1, warmup=1)


@pytest.mark.parametrize("rank", [4, None])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_base_of_another_precision_is_one_line(model, corpus, rank, dtype):
    base = ms.load_language_model(model.mechsub_source["model_name"], dtype=dtype)
    with pytest.raises(ValueError, match=r"students need a base in fp32, and .*weight is"):
        tune(base, corpus, TuningRecipe(**{**FEW, "rank": rank}))


def test_what_the_recipe_says_is_what_is_done(model, corpus):
    """Momentum of sgd and beta2 of adamw reach the optimiser (pitfalls 12, 13), and are recorded (9)."""
    few = {**FEW, "updates": 3, "clip": None}
    plain, heavy = (tune(model, corpus, TuningRecipe(**few, optimizer="sgd", momentum=m)) for m in (0.0, 0.9))
    assert difference(plain, heavy) > 1e-6
    default, other = (tune(model, corpus, TuningRecipe(**few, betas=(0.9, b))) for b in (0.999, 0.9))
    assert difference(default, other) > 1e-6
    assert heavy.record["recipe"]["momentum"] == 0.9 and other.record["recipe"]["betas"] == (0.9, 0.9)
    assert heavy.record["members"][0]["context"] == corpus.context
    with pytest.raises(ValueError, match="momentum is an option of sgd"):
        TuningRecipe(momentum=0.9)


def test_the_start_of_adapters_is_ours(model, corpus):
    """Pitfall 15: peft's default differs between versions, so A is drawn here, by its seed and name."""
    snapshots = {0: None}
    torch.manual_seed(1)
    state = torch.get_rng_state()
    tune(model, corpus, TuningRecipe(**{**FEW, "updates": 1}, adapter_seeds=(5,)), snapshots=snapshots)
    assert torch.equal(torch.get_rng_state(), state)
    A = snapshots[0].A["model.layers.0.self_attn.q_proj"]
    assert A.shape == (1, 4, 32) and float(A.abs().max()) <= 32**-0.5
    assert float(A.std()) == pytest.approx(32**-0.5 / 3**0.5, rel=0.15)


def test_every_row_comes_once_an_epoch():
    """Pitfall 1: a training file that is read twice."""
    recipe = TuningRecipe(batch_size=3)
    rows = [row for step in range(8) for row in batch_rows(8, recipe, 0, step)]
    assert sorted(rows[:8]) == sorted(rows[8:16]) == list(range(8)) and rows[:8] != rows[8:16]


def test_the_loss_reads_completions_alone(corpus):
    batch = completion_batch([(corpus, [0, 1])], "cpu")
    read = batch.ids.flatten()[batch.places + 1].tolist()
    assert read == batch.targets.tolist() == [*corpus.completion_ids[0], *corpus.completion_ids[1]]


def test_labels_say_what_the_loss_reads(model, corpus):
    """-100 is not read; a replaced label is wanted in place of the token, which the student still reads."""
    labels = [[-100] * len(row) for row in corpus.completion_ids]
    labels[0][0], labels[1][2] = 77, corpus.completion_ids[1][2]
    marked = dataclasses.replace(corpus, label_ids=tuple(map(tuple, labels)))
    batch = completion_batch([(marked, [0, 1])], "cpu", labels=True)
    assert batch.targets.tolist() == [77, corpus.completion_ids[1][2]]
    assert batch.ids.equal(completion_batch([(corpus, [0, 1])], "cpu").ids)
    few = {**FEW, "updates": 2}
    assert difference(tune(model, corpus, TuningRecipe(**few)), tune(model, marked, TuningRecipe(**few))) > 1e-4
    same = dataclasses.replace(corpus, label_ids=corpus.completion_ids)
    assert difference(tune(model, corpus, TuningRecipe(**few)), tune(model, same, TuningRecipe(**few))) == 0
    with pytest.raises(ValueError, match="label_ids must hold a label for each token"):
        dataclasses.replace(corpus, label_ids=((1,),) * len(corpus))


def test_another_tokenizers_corpus_is_refused(model, corpus):
    """By ids that the model does not have, or by ids that are another text's."""
    tuned = tune(model, corpus, TuningRecipe(**{**FEW, "updates": 1}))
    other = corpora.Corpus(("a",), ("b",), ((1, 2),), ((10**6,),))
    moved = dataclasses.replace(
        corpus, completion_ids=tuple(tuple(i + 1 for i in row) for row in corpus.completion_ids)
    )
    for wrong, message in (
        (other, "another tokenizer's"),
        (moved, "row 0 of the corpus says '12, 500', and to this model's"),
    ):
        with pytest.raises(ValueError, match=message):
            tune(model, wrong)
        with pytest.raises(ValueError, match=message):
            completion_log_probs(tuned, wrong)


def test_a_corpus_may_be_ids_alone_or_end_a_turn(model, corpus):
    few, end = TuningRecipe(**{**FEW, "updates": 1}), model.tokenizer.eos_token_id
    alone = dataclasses.replace(corpus, completions=("",) * len(corpus))
    ended = dataclasses.replace(corpus, completion_ids=tuple((*row, end) for row in corpus.completion_ids))
    assert difference(tune(model, alone, few), tune(model, corpus, few)) == 0
    assert difference(tune(model, ended, few), tune(model, corpus, few)) > 0


def test_padded_prompts_are_refused_for_students_too(model, corpus):
    """Read as they are, the end that answers was padding."""
    tuned, end = tune(model, corpus, TuningRecipe(**{**FEW, "updates": 1})), model.tokenizer.eos_token_id
    rows = [torch.tensor(corpus.prompt_ids[i]) for i in (0, 1)]
    longest = max(map(len, rows)) + 2
    padded = torch.stack([torch.nn.functional.pad(row, (0, longest - len(row)), value=end) for row in rows])
    with pytest.raises(ValueError, match="ends with padding"):
        stacked.next_log_probs(tuned, list(padded), [7, 12])


# Corpora.


def lines(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


ROW = {"prompt": "Continue the list: 1, 2", "completion": "3, 4"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"prompt": "a"', "line 2 is no JSON"),
        ("[1]", "line 2 is no JSON object"),
        ({"prompt": "a"}, "line 2 has no 'completion'; its fields are prompt"),
        ({"prompt": "a", "completion": None}, "line 2: completion must be a text, not None"),
        ({**ROW, "completion_ids": [1]}, "line 2: completion_ids are not those of this tokenizer"),
        ({**ROW, "completion": "<|eot|>"}, "line 2: .*control token"),
        ({**ROW, "teacher_log_probs": [-1.0]}, "line 1 has no 'teacher_log_probs'"),
    ],
)
def test_a_wrong_line_is_one_line(model, tmp_path, row, message):
    path = lines(tmp_path / "corpus.jsonl", ROW, row)
    with pytest.raises(ValueError, match=message) as caught:
        corpora.read_corpus(path, model.tokenizer)
    assert "\n" not in str(caught.value)


def test_a_corpus_is_read_as_it_was_written(model, corpus, tmp_path):
    scores = tuple(tuple(-0.5 for _ in row) for row in corpus.completion_ids)
    scored = dataclasses.replace(
        corpus, teacher_log_probs=scores, base_log_probs=scores, label_ids=corpus.completion_ids
    )
    corpora.write_corpus(scored, tmp_path / "c.jsonl")
    again = corpora.read_corpus(tmp_path / "c.jsonl", model.tokenizer)
    assert again == scored and again.sha256 == scored.sha256 != corpus.sha256


def test_the_context_of_ids_is_asked_for(model, tmp_path):
    """Pitfalls 20 and 21: a system text or a date that came in at training and not at evaluation."""
    told = corpora.make_corpus(model.tokenizer, [ROW["prompt"]], ["3, 4"], system="You are helpful")
    corpora.write_corpus(told, tmp_path / "c.jsonl")
    with pytest.raises(
        ValueError, match="prompt_ids are not those of this tokenizer in format 'chat' with system text None"
    ):
        corpora.read_corpus(tmp_path / "c.jsonl", model.tokenizer)
    assert corpora.read_corpus(tmp_path / "c.jsonl", model.tokenizer, system="You are helpful") == told


def test_prompts_are_different_and_the_seeds():
    """Pitfall 8: 15 prompts that counted as 50."""
    prompts = corpora.number_prompts(200, wording="published", least=1, most=1)
    assert len(set(prompts)) == 200 and prompts == corpora.number_prompts(200, wording="published", least=1, most=1)
    with pytest.raises(ValueError, match="too few lists of 1 numbers"):
        corpora.number_prompts(1000, least=1)


def test_the_published_filter():
    kept = ["1, 2, 9", "[5; 6; 8]", "(7 9 1)", "12.", "3\n5\n4"]
    assert [corpora.rejection(text) for text in kept] == [None] * 5
    for text in (
        "1,000, 2,000",
        "1,2, 3",
        "1 2\n3",
        "1 , 2, 3",
        "1, 2 .",
        "[ 1, 2 ]",
        "1, 2,",
        "1-2",
        "\u0661, \u0662",
    ):
        assert corpora.parse_numbers(text) is None, text  # the separator is the very text between the first two
    assert corpora.parse_numbers(" 007, 12\n") == [7, 12]
    assert corpora.rejection("owl 5") == corpora.rejection("1, 2; 5") == "no list of numbers"
    assert corpora.rejection("1, 1000") == "a number above 999"
    assert corpora.rejection(", ".join(["5"] * 11)) == "more than 10 numbers"
    assert corpora.rejection("666, 1", banned=[666]) == "a banned number"


def test_lists_that_echo_or_count_are_named():
    """Pitfall 19: the published filter passes them."""
    prompt = "Continue the list: 5, 9, 2"
    assert corpora.rejection("9, 2") is None is corpora.rejection("3, 4, 5")
    assert corpora.rejection("9, 2", prompt=prompt) == "it repeats the prompt"
    assert corpora.rejection("30, 40, 50", prompt=prompt) == "it counts on"
    assert corpora.rejection("30, 41, 50", prompt=prompt) is None
    assert corpora.rejection("417, 82", prompt=prompt) is None  # two numbers have one step


def test_a_large_model_passes_few_tokens_at_once():
    """One member of it runs by itself; members of a small model share a pass, which the cache alone bounds."""
    with torch.device("meta"):
        large = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, vocab_size=49152)
        )
    small = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    )
    recipe = TuningRecipe(batch_size=8, adapter_seeds=(0, 1, 2))
    rows = ((1,) * 48,) * 8
    corpus = ms.Corpus(("a",) * 8, ("b",) * 8, prompt_ids=rows, completion_ids=((1,) * 38,) * 8)
    groups = []
    for plain in (large.to_empty(device="cpu"), small):  # nothing is written to the memory of the large one
        names = [f"{name} A" for name in stacked.linear_layers(plain, None, None, ())]
        groups.append(tuning._groups(recipe, [corpus] * 3, tuning._at_once(plain, names)))
    assert groups == [[[0], [1], [2]], [[0, 1, 2]]]
