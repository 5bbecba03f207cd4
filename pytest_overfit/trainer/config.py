"""What a config says, as frozen records of plain values: no omegaconf, yaml or torch object gets past this door.

Names follow the trainer's config where it has the key (``fix_img_num``, ``remove_sky``, ``max_norm``). Sections that
name a Python object (``_target_``) stay plain mappings: building them is the run's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pytest_overfit.settings.criteria import Criteria
from pytest_overfit.trainer.config import CheckpointConfig, TrainerConfig

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
class AmpConfig:
    """``optim.amp``: automatic mixed precision."""

    enabled: bool = False
    dtype: Literal["bfloat16", "float16"] = "bfloat16"


@dataclass(frozen=True)
class ClipGroup:
    """Modules whose gradients are clipped together, and to which norm: an entry of ``optim.gradient_clip.configs``."""

    module_names: tuple[str, ...]
    max_norm: float
    norm_type: float = 2.0


@dataclass(frozen=True)
class LoggingConfig:
    """``logging``: where curves and pictures go, how often (in steps), and which scalars per split."""

    log_dir: Path | None = None
    log_freq: int = 1
    log_visuals: bool = False
    scalar_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class PairSource:
    """``overfit.pair``: where the one pair comes from.

    ``dataset`` reads it from ``data.train``; ``render`` renders a synthetic scene; ``cut`` takes pair ``pair_index``
    out of a source in the AerialMegaDepth layout; ``trainer`` takes the batches of the class that ``data.train`` names.
    ``seed``, ``width`` and ``height`` (pixels) are the render's. ``follow_links``: whether a scene or a file may be a
    link that leads out of its folder: into no other, into any, or into these folders.
    """

    source: Literal["dataset", "render", "cut", "trainer"] = "render"
    pair_index: int = 0
    seed: int = 0
    width: int = 640
    height: int = 480
    source_root: Path | None = None
    source_seg_root: Path | None = None
    source_npz: Path | None = None
    follow_links: bool | tuple[Path, ...] = False


@dataclass(frozen=True)
class Budget:
    """``overfit.budget``: how long a run may take, and for how many steps in a row the criteria must hold."""

    max_steps: int | None = None
    max_seconds: float | None = None
    hold_steps: int = 5


@dataclass(frozen=True)
class Probes:
    """``overfit.probes``: what is measured beside the loss.

    ``gradient_every``: steps between two looks at the gradients, after the first ``DENSE_STEPS`` of a run.
    """

    sensitivity: bool = True
    gradient_every: int = 1


@dataclass(frozen=True)
class Distributed:
    """``overfit.distributed``: how the ranks of a launcher such as torchrun train together; without one it is not read.

    ``timeout``: seconds that a rank may take for anything that the others wait for. ``modules``: globs over the names
    of the modules that FSDP2 shards each on its own; empty: the elements of the model's ``ModuleList``s.
    """

    strategy: Literal["ddp", "fsdp"] = "ddp"
    timeout: float = 120.0
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class OverfitSettings:
    """The ``overfit:`` section, which is this plugin's own and strict: an unknown key in it is an error.

    The defaults are those of a config file; ``ANY_MODEL`` has those of a run without one.

    Args:
        device: ``auto`` takes a GPU where there is one, ``model`` the device that the model is on.
        threads: CPU threads; ``auto`` takes the idle cores, ``keep`` leaves the process as it is.
        seeds: one run each; empty: one run with the config's ``seed_value``, or 0.
        pass_at_least: how many of the seeds have to pass; None: all.
        amp: automatic mixed precision; None: as ``optim.amp`` says, off without a config.
        freeze: globs over the modules and parameters that are frozen for the run, beside ``optim.frozen_module_names``.
        clip_grad_norm: modules whose gradients are clipped together; empty: as ``optim.gradient_clip`` says.
        keep_trained: leave the trained parameters and optimizer state in place after the run.
        import_roots: where ``_target_`` classes are looked up; empty: found from the place of the config.
        prepare_batch: dotted path of a function from the loader's batch to the model's; None: our normalisation.
        checkpoint: ``none`` trains from scratch, a path loads it; None: as ``checkpoint.resume_checkpoint_path`` says.
    """

    pair: PairSource = PairSource()
    steps_per_epoch: int = 10
    half_pixel_depth: bool = False
    device: str = "auto"
    require_gpu: bool = False
    threads: int | Literal["auto", "keep"] = "auto"
    deterministic: bool = True
    seeds: tuple[int, ...] = ()
    pass_at_least: int | None = None
    amp: AmpConfig | None = None
    freeze: tuple[str, ...] = ()
    clip_grad_norm: tuple[ClipGroup, ...] = ()
    keep_trained: bool = False
    budget: Budget = Budget()
    criteria: Criteria = field(default_factory=lambda: Criteria(in_config=True))
    probes: Probes = Probes()
    diagnose: bool = True
    diagnose_seconds: float | None = None
    import_roots: tuple[Path, ...] = ()
    prepare_batch: str | None = None
    checkpoint: Path | Literal["none"] | None = None
    distributed: Distributed = Distributed()


ANY_MODEL = OverfitSettings(
    device="model",
    threads="keep",
    budget=Budget(max_steps=1000),
    probes=Probes(gradient_every=10),
    criteria=Criteria(),
)


@dataclass(frozen=True)
class OverfitConfig:
    """One config file, composed, resolved and checked.

    Example:
        >>> config = load_config("example_configs/single_pair_test.yaml")           # doctest: +SKIP
        >>> config.train.width, config.overfit.criteria.camera.below, config.planned_steps   # doctest: +SKIP
        (224, 0.001, 1000)

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
    amp: AmpConfig = AmpConfig()
    gradient_clip: tuple[ClipGroup, ...] = ()
    lr_schedule: Mapping[str, Any] | None = None
    weight_decay_schedule: Mapping[str, Any] | None = None
    logging: LoggingConfig = LoggingConfig()
    overfit: OverfitSettings = OverfitSettings()
    import_roots: tuple[Path, ...] = ()
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    trainer: TrainerConfig | None = None
    notes: tuple[str, ...] = ()
    randomness: tuple[str, ...] = ()
    resolved: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    secrets: tuple[str, ...] = field(default=(), repr=False)

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
