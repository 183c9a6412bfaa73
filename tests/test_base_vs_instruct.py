"""studies.base_vs_instruct on tiny random Llamas: hybrids, a planted head or body, and one model twice."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from tiny_llama import save_tiny_llama

from mechsub.designs import contribution_states as contribution_states
from mechsub.designs import love
from mechsub.lab import store, study
from mechsub.lab.findings import Cell, all_findings, find, slug
from mechsub.measures import exchange
from mechsub.measures.scores import interaction, next_token_log_probs
from studies import base_vs_instruct as bvi
from studies.base_vs_instruct import findings as report
from studies.report import language

N = 8  # animals and numbers: with two wordings and two formats, fewer constraints than d_model
SMALL = {"n_animals": N, "n_partners": N, "n_wordings": 2, "n_permutations": 100}
PLANTED, RIDGE = 20.0, 0.01  # nats before, and strength of, what ridge takes of them


def config(base, instruct, **more):
    return bvi.Config(base=str(base), instruct=str(instruct), **{**SMALL, **more})


def child(base, folder, change):
    """A copy of a saved model whose weights `change` has changed."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        change(model)
    shutil.copytree(base, folder)
    model.save_pretrained(folder)
    return folder


def noise(model, *names, scale=0.005):
    generator = torch.Generator().manual_seed(1)
    for name, value in model.named_parameters():
        if any(part in name for part in names):
            value += scale * value.std() * torch.randn(value.shape, generator=generator)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("pair") / "base", tied=False)


def prompts_of(base):
    """Of every format and wording, one prompt for each number; and the tokens of the animals."""
    cfg = config(base, base)
    pair = bvi.load(cfg)
    words = bvi.words_config(cfg, cfg.base)
    animals, numbers = love.choose_animals(pair["base"].tokenizer, words), love.choose_partners(words)
    asked = [love.LovePrompts(pair["base"], animals, numbers, bvi.words_config(cfg, cfg.base, f)) for f in bvi.FORMATS]
    return pair["base"], [[q.love(n, w) for n in range(N)] for q in asked for w in (0, 1)], asked[0].tokens


def wanted():
    """Animal i goes with number i."""
    return torch.cat([PLANTED * torch.eye(N)] * 4)


def solved(states):
    """[d, animal]: what turns the states of the four conditions, each centred, into the planted effects, by ridge."""
    x = torch.cat([some - some.mean(0) for some in states.split(N)]).double()
    gram = x.T @ x
    ridge = RIDGE * gram.trace() / len(gram) * torch.eye(len(gram))
    return torch.linalg.solve(gram + ridge, x.T @ interaction(wanted())).float()


@pytest.fixture(scope="module")
def head(base, tmp_path_factory):
    """A child whose unembedding alone joins numbers to animals; its embedding and blocks differ a little."""
    model, conditions, tokens = prompts_of(base)
    name = "unembed.hook_in"
    states = torch.cat([contribution_states.final(model, some, [name])[name] for some in conditions])

    def change(hf):
        noise(hf, "embed_tokens", "layers.")
        hf.lm_head.weight[tokens] += solved(states).T

    return child(base, tmp_path_factory.mktemp("pair") / "head", change)


@pytest.fixture(scope="module")
def body(base, tmp_path_factory):
    """A child whose last MLP alone writes a number's animal; its unembedding and norm differ a little."""
    model, conditions, tokens = prompts_of(base)
    name = "blocks.2.mlp.out.hook_in"
    found = [contribution_states.final(model, some, [name, "ln_final.hook_scale"]) for some in conditions]
    states, scale = (torch.cat([one[key] for one in found]) for key in (name, "ln_final.hook_scale"))

    def change(hf):
        noise(hf, "lm_head", "model.norm")
        rows = model.W_U[:, tokens] * model.ln_final.weight[:, None]  # to logits, but for the norm's scale
        write = solved(states) @ torch.linalg.pinv(rows - rows.mean(1, keepdim=True)) * scale.mean()
        hf.model.layers[2].mlp.down_proj.weight += write.T

    return child(base, tmp_path_factory.mktemp("pair") / "body", change)


def made(cfg):
    """The rows of a run, as the store would have them."""
    return [
        store.record_row(dataclasses.asdict(cfg), row)
        for row in bvi.run(cfg)
        if set(row) not in ({"provenance"}, {"tensors"})
    ]


def shares(records, form, measure="specific"):
    return {part: some.mean() for part, some in report.shares(report.hybrids(records, form), measure).items()}


def said(records, key):
    return find(report.findings(records), key)


