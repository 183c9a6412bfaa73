"""Models in which one property is broken on purpose: each is noticed, by a refusal or by a slower way that is right."""

import ast
import warnings
from functools import cache
from pathlib import Path

import pytest
import torch
from tiny_families import STRINGS, TOKENS, Draw, make_prompts, pair, truth

import mechsub as ms
from mechsub.models import checks

SOURCE = Path(__file__).parent.parent


@pytest.fixture
def llama():
    return pair("llama")[0]


@pytest.fixture
def ids():
    return make_prompts()


def calls(model, ids):
    """Functions that read final states, gains or the residual."""
    return {
        "strings": lambda: ms.string_log_probs(model, list(ids), STRINGS),
        "lens": lambda: ms.logit_lens(model, ids, pos=-1),
        "unembed": lambda: ms.unembed(model, torch.randn(2, 32).to(model.W_U.dtype)),
        "cosine": lambda: ms.unembed_projection(model, [1, 2], [3]),
        "centred": lambda: ms.unembed_projection(model, [1, 2], [3], "centered_cosine"),
        "price": lambda: ms.price(model, [1, 2], [3, 4]),
        "coordinate": lambda: ms.direct_logit_attribution(model, ids, TOKENS, pos=-1),
        "component": lambda: ms.direct_logit_attribution(model, ids, TOKENS, pos=-1, unit="component"),
    }


def refused(model, ids) -> set[str]:
    out = set()
    for name, call in calls(model, ids).items():
        try:
            call()
        except ValueError as error:
            assert "\n" not in str(error)
            out.add(name)
    return out


def test_nothing_is_refused_of_a_whole_model(llama, ids):
    assert refused(llama, ids) == set()


@pytest.mark.parametrize("change", [lambda z: 0.5 * z, lambda z: 5 * torch.tanh(z / 5), lambda z: z + z.roll(1, -1)])
def test_a_hidden_change_of_the_logits_is_noticed(llama, ids, change):
    llama.unembed.register_forward_hook(lambda _module, _inputs, out: change(out))
    assert refused(llama, ids) == set(calls(llama, ids))


def test_a_norm_whose_gain_is_not_its_weight_is_measured(llama, ids):
    """The gain of what the norm does is right though the weight says something else: three times it, turned round."""
    norm = llama.ln_final.original_component
    true = 3 * norm.weight.detach().flip(0)
    llama.ln_final.register_forward_hook(lambda _m, args, out: out / norm.weight * true)
    assert torch.allclose(checks.final_norm(llama).gain, true, rtol=1e-4)
    W = llama.W_U.detach() * true[:, None]
    W = torch.nn.functional.normalize(W - W.mean(-1, keepdim=True), dim=0)
    assert torch.allclose(ms.unembed_projection(llama, [1], [3], "centered_cosine")[0, 0], W[:, 1] @ W[:, 3], atol=1e-4)
    for unit in ("coordinate", "component", "head"):
        found = ms.direct_logit_attribution(llama, ids, TOKENS, pos=-1, unit=unit)
        with torch.no_grad():
            assert torch.allclose(found.logits, llama(ids)[:, -1, TOKENS], atol=1e-3)


def test_a_norm_that_is_no_norm_has_no_gain(llama, ids):
    llama.ln_final.register_forward_hook(lambda _m, _args, out: torch.tanh(out))
    assert refused(llama, ids) == {"centred", "price", "component"}


def test_a_block_that_adds_something_else_is_noticed(llama, ids):
    original = llama.blocks[1].original_component
    extra = torch.randn(32)
    original.register_forward_hook(lambda _m, _args, out: out + extra)
    assert refused(llama, ids) == {"component"}


def test_something_between_the_blocks_is_noticed(llama, ids):
    llama.blocks[2].register_forward_pre_hook(lambda _m, args: (1.01 * args[0], *args[1:]))
    assert refused(llama, ids) == {"component"}


def test_something_between_norm_and_unembedding_is_noticed(llama, ids):
    """Only what reads earlier states through the norm needs it to be the last step."""
    llama.unembed.register_forward_pre_hook(lambda _m, args: (args[0] + 1,))
    assert {"lens", "unembed", "centred", "price", "component"} <= refused(llama, ids)


