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

from mechsub import arguments, files
from mechsub.sources import IMAGES

Split = Literal["train", "test"]

_EMBEDDED = Path(__file__).parent / "_data"
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_TORCHVISION = Path("data")  # where torchvision's own examples keep FashionMNIST/raw

_PREFIX = {"train": "train", "test": "t10k"}
_KIND = {"images": "images-idx3-ubyte", "labels": "labels-idx1-ubyte"}
_ENDINGS = (".gz", "")
_OF_TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
_SIZE = {"train": 60_000, "test": 10_000}


def mnist(split: Split, root: str | Path | None = None) -> tuple[Float[Tensor, "sample 784"], Int[Tensor, "sample"]]:
    """MNIST images in [-1, 1] (pixel / 127.5 - 1, background -1) and labels 0..9, in file order.

    `root` is a folder with other copies of the idx files (gzipped or not, or torchvision's root); by default the
    embedded ones are read.
    Raises FileNotFoundError for a missing file and ValueError for one whose unpacked bytes are not MNIST's.
    Source: LeCun, Cortes, Burges, "The MNIST database"; scaling as in Cloud et al. 2025, section 6.2.
    """
    _check(split, root)
    return _dataset("mnist", split, Path(root).expanduser() if root is not None else _EMBEDDED)


def fashion_mnist(
    split: Split, root: str | Path | None = None
) -> tuple[Float[Tensor, "sample 784"], Int[Tensor, "sample"]]:
    """Fashion-MNIST images in [-1, 1] and labels 0..9, in file order.

    The files are looked for in `root`, `$MECHSUB_DATA`, torchvision's root (`data/FashionMNIST/raw`) and Debian's
    `dataset-fashion-mnist`; else torchvision downloads them. Raises the same errors as `mnist`.
    Source: Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747.
    """
    _check(split, root)
    folder = Path(root).expanduser() if root is not None else find_fashion_mnist() or _download_fashion_mnist()
    return _dataset("fashion-mnist", split, folder)


def hashes(dataset: str) -> dict[str, str]:
    """sha256 of the unpacked files of a dataset, for provenance."""
    return dict(IMAGES[arguments.choice(dataset, "dataset", IMAGES)])


def _check(split: str, root: str | Path | None) -> None:
    """Check the arguments, before any file is looked for or downloaded."""
    if not isinstance(split, str) or split not in _SIZE:
        raise ValueError(f"split must be 'train' or 'test', not {arguments.described(split)}")
    if root is not None and not isinstance(root, str | os.PathLike):
        arguments.refuse("root", "a folder", root)


def _dataset(dataset: str, split: str, folder: Path) -> tuple[Tensor, Tensor]:
    _check(split, folder)
    n = _SIZE[split]
    files.note("images", dataset, IMAGES[dataset])
    images = _idx(folder, dataset, split, "images", (n, 28, 28))
    labels = _idx(folder, dataset, split, "labels", (n,))
    return images.view(n, 784).float().div_(127.5).sub_(1), labels.long()


def _idx(folder: Path, dataset: str, split: str, kind: str, shape: tuple[int, ...]) -> Tensor:
    path = _locate(folder, dataset, f"{_PREFIX[split]}-{_KIND[kind]}")
    raw = _read(path, 4 + 4 * len(shape) + prod(shape))
    found, expected = hashlib.sha256(raw).hexdigest(), IMAGES[dataset][f"{split} {kind}"]
    if found != expected:
        raise ValueError(
            f"{path} is {_instead(found, raw, shape)}: its unpacked bytes have sha256 {found}, expected {expected}; "
            f"replace it with the original {dataset} file, {split} {kind}"
        )
    return torch.frombuffer(bytearray(raw[4 + 4 * len(shape) :]), dtype=torch.uint8).view(shape)


def _locate(folder: Path, dataset: str, name: str) -> Path:
    """The file in the folder, or in torchvision's folder below; Kaggle's names, with a dot, are found too."""
    places = (folder, folder / _OF_TORCHVISION[dataset] / "raw")
    for place in places:
        for path in (place / (spelt + ending) for spelt in (name, name.replace("-idx", ".idx")) for ending in _ENDINGS):
            if path.is_file():
                return path
    raise FileNotFoundError(f"{folder / name}[.gz] is missing; put the original idx file there")


def _read(path: Path, size: int) -> bytes:
    """The unpacked bytes, at most one more than wanted: a few packed kilobytes could otherwise fill any memory."""
    try:
        with open(path, "rb") as file:  # browsers unpack files and keep their names: the content says what it is
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as file:
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
    files_of = {f"{_PREFIX[split]}-{_KIND[kind]}": f"{split} {kind}" for split in _PREFIX for kind in _KIND}
    sums = [known[files_of[name]] for known in IMAGES.values() if name in files_of]
    return " or ".join(sums)


def _instead(found: str, raw: bytes, shape: tuple[int, ...]) -> str:
    """Describe a file whose sum is not the expected one."""
    for dataset in ("mnist", "fashion-mnist"):
        for part, known in hashes(dataset).items():
            if known == found:
                return f"{dataset}'s file, {part}"
    if fault := _header_fault(raw, shape):
        return f"damaged ({fault})"
    return "of another dataset, or damaged (the header is right, the content differs)"


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
    return ""


def find_fashion_mnist() -> Path | None:
    candidates = []
    if named := os.environ.get("MECHSUB_DATA"):
        root = Path(named).expanduser()
        candidates = [root, root / "fashion-mnist", root / "FashionMNIST" / "raw"]
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
