"""LoRA adapters: merged they are what peft computes unmerged, and what is not that is refused in one line."""

import importlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llama import save_tiny_llama

import mechsub as ms
from mechsub import files
from mechsub.lab import cells, versions
from mechsub.models import adapters
from mechsub.models.language import ModelUnavailable, load_language_model, model_source

peft = pytest.importorskip("peft")
TOKENS = torch.arange(5, 60)[None]
KINDS = {
    "lora": {},
    "dora": {"use_dora": True},
    "rslora, ranks by layer": {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "layers_to_transform": [0, 2]},
    "saved output": {"modules_to_save": ["lm_head"]},
    "saved input": {"modules_to_save": ["embed_tokens"]},
}


def save_adapter(base, folder, **options):
    """An adapter of random weights, saved by peft; the model as peft runs it, unmerged."""
    from transformers import AutoModelForCausalLM

    usual = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        adapted = peft.get_peft_model(model, peft.LoraConfig(**{**usual, **options}))
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn_like(weight))
    adapted.save_pretrained(folder)
    return adapted.eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("base"), tied=False)


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(base, folder)
    return folder


@pytest.fixture
def copy(adapter, tmp_path):
    return shutil.copytree(adapter, tmp_path / "adapter")


def apart(logits, expected):
    """The largest difference, of the largest logit: in fp32 they are near 8 and end in 1e-6 of that."""
    return (logits - expected).abs().max() / expected.abs().max()


def edit(folder, **values):
    path = folder / adapters.CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refusal(base, folder):
    with pytest.raises(ModelUnavailable) as raised:
        load_language_model(str(base), adapter=folder)
    assert "\n" not in str(raised.value) and str(raised.value).startswith(f"the adapter {folder} ")
    return str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_adapter_is_what_peft_computes_unmerged(base, tmp_path, kind):
    theirs = save_adapter(base, tmp_path, **KINDS[kind])
    model = load_language_model(str(base), adapter=tmp_path)
    with torch.no_grad():
        expected = theirs(TOKENS).logits
        assert apart(model(TOKENS), expected) < 1e-5
        assert apart(load_language_model(str(base))(TOKENS), expected) > 1e-2
    assert not any(weight.requires_grad for weight in model.parameters())


def test_tied_models_stay_tied_and_a_saved_output_unties_them(tmp_path):
    base = save_tiny_llama(tmp_path / "base")
    for kind, tied in (("lora", True), ("saved output", False)):
        theirs = save_adapter(base, tmp_path / kind, **KINDS[kind])
        model = load_language_model(str(base), adapter=tmp_path / kind)
        with torch.no_grad():
            assert apart(model(TOKENS), theirs(TOKENS).logits) < 1e-5
        assert model_source(model)["tied"] == tied


def test_it_is_merged_in_fp32_whatever_the_model_is_used_in(base, adapter):
    low, high = (load_language_model(str(base), adapter=adapter, dtype=d) for d in (torch.bfloat16, torch.float32))
    weights = zip(low.original_model.parameters(), high.original_model.parameters(), strict=True)
    assert all(torch.equal(a, b.bfloat16()) for a, b in weights)


def test_both_sums_are_recorded_and_noted(base, adapter):
    with files.noting() as inputs:
        source = model_source(load_language_model(str(base), adapter=adapter))
    alone = model_source(load_language_model(str(base)))
    sums = {name: files.file_sum(adapter / name) for name in (adapters.WEIGHTS, adapters.CONFIG)}
    assert source == {**alone, "adapter": str(adapter), "adapter_revision": None, "adapter_sha256": sums}
    assert inputs[f"adapter {adapter}"]["sha256"] == sums | {
        name: value for name, value in inputs[f"adapter {adapter}"]["sha256"].items() if name not in sums
    }
    assert versions.today("adapter", str(adapter)) == inputs[f"adapter {adapter}"]["sha256"]


def test_global_random_state_is_left_alone(base, adapter):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    adapters.merge(load_plain(base), adapter)
    assert torch.equal(torch.get_rng_state(), before)


def load_plain(base):
    from transformers import AutoModelForCausalLM

    state = torch.get_rng_state()
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.set_rng_state(state)
    return model


# What is refused.


def test_lora_of_the_embeddings_is_refused(base, tmp_path):
    """peft saves the base's own embeddings with it, which may be others than this base's."""
    save_adapter(base, tmp_path, target_modules=["embed_tokens", "q_proj"])
    assert "embeddings that its configuration does not name" in refusal(base, tmp_path)


@pytest.mark.parametrize(
    ("values", "said"),
    {
        "kind": ({"peft_type": "IA3"}, "is of the kind IA3; only LoRA"),
        "task": ({"task_type": "SEQ_CLS"}, "the task SEQ_CLS"),
        "layers": ({"layer_replication": [[0, 2], [1, 3]]}, "uses layer_replication"),
        "start": ({"init_lora_weights": "pissa"}, "starts from pissa, which changes its base"),
        "unknown": ({"use_tomorrow": True}, "uses use_tomorrow, which peft"),
        "rank": ({"r": 8}, "is of another base"),
        "rows": ({"target_modules": ["q_proj"]}, "has 12 weights that"),
        "more rows": ({"target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"]}, "lacks 6 weights that"),
        "absent": ({"target_modules": ["query"]}, "cannot be merged by peft: "),
        "class": ({"auto_mapping": {"base_model_class": "GPT2LMHeadModel"}}, "was trained on a GPT2LMHeadModel"),
    }.values(),
)
def test_what_is_no_sum_of_matrices_is_refused(base, copy, values, said):
    edit(copy, **values)
    assert said in refusal(base, copy)


