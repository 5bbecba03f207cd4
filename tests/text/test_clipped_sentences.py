"""A sentence that had no room is Chinese as far as it goes, and nothing is made up behind it."""

from __future__ import annotations

import pytest

from pytest_overfit.text.translations import translated

WEIGHT = "loss_reg_depth weighs 0 in the objective: it went from 0.2031 to"
SEEN = "the objective is 0.004, and 0.5 with the confidence of the start, while depth is off by"


@pytest.mark.parametrize(
    ("said", "chinese"),
    [
        (
            f"{WEIGHT} 0.2 while the objective went from...",
            "loss_reg_depth 在总损失中的权重为 0：它由 0.2031 变为 0.2，而总损失由...",
        ),
        (f"gradients: {WEIGHT}...", "gradients: loss_reg_depth 在总损失中的权重为 0：它由 0.2031 变为..."),
        (f"{SEEN}...", "总损失为 0.004，若用开始时的置信度则为 0.5，而深度偏差..."),
        (f"{SEEN} 3 %: the...", "总损失为 0.004，若用开始时的置信度则为 0.5，而深度偏差 3 %..."),
        ("not a sentence of ours, whatever it says...", "not a sentence of ours, whatever it says..."),
    ],
)  # fmt: skip
def test_the_beginning_of_a_sentence(said: str, chinese: str) -> None:
    """Two sentences that begin alike are told as far as both say the same."""
    assert translated(said, "zh") == chinese


@pytest.mark.parametrize(
    ("said", "chinese"),
    [
        ("run, pair and 9 more: not judged: ::config failed", "run, pair 等，另有 9 项：未判定：::config 未通过"),
        ("camera, depth: not judged: see finite", "camera, depth：未判定：见 finite"),
        (
            "config: a.Loss cannot be built: it does not take camera, depth, allowed its arguments (weight)",
            "config: 无法构建 a.Loss：它不接受 camera，depth，要求 它的参数（weight）",
        ),
        ("  next: take camera out of a.yaml:11", "  下一步：从 a.yaml:11 中去掉 camera"),
    ],
)
def test_what_is_wrong_with_a_config(said: str, chinese: str) -> None:
    """Of items that are not judged, and of keys that a class does not take."""
    assert translated(said, "zh") == chinese


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("objective 0.88: the schedule ends at step 9 of 400, its rate below 1 % of its peak 0.002; the objective...",
         "objective 0.88：调度在第 9 步（共 400 步）就已结束，学习率低于其峰值 0.002 的 1 %；the objective..."),
        ("objective 1.512: passes in 195 steps with lr 0.001, not 2e-06 (a.yaml:79 peak_value)",
         "objective 1.512：学习率取 0.001 而非 2e-06（a.yaml:79 peak_value）时，195 步即可通过"),
        ("  where: a.yaml:79 optim.options.lr.0.scheduler.peak_value and 1 more: (AdamW), group 0",
         "  位置：a.yaml:79 optim.options.lr.0.scheduler.peak_value 等，另有 1 项：（AdamW），第 0 组"),
        ("frame 0 AbsRel 0.124 (4.73 m off); frame 0 field of view 13.5 deg",
         "第 0 帧 AbsRel 0.124（偏差 4.73 米）；第 0 帧 视场角 13.5 度"),
        ("note: optim.optimizer.lr = 0.002 is not used: the schedule optim.options.lr sets 6e-08 to 2e-06",
         "备注：optim.optimizer.lr = 0.002 未被使用：调度 optim.options.lr 设为 6e-08 至 2e-06"),
    ],
)  # fmt: skip
def test_lines_of_a_config_that_failed(line: str, said: str) -> None:
    """No half of them is English."""
    assert translated(line, "zh") == said
