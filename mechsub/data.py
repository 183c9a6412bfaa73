"""MNIST and Fashion-MNIST as tensors, from hash-checked idx files.

MNIST is embedded in the package; Fashion-MNIST is found on this machine or downloaded. Unpacked bytes must have
the sha256 listed here, so a truncated or altered file is an error, never a slightly different experiment.
"""

import gzip
import hashlib
import os
import shutil
import tempfile
import zlib
from math import prod
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechsub import arguments

Split = Literal["train", "test"]

_EMBEDDED = Path(__file__).parent / "_data"
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_TORCHVISION = Path("data")  # where torchvision's own examples keep FashionMNIST/raw

_SHA256 = {
    ("mnist", "test", "images"): "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ("mnist", "test", "labels"): "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ("mnist", "train", "images"): "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ("mnist", "train", "labels"): "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ("fashion-mnist", "test", "images"): "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ("fashion-mnist", "test", "labels"): "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ("fashion-mnist", "train", "images"): "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ("fashion-mnist", "train", "labels"): "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
}
_PREFIX = {"train": "train", "test": "t10k"}
_KIND = {"images": "images-idx3-ubyte", "labels": "labels-idx1-ubyte"}
_SIZE = {"train": 60_000, "test": 10_000}


def mnist(split: Split, root: str | Path | None = None) -> tuple[Float[Tensor, "sample 784"], Int[Tensor, "sample"]]:
    """MNIST images in [-1, 1] (pixel / 127.5 - 1, background -1) and labels 0..9, in file order.

    `root` is a folder with other copies of the idx files (gzipped or not); by default the embedded ones are read.
    Raises FileNotFoundError for a missing file and ValueError for one whose unpacked bytes are not MNIST's.
    Source: LeCun, Cortes, Burges, "The MNIST database"; scaling as in Cloud et al. 2025, section 6.2.
    """
    _check(split, root)
    return _dataset("mnist", split, Path(root) if root is not None else _EMBEDDED)


def fashion_mnist(
    split: Split, root: str | Path | None = None
) -> tuple[Float[Tensor, "sample 784"], Int[Tensor, "sample"]]:
    """Fashion-MNIST images in [-1, 1] and labels 0..9, in file order.

    Looked for in `root`, `$MECHSUB_DATA`, torchvision's root (`data/FashionMNIST/raw`) and Debian's
    `dataset-fashion-mnist`; else downloaded by torchvision. Raises as `mnist` does.
    Source: Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747.
    """
    _check(split, root)
    folder = Path(root) if root is not None else _find_fashion_mnist() or _download_fashion_mnist()
    return _dataset("fashion-mnist", split, folder)


def hashes(dataset: str) -> dict[str, str]:
    """sha256 of the unpacked files of a dataset, for provenance."""
    arguments.choice(dataset, "dataset", dict.fromkeys(name for name, _, _ in _SHA256))
    return {f"{split} {kind}": value for (name, split, kind), value in _SHA256.items() if name == dataset}


def _check(split: str, root: str | Path | None) -> None:
    """Before anything is looked for or downloaded."""
    if not isinstance(split, str) or split not in _SIZE:
        raise ValueError(f"split must be 'train' or 'test', not {arguments.described(split)}")
    if root is not None and not isinstance(root, str | os.PathLike):
        arguments.refuse("root", "a folder", root)


def _dataset(dataset: str, split: str, folder: Path) -> tuple[Tensor, Tensor]:
    _check(split, folder)
    n = _SIZE[split]
    images = _idx(folder, dataset, split, "images", (n, 28, 28))
    labels = _idx(folder, dataset, split, "labels", (n,))
    return images.view(n, 784).float().div_(127.5).sub_(1), labels.long()


def _idx(folder: Path, dataset: str, split: str, kind: str, shape: tuple[int, ...]) -> Tensor:
    path = _locate(folder, f"{_PREFIX[split]}-{_KIND[kind]}")
    raw = _read(path, 4 + 4 * len(shape) + prod(shape))
    found, expected = hashlib.sha256(raw).hexdigest(), _SHA256[dataset, split, kind]
    if found != expected:
        raise ValueError(
            f"{path} is damaged: its unpacked bytes have sha256 {found}, expected {expected} "
            f"({_header_fault(raw, shape)}); replace it with the original {dataset} file"
        )
    return torch.frombuffer(bytearray(raw[4 + 4 * len(shape) :]), dtype=torch.uint8).view(shape)


def _locate(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder / name}[.gz] is missing; put the original idx file there")


def _read(path: Path, size: int) -> bytes:
    """The unpacked bytes, or those up to one too many: a few packed kilobytes can unpack to more than any memory."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            return file.read(size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as fault:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        raise ValueError(
            f"{path} is damaged and cannot be unpacked ({fault}; packed sha256 {found}, "
            f"expected unpacked sha256 {_expected(path)}); replace it with the original file"
        ) from None


def _expected(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    sums = [v for (_, s, k), v in _SHA256.items() if name == f"{_PREFIX[s]}-{_KIND[k]}"]
    return " or ".join(sums)


def _header_fault(raw: bytes, shape: tuple[int, ...]) -> str:
    magic = bytes([0, 0, 8, len(shape)])
    sizes = b"".join(n.to_bytes(4, "big") for n in shape)
    if not raw:
        return "it is empty"
    if raw[:4] != magic:
        return f"wrong idx magic {raw[:4].hex()}, expected {magic.hex()}"
    if raw[4 : 4 + len(sizes)] != sizes:
        return f"wrong shape in its header, expected {shape}"
    if len(raw) != 4 + len(sizes) + torch.Size(shape).numel():
        return "wrong length"
    return "the header is right, the content differs"


def _find_fashion_mnist() -> Path | None:
    named = os.environ.get("MECHSUB_DATA")
    candidates = [Path(named), Path(named) / "fashion-mnist"] if named else []
    candidates += [_TORCHVISION / "FashionMNIST" / "raw", _DEBIAN]
    marker = "train-images-idx3-ubyte"
    return next((f for f in candidates if f.name != "mnist" and _has(f, marker)), None)


def _has(folder: Path, name: str) -> bool:
    return (folder / name).is_file() or (folder / f"{name}.gz").is_file()


def _download_fashion_mnist() -> Path:
    from torchvision.datasets import FashionMNIST

    try:
        # Into a temporary folder first: a failed download must leave nothing that a later search would find.
        with tempfile.TemporaryDirectory() as folder:
            FashionMNIST(folder, download=True)
            _TORCHVISION.mkdir(exist_ok=True)
            shutil.move(Path(folder) / "FashionMNIST", _TORCHVISION)
    except Exception as fault:
        raise FileNotFoundError(
            "Fashion-MNIST was not found in $MECHSUB_DATA, data/FashionMNIST/raw or "
            f"{_DEBIAN} (Debian package dataset-fashion-mnist) and could not be downloaded "
            f"({type(fault).__name__}); put its four idx files into a folder and set MECHSUB_DATA to it"
        ) from None
    return _TORCHVISION / "FashionMNIST" / "raw"
