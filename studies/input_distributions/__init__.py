"""Which input distributions teach through auxiliary logits, and what about them says so before anything is trained?

`--inputs` is the sweep: one cell a distribution, with the student of its auxiliary logits and, as the null, that of the
next seed's initialisation. Pixels have the variance of uniform noise, 1/3, unless the name says otherwise
(gaussian:STD; images, and what keeps their own variance). Students of distributions that `studies.factors` knows are
in its cells (`--arms aux`), teachers in those of `studies.teachers`.

Every row of aux also has the quantities of predictions.toml ([law.quantities]), measured on the inputs and at the start
alone: those that the write-up names, the drive of Theorem 1 of Cloud et al. 2025, and what the network linearised at
its start (`tangent`) would do. A row "inputs" has the spectra: radial power, covariance and first-layer gates.

The table has, with more cells, for recentred and for raw accuracy (`mechsub.accuracies`): students best first, paired
by seed against uniform noise; the write-up's claims by their numbers in studies/audit_toy/claims.py, as paired
differences (Holm-corrected over distributions, and over claims); predictions, of raw accuracy; and from ten
distributions on, the law: does a quantity predict accuracy on families of distributions that were held out? The rule is
in predictions.toml, committed before any cell but that of uniform noise was read. "law" and "trend" are judged against
the best of all quantities with accuracies permuted; "error" is beside that of predicting the mean.

    python -m studies.input_distributions --inputs uniform images centred
"""

from dataclasses import dataclass

from mechsub import lab
from mechsub.inputs import distributions

_MOMENTS = {"mixed": "plain", "mixed_at_moments": "matched"}  # name -> --signal-moments of studies.factors
NULL = "cross_aux"


@dataclass(frozen=True)
class Config:
    inputs: str = lab.option(
        distributions.STUDIED,
        "distributions: those of studies.factors --inputs, mixed:SHARE, mixed_at_moments:SHARE, perlin:PIXELS,"
        " scrambled_centred, covariance_matched",
    )  # fmt: skip
    n_described: lab.Count = lab.option(16_384, "inputs to measure quantities on, a quarter of them least squares")
    teacher_epochs: lab.Count = lab.option(5, "epochs of the teacher")
    n_samples: lab.Count = lab.option(60_000, "inputs of every student")
    epochs: lab.Count = lab.option(5, "epochs of the students")
    n_seeds: lab.Replicates = lab.option(25, "seeds: one reference, teacher and pair of students each")
    seed: lab.Index = lab.option(0, "first seed")

    def __post_init__(self):
        if self.n_described < 16:
            raise ValueError("--n-described must be at least 16: a quarter of them are fitted by least squares")
        distributions.parsed_any(self.inputs)  # which refuses what is no distribution


def trained_by_factors(cfg: Config) -> dict | None:
    """Options of the cell of studies.factors that has these students; None where it does not know the distribution."""
    name, value = distributions.parsed_any(cfg.inputs)
    if name in distributions.ALONE or name == "perlin":
        return None
    chosen = {"signal": value, "signal_moments": _MOMENTS[name]} if name in _MOMENTS else {"inputs": cfg.inputs}
    same = ("teacher_epochs", "n_samples", "epochs", "n_seeds", "seed")
    return {"arms": "aux", **{name: getattr(cfg, name) for name in same}, **chosen}


def upstream(cfg: Config) -> dict:
    taught = lab.upstream("teachers", epochs=cfg.teacher_epochs, n_seeds=cfg.n_seeds, seed=cfg.seed)
    known = trained_by_factors(cfg)
    return {"teachers": taught} | ({} if known is None else {"students": lab.upstream("factors", **known)})


_TINY: dict = {"n_described": 64, "teacher_epochs": 1, "n_samples": 256, "epochs": 1, "n_seeds": 2}
study = lab.Study(
    version=3,  # 2: one sum followed the order of a set, another in every process: docs/reliability.md
    probes=tuple(
        Config(inputs=name, **_TINY)
        for name in (
            *("spectrum_matched", "blurred_images:1", "mixed_at_moments:0.5"),  # trained by studies.factors
            *("perlin:4", "scrambled_centred", "covariance_matched"),
        )
    ),
)
