import subprocess
import sys

import mechsub


def test_import_is_light():
    code = (
        "import mechsub, sys; print([m for m in ('torch', 'transformer_lens', 'plotly', 'scipy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_public_name_resolves():
    for name in dir(mechsub):
        assert getattr(mechsub, name) is not None or name.startswith("_")
