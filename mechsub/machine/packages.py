"""Requirements of mechsub and of its extras, compared with the installed packages."""

from importlib import metadata


def requirements(extra: str = "") -> dict:
    """Name -> packaging's Requirement, of mechsub itself, or of an extra.

    Raises importlib.metadata.PackageNotFoundError where mechsub is not installed.
    """
    from packaging.requirements import Requirement

    needed = [Requirement(text) for text in metadata.requires("mechsub") or []]
    chosen = [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    if extra:
        added = (each for each in needed if each.marker and each.marker.evaluate({"extra": extra}))
        chosen = [each for each in added if each not in chosen]
    return {each.name: each for each in chosen}


def extras() -> list[str]:
    return metadata.metadata("mechsub").get_all("Provides-Extra") or []


def installed(name: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def unmet(needed: dict) -> list[str]:
    """Names of packages that are not installed, or are installed in a version that is not allowed."""
    found = {name: installed(name) for name in needed}
    return [name for name in needed if not found[name] or not needed[name].specifier.contains(found[name], True)]