def test_a_mask_that_is_ignored_is_noticed_and_strings_run_alone(ids):
    """No mask of branches reaches the attention: what is returned is that of strings and edits on their own."""
    model, theirs = pair("llama")
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(2))
    right = truth(theirs, ids, [0, 1, 2], vectors)
    inner = model.original_model.model
    whole = inner.forward
    inner.forward = lambda *args, **kwargs: whole(*args, **{**kwargs, "attention_mask": None})
    with pytest.warns(UserWarning, match="strings run one by one"):
        found = ms.string_log_probs(model, list(ids), STRINGS)
    assert torch.allclose(found.double(), right.strings, atol=1e-3)
    with pytest.warns(UserWarning, match="every edit runs with the whole prompt"):
        steered = ms.steered_logits(model, ids[0], [0, 1, 2], vectors, TOKENS)
    assert torch.allclose(steered, right.steered, atol=1e-3)
    with warnings.catch_warnings():  # said once
        warnings.simplefilter("error")
        ms.string_log_probs(model, list(ids), STRINGS)


def test_prompts_within_the_window_run_together_and_longer_ones_alone():
    model, theirs = pair("mistral, window", Draw(window=16))
    for length, apart in ((6, False), (20, True)):
        ids = make_prompts(length)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = ms.string_log_probs(model, list(ids), STRINGS)
        assert bool(said) == apart
        expected = torch.stack([_alone(theirs, ids, string, model.tokenizer) for string in STRINGS], dim=1)
        assert torch.allclose(found, expected, atol=1e-3)


def test_a_window_is_seen_through_attention_that_has_settled():
    """One block whose scores are of tens of nats: a random prompt would not show that it may see one token less."""
    from tiny_families import drawn, judge

    draw, length = drawn("mistral, window", 6)
    assert draw.layers == 1 and draw.window == 5
    assert judge("mistral, window", draw, length, torch.float64)["strings"] < 1e-3


@torch.no_grad()
def _alone(theirs, ids, string, tokenizer):
    tail = torch.tensor(tokenizer(string, add_special_tokens=False)["input_ids"])
    rows = theirs(torch.cat([ids, tail.expand(len(ids), -1)], 1)).logits.log_softmax(-1)
    return sum(rows[:, ids.shape[1] - 1 + i, token] for i, token in enumerate(tail))


def test_edited_weights_are_looked_at_again(llama):
    first = checks.final_norm(llama)
    assert checks.final_norm(llama) is first
    with torch.no_grad():
        llama.ln_final.original_component.weight.mul_(2)
    assert torch.allclose(checks.final_norm(llama).gain, 2 * first.gain)


@pytest.mark.parametrize("part", ["blocks.1.mlp", "ln_final"])
def test_train_mode_is_seen_wherever_it_is(llama, ids, part):
    llama.get_submodule(part).train()
    for name, call in {
        **calls(llama, ids),
        "next": lambda: ms.next_token_log_probs(llama, list(ids)),
        "steered": lambda: ms.steered_logits(llama, ids[0], [0], torch.zeros(1, 32), TOKENS),
    }.items():
        if name in ("unembed", "cosine", "centred", "price"):
            continue  # of weights: known from before
        with pytest.raises(ValueError, match=f"train mode .its part {part}"):
            call()


def test_train_mode_of_the_wrapped_model_is_seen(llama, ids):
    llama.original_model.training = True
    with pytest.raises(ValueError, match="train mode"):
        ms.next_token_log_probs(llama, list(ids))


def test_the_toy_goes_the_same_way(toy):
    table = {check.function: check.result for check in ms.check_model(toy)}
    refused = {name for name, result in table.items() if result == "refused"}
    assert refused == {"direct_logit_attribution, component", "direct_logit_attribution, head"}
    assert checks.readout(toy).scale == 1 and not checks.final_norm(toy).normalises


def test_the_table_says_what_is_refused_and_why():
    table = ms.check_model(pair("gemma2")[0])
    of = {check.function: check for check in table}
    assert of["logit_lens"].result == "right" and of["price"].result == "refused" and "soft cap" in of["price"].why
    assert of["string_log_probs"].result == "slower"  # 8 tokens and a window of 4
    assert repr(table).count("\n") == len(table) - 1 and "refused" in repr(table)


def test_the_table_has_every_public_function_that_takes_a_model():
    import inspect

    functions = [getattr(ms, name) for name in ms._NAMES]
    takes = {f.__name__ for f in functions if inspect.isfunction(f) and "model" in inspect.signature(f).parameters}
    in_table = {check.function.split(",")[0] for check in ms.check_model(pair("llama")[0])}
    toy = {"hidden_names", "accuracy", "accuracies", "mean_offset", "prior_offset", "train", "distill", "distill_each"}
    trains = {"tune"}  # it measures nothing
    assert takes - toy - trains - {"check_model"} <= in_table


