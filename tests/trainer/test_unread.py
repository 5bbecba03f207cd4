"""What nothing reads is said: a certain misspelling is an error, every other such key a note."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_overfit.settings.problems import Unusable
from pytest_overfit.settings.section import Reads
from pytest_overfit.trainer import validation
from pytest_overfit.trainer.compose import Tree, compose_tree
from pytest_overfit.trainer.loading import load_config
from pytest_overfit.trainer.unread import Unread, unread

from .helpers import EXAMPLES, load, problems_in, write
from .test_guide_keys import GUIDE

HYDRA = Path(__file__).parents[2] / "examples" / "hydra_trainer" / "training" / "config" / "single_pair_test.yaml"
# Every key that a config of our own data path can have.
OURS = """\
exp_name: x
img_size: 112
patch_size: 14
seed_value: 1
max_epochs: 30
val_epoch_freq: 10
num_workers: 0
limit_train_batches: 4
data:
  train:
    num_workers: 0
    common_config: {img_size: 112, patch_size: 14, fix_img_num: 2, fix_aspect_ratio: 0.92, augs: {scales: [1.0, 1.0],
      aspects: [1.0, 1.0], color_jitter: false, cojitter: false, cojitter_ratio: 0.3, gray_scale: false,
      gau_blur: false}}
    dataset:
      dataset_configs: [{ROOT: ., split_file: a.npz, segmentation_root: seg, remove_sky: true, max_depth: 2000,
                         depth_percentile: 98, len_train: 5, len_test: 5}]
  val: {dataset: {dataset_configs: [{ROOT: .}]}}
model: {_target_: a.B}
loss: {_target_: a.C, camera: {weight: 5.0, loss_type: l1},
       depth: {weight: 1.0, gradient_loss_fn: grad, valid_range: 0.98}}
optim:
  optimizer: {_target_: a.D, lr: 1e-3, weight_decay: 0.0, betas: [0.9, 0.99], eps: 1e-8, momentum: 0.9}
  frozen_module_names: [a]
  amp: {enabled: false, amp_dtype: float16}
  gradient_clip: {configs: [{module_name: [a], max_norm: 1.0, norm_type: 2}]}
  options: {lr: [{scheduler: {_target_: a.E}}], weight_decay: [{scheduler: {_target_: a.E}}]}
logging: {log_dir: x, log_freq: 1, log_visuals: false, scalar_keys_to_log: {train: {keys_to_log: [a]}}}
checkpoint: {strict: true, resume_checkpoint_path: start.pt}
"""


def told(tree: dict[str, Any]) -> tuple[str, ...]:
    """The problems and notes of a composed config."""
    try:
        config = validation.build_config(Path("a.yaml").absolute(), Tree(copy.deepcopy(tree), {}))
        return (*config.notes, *config.randomness)
    except Unusable as error:
        return tuple(problem.line("") for problem in error.problems)


def sections(node: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping of a tree with its dotted key."""
    if isinstance(node, dict):
        yield key, node
        for name, value in node.items():
            yield from sections(value, f"{key}.{name}" if key else name)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from sections(value, f"{key}[{index}]")


def misspelt_names(name: str, known: set[str]) -> set[str]:
    """One letter exchanged with the next, dropped, doubled or wrong; no other key of the place."""
    places = range(len(name))
    swapped = {name[:i] + name[i + 1] + name[i] + name[i + 2 :] for i in places[:-1]}
    dropped, doubled = ({name[:i] + name[i + 1 :] for i in places}, {name[:i] + name[i] + name[i:] for i in places})
    wrong = {f"{name[:i]}x{name[i + 1 :]}" for i in places}
    return {each for each in swapped | dropped | doubled | wrong if each and each not in known}


