"""What a trainer's config says, as frozen records of plain values: no omegaconf, yaml or torch object gets past here.

Names follow the trainer's config where it has the key (``fix_img_num``, ``remove_sky``, ``max_norm``). Sections that
name a Python object (``_target_``) stay plain mappings: building them is the run's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_overfit.settings.ladder import STRICT, STRICT_KEY
from pytest_overfit.settings.settings import AmpConfig, ClipGroup, OverfitSettings

DEFAULT_MODEL = "pytest_overfit.two_view.reference.TwoViewTransformer"
DEFAULT_LOSS = "pytest_overfit.two_view.reference.MultitaskLoss"
DEFAULT_OPTIMIZER = "torch.optim.AdamW"
DEFAULT_ASPECT = 0.92


@dataclass(frozen=True)
class SplitConfig:
    """One of ``data.train`` and ``data.val``: where the pair lies and how its images become a sample.

    Example:
        >>> split = SplitConfig(img_size=518, patch_size=14)
        >>> split.height, split.width
        (476, 518)

    Args:
        root, split_file, segmentation_root: absolute; None where the config does not say.
        max_depth: metres; beyond it a depth is invalid.
        depth_percentile: percent; depths above it, or below 100 minus it, are invalid.
        aspect_ratio: height over width, from ``common_config.fix_aspect_ratio``.
        augs: ``common_config.augs`` as written.
        len_train, len_test: as written; they do not change the number of steps.
    """

    img_size: int = 518
    patch_size: int = 14
    root: Path | None = None
    split_file: Path | None = None
    segmentation_root: Path | None = None
    remove_sky: bool = True
    max_depth: float = 2000.0
    depth_percentile: float = 98.0
    fix_img_num: int = 2
    aspect_ratio: float = DEFAULT_ASPECT
    augs: Mapping[str, Any] = field(default_factory=dict)
    len_train: int | None = None
    len_test: int | None = None

    @property
    def width(self) -> int:
        """Pixels."""
        return self.img_size

    @property
    def height(self) -> int:
        """Pixels: the aspect ratio's share of the width, rounded down to whole patches."""
        return int(self.img_size * self.aspect_ratio) // self.patch_size * self.patch_size


@dataclass(frozen=True)
class LoggingConfig:
    """``logging``: where curves and pictures go, how often (in steps), and which scalars per split."""

    log_dir: Path | None = None
    log_freq: int = 1
    log_visuals: bool = False
    scalar_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckpointConfig:
    """``checkpoint``: the weights that a run starts from.

    Args:
        path: None trains from scratch.
        strict: whether a missing or unexpected key is an error.
        key: the key of the config that named the path.
    """

    path: Path | None = None
    strict: bool = False
    key: str = "checkpoint.resume_checkpoint_path"


@dataclass(frozen=True)
class TrainerConfig:
    """A trainer whose own classes hand out the batches.

    Args:
        train, val: ``data.<split>``, mappings with a ``_target_`` and its arguments; relative paths in them are found.
        accum_steps: into how many parts the trainer cuts a batch to accumulate gradients.
        repeat_batch: whether every batch is doubled by its frames in reverse order.
        logged: the scalars that the trainer logs of a training step.
        own_clipper: the trainer clips by a class of its own, which wants a group for every parameter.
    """

    train: Mapping[str, Any]
    val: Mapping[str, Any] | None = None
    accum_steps: int = 1
    repeat_batch: bool = False
    logged: tuple[str, ...] = ()
    own_clipper: bool = False

    def split(self, name: str) -> Mapping[str, Any]:
        """The section of one split.

        Example:
            >>> TrainerConfig({"_target_": "data.Loader"}).split("train")
            {'_target_': 'data.Loader'}
        """
        section = self.train if name == "train" else self.val
        assert section is not None
        return section


