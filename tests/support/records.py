"""A record of a healthy run, to be bent by each test."""

from __future__ import annotations

from typing import Any

from pytest_overfit.run.record import BatchRecord, Evaluation, FramePrediction, ParameterRecord, RunRecord
from pytest_overfit.run.supervision_record import FrameRecord, Supervision


def falling(start: float, end: float, steps: int = 100) -> tuple[float, ...]:
    """A straight fall that stays at its end for the last ten steps."""
    ramp = [start + (end - start) * i / (steps - 11) for i in range(steps - 10)]
    return (*ramp, *[end] * 10)


def parameter(name: str = "head.weight", **changes: Any) -> ParameterRecord:
    """A parameter that learns."""
    values: dict[str, Any] = {
        "name": name,
        "numel": 12,
        "trainable": True,
        "frozen_by": None,
        "in_optimizer": True,
        "max_grad": 0.5,
        "moved": 0.1,
        "finite": True,
    }
    return ParameterRecord(**{**values, **changes})


def record(**changes: Any) -> RunRecord:
    """A run of 100 steps that meets the default limits, with one thing changed."""
    terms = {"objective": 0.005, "loss_camera": 0.0005, "loss_reg_depth": 0.004}
    values: dict[str, Any] = {
        "name": "healthy",
        "seed": 0,
        "device": "cpu",
        "planned_steps": 1000,
        "steps": 100,
        "stop": "passed",
        "seconds": 2.0,
        "curves": {
            "objective": falling(4.0, 0.005),
            "loss_camera": falling(0.5, 0.0005),
            "loss_reg_depth": falling(0.8, 0.004),
        },
        "learning_rate": (1e-3,) * 100,
        "grad_norms": {"head": (1.0,) * 100},
        "parameters": (parameter("head.weight"), parameter("head.bias")),
        "batch": BatchRecord("aa" * 32, "aa" * 32, (), ()),
        "supervision": Supervision(
            answers={
                "depths": {"objective": 0.4, "loss_camera": 0.0, "loss_reg_depth": 0.1},
                "extrinsics": {"objective": 0.2, "loss_camera": 0.05, "loss_reg_depth": 0.0},
            },
            frames=(FrameRecord(0, 800, 1000), FrameRecord(1, 500, 1000)),
            image_difference=0.2,
            pose_difference=1.3,
        ),
        "evaluation": Evaluation(train=terms, val=terms),
        "predictions": (
            FramePrediction(0, 0.01, 0.99, 0.004, 0.12, 0.05, None, 0.0),
            FramePrediction(1, 0.02, 0.98, 0.005, 0.15, 0.04, 0.1, 0.01),
        ),
    }
    return RunRecord(**{**values, **changes})