def corpus(tree: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key of a tree misspelt in every way: the full key that nothing reads, and the tree with it."""
    count = len(list(sections(tree)))
    for place in range(count):
        key, section = list(sections(tree))[place]
        for name in section:
            for wrong in sorted(misspelt_names(name, set(section))):
                changed = copy.deepcopy(tree)
                target = list(sections(changed))[place][1]
                target[wrong] = target.pop(name)
                yield (f"{key}.{wrong}" if key else wrong), changed


def test_every_misspelling_of_every_key_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One letter exchanged, dropped, doubled or wrong, in any key at any place: an error, or a note with its name."""
    monkeypatch.chdir(tmp_path)
    tree = compose_tree(write(tmp_path, OURS), []).values
    (tmp_path / "start.pt").touch()
    before = set(told(tree))
    assert not any(": found" in line for line in before)
    silent, made = [], 0
    for key, changed in corpus(tree):
        made += 1
        section, _, name = key.rpartition(".")
        new = set(told(changed)) - before
        refused = any(": found" in line for line in new)
        named = any(name in line for line in new) or section.endswith(".scheduler")  # a class's own
        if not (named or refused):
            silent.append(key)
    assert made > 1500
    assert silent == []


SYNONYMS = [
    ("seed", "seed_value"),
    ("random_seed", "seed_value"),
    ("lr", "optim.optimizer.lr"),
    ("epochs", "max_epochs"),
    ("num_epochs", "max_epochs"),
    ("steps", "overfit.budget.max_steps"),
    ("max_steps", "overfit.budget.max_steps"),
    ("threshold", "overfit.criteria.objective"),
    ("net", "model"),
    ("criterion", "loss"),
    ("optimizer", "optim.optimizer"),
    ("scheduler", "optim.options.lr"),
    ("weight_decay", "optim.optimizer.weight_decay"),
    ("optim.lr", "optim.optimizer.lr"),
    ("optim.scheduler", "optim.options.lr"),
    ("optim.schedule", "optim.options.lr"),
    ("optim.frozen_modules", "frozen_module_names"),
    ("optim.options.lrs", "lr"),
    ("optim.amp.dtype", "optim.amp.amp_dtype"),
    ("optim.amp.precision", "optim.amp.amp_dtype"),
    ("optim.freeze", "optim.frozen_module_names"),
    ("optim.grad_clip", "optim.gradient_clip.configs"),
    ("optim.clip", "optim.gradient_clip.configs"),
    ("resolution", "img_size"),
    ("data.train.common_config.fix_aspect", "fix_aspect_ratio"),
    ("data.train.common_config.num_frames", ""),
    ("data.train.dataset.dataset_configs[0].path", "data.train.dataset.dataset_configs[0].ROOT"),
    ("device", "overfit.device"),
    ("learning_rate", "optim.optimizer.lr"),
    ("pair", "overfit.pair"),
    ("budget", "overfit.budget"),
    ("criteria", "overfit.criteria"),
    ("logging.wandb", ""),
    ("anything_else", ""),
]


@pytest.mark.parametrize(("key", "meant"), SYNONYMS)
def test_what_other_projects_call_a_key_is_told_of(tmp_path: Path, key: str, meant: str) -> None:
    """The note names the key, and the one that is read in its place where there is one."""
    text = "data: {train: {dataset: {dataset_configs: [{remove_sky: true}]}}}\n"
    (note,) = load(tmp_path, text, [f"{key}=3"]).notes
    assert key in note
    assert note.endswith(f"; {meant} is read" if meant else note)


def test_a_value_that_an_interpolation_reads_is_read(tmp_path: Path) -> None:
    """A key of one's own that others name, in part or through another, is no key that nothing reads."""
    text = "my: {rate: 1e-3, deep: {a: 1}}\nname: rate\nseed_value: ${my.deep.a}\n"
    text += "optim: {optimizer: {lr: '${my.${name}}'}}\n"
    assert load(tmp_path, text).notes == ()
    assert load(tmp_path, "my: {rate: 1, other: 2}\nseed_value: ${my.rate}\n").notes == ()
    assert load(tmp_path, "mine: 1\nseed_value: 3\n").notes == ("mine: nothing here reads it",)


def test_arguments_of_a_class_are_read_by_it(tmp_path: Path) -> None:
    """Whatever stands beside a _target_ goes to the class, and is nothing to note."""
    text = "model: {_target_: a.B, dephts: 3, inner: {lr: 1}}\noptim: {optimizer: {_target_: a.C, fused: true}}\n"
    assert load(tmp_path, text).notes == ()


def test_augmentations_that_our_own_data_path_has_not_are_told_of(tmp_path: Path) -> None:
    """Each that is switched on has its own note; what is off changes nothing anywhere, and is folded."""
    common = (
        "{rescale_aug: true, inside_random: true, landscape_check: false, training: true, img_nums: [2, 24],"
        " fix_img_num: 2, fix_aspect_ratio: 1.0}"
    )
    notes = load(tmp_path, f"data: {{train: {{common_config: {common}}}}}\n").notes
    head = "data.train.common_config."
    assert notes == (
        f"{head}rescale_aug is true: not applied here, where the sample is always the same",
        f"{head}inside_random is true: not applied here, where the sample is always the same",
        f"3 keys that only a trainer reads: {head}landscape_check, {head}training, {head}img_nums",
    )


def test_a_trainer_that_rescales_at_random_is_random(tmp_path: Path) -> None:
    """Under a trainer's own classes the switch counts as what makes the sample change; others may."""
    text = "data: {train: {_target_: a.B, common_config: {fix_img_num: 2, rescale_aug: true, get_nearby: true}}}\n"
    config = load(tmp_path, text)
    assert config.randomness == (
        "data.train.common_config.rescale_aug is true: images are rescaled by a random factor; set it to false",
        "all at once: --overfit-set data.train.common_config.rescale_aug=false "
        "--overfit-set data.train.common_config.get_nearby=false",
    )
    assert config.notes == ("data.train.common_config: get_nearby may draw at random; set it to false",)


@pytest.mark.parametrize("path", [*sorted(EXAMPLES.glob("*.yaml")), HYDRA], ids=lambda path: path.stem)
def test_the_shipped_configs_have_nothing_to_say(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours no note at all, the trainer's one line that folds everything which only the trainer reads."""
    monkeypatch.setenv("OVERFIT_SOURCE_ROOT", "/data/a")
    monkeypatch.setenv("OVERFIT_SOURCE_SEG_ROOT", "/data/b")
    notes = load_config(path).notes
    assert [note.partition(":")[0] for note in notes] == (["3 keys that only a trainer reads"] if path == HYDRA else [])


def test_a_trainers_many_keys_are_one_line(tmp_path: Path) -> None:
    """A config of another trainer does not drown in notes."""
    text = GUIDE + "".join(f"own_{letter}: {{a: 1}}\n" for letter in "abcdefghijklmnopqrstuvwxyz")
    folded = [note for note in load(tmp_path, text).notes if "own_" in note]
    assert len(folded) == 1
    assert folded[0].startswith("33 keys that only a trainer reads: mode, ")
    assert folded[0].endswith(" and 21 more")


def test_many_strange_keys_are_one_line(tmp_path: Path) -> None:
    """Without a trainer too."""
    text = "".join(f"strange_{letter * 3}: 1\n" for letter in "abcdefgh")
    (note,) = load(tmp_path, text).notes
    assert note.startswith("8 keys that nothing here reads: strange_aaa, ")


def test_a_certain_misspelling_is_an_error_inside_of_a_class_too(tmp_path: Path) -> None:
    """As before: one letter exchanged, or nearly the same name."""
    assert problems_in(tmp_path, "data: {trian: {common_config: {fix_img_num: 7}}}\n") == [
        "a.yaml: data.trian: found an unknown key (did you mean train?)"
    ]
    assert problems_in(tmp_path, "loss: {_target_: a.B, depth: {valid_rnage: 0.9}}\n") == [
        "a.yaml: loss.depth.valid_rnage: found an unknown key (did you mean valid_range?)"
    ]


def test_null_says_nothing() -> None:
    """A key without a value sets nothing that could be missed."""
    assert unread({"strange": None}, Reads(), referred=set(), of_a_trainer=False) == Unread((), ())


OWN_LOSS = """\
class Loss:
    def __init__(self, w_camera=5.0, depths=None, camera=1.0, depth=1.0):
        pass


class Open:
    def __init__(self, **kwargs):
        pass
"""


@pytest.mark.parametrize(
    "given",
    [
        "w_camera: 5.0, w_depth: 1.0",
        "camera: 5.0, depth: 1.0",
        "camera: l1, depth: [1.0, 0.5]",
        "depths: {weight: 2.0}",
        "camera: {weight: 5.0}, depth: {weight: 1.0}",
    ],
)
def test_a_loss_of_ones_own_takes_what_its_init_takes(tmp_path: Path, given: str) -> None:
    (tmp_path / "losses_of_one.py").write_text(OWN_LOSS.replace("depths=", "w_depth=1.0, depths="), encoding="utf-8")
    config = load(tmp_path, f"loss: {{_target_: losses_of_one.Loss, {given}}}")
    assert not [note for note in config.notes if "loss" in note]


@pytest.mark.parametrize(("given", "meant"), [("camra: {weight: 5.0}", "camera"), ("dpeth: {weight: 1.0}", "depth")])
def test_a_misspelt_term_of_a_loss_that_takes_anything_is_a_problem(tmp_path: Path, given: str, meant: str) -> None:
    (tmp_path / "losses_of_any.py").write_text(OWN_LOSS, encoding="utf-8")
    (line,) = problems_in(tmp_path, f"loss: {{_target_: losses_of_any.Open, {given}}}")
    assert line.endswith(f"found an unknown key (did you mean {meant}?)")
    assert problems_in(tmp_path, "loss: {camera: 5.0}") == ["a.yaml: loss.camera: found 5.0, allowed: a mapping"]
