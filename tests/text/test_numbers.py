"""The numbers that one looks at first, literally."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pytest_overfit import run_overfit
from pytest_overfit.diagnose.evidence import Evidence, Probed, Tensor, Term
from pytest_overfit.run.record import RunRecord
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.text.numbers import debug_lines, shares_of_objective
from tests.support.records import parameter, record


@dataclass(frozen=True)
class Result:
    """What is read of a result."""

    record: RunRecord
    evidence: Evidence | None = None


def tensor(key: str, **changes: Any) -> Tensor:
    values: dict[str, Any] = {
        "dtype": "float32", "shape": (1, 2, 4), "finite": True, "bad_at": None, "low": -1.5, "high": 2.0, "mean": 0.25,
        "deviation": 1.0, "column_deviation": (0.0, 0.0), "column_mean": 0.0, "distinct_rows": None, "is_input": False,
        "is_target": False,
    }  # fmt: skip
    return Tensor(key=key, **{**values, **changes})


def evidence(run: RunRecord, *, limits: dict[str, Limit] | None = None, **probed: Any) -> Evidence:
    return Evidence(record=run, findings=(), limits=limits or {}, probed=Probed(**probed))


def weighted(**weights: float) -> tuple[Term, ...]:
    return tuple(Term(name, depends=True, in_objective=True, weight=weight) for name, weight in weights.items())


def test_everything_of_a_run_stands_in_aligned_columns() -> None:
    """Batch, valid depth, terms, gradients, and who has none."""
    run = record(
        curves={"objective": (4.0, 2.0, 3.0), "loss_camera": (0.6, 0.2, 0.4), "loss_depth": (1.0, 1.0, 1.0)},
        parameters=(
            parameter("head.bias", max_grad=0.00125),
            parameter("head.weight", max_grad=12.5),
            parameter("trunk.weight", max_grad=None, trainable=False, frozen_by="trunk"),
            parameter("spare.weight", max_grad=None),
            parameter("left.weight", max_grad=None, in_optimizer=False),
        ),
    )
    seen = evidence(
        run,
        tensors=(
            tensor("images", is_input=True),
            tensor("depths", is_target=True, finite=False, bad_at=(0, 1, 3)),
            tensor("step", shape=(), dtype="int64", low=7, high=7, mean=7),
        ),
        terms=weighted(loss_camera=5.0, loss_depth=1.0),
    )
    assert debug_lines(Result(run, seen)) == [
        "batch     shape   dtype    min   max  mean",
        "  images  1x2x4   float32  -1.5  2    0.25  input",
        "  depths  1x2x4   float32  -1.5  2    0.25  NOT FINITE at [0, 1, 3]",
        "  step    scalar  int64    7     7    7",
        "valid depth: frame 0 80.0 % of 1000 pixels, frame 1 50.0 % of 1000 pixels",
        "losses         first  best  at step  last  share",
        "  objective    4      2     2        3",
        "  loss_camera  0.6    0.2   2        0.4   66.7 %",
        "  loss_depth   1      1     1        1     33.3 %",
        "gradients: largest norm of each of 2 parameters",
        "  head.weight  12.5",
        "  head.bias    0.00125",
        "no gradient at all (2 of 5): trunk.weight (frozen by trunk), spare.weight",
        "in no optimizer (1 of 5): left.weight",
    ]


def test_what_is_not_known_is_left_out() -> None:
    """Without a diagnosis there is no batch and no weight of a term; without a step no term."""
    run = record(curves={"objective": (1.0,)}, parameters=(), supervision=None)
    assert debug_lines(Result(run)) == [
        "losses       first  best  at step  last",
        "  objective  1      1     1        1",
    ]
    assert debug_lines(Result(replace(run, curves={}))) == ["losses: no step was made"]


def test_gradients_beyond_the_ends_are_counted() -> None:
    """The six largest beside the six smallest; a NaN is the largest of all."""
    norms = [math.nan, *map(float, range(1, 20))]
    run = record(parameters=tuple(parameter(f"layer.{i}", max_grad=norm) for i, norm in enumerate(norms)))
    lines = debug_lines(Result(run))
    assert lines[-8:] == [
        "gradients: largest norm of each of 20 parameters: 6 largest, 6 smallest",
        "  layer.0   nan  layer.1  1",
        "  layer.19  19   layer.2  2",
        "  layer.18  18   layer.3  3",
        "  layer.17  17   layer.4  4",
        "  layer.16  16   layer.5  5",
        "  layer.15  15   layer.6  6",
        "  and 8 between",
    ]


def test_long_lists_end_in_a_count_and_lines_in_dots() -> None:
    """Of tensors and of terms; the end of a long name is what tells it from others."""
    run = record(
        curves={f"term_{i}": (1.0,) for i in range(12)},
        parameters=tuple(parameter(f"{'block.' * 20}{i}.weight", max_grad=float(i)) for i in range(14)),
    )
    lines = debug_lines(Result(run, evidence(run, tensors=tuple(tensor(f"key_{i}") for i in range(13)))), width=80)
    assert "  and key_10, key_11, key_12" in lines
    assert "  and term_10, term_11" in lines
    assert max(map(len, lines)) <= 80
    assert any(re.fullmatch(r"  \.\.\.[block.]+13\.weight  13 +\.\.\.[block.]+0\.weight  0", line) for line in lines)


def test_the_best_of_a_term_that_rises_is_its_highest() -> None:
    """As its limit says; a NaN is the best of nothing."""
    run = record(curves={"accuracy": (0.1, 0.9, 0.5), "loss": (math.nan, 2.0, math.nan)}, parameters=())
    lines = debug_lines(Result(run, evidence(run, limits={"accuracy": Limit(above=0.99)})))
    assert lines[-2:] == ["  accuracy  0.1    0.9   2        0.5", "  loss      nan    2     2        nan"]


@pytest.mark.parametrize(
    ("objective", "weights", "shares"),
    [
        ((5.0, 0.5), {"camera": 5.0, "depth": 1.0}, {"camera": 0.8, "depth": 0.2}),
        ((5.0, 0.5), {"camera": 5.0, "depth": 1.0, "part": 2.5}, {"camera": 0.8, "depth": 0.2, "part": 0.4}),
        ((5.0, 0.7), {"camera": 5.0, "depth": 1.0}, {}),
        ((5.0, math.nan), {"camera": 5.0, "depth": 1.0}, {}),
        ((5.0, 0.5), {}, {}),
    ],
    ids=["sum", "nested", "no sum at the end", "nan", "no weights"],
)
def test_shares_are_shown_where_the_terms_add_up(
    objective: tuple[float, float], weights: dict[str, float], shares: dict[str, float]
) -> None:
    """At the first and the last step; a part of a term has a share of its own."""
    curves = {"objective": objective, "camera": (0.8, 0.08), "depth": (1.0, 0.1), "part": (0.8, 0.08)}
    found = shares_of_objective(curves, evidence(record(), terms=weighted(**weights)))
    assert found == {name: pytest.approx(share) for name, share in shares.items()}


def test_a_small_run_shows_its_batch_and_its_gradients() -> None:
    """A real one, that fails; the shape of its text to the letter, the numbers as its record has them."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    batch = torch.randn(8, 4), torch.randn(8, 1)
    result = run_overfit(
        net, batch, F.mse_loss, optimizer=lambda p: torch.optim.Adam(p, lr=1e-5), max_steps=20, diagnose_seconds=0.5
    )
    curve, norms = result.record.curves["objective"], {p.name: p.max_grad for p in result.record.parameters}
    lines = debug_lines(result)
    assert [re.sub(r" +", " ", line) for line in lines] == [
        "batch shape dtype min max mean",
        *(
            f" {key} {shape} float32 {t.min():.4g} {t.max():.4g} {t.mean():.4g} {kind}"
            for key, shape, t, kind in (("0", "8x4", batch[0], "input"), ("1", "8x1", batch[1], "target"))
        ),
        "counts as a whole: output",
        "losses first best at step last",
        f" objective {curve[0]:.4g} {min(curve):.4g} 20 {curve[-1]:.4g}",
        f"trend: objective does not fall: {median(curve[:10]):.4g} at the start, {median(curve[10:]):.4g} at the end",
        "gradients: largest norm of each of 4 parameters",
        *(f" {name} {norm:.4g}" for name, norm in sorted(norms.items(), key=lambda each: -(each[1] or 0.0))),
    ]


