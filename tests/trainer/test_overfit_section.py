"""The strict `overfit:` section."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_overfit.judge.monotonic import Monotonic
from pytest_overfit.judge.supervised import Supervised
from pytest_overfit.judge.train_val import TrainVal
from pytest_overfit.settings.criteria import Criteria, Limit
from pytest_overfit.settings.criteria_registry import BESIDE, entries
from pytest_overfit.settings.settings import AmpConfig, Budget, OverfitSettings, PairSource, Probes
from pytest_overfit.two_view.frame_criteria import Prediction

from .helpers import load, problems_in

FULL = """\
data: {val: {common_config: {fix_aspect_ratio: 1.0}}}
overfit:
  pair:
    source: cut
    pair_index: 3
    seed: 4
    width: 320
    height: 240
    source_root: src
    source_seg_root: /seg
  steps_per_epoch: 5
  half_pixel_depth: true
  device: cuda:1
  require_gpu: true
  threads: 2
  deterministic: false
  seeds: [3, 1, "2"]
  pass_at_least: 2
  amp: bfloat16
  keep_trained: on
  budget: {max_steps: 50, max_seconds: 9.5, hold_steps: 2}
  criteria:
    objective: {below: 0.5}
    camera: 1e-2
    depth: 3
    loss_T: 0.001
    terms: {my_nll: -1.5}
    monotonic: {window: 5, tolerance: 0.5, floor: 0.1, strict: true}
    finite: false
    gradients: off
    supervised: {min_valid_ratio: 0.2}
    constant_batch: no
    train_val: {tolerance: 0.3}
    prediction: {abs_rel: 0.1, rotation_deg: null}
    unused: pooler.*
    frozen: [embed.*, "*.bias"]
    unbounded: true
    stochastic: yes
    defects: off
    allow: [input-ignored, mine.own]
  diagnose: no
  diagnose_seconds: 7.5
  probes: {sensitivity: false, gradient_every: 10}
