"""What studies of the toy ask of their options before anything runs: logits that teach something, and enough memory."""

N_IMAGES = 60_000  # of the training sets, and drawn where a study has no n_samples
_TEST_BATCH = 1_000  # images a forward pass of all members
_LAYER = 10_000  # bytes that the modules and hooks of a layer take, however narrow (measured: 10.1 kB)


def refuse_one_logit(n_aux: int, loss: str | None = None) -> None:
    """Raise for students of one auxiliary logit under a loss that learns nothing from it; None: the study has but one.

    For a Config's __post_init__, so that a sweep is refused at once and not after the cells before this one.
    """
    if n_aux == 1 and loss != "mse":
        under, remedy = (f" with --loss {loss}", "--loss mse or ") if loss else ("", "")
        raise ValueError(
            f"--n-aux 1 teaches nothing{under}, since the softmax of one logit is 1; use {remedy}--n-aux 2 or more"
        )


def refuse_too_large(cfg, models: int) -> None:
    """Raise for a Config whose toys are larger than the memory that is free; `models` are held at once at the end."""
    from mechsub import memory

    if problem := memory.shortage(least_bytes(cfg, models)):
        raise ValueError(
            f"{problem}, for {cfg.n_seeds} seeds of {getattr(cfg, 'n_layers', 2)} layers of {cfg.d_model} neurons and "
            f"{cfg.n_aux} auxiliary logits; use fewer or smaller ones"
        )


def least_bytes(cfg, models: int) -> int:
    """A lower bound: the weights of all models, and the larger of what training and testing hold beside them.

    Training: of one member, the inputs and the teacher's logits, a gradient and two moments of Adam, and the hidden
    states of a batch, in the smaller of the two precisions. Testing: the logits of a batch, of all members.
    """
    samples = getattr(cfg, "n_samples", N_IMAGES)
    d_vocab = getattr(cfg, "n_classes", 10) + cfg.n_aux
    n_layers = getattr(cfg, "n_layers", 2)
    weights = cfg.d_model * (784 + (n_layers - 1) * cfg.d_model + d_vocab)
    batch = min(getattr(cfg, "batch_size", 1024), samples)
    training = samples * (784 * 2 + d_vocab * 4) + 3 * weights * 4 + batch * n_layers * cfg.d_model * 2
    testing = cfg.n_seeds * _TEST_BATCH * (cfg.d_model + d_vocab) * 4
    return models * (cfg.n_seeds * weights * 4 + n_layers * _LAYER) + max(training, testing)
