"""What is declared and not kept: ties, freezing, averages, statistics, checkpoints."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gallery.case import silent
from benchmarks.zoo.case import Setup
from benchmarks.zoo.dense import classify


@silent("gpt_tied_weights", "tie-lost", where="head.weight is a copy of tokens.weight, whose tie a switch asks for")
def weights_copied_in_place_of_tied(h: Setup) -> Setup:
    h.model.tie_embeddings = True
    h.model.head.weight = nn.Parameter(h.model.tokens.weight.detach().clone())
    return h


@silent("gpt_tied_weights", "tie-lost", where="head was swapped, and tie_weights() not called again")
def head_swapped_after_the_tie(h: Setup) -> Setup:
    class Tying(type(h.model)):  # type: ignore[misc]
        def tie_weights(self) -> None:
            self.head.weight = self.tokens.weight

    h.model.__class__ = Tying
    h.model.head = nn.Linear(h.model.head.in_features, h.model.head.out_features, bias=False)
    return h


@silent("frozen_backbone", "not-frozen", where="backbone.* learns, though freeze_backbone is set")
def switch_that_nobody_reads(h: Setup) -> Setup:
    h.model.freeze_backbone = True
    h.model.backbone.requires_grad_(True)
    return h


@silent("backbone_left_out_of_the_optimizer", "not-frozen", where="the optimizer holds backbone.* too")
def frozen_part_in_the_optimizer(h: Setup) -> Setup:
    learning = [p for p in h.model.parameters() if p.requires_grad]
    return replace(h, optimizer=torch.optim.Adam(learning, lr=2e-3))


@silent("frozen_batch_norm", "drift", where="stem.1 goes on gathering statistics")
def frozen_stem_in_training_mode(h: Setup) -> Setup:
    class Plain(type(h.model)):  # type: ignore[misc]
        def train(self, mode: bool = True) -> Any:
            return nn.Module.train(self, mode)

    h.model.__class__ = Plain
    return h


@silent("frozen_backbone", "drift", where="the norm of backbone.* goes on gathering statistics")
def frozen_norm_in_training_mode(h: Setup) -> Setup:
    h.model.backbone.insert(1, nn.BatchNorm1d(128)).requires_grad_(False)
    return replace(h, optimizer=torch.optim.AdamW(h.model.head.parameters(), lr=2e-3))


class Averaging:
    """A train step that keeps an average of the weights under names that may not be theirs."""

    def __init__(self, model: nn.Module, prefix: str) -> None:
        self.prefix = prefix
        self.shadow = {name: p.detach().clone() for name, p in model.named_parameters()}

    def __call__(self, model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        loss = classify(model, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        for name, p in model.named_parameters():
            if self.prefix + name in self.shadow:
                self.shadow[self.prefix + name].lerp_(p.detach(), 0.1)
        return loss.detach()


def has_an_average(setup: Setup) -> bool:
    """What the twin does without."""
    return hasattr(setup.step, "shadow") or hasattr(setup.step, "ema")


@silent("own_step", "ema", where="the update of shadow looks for names with a prefix", shows=has_an_average)
def average_under_other_names(h: Setup) -> Setup:
    return replace(h, step=Averaging(h.model, "module."))


class Following:
    """A train step beside an averaged copy, which follows itself."""

    def __init__(self, model: nn.Module) -> None:
        self.ema = copy.deepcopy(model).requires_grad_(False)

    def __call__(self, model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        loss = classify(model, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(self.ema.parameters(), self.ema.parameters(), strict=True):
                slow.lerp_(fast, 0.1)
        return loss.detach()


@silent("own_step_sgd", "ema", where="ema.* is averaged with itself", shows=has_an_average)
def average_of_itself(h: Setup) -> Setup:
    return replace(h, step=Following(h.model))


def loaded(h: Setup, saved: dict[str, Tensor]) -> Setup:
    """The same with a factory that loads what fits of a checkpoint."""

    def build() -> nn.Module:
        model: nn.Module = copy.deepcopy(h.model)
        with torch.random.fork_rng():
            torch.manual_seed(99)  # other weights than those of the checkpoint
            for module in model.modules():
                if isinstance(module, nn.Linear):
                    module.reset_parameters()
        model.load_state_dict(saved, strict=False)
        return model

    return replace(h, model=build)


@silent("mlp_regression", "not-loaded", where="the keys of the checkpoint begin with module.")
def checkpoint_of_a_wrapper(h: Setup) -> Setup:
    return loaded(h, {f"module.{name}": value.clone() for name, value in h.model.state_dict().items()})


@silent("autoencoder", "not-loaded", where="the keys of the checkpoint have other names")
def checkpoint_of_another_release(h: Setup) -> Setup:
    return loaded(h, {name.replace("weight", "kernel").replace("bias", "offset"): value.clone()
                      for name, value in h.model.state_dict().items()})  # fmt: skip
