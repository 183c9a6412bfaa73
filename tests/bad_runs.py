"""One malformed case (see `malformed`) run as a user would meet it: as the command line of a study, in this process."""

import contextlib
import functools
import gzip
import hashlib
import importlib
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import probe_study
from tiny_llama import make_tokenizer, save_tiny_llama

from mechsub import sources
from mechsub.inputs import images, prompts
from mechsub.inputs import words as vocabulary
from mechsub.lab import store, study
from mechsub.lab.declared import declared_by
from mechsub.models import language

ROOT = Path(__file__).parents[1]
IDX = {"images": "t10k-images-idx3-ubyte", "labels": "t10k-labels-idx1-ubyte", "labels.gz": "t10k-labels-idx1-ubyte.gz"}


class Outcome(NamedTuple):
    """touched: what differs in the place (its store, its input, the working folder) after the run."""

    code: int | None
    stderr: str
    seconds: float
    touched: list[str]

    @property
    def problem(self) -> str:
        """What is wrong with it; "" if it is one line, exit code 1 or 2, and nothing was touched."""
        if self.code not in (1, 2):
            return f"exit code {self.code}"
        if not self.stderr.startswith("error: ") or self.stderr.count("\n") != 1 or not self.stderr.endswith("\n"):
            return f"stderr is not one line: {self.stderr[:500]!r}"
        if not self.stderr.strip().isprintable():
            return f"the line is not printable: {self.stderr[:500]!r}"
        return f"touched: {self.touched}" if self.touched else ""


def make_place(place: Path) -> Path:
    """What all cases share: a store with a complete cell, and whole inputs to spoil copies of."""
    materials = place / "materials"
    save_tiny_llama(materials / "model")
    (materials / "data").mkdir()
    for name in ("images", "labels"):
        packed = (images._EMBEDDED / f"{IDX[name]}.gz").read_bytes()
        (materials / "data" / IDX[name]).write_bytes(gzip.decompress(packed))
    (materials / "data" / IDX["labels.gz"]).write_bytes((images._EMBEDDED / IDX["labels.gz"]).read_bytes())
    (materials / "words").mkdir()
    for name in sources.WORDS:
        shutil.copy(vocabulary._DATA / name, materials / "words")
    (place / "file").write_text("not a folder")
    with contextlib.redirect_stdout(io.StringIO()):
        study.main(probe_study.Config, probe_study.run, probe_study.plot, argv=["--out", str(place / "out")])
    return place


def outcome(case: dict, place: Path) -> Outcome:
    shutil.rmtree(place / "out" / "probe_study" / "case=1", ignore_errors=True)  # of a case that was not refused
    shutil.rmtree(place / "input", ignore_errors=True)
    (place / "input").mkdir()
    with contextlib.chdir(place), _prepared(case, place) as run:
        before, errors = listing(place), io.StringIO()
        started = time.perf_counter()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            code = _exit_code(run)
        seconds = time.perf_counter() - started
        after = listing(place)
    return Outcome(code, errors.getvalue(), seconds, sorted(set(before.items()) ^ set(after.items())))


def _exit_code(run: Callable) -> int:
    try:
        run()
    except SystemExit as left:
        return left.code
    return 0


def process_outcome(case: dict, place: Path, *, dry: bool = True) -> Outcome:
    """The same for a command line in a process of its own."""
    command = [sys.executable, "-m", f"studies.{case['study']}", *arguments(case, place, dry=dry)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    before, started = listing(place), time.perf_counter()
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, input=b"y\n" * 9, timeout=600)
    seconds = time.perf_counter() - started
    touched = sorted(set(before.items()) ^ set(listing(place).items()))
    return Outcome(done.returncode, done.stderr.decode(errors="backslashreplace"), seconds, touched)


def listing(place: Path) -> dict[str, str]:
    """Path -> kind, size, modification time and inode, so that a rewrite of the same bytes shows too; of folders only
    the kind, since a lease may have come and gone."""
    found = {}
    for folder, folders, files in os.walk(place):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            of_file = "" if stat.S_ISDIR(status.st_mode) else f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
            found[path] = f"{status.st_mode:o} {of_file}"
    return found


def arguments(case: dict, place: Path, *, dry: bool = True) -> list[str]:
    """--dry-run, so that a case that is not refused is told from its exit code 0 and not by hours of training."""
    words = [word.replace("{place}", str(place)) for word in case["argv"]]
    out = [] if any(word.startswith("--out") for word in words) else ["--out", str(place / "out")]
    return [*["--dry-run"] * dry, *out, *words]


@contextlib.contextmanager
def _prepared(case: dict, place: Path) -> Iterator[Callable]:
    """The command to run, with what the case needs in place/input."""
    kind = case["kind"]
    if kind in ("command line", "configuration"):
        module = importlib.import_module(f"studies.{case['study']}")
        argv = arguments(case, place)
        yield lambda: study.command(declared_by(module), argv)
        return
    prepare = {
        "data file": _data_file,
        "model folder": _model_folder,
        "CSV": _word_list,
        "prompt": _prompt,
        "stored cell": _stored_cell,
    }
    with (
        prepare[kind](case, place / "materials", place / "input") as action,
        patch.object(probe_study, "action", action),
    ):
        argv = ["--out", str(place / "out"), "--case", "0", "1"]
        yield lambda: study.main(probe_study.Config, probe_study.run, probe_study.plot, argv=argv)


@contextlib.contextmanager
def _data_file(case: dict, materials: Path, folder: Path) -> Iterator[Callable]:
    others = {"images", "labels"} - {case["name"].removesuffix(".gz")}
    for name in (*others, case["name"]):
        shutil.copy(materials / "data" / IDX[name], folder)
    spoil(folder / IDX[case["name"]], case["damage"])
    yield lambda: images.mnist("test", root=folder)


