"""Models of transformers, and its Trainer, as subjects of a run."""