def test_another_base_is_refused_by_its_weights_by_its_name_and_by_shapes(base, copy, tmp_path):
    other = save_tiny_llama(tmp_path / "other", tied=False, seed=1)
    assert "was trained on" in refusal(other, copy)
    edit(copy, base_model_name_or_path="org/elsewhere")
    load_language_model(str(base), adapter=copy)  # a folder's name says nothing
    wide = save_tiny_llama(tmp_path / "wide", tied=False, n_kv=4)
    assert "is of another base: base_model.model.model.layers.0.self_attn.v_proj" in refusal(wide, copy)


@pytest.mark.parametrize(
    ("trained", "of", "other"),
    [
        ("meta-llama/Llama-3.2-1B", "unsloth/Llama-3.2-1B", False),
        ("unsloth/llama-3.2-1b-unsloth-bnb-4bit", "meta-llama/Llama-3.2-1B", False),
        ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B-Instruct", True),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m-instruct", False),
        ("HuggingFaceTB/SmolLM2-360M-Instruct", "smollm2-135m-instruct", True),
        ("/home/me/somewhere", "meta-llama/Llama-3.2-1B", False),
    ],
)
def test_names_of_bases(copy, of, trained, other, tmp_path):
    edit(copy, base_model_name_or_path=trained)
    (tmp_path / "config.json").write_text("{}")
    if other:
        with pytest.raises(adapters.Refused, match="is another model; if they are the same"):
            adapters.check(copy, of, tmp_path)
    else:
        adapters.check(copy, of, tmp_path)


def damage(path, kind):
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "gone":
        path.unlink()
    else:
        weights = load_file(path)
        next(iter(weights.values()))[0, 0] = float("nan")
        save_file(weights, path)


@pytest.mark.parametrize(
    ("kind", "said"), [("cut", "is damaged"), ("gone", "has no adapter_model.safetensors"), ("nan", "holds NaN")]
)
def test_damaged_weights_are_refused(base, copy, kind, said):
    damage(copy / adapters.WEIGHTS, kind)
    assert said in refusal(base, copy)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"peft_type": 3}'])
def test_a_damaged_configuration_is_refused(base, copy, text):
    (copy / adapters.CONFIG).write_text(text)
    refusal(base, copy)


def test_without_peft_it_says_what_to_install(base, adapter, monkeypatch):
    monkeypatch.setattr(adapters.importlib.util, "find_spec", lambda name: None)
    assert "run: python -m pip install 'mechsub[adapters]'" in refusal(base, adapter)


# Studies.

STUDIES = (
    *("token_entanglement", "digits", "matched_tokens", "steering", "contributions", "bottleneck"),
    *("lens_trajectory", "unembed_projection", "hidden_alignment"),
)


@pytest.mark.parametrize("name", STUDIES)
def test_studies_ask_about_an_adapter_before_anything_runs(base, copy, name):
    edit(copy, peft_type="IA3")
    module = importlib.import_module(f"studies.{name}")
    cfg = module.Config(model=str(base), adapter=str(copy), **({"metric": "dot"} if "projection" in name else {}))
    with pytest.raises(ModelUnavailable, match="of the kind IA3"):
        module.check(cfg)
    for stored in getattr(module, "upstream", lambda cfg: {})(cfg).values():
        assert stored.options["adapter"] == str(copy)
    assert "adapter=" in cells.name_of(cfg)


def test_a_toy_has_no_adapter(adapter):
    from studies import lens_trajectory

    with pytest.raises(ValueError, match="--adapter is not read"):
        lens_trajectory.Config(model="toy", adapter=str(adapter))


def test_a_cell_is_stale_once_its_adapter_changes(base, copy, tmp_path, capsys):
    from studies import token_entanglement as te

    words = f"--n-animals 8 --n-partners 8 --n-wordings 1 --n-permutations 100 --model {base} --adapter {copy}"
    flags = [*words.split(), "--out", str(tmp_path / "out"), "--quiet"]
    ms.lab.main(te.study, flags)
    capsys.readouterr()
    ms.lab.main(te.study, [*flags, "--dry-run"])
    assert capsys.readouterr().out.startswith("stored")
    edit(copy, lora_alpha=32)
    ms.lab.main(te.study, [*flags, "--dry-run"])
    said = capsys.readouterr().out
    assert said.startswith("stale") and f"the adapter {copy} is not what it was made with: {adapters.CONFIG}" in said


@pytest.mark.parametrize("name", ["/nosuch", "no such", "''"])
def test_an_adapter_that_is_nowhere_is_named_as_one(base, name):
    with pytest.raises(ModelUnavailable, match=r"^the adapter: .* is neither a folder nor a Hugging Face id$"):
        load_language_model(str(base), adapter=name)
