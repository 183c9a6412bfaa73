import gzip
import os
import shutil
from pathlib import Path

import pytest
import torch

from mechsub.inputs import images as data

HISTOGRAMS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
EMBEDDED = Path(data.__file__).parent / "_data"
LABELS = "t10k-labels-idx1-ubyte"
IMAGES = "t10k-images-idx3-ubyte"


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist(split):
    images, labels = data.mnist(split)
    assert images.shape == (sum(HISTOGRAMS[split]), 784) and images.dtype == torch.float32
    assert (images.min().item(), images.max().item()) == (-1.0, 1.0)
    assert labels.bincount().tolist() == HISTOGRAMS[split]


def test_fashion_mnist_where_it_is_found():
    if not os.environ.get("MECHSUB_DATA"):
        pytest.skip("MECHSUB_DATA does not name a folder with Fashion-MNIST")
    images, labels = data.fashion_mnist("test")
    assert images.shape == (10_000, 784)
    assert labels.bincount().tolist() == [1000] * 10


def test_fashion_mnist_missing_names_every_way_to_get_it(tmp_path, monkeypatch):
    from torchvision.datasets import FashionMNIST

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MECHSUB_DATA", str(tmp_path))
    monkeypatch.setattr(data, "_DEBIAN", tmp_path / "dataset-fashion-mnist")
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"file://{tmp_path}/nowhere/"])
    with pytest.raises(FileNotFoundError) as caught:
        data.fashion_mnist("test")
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in ("MECHSUB_DATA", "dataset-fashion-mnist", "download"))


def wrong_magic(raw):
    return b"\x00\x00\x0d\x01" + raw[4:]


def wrong_shape(raw):
    return raw[:4] + (9_999).to_bytes(4, "big") + raw[8:]


def flipped(raw):
    return raw[:100] + bytes([raw[100] ^ 1]) + raw[101:]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda raw: b"", "it is empty"),
        (lambda raw: raw[: len(raw) // 2], "wrong length"),
        (wrong_magic, "wrong idx magic 00000d01"),
        (wrong_shape, "wrong shape"),
        (flipped, "the content differs"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_damaged_files_are_named(tmp_path, damage, says, packed):
    shutil.copy(EMBEDDED / f"{IMAGES}.gz", tmp_path)
    raw = damage(gzip.decompress((EMBEDDED / f"{LABELS}.gz").read_bytes()))
    path = tmp_path / (f"{LABELS}.gz" if packed else LABELS)
    path.write_bytes(gzip.compress(raw) if packed else raw)
    with pytest.raises(ValueError, match=says) as caught:
        data.mnist("test", tmp_path)
    message = str(caught.value)
    assert str(path) in message and data.hashes("mnist")["test labels"] in message and "\n" not in message


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"not gzip", flipped])
def test_damaged_gzip_streams_are_named(tmp_path, damage):
    shutil.copy(EMBEDDED / f"{IMAGES}.gz", tmp_path)
    path = tmp_path / f"{LABELS}.gz"
    path.write_bytes(damage((EMBEDDED / f"{LABELS}.gz").read_bytes()))
    with pytest.raises(ValueError, match="damaged") as caught:
        data.mnist("test", tmp_path)
    assert str(path) in str(caught.value) and data.hashes("mnist")["test labels"] in str(caught.value)


def _put(folder, base, change, name):
    folder.mkdir(parents=True, exist_ok=True)
    for file in (IMAGES, LABELS):
        (folder / name(file)).write_bytes(change((base / f"{file}.gz").read_bytes()))


@pytest.mark.parametrize(
    ("below", "change", "name"),
    [
        ("", gzip.decompress, lambda file: file),
        ("", lambda packed: gzip.compress(gzip.decompress(packed), 1), lambda file: f"{file}.gz"),
        ("", gzip.decompress, lambda file: f"{file}.gz"),  # a browser unpacked it and kept the name
        ("", bytes, lambda file: file),  # still packed, the ending cut off
        ("", gzip.decompress, lambda file: file.replace("-idx", ".idx")),  # Kaggle's names
        ("MNIST/raw", bytes, lambda file: f"{file}.gz"),  # torchvision's root
    ],
)
def test_the_same_files_laid_out_otherwise_are_the_same_data(tmp_path, below, change, name):
    _put(tmp_path / below, EMBEDDED, change, name)
    for mine, embedded in zip(data.mnist("test", tmp_path), data.mnist("test"), strict=True):
        assert torch.equal(mine, embedded)


def test_files_of_another_dataset_are_not_called_damaged(tmp_path):
    _put(tmp_path, EMBEDDED, bytes, lambda file: f"{file}.gz")
    with pytest.raises(ValueError, match=r"is mnist's file, test images: .*original fashion-mnist file, test images"):
        data.fashion_mnist("test", tmp_path)
    raw = gzip.decompress((EMBEDDED / f"{IMAGES}.gz").read_bytes())
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(raw[:16] + bytes(255 - b for b in raw[16:]), 1))
    with pytest.raises(ValueError, match="is of another dataset, or damaged"):
        data.mnist("test", tmp_path)


def test_home_is_found_in_every_path_of_data(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    _put(tmp_path / "digits", EMBEDDED, bytes, lambda file: f"{file}.gz")
    assert torch.equal(data.mnist("test", "~/digits")[1], data.mnist("test")[1])
    (tmp_path / "digits" / "train-images-idx3-ubyte").touch()
    monkeypatch.setenv("MECHSUB_DATA", "~/digits")
    assert data.find_fashion_mnist() == tmp_path / "digits"


def test_missing_file_and_unknown_split(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        data.mnist("test", tmp_path)
    with pytest.raises(ValueError, match="'train' or 'test'"):
        data._dataset("mnist", "validation", EMBEDDED)
