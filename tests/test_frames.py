"""`ms.frame`: stored records as a pandas frame."""

import pytest

import mechsub as ms
from mechsub.lab import store


@pytest.fixture
def out(tmp_path):
    for n in (1, 3):
        rows = [{"n_aux": n, "arm": "aux", "member": i, "accuracy": 0.1 * i} for i in range(2)]
        made = {"study": "subliminal_accuracy", "config": {"n_aux": n}}
        store.write_cell(tmp_path / "subliminal_accuracy" / f"n_aux={n}", rows, made)
    return tmp_path


def test_options_choose_cells_and_those_left_out_may_have_any_value(out):
    every = ms.frame("subliminal_accuracy", out=out)
    assert len(every) == 4 and set(every.cell) == {"n_aux=1", "n_aux=3"} and set(every.d_model) == {256}
    assert ms.frame("subliminal_accuracy", out=out, n_aux=3).n_aux.tolist() == [3, 3]
    assert len(ms.frame("subliminal_accuracy", out=out, n_aux=[1, 3])) == 4


def test_what_is_not_there_is_one_line(out):
    with pytest.raises(LookupError, match="there is no study 'nothing'"):
        ms.frame("nothing", out=out)
    with pytest.raises(LookupError, match="no stored cell of subliminal_accuracy"):
        ms.frame("subliminal_accuracy", out=out, n_aux=7)
    with pytest.raises(TypeError, match="has no option 'n_axu'"):
        ms.frame("subliminal_accuracy", out=out, n_axu=3)
