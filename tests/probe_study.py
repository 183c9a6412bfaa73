"""A study whose run is what a test puts in `action`."""

from dataclasses import dataclass

from mechsub.lab import study

action = None


@dataclass(frozen=True)
class Config:
    case: study.Index = study.option(0, "0: stored beforehand")


def run(cfg):
    import torch

    if cfg.case:
        action()
    yield {"member": 0, "value": 1.0}
    yield {"tensors": {"a": torch.arange(20.0)}}


def plot(records):
    import plotly.graph_objects as go

    return go.Figure(go.Scatter(y=[record["value"] for record in records]))
