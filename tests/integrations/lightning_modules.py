"""LightningModules as people write them, healthy each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torchmetrics
from pytorch_lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

Batch = tuple[Tensor, Tensor]


def batch(count: int = 12) -> Batch:
    source = torch.Generator().manual_seed(7)
    return torch.randn(count, 8, generator=source), torch.arange(count) % 3


class Plain(LightningModule):
    """A classifier under Adam."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(8, 64), nn.ReLU()), nn.Linear(64, 3)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(features))
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class WarmUpByStep(Plain):
    """A warm-up, then a cosine over the steps that the Trainer announces."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=5e-3)
        rest = int(self.trainer.estimated_stepping_batches) - 20
        parts = [lr_scheduler.LinearLR(optimizer, 0.01, 1.0, 20), lr_scheduler.CosineAnnealingLR(optimizer, rest)]
        return [optimizer], [{"scheduler": lr_scheduler.SequentialLR(optimizer, parts, [20]), "interval": "step"}]


class DecayByEpoch(Plain):
    """Submodules called directly, a mapping returned, a schedule by epochs."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        loss = F.cross_entropy(self.head(self.body(batch[0])), batch[1])
        self.log_dict({"loss": loss, "at": float(self.current_epoch)}, on_epoch=True)
        return {"loss": loss, "count": len(batch[1])}

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-2)
        return [optimizer], [lr_scheduler.StepLR(optimizer, 1, gamma=0.9)]


class OnPlateau(Plain):
    """A schedule that follows what is logged."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=3)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "train/loss"}}


class Measured(Plain):
    """torchmetrics, a criterion module, and a picture for the logger."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=3)
        self.criterion = nn.CrossEntropyLoss()

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        logits = self(batch[0])
        loss = self.criterion(logits, batch[1])
        self.accuracy(logits.softmax(dim=-1), batch[1])
        self.log("train_accuracy", self.accuracy, on_step=True, on_epoch=True)
        experiment: Any = self.logger
        experiment.experiment.add_scalar("loss", loss, self.global_step)
        return loss


class Clipped(Plain):
    """Clipping of its own, and a look at the gradients before the step."""

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=1.0, gradient_clip_algorithm="norm")

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.log("largest", max(float(p.grad.abs().max()) for p in self.parameters() if p.grad is not None))


class WarmUpByHook(Plain):
    """The learning rate is set in ``optimizer_step``."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        optimizer.step(closure=optimizer_closure)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * min(1.0, (self.trainer.global_step + 1) / 20)


class SecondOrder(Plain):
    """An optimizer that calls its closure."""

    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=5)


class Averaged(Plain):
    """A moving average of the head."""

    def __init__(self) -> None:
        super().__init__()
        self.average = nn.Linear(64, 3).requires_grad_(False)
        self.average.load_state_dict(self.head.state_dict())

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=1e-2)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.head.parameters(), strict=True):
                slow.lerp_(fast, 0.05)


class ByHand(Plain):
    """Manual optimisation with clipping and a schedule."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers()
        loss = F.cross_entropy(self(batch[0]), batch[1])
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(optimizer, gradient_clip_val=1.0, gradient_clip_algorithm="norm")
        optimizer.step()
        schedule: Any = self.lr_schedulers()
        schedule.step()
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-2)
        return [optimizer], [lr_scheduler.ExponentialLR(optimizer, 0.999)]


class Adversarial(LightningModule):
    """Two optimizers by hand; nothing is returned."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8))
        self.critic = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        optimizers: Any = self.optimizers()
        first, second = optimizers
        noise, real = batch
        self.toggle_optimizer(first)
        fake = self.generator(noise)
        error = F.mse_loss(fake, real)
        first.zero_grad()
        self.manual_backward(10 * error + 0.01 * F.softplus(-self.critic(fake)).mean())
        first.step()
        self.untoggle_optimizer(first)
        self.toggle_optimizer(second)
        fake = self.generator(noise).detach()
        told = F.softplus(-self.critic(real)).mean() + F.softplus(self.critic(fake)).mean()
        second.zero_grad()
        self.manual_backward(told)
        second.step()
        self.untoggle_optimizer(second)
        self.log_dict({"error": error, "critic": told}, prog_bar=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.generator.parameters(), 3e-3), torch.optim.Adam(self.critic.parameters(), 1e-3)


class AutoEncoder(LightningModule):
    """Labels are thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, 32), nn.Linear(32, 8)

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        features, _ = batch
        return F.mse_loss(self.decoder(self.encoder(features).relu()), features)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class Shuffled(LightningDataModule):
    """Its loader shuffles; a hook changes what arrives."""

    def setup(self, stage: str) -> None:
        self.samples = TensorDataset(*batch(24))

    def train_dataloader(self) -> Any:
        return DataLoader(self.samples, batch_size=6, shuffle=True)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] * 2, batch[1]


def pictures() -> Batch:
    source = torch.Generator().manual_seed(3)
    return torch.randn(4, 8, generator=source), torch.randn(4, 8, generator=source)


HEALTHY: Mapping[str, tuple[type[LightningModule], Any, Mapping[str, Any]]] = {
    **{
        kind.__name__: (kind, batch(), {})
        for kind in (
            *(Plain, WarmUpByStep, DecayByEpoch, OnPlateau, Measured, Clipped, WarmUpByHook),
            *(SecondOrder, Averaged, ByHand, AutoEncoder),
        )
    },
    "Adversarial": (Adversarial, pictures(), {"objective": False, "error": 0.01}),
    "Shuffled": (Plain, Shuffled(), {}),
}
