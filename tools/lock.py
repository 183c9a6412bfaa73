"""The versions of all packages that mechsub, its extras and its tests use in this environment, as constraints for pip.

python tools/lock.py > requirements.lock    # in an environment where the tests pass
"""

import platform
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"].values()
left = [Requirement(text) for text in [*project["dependencies"], *(text for extra in extras for text in extra)]]
asked: set[tuple[str, str]] = {("mechsub", "")}
found = {}
while left:
    needed = left.pop()
    name = canonicalize_name(needed.name)
    if name == "mechsub":
        continue
    found[name] = metadata.version(name)
    for extra in ("", *needed.extras):
        if (name, extra) not in asked:
            asked.add((name, extra))
            own = map(Requirement, metadata.requires(name) or [])
            left += [one for one in own if one.marker is None or one.marker.evaluate({"extra": extra})]
print(f"# Python {platform.python_version()}, {platform.system()}; written by tools/lock.py")
print("\n".join(f"{name}=={version}" for name, version in sorted(found.items())))
