"""Small configs around the memoriser: seconds each, all criteria at their real limits."""

from __future__ import annotations

from pathlib import Path

TINY = """\
exp_name: tiny
img_size: 56
seed_value: 0
max_epochs: 10
val_epoch_freq: 5
data:
  train: &split
    common_config: {fix_img_num: 2, fix_aspect_ratio: 0.92}
  val: *split
model: {_target_: tests.support.tiny.Memoriser}
loss: {_target_: pytest_overfit.two_view.reference.MultitaskLoss}
optim:
  optimizer: {_target_: torch.optim.AdamW, lr: 0.05, weight_decay: 0.0}
  options:
    lr:
      - scheduler:
          _target_: fvcore.common.param_scheduler.CosineParamScheduler
          start_value: ${optim.optimizer.lr}
          end_value: 0.0
overfit:
  pair: {source: render, width: 160, height: 120}
  threads: 1
  steps_per_epoch: 20
"""


def write_tiny(folder: Path, name: str = "tiny.yaml", *, replace: tuple[tuple[str, str], ...] = ()) -> Path:
    """Writes the tiny config with some text exchanged; every exchange must find its text."""
    text = TINY
    for old, new in replace:
        assert old in text, f"{old!r} is not in the tiny config"
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
