"""The train step of every run of ours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from perception.model import PerceptionNet

WARM_UP = 20  # steps
MAX_NORM = 1.0
SPEED_WEIGHT = 0.1


class Trainer:
    """Model, optimizer, warm-up and an exponential moving average of the weights.

    Args:
        model: is trained in place.
        lr: learning rate after the warm-up.
        decay: of the moving average, per step.
    """

    def __init__(self, model: PerceptionNet, lr: float = 3e-3, decay: float = 0.99) -> None:
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
        self.schedule = torch.optim.lr_scheduler.LinearLR(self.optimizer, 0.1, total_iters=WARM_UP)
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def train_step(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One update; the losses before it."""
        self.model.train()
        self.optimizer.zero_grad()
        space, speed = self.model(batch["images"])
        space_loss = F.binary_cross_entropy_with_logits(space, batch["free_space"])
        speed_loss = F.smooth_l1_loss(speed, batch["speed"])
        loss = space_loss + SPEED_WEIGHT * speed_loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_NORM)
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.model)
        return {"loss": loss.detach(), "space": space_loss.detach(), "speed": speed_loss.detach()}
