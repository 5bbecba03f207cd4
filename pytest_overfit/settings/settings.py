"""What a run may do, as frozen records of plain values: the ``overfit:`` section of a config, whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pytest_overfit.settings.criteria import Criteria, Monotonic


@dataclass(frozen=True)
class AmpConfig:
    """``optim.amp``: automatic mixed precision."""

    enabled: bool = False
    dtype: Literal["bfloat16", "float16"] = "bfloat16"


@dataclass(frozen=True)
class ClipGroup:
    """One entry of ``optim.gradient_clip.configs``: the modules clipped together, and to which norm."""

    module_names: tuple[str, ...]
    max_norm: float
    norm_type: float = 2.0


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
    keep_trained: bool = False
    budget: Budget = Budget()
    criteria: Criteria = field(default_factory=Criteria)
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
    criteria=Criteria(camera=None, depth=None, prediction=None, monotonic=Monotonic(floor=0.05)),
)
