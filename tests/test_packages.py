from packaging.requirements import Requirement

from mechsub.machine import packages


def test_what_is_not_installed_or_too_old_is_unmet():
    needed = {name: Requirement(text) for name, text in
              {"numpy": "numpy>=1", "torch": "torch>=99", "no-such-package": "no-such-package"}.items()}  # fmt: skip
    assert packages.unmet(needed) == ["torch", "no-such-package"]


def test_extras_add_to_the_requirements():
    plain = packages.requirements()
    assert "torch" in plain and "pytest" not in plain
    for extra in packages.extras():
        added = packages.requirements(extra)
        assert added and not set(added) & set(plain)