"""


def criteria(tmp_path: Path, text: str, before: str = "exp_name: x\n") -> Criteria:
    return load(tmp_path, f"{before}overfit: {{criteria: {text}}}\n").overfit.criteria


def test_every_key(tmp_path: Path) -> None:
    """Every key of the section arrives in its record."""
    assert load(tmp_path, FULL).overfit == OverfitSettings(
        pair=PairSource("cut", 3, 4, 320, 240, tmp_path / "src", Path("/seg"), tmp_path / "src" / "train.npz"),
        steps_per_epoch=5,
        half_pixel_depth=True,
        device="cuda:1",
        require_gpu=True,
        threads=2,
        deterministic=False,
        seeds=(3, 1, 2),
        pass_at_least=2,
        amp=AmpConfig(True, "bfloat16"),
        keep_trained=True,
        budget=Budget(50, 9.5, 2),
        criteria=Criteria(
            in_config=True,
            objective=Limit(0.5),
            camera=Limit(0.01),
            depth=Limit(3.0),
            terms={"loss_T": Limit(0.001), "my_nll": Limit(-1.5)},
            monotonic=Monotonic(5, 0.5, 0.1, True),
            finite=False,
            gradients=False,
            supervised=Supervised(0.2),
            constant_batch=False,
            train_val=TrainVal(0.3),
            prediction=Prediction(abs_rel=0.1, rotation_deg=None),
            unused=("pooler.*",),
            frozen=("embed.*", "*.bias"),
            unbounded=True,
            stochastic=True,
            defects=False,
            allow=("input-ignored", "mine.own"),
        ),
        probes=Probes(False, 10),
        diagnose=False,
        diagnose_seconds=7.5,
    )


def test_defaults(tmp_path: Path) -> None:
    """Without the section everything is at its default, and train_val is on exactly where there is a val split."""
    assert load(tmp_path, "exp_name: x\n").overfit == OverfitSettings()
    with_val = load(tmp_path, "data: {val: {common_config: {fix_aspect_ratio: 1}}}\n").overfit
    assert with_val.criteria == Criteria(in_config=True, train_val=TrainVal())


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("0.5", Limit(0.5)),
        ("{below: 0.5}", Limit(0.5)),
        ("{above: 0.99}", Limit(above=0.99)),
        ("{below: 1, above: -1}", Limit(1.0, -1.0)),
        ("{below: 0.05, relative: true}", Limit(0.05, relative=True)),
        ("{above: 2, relative: on, window: 20}", Limit(above=2.0, relative=True, window=20)),
    ],
)
def test_limits(tmp_path: Path, text: str, limit: Limit) -> None:
    """A number is an upper limit; a mapping says below, above, relative and window. Every limit is read alike."""
    found = criteria(tmp_path, f"{{objective: {text}, camera: {text}, loss_T: {text}, terms: {{x: {text}}}}}")
    assert (found.objective, found.camera, found.terms) == (limit, limit, {"loss_T": limit, "x": limit})


@pytest.mark.parametrize(
    ("text", "amp"),
    [("false", AmpConfig()), ("'off'", AmpConfig()), ("float16", AmpConfig(True, "float16")), ("~", None)],
)
def test_amp(tmp_path: Path, text: str, amp: AmpConfig | None) -> None:
    """Off is not the same as not given, which leaves it to `optim.amp`."""
    assert load(tmp_path, f"overfit: {{amp: {text}}}\n").overfit.amp == amp


@pytest.mark.parametrize(("text", "seeds"), [("7", (7,)), ("[0]", (0,)), ("'4'", (4,)), ("[]", None), ("~", ())])
def test_seeds(tmp_path: Path, text: str, seeds: tuple[int, ...] | None) -> None:
    """One, or a list that is not empty; null is as good as nothing."""
    if seeds is None:
        assert problems_in(tmp_path, f"overfit: {{seeds: {text}}}\n")
    else:
        assert load(tmp_path, f"overfit: {{seeds: {text}}}\n").overfit.seeds == seeds


@pytest.mark.parametrize("device", ["model", "cuda:0", "xpu", "auto"])
def test_devices(tmp_path: Path, device: str) -> None:
    """`model` leaves the model where it is; `threads: keep` the process as it is."""
    settings = load(tmp_path, f"overfit: {{device: '{device}', threads: keep}}\n").overfit
    assert (settings.device, settings.threads) == (device, "keep")


@pytest.mark.parametrize("off", ["off", "false", "null", "no", "'off'", "~", "Off"])
def test_off(tmp_path: Path, off: str) -> None:
    """Every way to say off switches a criterion off, of whichever kind."""
    found = criteria(
        tmp_path, f"{{objective: {off}, finite: {off}, monotonic: {off}, prediction: {off}, defects: {off}}}"
    )
    assert found == Criteria(
        in_config=True, objective=None, finite=False, monotonic=None, prediction=None, defects=False
    )


def test_off_by_override(tmp_path: Path) -> None:
    """On the command line `off` is text to Hydra, and still means off."""
    config = load(tmp_path, "exp_name: x\n", ["overfit.criteria.camera=off", "overfit.criteria.gradients=off"])
    assert config.overfit.criteria == Criteria(in_config=True, camera=None, gradients=False)


def test_on(tmp_path: Path) -> None:
    """On, and an empty mapping, mean the defaults."""
    text = "{objective: on, monotonic: true, supervised: {}, finite: yes, defects: on}"
    assert criteria(tmp_path, text) == Criteria(in_config=True)


def test_trainers_names(tmp_path: Path) -> None:
    """The trainer's log names of the three headline limits mean these limits, not further terms."""
    found = criteria(tmp_path, "{loss_objective: 0.1, loss_camera: 0.2, loss_depth: off, loss_reg_depth: 0.3}")
    assert found == Criteria(
        in_config=True, objective=Limit(0.1), camera=Limit(0.2), depth=None, terms={"loss_reg_depth": Limit(0.3)}
    )


