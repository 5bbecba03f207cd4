"""The training run of this repository: one process per GPU, started by a launcher."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from hydra.utils import instantiate
from train_utils.prepare import normalise


class Trainer:
    """Builds everything that a config names, and trains."""

    def __init__(self, *, data: Any, model: Any, loss: Any, optim: Any, max_epochs: int, **settings: Any) -> None:
        self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        dist.init_process_group(settings["distributed"].backend)
        self.data = instantiate(data.train, _recursive_=False)
        self.data.seed = settings["seed_value"]
        self.model = instantiate(model, _recursive_=False).to(self.device)
        self.loss = instantiate(loss, _recursive_=False)
        self.clip = instantiate(optim.gradient_clip)
        self.optimizer = instantiate(optim.optimizer, self.model.parameters())
        self.schedule = instantiate(optim.options.lr[0].scheduler)
        self.epochs, self.amp, self.limit = max_epochs, optim.amp.enabled, settings["limit_train_batches"]

    def run(self) -> None:
        for epoch in range(self.epochs):
            for step, batch in enumerate(self.data.get_loader(epoch)):
                if step >= self.limit:
                    break
                self.train(batch, (epoch + step / self.limit) / self.epochs)

    def train(self, batch: dict[str, Any], where: float) -> None:
        batch = normalise(batch)
        batch = {key: value.to(self.device) if hasattr(value, "to") else value for key, value in batch.items()}
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule(where)
        self.optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.amp):
            predictions = self.model(images=batch["images"])
        self.loss(predictions, batch)["objective"].backward()
        self.clip(self.model)
        self.optimizer.step()
