"""Folders of models that a study has made, as Hugging Face loads them: sealed by the sums of their files."""

from pathlib import Path

from mechsub.lab import store
from mechsub.sources import SUMS

CARD = "README.md"


def seal(folder: Path) -> None:
    """The sums of all files (`sha256sum -c SHA256SUMS`), and every file on disk."""
    lines = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        store.write_bytes(path, data)  # the tokenizer's files were written by another library
        lines.append(f"{store.sha256(data)}  {path.name}\n")
    store.write_text(folder / SUMS, "".join(lines))


def card_of(folder: Path) -> str:
    try:
        return (folder / CARD).read_text(encoding="utf-8")
    except OSError:
        return ""


def list_sums(to: Path) -> None:
    """SHA256SUMS of all models in a folder: cells know their files by it where the models themselves are not kept."""
    lines = []
    for sums in sorted(to.glob(f"*/{SUMS}")):
        for line in sums.read_text(encoding="utf-8").splitlines():
            value, _, file = line.partition("  ")
            lines.append(f"{value}  {sums.parent.name}/{file}\n")
    store.write_text(to / SUMS, "".join(lines))
