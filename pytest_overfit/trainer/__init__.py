"""From a trainer's Hydra config file to an `OverfitConfig`: composed, resolved and checked."""
