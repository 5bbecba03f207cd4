"""A LightningModule trained by its own hooks, without a Trainer."""