@dataclass(frozen=True)
class OverfitConfig:
    """One config file, composed, resolved and checked.

    Args:
        path: absolute path of the file that was given; relative paths in it are relative to its folder.
        seed: ``seed_value``.
        model, loss, optimizer: mappings with a ``_target_`` and its arguments.
        frozen_module_names: glob patterns over module names.
        lr_schedule, weight_decay_schedule: ``optim.options.<name>[0].scheduler``, a mapping with a ``_target_``.
        import_roots: folders whose modules come before all others while targets are built and trained.
        checkpoint: the weights to start from.
        trainer: None where the pair is read by this plugin.
        notes: sentences on settings that have no effect here.
        randomness: sentences on settings that make the one sample change, each with its full key.
        resolved: the whole composed tree, the trainer's other keys included, as plain containers.
        origins: key -> the override that set it (list indices as ``.0``); `origin` answers for every key.
        hidden: keys whose values no table shows: they came out of the environment, or are called a secret.
        secrets: such values, which no text shows.
        overrides, ini: that it was composed with.
    """

    path: Path
    exp_name: str
    img_size: int = 518
    patch_size: int = 14
    seed: int = 42
    max_epochs: int = 100
    val_epoch_freq: int = 10
    num_workers: int = 0
    train: SplitConfig = SplitConfig()
    val: SplitConfig | None = None
    model: Mapping[str, Any] = field(default_factory=lambda: {"_target_": DEFAULT_MODEL})
    loss: Mapping[str, Any] = field(default_factory=lambda: {"_target_": DEFAULT_LOSS})
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"_target_": DEFAULT_OPTIMIZER})
    frozen_module_names: tuple[str, ...] = ()
    amp: AmpConfig = field(default_factory=AmpConfig)
    gradient_clip: tuple[ClipGroup, ...] = ()
    lr_schedule: Mapping[str, Any] | None = None
    weight_decay_schedule: Mapping[str, Any] | None = None
    logging: LoggingConfig = LoggingConfig()
    overfit: OverfitSettings = field(default_factory=OverfitSettings)
    import_roots: tuple[Path, ...] = ()
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    trainer: TrainerConfig | None = None
    notes: tuple[str, ...] = ()
    randomness: tuple[str, ...] = ()
    resolved: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    secrets: tuple[str, ...] = field(default=(), repr=False)
    overrides: tuple[str, ...] = field(default=(), repr=False)
    ini: tuple[str, ...] = field(default=(), repr=False)

    @property
    def planned_steps(self) -> int:
        """The most optimizer steps that a run takes: the budget's, else epochs times steps per epoch."""
        return self.overfit.budget.max_steps or self.max_epochs * self.overfit.steps_per_epoch

    def origin(self, key: str) -> str:
        """Where the value of a dotted key comes from: an override, the config file (with its includes), or a default.

        Example:
            >>> OverfitConfig(Path("a.yaml"), "a", origins={"img_size": "override img_size=224"}).origin("img_size")
            'override img_size=224'
        """
        parts = [part for part in re.split(r"[.\[\]]+", key) if part]
        for count in range(len(parts), 0, -1):
            if ".".join(parts[:count]) in self.origins:
                return self.origins[".".join(parts[:count])]
        node: object = self.resolved
        for part in parts:
            if isinstance(node, Mapping) and part in node:
                node = node[part]
            elif isinstance(node, list) and part.isdecimal() and int(part) < len(node):
                node = node[int(part)]
            else:
                return "default"
        return self.path.name


def strict_config(config: OverfitConfig) -> OverfitConfig:
    """A config as a strict session runs it.

    Example:
        >>> strict_config(OverfitConfig(Path("a.yaml"), "a")).overfit.require_gpu
        True
    """
    if config.overfit.device != "auto" or config.overfit.require_gpu:
        return config
    origins = {**config.origins, f"overfit.{STRICT_KEY}": STRICT}
    return replace(config, overfit=replace(config.overfit, require_gpu=True), origins=origins)
