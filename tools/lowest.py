"""The oldest versions that mechsub says it supports, as constraints for pip: every `>=` of pyproject.toml as `==`.

    python tools/lowest.py > build/lowest.txt    # `make test-lowest` runs the default tests on these

Of the requirements of mechsub and its optional parts; tools for development, and what only others require, stay free.
"""

import re
import tomllib
from pathlib import Path

DEVELOPMENT = "dev"

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
extras = [needed for extra, needed in project["optional-dependencies"].items() if extra != DEVELOPMENT]
for requirement in [*project["dependencies"], *(text for needed in extras for text in needed)]:
    print(re.sub(r">=([^,]+).*", r"==\1", requirement))
