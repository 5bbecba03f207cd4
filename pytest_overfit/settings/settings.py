"""What a run may do, as frozen records of plain values: the ``overfit:`` section of a config, whole.

Each setting is defined here alone: its type, its default, what it may be, and its line of documentation. The reader,
keywords, ``pytest --markers``, docs/settings.md and the errors come from that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pytest_overfit.settings import kinds
from pytest_overfit.settings.criteria import Criteria
from pytest_overfit.settings.kinds import SWITCH, choice, number, setting

if TYPE_CHECKING:
    from pytest_overfit.settings.section import Section


@dataclass(frozen=True)
class AmpConfig:
    """``optim.amp``: automatic mixed precision."""

    enabled: bool = False
    dtype: Literal["bfloat16", "float16"] = "bfloat16"


def _amp(section: Section, name: str, default: Any, folder: Path) -> Any:
    value = section.as_switch(name)
    if value not in (None, False, "bfloat16", "float16"):
        section.refuse(name, AMP.words)
        return None
    return default if value is None else AmpConfig(True, value) if value else AmpConfig(False)


AMP = kinds.Kind("false | bfloat16 | float16", _amp)


@dataclass(frozen=True)
class ClipGroup:
    """Modules whose gradients are clipped together, and to which norm: an entry of ``optim.gradient_clip.configs``."""

    module_names: tuple[str, ...]
    max_norm: float
    norm_type: float = 2.0


def _clip(section: Section, name: str, default: Any, folder: Path) -> tuple[ClipGroup, ...]:
    if isinstance(section.get(name), dict):
        groups = section.section(name)
        norms = {str(glob): groups.number(glob, None, above=0) for glob in groups.values}
        return tuple(ClipGroup((glob,), norm) for glob, norm in norms.items() if norm is not None)
    before = len(section.problems)
    norm = section.number(name, None, above=0)
    section.reword(before, CLIP.words)
    return default if norm is None else (ClipGroup(("*",), norm),)


CLIP = kinds.Kind("a number above 0, or a mapping of globs over modules to such numbers", _clip)


@dataclass(frozen=True)
class PairSource:
    """``overfit.pair``: where the one pair comes from."""

    source: Literal["dataset", "render", "cut", "trainer"] = setting(
        "render", choice("dataset", "render", "cut", "trainer"),
        help="data.train's files, a synthetic scene, one pair out of a source in the AerialMegaDepth layout, or the "
        "batches of the class that data.train names",
    )  # fmt: skip
    pair_index: int = setting(0, number(whole=True, at_least=0), "which pair of a dataset or a cut")
    seed: int = setting(0, number(whole=True, at_least=0, at_most=kinds.LAST_SEED), "of the scene that is rendered")
    width: int = setting(640, number(whole=True, at_least=16, at_most=8192), "of a rendered image, in pixels")
    height: int = setting(480, number(whole=True, at_least=16, at_most=8192), "of a rendered image, in pixels")
    source_root: Path | None = setting(None, kinds.FILE, "the folder that a pair is cut out of", none="none")
    source_seg_root: Path | None = setting(None, kinds.FILE, "the folder of its segmentations", none="none")
    source_npz: Path | None = setting(None, kinds.FILE, "its index", none="train.npz in source_root")
    follow_links: bool | tuple[Path, ...] = setting(
        False, kinds.LINKS, "whether a scene or a file may be a link out of its folder, and where to"
    )


@dataclass(frozen=True)
class Budget:
    """``overfit.budget``: how long a run may take, and for how many steps in a row the criteria must hold."""

    max_steps: int | None = setting(
        None, number(whole=True, at_least=1), keyword="max_steps", option="--overfit-max-steps", none="none",
        in_config="max_epochs x steps_per_epoch", help="the most steps of a run",
    )  # fmt: skip
    max_seconds: float | None = setting(
        None, number(above=0), keyword="max_seconds", option="--overfit-max-seconds", none="none",
        help="the most seconds of a run; code that does not come back is stopped, and its line named (see below)",
    )  # fmt: skip
    hold_steps: int = setting(
        5, number(whole=True, at_least=1), "for how many steps in a row the criteria have to hold", keyword="hold_steps"
    )

    def fitting(self, steps: int | None = None) -> Budget:
        """The same, its default ``hold_steps`` those of a run of so many steps, the first of which cannot hold.

        Example:
            >>> Budget(max_steps=3).fitting().hold_steps, Budget().fitting(4).hold_steps
            (2, 3)
        """
        most = self.max_steps or steps
        if most is None or self.hold_steps != Budget.hold_steps:
            return self
        return replace(self, hold_steps=min(self.hold_steps, max(1, most - 1)))


@dataclass(frozen=True)
class Probes:
    """``overfit.probes``: what is measured beside the loss."""

    sensitivity: bool = setting(True, SWITCH, "whether the outputs are asked what they depend on")
    gradient_every: int = setting(
        1, number(whole=True, at_least=1), "steps between two looks at the gradients, after the first ones of a run"
    )


@dataclass(frozen=True)
class Distributed:
    """``overfit.distributed``: how the ranks of a launcher such as torchrun train together; not read without one."""

    strategy: Literal["ddp", "fsdp"] = setting(
        "ddp", choice("ddp", "fsdp"), keyword="strategy",
        help="under torchrun: DDP, or FSDP2 for a model that does not fit (docs/distributed.md)",
    )  # fmt: skip
    timeout: float = setting(
        120.0, number(above=0, at_most=86400), keyword="rank_timeout",
        help="under torchrun: the most seconds that a rank keeps the others waiting",
    )  # fmt: skip
    modules: tuple[str, ...] = setting(
        (), kinds.TEXTS, keyword="fsdp_modules",
        help="under torchrun: globs over the modules that FSDP2 shards each on its own; none: the model's blocks",
    )  # fmt: skip


@dataclass(frozen=True)
class OverfitSettings:
    """The ``overfit:`` section, which is this plugin's own and strict: an unknown key in it is an error.

    The defaults are those of a config file; ``ANY_MODEL`` has those of a run without one.
    """

    budget: Budget = Budget()
    seeds: tuple[int, ...] = setting(
        (), kinds.SEEDS, keyword="seeds", option="--overfit-seeds", none="0", in_config="seed_value",
        help="one run for each of these seeds",
    )  # fmt: skip
    pass_at_least: int | None = setting(
        None, number(whole=True, at_least=1), "how many of the seeds have to pass", keyword="pass_at_least", none="all"
    )
    device: str = setting(
        "auto", kinds.DEVICE, keyword="device", option="--overfit-device",
        help="where to train: auto takes a GPU where there is one, model leaves the model where it is",
    )  # fmt: skip
    require_gpu: bool = setting(
        False, SWITCH, "fail where no GPU is found", keyword="require_gpu", option="--overfit-require-gpu"
    )
    amp: AmpConfig | None = setting(None, AMP, "automatic mixed precision", keyword="amp", in_config="optim.amp")
    threads: int | Literal["auto", "keep"] = setting(
        "auto", number(whole=True, words=("auto", "keep"), at_least=1, at_most=4096), keyword="threads",
        help="CPU threads: auto takes the idle cores, keep leaves the process as it is",
    )  # fmt: skip
    deterministic: bool = setting(True, SWITCH, "deterministic kernels where torch has them", keyword="deterministic")
    keep_trained: bool = setting(
        False, SWITCH, "leave the trained parameters in the model after the run", keyword="keep_trained"
    )
    lr: float | None = setting(
        None, number(above=0), keyword="lr", none="0.001", in_config="optim.optimizer.lr",
        help="the learning rate of the default optimizer, AdamW without weight decay; one that is given has its own",
    )  # fmt: skip
    freeze: tuple[str, ...] = setting(
        (), kinds.TEXTS, keyword="freeze", none="none",
        help="globs over modules and parameters that are frozen for the run, modules in evaluation mode; in a config "
        "beside optim.frozen_module_names",
    )  # fmt: skip
    clip_grad_norm: tuple[ClipGroup, ...] = setting(
        (), CLIP, keyword="clip_grad_norm", none="none",
        help="clip the norm of all gradients together, or of each of these modules, before every step; in a config in "
        "place of optim.gradient_clip",
    )  # fmt: skip
    criteria: Criteria = field(default_factory=lambda: Criteria(in_config=True))
    diagnose: bool = setting(
        True, SWITCH, "probe every run, and look for the cause of one that fails", keyword="diagnose"
    )
    diagnose_seconds: float | None = setting(
        None, number(above=0), keyword="diagnose_seconds", none="three times all steps, at least 2",
        help="the most seconds that the diagnosis of a failed run may take",
    )  # fmt: skip
    distributed: Distributed = Distributed()
    pair: PairSource = PairSource()
    steps_per_epoch: int = setting(10, number(whole=True, at_least=1), "how often an epoch repeats the one batch")
    half_pixel_depth: bool = setting(False, SWITCH, "sample the depth at a resized pixel's centre, not its corner")
    probes: Probes = Probes()
    import_roots: tuple[Path, ...] = setting(
        (), kinds.FOLDERS, "where _target_ classes are looked up", none="the folders up to the repository's root"
    )
    prepare_batch: str | None = setting(
        None, kinds.DOTTED, "a function from the loader's batch to the model's", none="our normalisation"
    )
    checkpoint: Path | Literal["none"] | None = setting(
        None, kinds.WEIGHTS, "the weights to start from; none: from scratch", none="checkpoint.resume_checkpoint_path"
    )


ANY_MODEL = OverfitSettings(
    device="model", threads="keep", budget=Budget(max_steps=1000), probes=Probes(gradient_every=20), criteria=Criteria()
)