@pytest.mark.parametrize("which", ["unembedding", "body"])
def test_the_planted_part_gets_the_share(base, request, which):
    records = made(config(base, request.getfixturevalue("head" if which == "unembedding" else "body")))
    for form in bvi.FORMATS:
        found = shares(records, form)
        others = max(abs(value) for part, value in found.items() if part != which)
        assert found[which] > 1 and others < 0.1 * found[which], found
        # The swap as published, of a tied model, changes the embedding too.
        head_swap = said(records, f"{form}_swap_into_base_untied/specific").value.mean
        assert head_swap == pytest.approx(found["unembedding"], abs=0.15 * found[which])
        contrast = said(records, f"instruct_{form}-base_{form}/specific")
        assert contrast.value.mean == pytest.approx(sum(found.values()), abs=1e-5)
    # Most fixed numbers are the planted ones (one of eight by chance), though chosen in another wording.
    chosen = {r["animal"]: r["number"] for r in records if r["kind"] == "animal"}
    numbers = [partner.text for partner in love.choose_partners(bvi.words_config(config(base, base), "x"))]
    assert sum(numbers.index(number) == i for i, number in enumerate(chosen.values())) >= N // 2
    assert bvi_plot(records).data


def bvi_plot(records):
    figure = report.plot(records)
    assert len(figure.layout.annotations) >= 7
    return figure


def test_a_model_that_caps_its_logits_is_refused(base):
    model = bvi.load(config(base, base))["base"]
    prompts = prompts_of(base)[1][0][:2]
    model.unembed.register_forward_hook(lambda module, args, out: 0.5 * torch.tanh(out / 0.5))
    with pytest.raises(ValueError, match="scales or caps"):
        exchange.log_probs(model, model, prompts, [1, 2])


def test_one_model_twice_has_no_difference(base):
    records = made(config(base, base))
    for form in bvi.FORMATS:
        for measure in ("specific", "published", "any number"):
            assert set(shares(records, form, measure).values()) == {0.0}
        for measure in report.MEASURES:
            contrast = said(records, f"instruct_{form}-base_{form}/{slug(measure)}")
            assert (contrast.value.low, contrast.value.high, contrast.p) == (0.0, 0.0, 1.0)
        assert said(records, f"base_and_instruct_{form}/correlation").value.mean == pytest.approx(1)
    keys = [finding.key for finding in report.findings(records)]
    assert not any("/gap_" in key and "plain-" in key for key in keys)
    assert bvi_plot(records).data


def test_a_row_is_the_sum_of_its_parts_and_the_ends_are_the_models(base, head):
    cfg = config(base, head)
    pair = bvi.load(cfg)
    found = bvi.measure(cfg, pair)
    for r in bvi._animal_records(found, bvi.fixed_numbers(found)):
        assert r["any number"] + r["number for all"] + r["specific"] == pytest.approx(r["published"], abs=1e-9)
    q = love.LovePrompts(pair["instruct"], found.animals, found.partners, bvi.words_config(cfg, cfg.instruct, "plain"))
    direct = next_token_log_probs(pair["instruct"], [q.love(n, 0) for n in range(N)], tokens=q.tokens)
    assert torch.allclose(found.arms["instruct", "plain"].measured.forward.float(), direct, atol=1e-4)
    assert found.arms["base", "plain"].measured.none.shape == (N,)


@pytest.mark.parametrize("tied", [True, False])
def test_a_hybrid_is_the_model_with_these_weights(tmp_path, tied):
    """Against one that Hugging Face runs, with the parts put into one untied model."""
    from transformers import AutoModelForCausalLM

    folders = [save_tiny_llama(tmp_path / str(i), tied=tied, seed=i) for i in (0, 1)]
    pair = bvi.load(config(*folders))
    ids = torch.arange(5, 25)
    found = exchange.log_probs(pair["base"], pair["instruct"], [ids], range(40))
    assert len(found) == 16
    first, second = (AutoModelForCausalLM.from_pretrained(f, attn_implementation="eager") for f in folders)
    for some in (frozenset(), {"embedding"}, {"body"}, {"norm", "unembedding"}, frozenset(exchange.PARTS)):
        with torch.no_grad():
            vectors = (second if "embedding" in some else first).model.embed_tokens(ids[None])
            states: list = []
            block = (second if "body" in some else first).model.layers[-1]
            hook = block.register_forward_hook(lambda m, x, y, to=states: to.append(y))
            (second if "body" in some else first).model(inputs_embeds=vectors)
            hook.remove()
            hidden = (second if "norm" in some else first).model.norm(states[0])
            logits = (second if "unembedding" in some else first).lm_head(hidden)[0, -1]
        assert torch.allclose(found[frozenset(some)][0], logits.log_softmax(-1)[:40], atol=1e-4)


