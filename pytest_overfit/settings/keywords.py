"""The table of settings: one keyword each of the marker, the call and the command line, and its key in a config."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pytest_overfit.settings.settings import OverfitSettings

MARKER = "@pytest.mark.overfit"
COMMAND_LINE = "command line"
INI = "ini"
DEFAULT = "default"
LIMIT = "a number (below it), {below: number, above: number, relative: true, window: steps}, or false"
_CRITERION = "true, false, or a mapping"


@dataclass(frozen=True)
class Setting:
    """One keyword of ``@pytest.mark.overfit(...)``, ``overfit(...)`` and ``run_overfit(...)``.

    Args:
        key: its dotted key below ``overfit:`` in a config file.
        kind: what it may be.
        default, in_config: without a config, and under one where that is another.
        option: the command-line option of its own; its ini twin has the same name with underscores.
    """

    name: str
    key: str
    kind: str
    default: str
    help: str
    in_config: str = ""
    option: str = ""


SETTINGS = (
    Setting("objective", "criteria.objective", "a limit", "< 0.01", "limit of the loss that is minimised"),
    Setting("max_steps", "budget.max_steps", "a whole number of at least 1", "1000", "the most steps of a run",
            "max_epochs x steps_per_epoch", option="--overfit-max-steps"),
    Setting("max_seconds", "budget.max_seconds", "a number above 0", "none",
            "the most seconds of a run; code that does not come back is stopped, and its line named (see below)",
            option="--overfit-max-seconds"),
    Setting("hold_steps", "budget.hold_steps", "a whole number of at least 1", "5",
            "for how many steps in a row the criteria have to hold"),
    Setting("seeds", "seeds", "a whole number, or a list of distinct ones", "0", "one run for each of these seeds",
            "seed_value", option="--overfit-seeds"),
    Setting("pass_at_least", "pass_at_least", "a whole number from 1 to the number of seeds", "all",
            "how many of the seeds have to pass"),
    Setting("device", "device", "auto | model | cpu | cuda | cuda:N | mps | xpu", "model",
            "where to train: auto takes a GPU where there is one, model leaves the model where it is", "auto",
            option="--overfit-device"),
    Setting("require_gpu", "require_gpu", "true or false", "off", "fail where no GPU is found",
            option="--overfit-require-gpu"),
    Setting("amp", "amp", "false | bfloat16 | float16", "off", "automatic mixed precision", "optim.amp"),
    Setting("threads", "threads", "auto, keep, or a whole number from 1 to 4096", "keep",
            "CPU threads: auto takes the idle cores, keep leaves the process as it is", "auto"),
    Setting("deterministic", "deterministic", "true or false", "on", "deterministic kernels where torch has them"),
    Setting("keep_trained", "keep_trained", "true or false", "off",
            "leave the trained parameters in the model after the run"),
    Setting("monotonic", "criteria.monotonic", f"{_CRITERION} of window, tolerance, floor and strict",
            "window 21, tolerance 0.25, floor 0.05, strict off",
            "the running median of every limited term falls, and does not end above its best while above its limit",
            "window 21, tolerance 0.25, floor 0.003, strict off"),
    Setting("finite", "criteria.finite", "true or false", "on", "no NaN, no infinity: in losses, outputs, gradients"),
    Setting("gradients", "criteria.gradients", "true or false", "on",
            "every trainable parameter gets a gradient, is in an optimizer and moves"),
    Setting("supervised", "criteria.supervised", f"{_CRITERION} of min_valid_ratio and min_target_ratio",
            "min_valid_ratio 0.05, min_target_ratio 0.25",
            "the loss answers to model and batch, starts above its limits and falls by the weights; a frame has this "
            "share of valid pixels, a target this share of elements that the loss reads"),
    Setting("constant_batch", "criteria.constant_batch", "true or false", "on",
            "two draws of a loader are equal, and the batch of every step is what it was"),
    Setting("train_val", "criteria.train_val", f"{_CRITERION} of tolerance", "off",
            "evaluation and training loss agree", "tolerance 0.1 with a data.val"),
    Setting("prediction", "criteria.prediction",
            f"{_CRITERION} of abs_rel, delta_1_25, rotation_deg and translation_deg", "off",
            "the predictions themselves are near the truth",
            "abs_rel 0.05, delta_1_25 0.95, rotation_deg 1, translation_deg 2"),
    Setting("generates", "criteria.generates", "true or false", "off",
            "a language model of transformers gives the memorised sequences back, greedily from their first token"),
    Setting("unused", "criteria.unused", "text, or a list of text", "none",
            "globs over parameters that get no gradient on purpose"),
    Setting("frozen", "criteria.frozen", "text, or a list of text", "none",
            "globs over parameters that do not move on purpose"),
    Setting("unbounded", "criteria.unbounded", "true or false", "off",
            "the objective has no floor; its limit has to be stated"),
    Setting("stochastic", "criteria.stochastic", "true or false", "off",
            "forward passes or draws are random: limits hold for a windowed mean"),
    Setting("defects", "criteria.defects", "true or false", "on",
            "no probe finds a mistake that is certain, whatever the loss has reached"),
    Setting("allow", "criteria.allow", "text, or a list of text", "none",
            "ids of causes (docs/causes.md) that are meant here"),
    Setting("diagnose", "diagnose", "true or false", "on",
            "probe every run, and look for the cause of one that fails"),
    Setting("diagnose_seconds", "diagnose_seconds", "a number above 0", "three times all steps, at least 2",
            "the most seconds that the diagnosis of a failed run may take"),
    Setting("strategy", "distributed.strategy", "ddp | fsdp", "ddp",
            "under torchrun: DDP, or FSDP2 for a model that does not fit (docs/distributed.md)"),
    Setting("rank_timeout", "distributed.timeout", "a number above 0, at most 86400", "120",
            "under torchrun: the most seconds that a rank keeps the others waiting"),
    Setting("fsdp_modules", "distributed.modules", "text, or a list of text", "none",
            "under torchrun: globs over the modules that FSDP2 shards each on its own; none: the model's blocks"),
)  # fmt: skip
# Of the marker alone.
CONFIG = Setting("config", "", "a path, relative to the test file", "none", "the config file to run under")

KEYS = {setting.name: setting.key for setting in SETTINGS}
TERMS = "criteria.terms"
# Names of a config that are no keywords, and would otherwise be taken for a limit on a term of that name.
NO_TERMS = ({field.name for field in fields(OverfitSettings)} | {"terms", "config"}) - KEYS.keys()


def keyword_of(key: str) -> str:
    """The keyword of a dotted key below ``overfit:``; the key itself where it has none."""
    names = {dotted: name for name, dotted in KEYS.items()}
    if key in names:
        return names[key]
    head, _, rest = key.partition(".")
    return rest.removeprefix("terms.") if head == "criteria" else key


def marker_text() -> str:
    """The text of ``pytest --markers``."""
    lines = [f"  {setting.name:<18}{setting.help}: {setting.kind}" for setting in (CONFIG, *SETTINGS)]
    head = "overfit(config=..., max_steps=..., TERM=limit, ...): settings of the test's run (docs/settings.md)"
    return "\n".join([head, *lines, f"  {'TERM':<18}limit of the loss term of that name: {LIMIT}"])