def test_terms_that_the_loss_leaves_out(tmp_path: Path) -> None:
    """A loss with `camera: null` has no camera criterion by default; asking for it brings it back."""
    loss = "loss: {camera: null, depth: {weight: 1.0}}\n"
    assert criteria(tmp_path, "{}", loss) == Criteria(in_config=True, camera=None)
    assert criteria(tmp_path, "{camera: 0.1}", loss).camera == Limit(0.1)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "criteria: {objectve: 0.1}",
            "criteria.objectve: found an unknown key (did you mean objective?), allowed: objective | defects"
            f" | supervised and {len((*entries(), *BESIDE)) - 3} more: docs/settings.md",
        ),
        ("criteria: {objective: low}",
         "criteria.objective: found 'low', allowed: a number, {below: number}, {above: number}, or false"),
        ("criteria: {objective: .nan}",
         "criteria.objective: found nan, allowed: a number, {below: number}, {above: number}, or false"),
        ("criteria: {camera: 0}",
         "criteria.camera: found 0, allowed: a number above 0, {below: number}, {above: number}, or false"),
        ("criteria: {objective: {belo: 1}}",
         "criteria.objective.belo: found an unknown key (did you mean below?), allowed: below | above | relative"
         " | window"),
        ("criteria: {objective: {window: 2}}",
         "criteria.objective: found {'window': 2}, allowed: a number under below, above, or both"),
        ("criteria: {objective: {below: 1, above: 1}}",
         "criteria.objective.above: found 1.0, allowed: a number under below, 1.0"),
        ("criteria: {objective: {below: 0, relative: true}}",
         "criteria.objective.below: found 0, allowed: a number above 0"),
        ("criteria: {loss_T: {above: -1, relative: true}}",
         "criteria.loss_T.above: found -1, allowed: a number above 0"),
        ("criteria: {objective: {below: 1, window: 0}}",
         "criteria.objective.window: found 0, allowed: a whole number of at least 1"),
        ("criteria: {depth: {below: 0}}", "criteria.depth.below: found 0, allowed: a number above 0"),
        ("criteria: {unused: 3}", "criteria.unused: found 3, allowed: a list of text"),
        ("criteria: {frozen: [a, 1]}", "criteria.frozen: found ['a', 1], allowed: a list of text"),
        ("criteria: {stochastic: 2}", "criteria.stochastic: found 2, allowed: true or false"),
        ("criteria: {defects: 2}", "criteria.defects: found 2, allowed: true or false"),
        ("criteria: {allow: 3}", "criteria.allow: found 3, allowed: a list of text"),
        ("criteria: {allow: [lr-hih]}",
         "criteria.allow: found 'lr-hih', allowed: ids of docs/causes.md; did you mean 'lr-high'?"),
        ("diagnose: 2", "diagnose: found 2, allowed: true or false"),
        ("diagnose_seconds: 0", "diagnose_seconds: found 0, allowed: a number above 0"),
        ("criteria: {unbounded: true}",
         "criteria.unbounded: found true, allowed: a stated objective limit beside it"),
        ("criteria: {unbounded: true, objective: true}",
         "criteria.unbounded: found true, allowed: a stated objective limit beside it"),
        ("criteria: {unbounded: true, objective: off}",
         "criteria.unbounded: found true, allowed: a stated objective limit beside it"),
        ("seeds: [1, 1]", "seeds: found [1, 1], allowed: distinct whole numbers from 0 to 4294967295: one, or a list"),
        ("seeds: -1", "seeds: found -1, allowed: distinct whole numbers from 0 to 4294967295: one, or a list"),
        ("seeds: [true]", "seeds: found [True], allowed: distinct whole numbers from 0 to 4294967295: one, or a list"),
        ("seeds: {a: 1}",
         "seeds: found {'a': 1}, allowed: distinct whole numbers from 0 to 4294967295: one, or a list"),
        ("{seeds: [1, 2], pass_at_least: 3}",
         "pass_at_least: found 3, more than the number of seeds, allowed: a whole number from 1 to 2"),
        ("pass_at_least: 0", "pass_at_least: found 0, allowed: a whole number of at least 1"),
        ("amp: true", "amp: found true, allowed: false | bfloat16 | float16"),
        ("amp: half", "amp: found 'half', allowed: false | bfloat16 | float16"),
        ("criteria: {loss_T: true}", "criteria.loss_T: found true, allowed: a number, the limit; there is no default"),
        ("criteria: {camera: 1, loss_camera: 1}",
         "criteria.loss_camera: found a second limit beside camera, allowed: one of camera and loss_camera"),
        ("criteria: {monotonic: 3}", "criteria.monotonic: found 3, allowed: true, false, or a mapping of its settings"),
        ("criteria: {monotonic: {window: 0}}",
         "criteria.monotonic.window: found 0, allowed: a whole number of at least 1"),
        ("criteria: {finite: 2}", "criteria.finite: found 2, allowed: true or false"),
        ("criteria: {supervised: {min_valid_ratio: 5}}",
         "criteria.supervised.min_valid_ratio: found 5, allowed: a number from 0 to 1"),
        ("criteria: {train_val: on}", "criteria.train_val: found true, allowed: false: the config has no data.val; "
         "data.val: ${data.train} is the same sample"),
        ("criteria: {prediction: {abs_rel: null, delta_1_25: null, rotation_deg: null, translation_deg: null, "
         "fov_deg: null}}",
         "criteria.prediction: found every limit null, allowed: at least one limit, or prediction: false"),
        ("criteria: [objective]", "criteria: found ['objective'], allowed: a mapping"),
        ("budget: {max_steps: 0}", "budget.max_steps: found 0, allowed: a whole number of at least 1"),
        ("budget: {max_seconds: 0}", "budget.max_seconds: found 0, allowed: a number above 0"),
        ("budget: {max_steps: 3, hold_steps: 5}",
         "budget.hold_steps: found 5, more than the 3 steps of the run, allowed: at most 3"),
        ("device: gpu",
         "device: found 'gpu' (did you mean cuda?), allowed: auto | model | cpu | cuda | cuda:N | mps | xpu | "
         "another backend of torch"),
        ("device: 0",
         "device: found 0, allowed: auto | model | cpu | cuda | cuda:N | mps | xpu | another backend of torch"),
        ("threads: 0", "threads: found 0, allowed: auto, keep, or a whole number from 1 to 4096"),
        ("threads: many", "threads: found 'many', allowed: auto, keep, or a whole number from 1 to 4096"),
        ("{device: cpu, require_gpu: true}",
         "require_gpu: found true beside device: cpu, allowed: false, or another device"),
        ("pair: {source: rendered}",
         "pair.source: found 'rendered' (did you mean render?), allowed: dataset | render | cut | trainer"),
        ("pair: {source: cut}",
         "pair.source_root: found nothing, allowed: the folder of a source in the AerialMegaDepth layout"),
        ("pair: {source_root: x}",
         "pair.source: found nothing, which means render, beside a source_root, allowed: cut, to use source_root"),
        ("pair: {pair_idx: 1}",
         "pair.pair_idx: found an unknown key (did you mean pair_index?), allowed: source | pair_index | seed |"
         " width | height | source_root | source_seg_root | source_npz | follow_links"),
        ("probes: {gradient_every: 0}", "probes.gradient_every: found 0, allowed: a whole number of at least 1"),
    ],
)  # fmt: skip
def test_problems(tmp_path: Path, text: str, line: str) -> None:
    """Each wrong value shows its full key, what was found and what is allowed."""
    body = text if text.startswith("{") else f"{{{text}}}"
    assert f"a.yaml: overfit.{line}" in problems_in(tmp_path, f"overfit: {body}\n")