def test_shared_numbers_and_their_null():
    lists = {"base": [["1"], ["2"], ["3"]], "instruct": [["1"], ["3"], ["3"]]}
    cell = [
        {"kind": "animal", "prompted": model, "format": "chat", "own": own} for model in lists for own in lists[model]
    ]
    seen, null = report.shared(cell, ("base", "chat"), ("instruct", "chat"), "own", 1)
    assert seen == [True, False, True] and null == pytest.approx(1 / 6)


def test_published_counts_have_their_null(base, head):
    records = made(config(base, head))
    found = list(report.findings(records))
    counts = [finding for finding in found if finding.score == "over_2x"]
    assert len(counts) == 7 and all("a random number" in finding.null_label for finding in counts)  # 4 arms, 3 pairs
    assert len([finding for finding in found if finding.score == "transfer"]) == 16
    own, other = (
        said(records, f"{arm}_to_instruct_chat/transfer").value.mean for arm in ("instruct_chat", "base_chat")
    )
    assert own > max(1, 2 * other)
    assert np.isfinite([finding.value.mean for finding in found]).all()
    assert all_findings([Cell({}, records, findings=found)]) == found  # each key once
    answer = language.base(found)
    assert (
        answer.verdict in ("confirmed", "partly", "refuted", "open", "not supported")
        and "nats in the base model" in answer.sentence
    )


def test_pairs_are_replicates_and_seeds_of_one_pair_are_not(base, head):
    options = dataclasses.asdict(config(base, head))
    cell = Cell(options, [], findings=list(report.findings(made(config(base, head)))))
    assert report.comparisons([cell]) == report.comparisons(
        [cell, dataclasses.replace(cell, options=options | {"seed": 1})]
    )
    other = dataclasses.replace(cell, options=options | {"base": "another"})
    found = {f.key: f for f in report.comparisons([cell, other])}
    own, pooled = cell.finding("base_chat/specific"), found["pairs_base_chat/specific"]
    assert pooled.value.mean == pytest.approx(own.value.mean - own.null) and (pooled.n, pooled.unit) == (
        2,
        "pairs of models",
    )


def test_the_child_is_named_as_repositories_name_it():
    names = {"organisms/110-base": "organisms/110-instruct", "a/M-7B": "a/M-7B-Instruct", "a/M-Base": "a/M-Instruct"}
    assert all(bvi.child(base) == child for base, child in names.items())
    explicit = bvi.Config(base="organisms/110-base", instruct="organisms/110-instruct")
    assert (
        explicit == bvi.Config(base="organisms/110-base")
        and bvi.names(explicit)["instruct"] == "organisms/110-instruct"
    )


# Bad input.


def test_bad_input_is_one_line(base, tmp_path, refused, capsys):
    pair = ["--base", str(base), "--instruct", str(base)]
    assert "--n-wordings must be 2 to 5" in refused(bvi, [*pair, "--n-wordings", "1"])
    assert "at least 8" in refused(bvi, [*pair, "--n-animals", "5"])
    assert "tools.ship_organism" in refused(bvi, ["--base", "organisms/no-such", *pair[2:]])
    plain = save_tiny_llama(tmp_path / "plain", template=False)
    capsys.readouterr()  # the library's own progress
    assert "no chat template" in refused(bvi, [*pair[:2], "--instruct", str(plain)])
    other = shutil.copytree(base, tmp_path / "other")
    text = json.loads((other / "tokenizer.json").read_text())
    vocab = text["model"]["vocab"]
    vocab[" owl"], vocab["7"] = vocab["7"], vocab[" owl"]
    (other / "tokenizer.json").write_text(json.dumps(text))
    assert "different tokenizers" in refused(bvi, [*pair[:2], "--instruct", str(other)])


def test_models_of_other_shapes_are_refused(base, tmp_path, capsys):
    def cut(model):
        del model.model.layers[2]
        model.config.num_hidden_layers = 2

    short = child(base, tmp_path / "short", cut)
    capsys.readouterr()
    words = ["--base", str(base), "--instruct", str(short), "--n-animals", "8", "--n-partners", "8"]
    with pytest.raises(SystemExit) as left:
        study.command(bvi.study, [*words, "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert left.value.code == 1 and "n_layers is 3 in one and 2 in the other" in said and said.count("\n") == 1


def test_a_small_run_is_stored(base, head, tmp_path, capsys):
    """The command, to cell, table and figure."""
    words = [w for name, value in SMALL.items() for w in (f"--{name.replace('_', '-')}", str(value))]
    words += ["--base", str(base), "--instruct", str(head), "--out", str(tmp_path)]
    study.command(bvi.study, words)
    (cell,) = (path.parent for path in tmp_path.glob("*/*/provenance.json"))
    provenance = store.read_provenance(cell)
    assert provenance["base"]["weights_sha256"] != provenance["instruct"]["weights_sha256"]
    assert "head swap into the instruct model, tied, as published" in capsys.readouterr().out
