import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mechsub


def test_an_older_name_that_meant_something_else_says_what_it_is_now():
    with pytest.raises(AttributeError, match=r"mechsub\.divergence_tokens is now mechsub\.prompt_divergence"):
        mechsub.divergence_tokens  # noqa: B018


def test_import_is_light():
    code = (
        "import mechsub, sys; print([m for m in ('torch', 'transformer_lens', 'plotly', 'scipy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_public_name_resolves():
    for name in dir(mechsub):
        assert getattr(mechsub, name) is not None or name.startswith("_")


def test_a_module_lists_its_own_names_and_not_what_it_imports():
    listed = dir(mechsub.noise)
    assert {"uniform", "perlin_noise", "STD"} <= set(listed) and not {"math", "Callable", "torch", "Tensor"} & set(
        listed
    )
    assert "chosen" in dir(mechsub.devices) and "ContextVar" not in dir(mechsub.devices)
    assert {"Optimizer", "Schedule", "Precision"} <= set(dir(mechsub.distillation)) and "Format" in dir(mechsub.prompts)
    assert {"Metric", "Basis"} <= set(dir(mechsub.unembedding)) and "Unit" in dir(mechsub.attribution)
    assert "Sampler" in dir(mechsub.noise) and "Members" in dir(mechsub.fitting)
    typed = {"Literal", "NamedTuple", "Protocol", "Generic", "TypeVar", "Any", "Annotated", "get_args"}
    for name in mechsub._MODULES:
        module = getattr(mechsub, name)
        assert not typed & set(dir(module)) or "__dir__" not in vars(module), name
        assert dir(module) and all(hasattr(module, own) for own in dir(module)), name


def test_the_stub_has_the_names_that_are_there_and_no_others():
    tree = ast.parse(Path(mechsub.__file__).with_suffix(".pyi").read_text())
    imported = {alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    older = {node.targets[0].id for node in tree.body if isinstance(node, ast.Assign)}
    assert {*mechsub._MODULES, *mechsub._NAMES} <= imported | older
    for name in imported | older:
        assert getattr(mechsub, name) is not None