def test_zero_criteria(tmp_path: Path) -> None:
    """A gate that checks nothing is an error."""
    off = [
        "objective",
        "camera",
        "depth",
        "monotonic",
        "finite",
        "gradients",
        "supervised",
        "constant_batch",
        "prediction",
    ]
    assert problems_in(tmp_path, "exp_name: x\n", [f"overfit.criteria.{name}=off" for name in off]) == [
        "a.yaml: overfit.criteria: found no limit on any term: nothing asks for learning, allowed: "
        "a limit of the objective or of a term of the loss"
    ]
    left = load(tmp_path, "exp_name: x\n", [f"overfit.criteria.{name}=off" for name in off[1:]])
    assert left.overfit.criteria.names() == ("objective", "defects")
    left = load(tmp_path, "exp_name: x\n", [f"overfit.criteria.{name}=off" for name in [*off[1:], "defects"]])
    assert left.overfit.criteria.names() == ("objective",)


def test_dataset_without_root(tmp_path: Path) -> None:
    """A pair from a dataset needs the dataset's folder, for each split."""
    text = "data: {val: {dataset: {dataset_configs: [{len_test: 1}]}}}\noverfit: {pair: {source: dataset}}\n"
    assert problems_in(tmp_path, text) == [
        f"a.yaml: data.{split}.dataset.dataset_configs[0].ROOT: found nothing, allowed: the dataset's folder,"
        " for a pair from a dataset"
        for split in ("train", "val")
    ]


def test_a_short_epoch_is_held_as_long_as_it_can(tmp_path: Path) -> None:
    """As a short budget is; the learning rate of a config is its optimizer's."""
    config = load(tmp_path, "max_epochs: 1\noverfit: {steps_per_epoch: 3}\n")
    assert config.overfit.budget.hold_steps == 2
    (line,) = problems_in(tmp_path, "overfit: {lr: 0.01}\n")
    assert "overfit.lr: found 0.01, allowed: optim.optimizer.lr" in line