@contextlib.contextmanager
def _model_folder(case: dict, materials: Path, folder: Path) -> Iterator[Callable]:
    """A folder that a user names; spoilt weights are those of a model whose sums are known, as the default's are."""
    known = case["name"] == "model.safetensors" and case["damage"]["do"] in DAMAGES
    model = folder / language.DEFAULT
    shutil.copytree(materials / "model", model)
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in model.iterdir()}
    (model / language._MANIFEST).write_text(json.dumps({"sha256": sums}))
    (model / "evil.py").write_text("open('was_run', 'w')\n")
    spoil(model / case["name"], case["damage"])
    with patch.dict(os.environ, {"MECHSUB_CACHE": str(folder)}):
        name = language.DEFAULT if known else str(model)
        yield lambda: (language.check_folder(name), language.load_language_model(name))


@contextlib.contextmanager
def _word_list(case: dict, materials: Path, folder: Path) -> Iterator[Callable]:
    shutil.copytree(materials / "words", folder, dirs_exist_ok=True)
    spoil(folder / case["name"], case["damage"])
    read = (
        vocabulary.animals.__wrapped__
        if case["name"] == "animals.csv"
        else functools.partial(vocabulary.family, "trees")
    )
    with patch.object(vocabulary, "_DATA", folder):
        yield read


@contextlib.contextmanager
def _prompt(case: dict, materials: Path, folder: Path) -> Iterator[Callable]:
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 8192
    if "template" in case:
        tokenizer.chat_template = case["template"]
    texts = {"user": "Which one?", "system": "You love 087.", "answer": "It is"}
    if "text" in case:
        texts[case["role"]] = case["text"]
    if "repeat" in case:
        texts[case["role"]] = "9" * case["repeat"]
    if "continuation" in case:
        yield lambda: prompts.encode(tokenizer, ["087", case["continuation"]])
    else:
        yield lambda: prompts.prompt(tokenizer, texts.pop("user"), **texts, format=case["format"])


@contextlib.contextmanager
def _stored_cell(case: dict, materials: Path, folder: Path) -> Iterator[Callable]:
    cell = folder / "default"
    shutil.copytree(folder.parent / "out" / "probe_study" / "default", cell)
    spoil(cell / case["name"], case["damage"])

    def read() -> None:
        store.read_records(cell)
        store.read_tensors(cell)

    yield read


# Damage.


def spoil(path: Path, damage: dict) -> None:
    """Do to a file what the case says; what would leave it as it was is an error."""
    whole = path.read_bytes() if path.is_file() else None
    {**DAMAGES, **REWRITES}[damage["do"]](path, damage)
    if whole is not None and path.is_file() and damage["do"] != "unreadable" and path.read_bytes() == whole:
        raise AssertionError(f"{damage} leaves {path.name} as it was")


def _flip(path: Path, damage: dict) -> None:
    content = bytearray(path.read_bytes())
    content[damage["at"] % len(content)] ^= 1 << damage["bit"]
    path.write_bytes(content)


def _truncate(path: Path, damage: dict) -> None:
    os.truncate(path, damage["at"] % path.stat().st_size)


def _append(path: Path, damage: dict) -> None:
    path.write_bytes(path.read_bytes() + bytes.fromhex(damage["hex"]))


def _folder(path: Path, damage: dict) -> None:
    path.unlink()
    path.mkdir()


def _dangle(path: Path, damage: dict) -> None:
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def _unreadable(path: Path, damage: dict) -> None:
    """Even for root: reading the first byte of a process's memory is an input/output error."""
    path.unlink()
    path.symlink_to("/proc/self/mem")


def _bomb(path: Path, damage: dict) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(damage["mb"]):
            file.write(bytes(2**20))


def _patch(path: Path, damage: dict) -> None:
    new = bytes.fromhex(damage["hex"])
    content = path.read_bytes()
    path.write_bytes(content[: damage["at"]] + new + content[damage["at"] + len(new) :])


def _header(path: Path, damage: dict) -> None:
    text = damage["text"].encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))


def _set(path: Path, damage: dict) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage["keys"]}))


def _fill(path: Path, damage: dict) -> None:
    """One value of one tensor."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = float(damage["value"])
    save_file(tensors, path, metadata={"format": "pt"})


def _index(path: Path, damage: dict) -> None:
    path.with_name("model.safetensors").rename(path.with_name("real.safetensors"))
    path.write_text(json.dumps(damage["json"]))


class Payload:
    """Unpickling it would make a file."""

    def __reduce__(self):
        return open, ("was_unpickled", "w")


def _pickle(path: Path, damage: dict) -> None:
    import torch

    path.unlink()
    torch.save({"a": Payload()}, path.with_name("pytorch_model.bin"))


def _pickled_weights(path: Path, damage: dict) -> None:
    """A pickle under the name of safetensors."""
    import torch

    torch.save({"a": Payload()}, path)


DAMAGES = {
    "flip": _flip,
    "truncate": _truncate,
    "append": _append,
    "write": lambda path, damage: path.write_bytes(bytes.fromhex(damage["hex"])),
    "empty": lambda path, damage: path.write_bytes(b""),
    "delete": lambda path, damage: path.unlink(),
    "folder": _folder,
    "dangle": _dangle,
    "unreadable": _unreadable,
}
REWRITES = {
    "bomb": _bomb,
    "patch": _patch,
    "header": _header,
    "set": _set,
    "fill": _fill,
    "index": _index,
    "pickle": _pickle,
    "pickled weights": _pickled_weights,
}
