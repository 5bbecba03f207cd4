"""pytorch-forecasting: networks of time series on the batches of its data set."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas
import pytorch_forecasting as pf
from pytorch_forecasting import metrics
from torch import Tensor, nn

from benchmarks.wild.case import Program

TRAITS = "regression tuple dict series"


@functools.cache
def dataset(several: bool = True) -> pf.TimeSeriesDataSet:
    """Three series with a season, and what is known of them; ``several``: with static and known covariates."""
    steps = np.arange(40)
    frame = pandas.concat(
        pandas.DataFrame(
            {
                "time": steps,
                "group": f"g{index}",
                "value": 5 + index + np.sin(steps * (0.4 + 0.1 * index)) + 0.02 * steps,
                "price": np.cos(steps * 0.3),
                "month": (steps % 4).astype(str),
            }
        )
        for index in range(3)
    ).reset_index(drop=True)
    more: dict[str, Any] = {}
    if several:
        more = {
            "static_categoricals": ["group"],
            "time_varying_known_reals": ["price"],
            "time_varying_known_categoricals": ["month"],
        }
    return pf.TimeSeriesDataSet(
        frame,
        time_idx="time",
        target="value",
        group_ids=["group"],
        max_encoder_length=12,
        max_prediction_length=4,
        time_varying_unknown_reals=["value"],
        target_normalizer=pf.GroupNormalizer(groups=["group"]) if several else "auto",
        **more,
    )


def batch(several: bool = True) -> Any:
    """The first batch of its loader: what the network gets, and the target with its weights."""
    return next(iter(dataset(several).to_dataloader(train=False, batch_size=8)))


def by(criterion: Callable[[], Any]) -> Callable[[nn.Module, Any], Tensor]:
    """The loss of the network's metric, as its training step computes it."""

    def loss(model: Any, batch: Any) -> Tensor:
        inputs, target = batch
        value: Tensor = criterion()(model(inputs)["prediction"], target)
        return value

    return loss


def own_metric(model: Any, batch: Any) -> Tensor:
    """The same by the network's own metric, which knows how the target was normalised."""
    inputs, target = batch
    value: Tensor = model.loss.loss(model(inputs)["prediction"], target[0]).mean()
    return value


def program(
    name: str, network: type, criterion: Callable[[], Any], limit: float, several: bool = True, **more: Any
) -> Program:
    """A network that the data set describes."""
    options = more.pop("options", {})
    traits = frozenset([*TRAITS.split(), *more.pop("traits", "").split()])
    return Program(
        f"pytorch_forecasting/{name}",
        "pytorch_forecasting",
        lambda: network.from_dataset(dataset(several), loss=criterion(), **options),
        lambda: batch(several),
        more.pop("by", by(criterion)),
        limit,
        traits=traits,
        **{"lr": 1e-2, **more},
    )


def programs() -> Iterator[Program]:
    """By architecture, each with a metric of its own."""
    yield program("NBeats", pf.NBeats, metrics.MAE, 0.1, several=False, options={"widths": [32, 64], "dropout": 0.0})
    yield program("NHiTS", pf.NHiTS, metrics.RMSE, 0.08, options={"hidden_size": 32, "dropout": 0.0})
    yield program(
        "TemporalFusionTransformer",
        pf.TemporalFusionTransformer,
        metrics.QuantileLoss,
        0.04,
        options={"hidden_size": 16, "attention_head_size": 2, "hidden_continuous_size": 8, "dropout": 0.0},
        traits="attention recurrent embedding norm residual",
    )
    yield program(
        "DeepAR",
        pf.DeepAR,
        metrics.NormalDistributionLoss,
        0.0,
        options={"hidden_size": 16, "dropout": 0.0},
        traits="recurrent embedding",
        by=own_metric,
        given={"unbounded": True},
    )
    yield program(
        "RecurrentNetwork",
        pf.RecurrentNetwork,
        metrics.SMAPE,
        0.01,
        options={"hidden_size": 16, "dropout": 0.0},
        traits="recurrent embedding",
    )
    yield program(
        "DecoderMLP", pf.DecoderMLP, metrics.MAPE, 0.02, options={"hidden_size": 32, "dropout": 0.0}, traits="embedding"
    )