def test_what_was_found_out_is_taken_from_a_record(llama, ids):
    kept = checks.record(llama)
    before = ms.direct_logit_attribution(llama, ids, TOKENS, pos=-1, unit="head")
    checks._KNOWN.clear()
    assert checks.recall(llama, kept) and checks.record(llama) == kept
    assert torch.equal(ms.direct_logit_attribution(llama, ids, TOKENS, pos=-1, unit="head").values, before.values)


HALF = ("llama", "gemma2", "gpt2", "cohere", "bloom", "mistral, window")


@cache
def full(name):
    return [row[:2] for row in ms.check_model(pair(name)[0])]


@pytest.mark.filterwarnings("ignore:this model does not give")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", HALF)
def test_half_precision_is_refused_where_fp32_is(name, dtype):
    """What holds in fp32 holds in bf16 and fp16, beside each other too; attribution sums to the logits of fp32."""
    model, theirs = pair(name, dtype=dtype)
    assert [row[:2] for row in ms.check_model(model)] == full(name)
    ids = make_prompts()
    with torch.no_grad():
        last = theirs.float()(ids).logits[:, -1, TOKENS]
    for unit in ("coordinate", "component", "head"):
        found = ms.direct_logit_attribution(model, ids, TOKENS, pos=-1, unit=unit)
        assert float((found.logits - last).abs().max()) < 16 * torch.finfo(dtype).eps * float(last.abs().max())


