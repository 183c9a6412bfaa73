"""Whether a study would store the same cell today.

Evidence decides, not the text of code: the version of the study, which a person raises to change numbers; the
configuration; the sums of the upstream cells; and the sums of the inputs of the run (images, word lists, tables,
corpora, a model's weights and tokenizer). Probes and rechecks show that code changes no number.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from mechsub import files, sources
from mechsub.lab import store
from mechsub.lab.declared import Study

Finder = Callable[[str], Study | None]  # a study by its name, None for one that is not found


class Status(NamedTuple):
    kind: str  # "missing", "stored", "stale" or "damaged"
    reason: str = ""  # of "stale" and "damaged", one line


def status(cell: Path, version: int, config: Mapping, defaults: Mapping, finder: Finder) -> Status:
    """The status of a cell, with the reason where it is not "stored".

    version, config and defaults: the study's own of today. finder: returns upstream studies by name.
    """
    try:
        made = store.checked(cell)
    except store.DamagedCell as error:
        return Status("damaged", str(error))
    if made is None:
        return Status("missing")
    reason = why_stale(cell, made, version, config, defaults, finder)
    return Status("stale", reason) if reason else Status("stored")


def why_stale(cell: Path, made: Mapping, version: int, config: Mapping, defaults: Mapping, finder: Finder) -> str:
    """Why a cell of this provenance would come out differently today, as far as known; "" without a reason."""
    return (
        _study_reason(cell, made)
        or _version_reason(made, version)
        or _config_reason(made["config"], config, defaults)
        or _upstream_reason(cell, made, finder)
        or _inputs_reason(made)
    )


def _study_reason(cell: Path, made: Mapping) -> str:
    """A cell that was copied from another study's folder may have a version and options that fit."""
    then = made.get("study", cell.parent.name)
    return f"it was made as a cell of {then!r}" if then != cell.parent.name else ""


def _version_reason(made: Mapping, version: int) -> str:
    if "version" not in made:
        return "it was made before cells had versions, and nobody has certified it"
    if made["version"] > version:
        return f"it was made by version {made['version']} of its study, which is newer than this one ({version})"
    return f"it was made by version {made['version']} of its study, and this is {version}" * (made["version"] < version)


def _config_reason(made: Mapping, config: Mapping, defaults: Mapping) -> str:
    """A reason in the options. A cell that is older than an option counts as made with the option's default."""
    if unknown := sorted(set(made) - set(config)):
        return f"it was made with the option {unknown[0]}, which its study no longer has"
    for name, value in config.items():
        if (then := made.get(name, defaults[name])) != value:
            return f"it was made with {name} = {then!r}, and its name stands for {value!r} today"
    return ""


def _upstream_reason(cell: Path, made: Mapping, finder: Finder) -> str:
    for name, then in made.get("upstream_versions", {}).items():
        study = finder(name)
        if study is not None and study.version != then:
            return f"it was built on version {then} of {name}, and this is {study.version}"
    return _moved_on(cell, made)


def _moved_on(cell: Path, made: Mapping) -> str:
    """The first upstream cell, direct or indirect, that was made anew since; absent cells do not count."""
    for name, sums in made.get("made_from", {}).items():
        source = cell.parent.parent.joinpath(*name.split("/"))
        try:
            now = store.read_provenance(source)
        except store.DamagedCell:
            return f"it was built on {name}, which is damaged now"
        if now is None:
            continue
        if store.sums_in(now) != sums:
            return f"it was built on {name}, which was made anew since"
        if further := _moved_on(source, now):
            return f"it was built on {name}; {further}"
    return ""


def _inputs_reason(made: Mapping) -> str:
    for name, entry in made.get("read", {}).items():
        kind, _, what = name.partition(" ")
        now = today(kind, what)
        if now is None:
            if "place" in entry and entry["place"] != files.place_sum(_place(kind, what)):
                return f"it was made with the {kind} {what} of another working folder, and here is none"
            continue
        if (then := entry["sha256"]) != now:
            file = next(f for f in sorted({*then, *now}) if then.get(f) != now.get(f))
            state = "is gone" if file not in now else "is new" if file not in then else "has changed"
            return f"the {kind} {what} is not what it was made with: {file} {state}"
    return ""


def today(kind: str, name: str) -> Mapping[str, str] | None:
    """File -> sha256 of an input now; None where the input is not on this machine, or is of an unknown kind."""
    if kind in ("model", "adapter"):
        return sources.today(name)
    if kind == "images":
        return sources.IMAGES.get(name)
    if kind == "words":
        return {name: sources.WORDS[name]} if name in sources.WORDS else None
    if kind == "texts":
        return {name: sources.TEXTS[name]} if name in sources.TEXTS else None
    if kind in ("files", "corpus"):
        return files.file_sums(name) or None
    return None


def _place(kind: str, name: str) -> Path:
    path = Path(name).expanduser()
    return path.parent if kind in ("files", "corpus") else path


# Code of studies that are not mechsub's own: a hint, no verdict.


@functools.cache
def package_sum() -> str:
    """One sum over mechsub's own modules."""
    folder = Path(__file__).parents[1]
    sums = [f"{path.relative_to(folder)} {files.file_sum(path)}" for path in sorted(folder.rglob("*.py"))]
    return files.sha256("\n".join(sums).encode())


def code_sums(folder: Path, modules: Mapping[str, object]) -> dict[str, str]:
    """File -> sha256 of the loaded modules that lie in a study's folder, and "mechsub" -> that of the package."""
    sums = {"mechsub": package_sum()}
    for name, module in list(modules.items()):
        path = Path(getattr(module, "__file__", None) or "")
        installed = {"site-packages", "dist-packages"} & set(path.parts)
        beside = path.suffix == ".py" and folder in path.parents and not installed
        if beside and name.split(".")[0] not in ("mechsub", "studies"):
            sums[str(path.relative_to(folder))] = files.file_sum(path)
    return sums


def edited(code: Mapping[str, str], folder: Path) -> list[str]:
    """The files of a study's code that changed since a cell was made."""
    now = {name: folder / name for name in code if name != "mechsub"}
    changed = [name for name, path in now.items() if not path.is_file() or files.file_sum(path) != code[name]]
    return changed + ["mechsub"] * (code.get("mechsub", package_sum()) != package_sum())