def test_the_two_view_run_shows_valid_depth_and_shares(tmp_path: Path) -> None:
    """The quick config, a few steps of it: every key of the guide's batch, every term of its loss."""
    from pytest_overfit.api import run_config
    from pytest_overfit.run.sample import Sample
    from pytest_overfit.trainer.loading import load_config
    from pytest_overfit.two_view.data.dataset import draw_batch
    from pytest_overfit.two_view.from_config import dataset_of, loader_of
    from pytest_overfit.two_view.pair.create import create_pair
    from pytest_overfit.two_view.pair.synthetic import render_source

    quick = Path(__file__).resolve().parents[2] / "example_configs" / "quick.yaml"
    config = load_config(quick, ["overfit.budget.max_steps=6", "overfit.diagnose_seconds=30"])
    wanted = config.overfit.pair
    source = render_source(tmp_path / "source", seed=wanted.seed, width=wanted.width, height=wanted.height)
    pair = create_pair(source.source_root, source.source_seg_root, source.source_npz, tmp_path / "pair")
    batch, differences = draw_batch(loader_of(config, pair, dataset_of(config, config.train, pair)))
    result = run_config(config, None, Sample(batch, batch, differences))
    lines = debug_lines(result, width=100)
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 100
    assert lines[0].split() == ["batch", "shape", "dtype", "min", "max", "mean"]
    assert lines[1].split()[:3] == ["images", "1x2x3x98x112", "float32"]
    keys = [line.split()[0] for line in lines[1:10]]
    assert {"images", "depths", "extrinsics", "intrinsics", "point_masks"} <= {*keys}
    depth = next(line for line in lines if line.startswith("valid depth: "))
    assert re.fullmatch(r"valid depth: frame 0 \d+\.\d % of 10976 pixels, frame 1 \d+\.\d % of 10976 pixels", depth)
    found = {line.split()[0]: line.split()[-2] for line in lines if line.endswith(" %")}
    whole = ("loss_camera", "loss_conf_depth", "loss_reg_depth", "loss_grad_depth")
    assert {*whole, "loss_T", "loss_R", "loss_FL"} == found.keys()
    assert sum(float(found[name]) for name in whole) == pytest.approx(100, abs=0.3)
    assert lines[-8] == "gradients: largest norm of each of 78 parameters: 6 largest, 6 smallest"
    assert lines[-1] == "  and 66 between"