BREAKS = {
    "scaled": lambda model: model.unembed.register_forward_hook(lambda _m, _i, out: 0.95 * out),
    "capped": lambda model: model.unembed.register_forward_hook(lambda _m, _i, out: 5 * torch.tanh(out / 5)),
    "mixed": lambda model: model.unembed.register_forward_hook(lambda _m, _i, out: out + 0.1 * out.roll(1, -1)),
    "shifted": lambda model: model.unembed.register_forward_pre_hook(lambda _m, args: (args[0] + 0.2,)),
    "added": lambda model: model.blocks[1].original_component.register_forward_hook(
        lambda _m, _a, out: out + 0.2 * out.std() * torch.linspace(-1, 1, 32).to(out)
    ),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_model_is_noticed_in_half_precision(ids, name, dtype):
    model, _ = pair("llama", dtype=dtype)
    assert refused(model, ids) == set()
    BREAKS[name](model)
    assert "component" in refused(model, ids)
    assert name in ("shifted", "added") or refused(model, ids) == set(calls(model, ids))


GUARDED = {"b_U", "ln_final", "attention_mask", "position_ids", "apply_output_logits_transform"}
GUARDED_HOOKS = {"ln_final.hook_scale"}
# Of the toy alone, whose readout is in the same file, and what declares the names.
OF_THE_TOY = {
    "mechsub/models/mlp.py", "mechsub/measures/tangent.py", "mechsub/training/distillation.py",
    "mechsub/training/conv.py",
    "mechsub/models/tiny_transformer.py", "mechsub/designs/population.py", "studies/mechanism/gradients.py",
    "studies/conditions.py", "studies/channel.py", "studies/unembed_projection/toy.py",
}  # fmt: skip


def test_readouts_norms_and_masks_are_had_from_checks_alone():
    """A function that reads them of a model by itself would forget to ask whether they hold."""
    found = []
    for path in [*(SOURCE / "mechsub").rglob("*.py"), *(SOURCE / "studies").rglob("*.py")]:
        name = str(path.relative_to(SOURCE))
        if name == "mechsub/models/checks.py" or name in OF_THE_TOY:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            words = {getattr(node, "attr", None), getattr(node, "arg", None)}
            if words & GUARDED or (isinstance(node, ast.Constant) and node.value in GUARDED | GUARDED_HOOKS):
                found.append(f"{name}:{getattr(node, 'lineno', '?')}")
    assert not found, f"ask mechsub.models.checks instead: {found}"


def test_a_model_that_does_not_use_what_a_hook_returns_is_not_steered(ids):
    """Its hooks fire, and what they return is thrown away: runs with and without the change are alike, both wrong."""
    model = pair("llama")[0]
    run = model.run_with_hooks

    def ignored(hook_function):
        def hooked(activation, hook):
            hook_function(activation, hook=hook)

        return hooked

    def deaf(*args, fwd_hooks, **kwargs):
        hooks = [(name, ignored(each) if "blocks" in name else each) for name, each in fwd_hooks]
        return run(*args, fwd_hooks=hooks, **kwargs)

    model.run_with_hooks = deaf
    checks._KNOWN.pop(model, None)  # of before it was made deaf
    with pytest.raises(checks.Refused, match="does not use what its hook"):
        ms.steered_logits(model, ids[0], [0], torch.ones(1, 32), TOKENS)


def test_ensembles_read_no_other_members_embedding():
    """Token 20 of a vocabulary of 20 was the first token of the next member."""
    from mechsub.models.tiny_transformer import EnsembleTransformer, Shape

    model = EnsembleTransformer(Shape(d_model=8, n_heads=2, d_vocab=20), (0, 1))
    with pytest.raises(ValueError, match="tokens must hold token ids of at least 0 and at most 19, not 20"):
        model(torch.tensor([[1, 20]]))
    with pytest.raises(ValueError, match="d_model must be a multiple of n_heads"):
        Shape(d_model=10, n_heads=4)


LATE = 12  # a position behind the short prompt on which models are tried out


def late(change):
    """A hook that changes what a part puts out at late positions of long prompts alone."""

    def hook(_module, _inputs, out):
        if out.ndim != 3 or out.shape[1] <= LATE:
            return out
        out = out.clone()
        out[:, LATE:] = change(out)[:, LATE:]
        return out

    return hook


def _later(out):
    out = out.clone()
    out[:, LATE:] *= 3
    return out


@pytest.mark.parametrize("pos", [-1, LATE])
def test_a_hook_on_the_norm_at_late_positions_is_noticed_there_and_nowhere_else(llama, pos):
    tokens = torch.randint(60, (2, 16), generator=torch.Generator().manual_seed(3))
    llama.ln_final.register_forward_hook(late(lambda out: 3 * out))
    with pytest.raises(ValueError, match="ln_final of the last block's output is not what this model unembeds"):
        ms.logit_lens(llama, tokens, pos=pos)
    with pytest.raises(ValueError, match="ln_final of the last block's output is not what this model unembeds"):
        ms.direct_logit_attribution(llama, tokens, TOKENS, pos=pos, unit="component")
    for early in (LATE - 1, 0):
        lens = ms.logit_lens(llama, tokens, pos=early)
        with torch.no_grad():
            assert torch.allclose(list(lens.values())[-1], llama(tokens)[:, early], atol=1e-4)
        ms.direct_logit_attribution(llama, tokens, TOKENS, pos=early, unit="component")
    late_places = llama.ln_final.register_forward_hook(lambda module, inputs, out: _later(out))
    lens = ms.logit_lens(llama, tokens, pos=LATE - 1)  # its second axis is of positions, never of features
    with torch.no_grad():
        assert torch.allclose(list(lens.values())[-1], llama(tokens)[:, LATE - 1], atol=1e-4)
    late_places.remove()
    whole = ms.logit_lens(llama, tokens, batch_size=1)  # where the norm sees the positions
    with torch.no_grad():
        assert torch.allclose(list(whole.values())[-1], llama(tokens), atol=1e-4)
    assert refused(llama, tokens[:, :LATE]) == set()  # nothing of the calls before is kept


def test_edits_of_a_model_with_hooks_at_late_positions_are_those_of_single_runs(llama):
    prompt = torch.randint(60, (LATE + 1,), generator=torch.Generator().manual_seed(4))
    llama.blocks[1].original_component.register_forward_hook(
        late(lambda out: out + out.cumsum(1))  # a copy beside others would see them
    )
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(2))
    with pytest.warns(UserWarning, match="every edit runs with the whole prompt"):
        found = ms.steered_logits(llama, prompt, [0, 1, 2], vectors, TOKENS)
    for layer, (vector, own) in enumerate(zip(vectors, found, strict=True)):

        def add(activation, hook, vector=vector):
            activation[:, -1] += vector
            return activation

        with torch.no_grad():
            logits = llama.run_with_hooks(prompt[None], fwd_hooks=[(f"blocks.{layer}.hook_out", add)])
        assert torch.allclose(own, logits[0, -1, TOKENS], atol=1e-4)
