"""Models of transformers and its Trainer: memorised as they are, left as they were, and mistakes named."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from transformers import BatchEncoding, GPT2LMHeadModel, Trainer

from pytest_overfit import OverfitError, run_overfit
from pytest_overfit.integrations.huggingface.pretrained import generate_again
from tests.integrations.huggingface_models import (
    MODELS,
    TRAINERS,
    OwnStep,
    adam,
    answered,
    bert,
    decoded,
    gpt2,
    padded,
    t5,
    tokens,
    trainer,
)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", MODELS)
def test_healthy_models_pass(name: str, seed: int) -> None:
    """No false alarm, and what is memorised is said again."""
    build, batch, settings = MODELS[name]
    result = run_overfit(build, batch, seeds=[seed], **settings)
    assert result.passed, result.summary()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", TRAINERS)
def test_healthy_trainers_pass(name: str, seed: int, tmp_path: Path) -> None:
    """Without data beside them."""
    build, settings = TRAINERS[name]
    result = run_overfit(partial(build, tmp_path), seeds=[seed], **settings)
    assert result.passed, result.summary()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [None, OwnStep])
def test_steps_are_those_of_the_trainer(kind: Any, tmp_path: Path) -> None:
    """The same weights as ``train()`` on the same batch: optimizer, decay, schedule, clipping."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"warmup_steps": 5, "weight_decay": 0.1, "max_grad_norm": 0.5, "max_steps": 20}
    settings |= {"optim": "sgd", "learning_rate": 0.1}  # Adam makes much of what summing in another order changes
    mine = trainer(tmp_path, **settings, **({} if kind is None else {"kind": kind}))
    theirs = trainer(tmp_path, **settings)
    theirs.model.load_state_dict(mine.model.state_dict())
    run_overfit(mine, max_steps=20, objective=1e-30, diagnose=False, keep_trained=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.train()
    for a, b in zip(mine.model.state_dict().values(), theirs.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_trainer_comes_back_as_it_was(tmp_path: Path) -> None:
    """Weights, attributes, state, accelerator."""
    given = trainer(tmp_path)
    before = [value.clone() for value in given.model.state_dict().values()]
    attributes, state = dict(vars(given)), dict(vars(given.state))
    loaders = list(given.accelerator._dataloaders)
    assert run_overfit(given).passed
    assert all(torch.equal(a, b) for a, b in zip(before, given.model.state_dict().values(), strict=True))
    assert vars(given) == attributes
    assert vars(given.state) == state
    assert given.accelerator._dataloaders == loaders


def test_a_batch_beside_a_trainer_is_trained_on(tmp_path: Path) -> None:
    """In place of its data."""
    result = run_overfit(trainer(tmp_path), decoded(), max_steps=5, diagnose=False)
    assert not any("train_dataset" in note for note in result.record.notes)


def test_a_batch_encoding_is_a_batch() -> None:
    """As a tokenizer gives it."""
    assert run_overfit(gpt2, BatchEncoding(decoded()), optimizer=adam(1e-2)).passed


def test_a_batch_without_labels_is_told() -> None:
    """By the name of what is missing."""
    with pytest.raises(OverfitError, match=r"GPT2LMHeadModel returned none, only logits") as caught:
        run_overfit(gpt2, {"input_ids": tokens()})
    assert "the batch has no labels" in str(caught.value)


@pytest.mark.parametrize("given", [{"loss": lambda m, b: 0.0}, {"step": lambda m, b: 0.0}])
def test_a_loss_beside_a_trainer_is_refused(given: dict[str, Any], tmp_path: Path) -> None:
    """It has one."""
    with pytest.raises(OverfitError, match=f"a {next(iter(given))} beside a Trainer"):
        run_overfit(trainer(tmp_path), **given)


def test_a_trainer_without_data_is_told(tmp_path: Path) -> None:
    """And how to give some."""
    given = trainer(tmp_path)
    given.train_dataset = None
    short = trainer(tmp_path, per_device_train_batch_size=64, dataloader_drop_last=True)
    with pytest.raises(OverfitError, match="the loader gives no batch"):
        run_overfit(short)
    with pytest.raises(OverfitError, match=r"set TrainingArguments\(max_grad_norm"):
        run_overfit(trainer(tmp_path), clip_grad_norm=1.0)
    with pytest.raises(OverfitError, match="Trainer has no train_dataset"):
        run_overfit(given)


@pytest.mark.parametrize(
    ("build", "batch", "words"),
    [
        (bert, decoded(), "BertForMaskedLM does not generate"),
        (lambda: torch.nn.Linear(10, 10), (torch.zeros(1, 10), torch.ones(1, 10)), "cannot be asked to generate"),
    ],
)
def test_what_cannot_generate_is_told(build: Any, batch: Any, words: str) -> None:
    """A criterion that cannot be judged is no pass."""
    loss = None if isinstance(batch, dict) else torch.nn.functional.mse_loss
    with pytest.raises(OverfitError, match=words):
        run_overfit(build, batch, loss, generates=True, max_steps=2)


def test_an_untrained_model_says_something_else() -> None:
    """The check can fail, and names the first token."""
    torch.manual_seed(0)
    for model, batch, total in ((gpt2(), decoded(), 27), (t5(), answered(), 18)):
        said = generate_again(model.eval(), batch)
        assert said.total == total
        assert said.right < 0.5 * total
        assert said.first_wrong.startswith("sequence 0, token ")


def test_a_prompt_is_what_comes_before_the_first_label() -> None:
    """As for instructions, whose loss is that of the answer."""
    batch = decoded()
    batch["labels"][:, :4] = -100
    said = generate_again(gpt2().eval(), batch)
    assert (said.prompt, said.total) == (4, 18)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"input_ids": tokens(), "labels": tokens().roll(-1, 1)}, "predicts the token after the next"),
        (padded(ignored=0), "8 labels stand where attention_mask is 0"),
    ],
)
def test_labels_in_the_wrong_place_are_named(batch: Any, words: str) -> None:
    """Although every limit is met, and without any generation."""
    result = run_overfit(gpt2, batch, optimizer=adam(1e-2))
    assert [finding.name for finding in result.findings if not finding.passed] == ["defects"]
    assert result.causes[0].id == "target-mismatch"
    assert words in result.causes[0].observed


def test_a_schedule_that_never_warms_up_is_named(tmp_path: Path) -> None:
    """A mistake in the arguments is one of the run."""
    result = run_overfit(trainer(tmp_path, warmup_steps=100_000), max_steps=300)
    assert result.causes[0].id == "lr-schedule"


def test_a_loss_without_a_graph_is_named(tmp_path: Path) -> None:
    """As for any loss."""

    class Cut(Trainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss: Any = super().compute_loss(*args, **kwargs)
            return loss.detach()

    result = run_overfit(trainer(tmp_path, kind=Cut), max_steps=50)
    assert result.record.stop == "detached"
    assert result.causes[0].id == "loss-detached"


def test_a_frozen_body_is_the_cause(tmp_path: Path) -> None:
    """It learns once all of it may."""
    model = gpt2()
    model.requires_grad_(False)
    model.transformer.ln_f.requires_grad_(True)
    result = run_overfit(trainer(tmp_path, model), max_steps=300)
    assert result.causes[0].id == "frozen"


def test_a_decoder_that_needs_its_labels_is_not_asked_what_it_predicts() -> None:
    """It refuses its batch without them: that is told, and never reads as no prediction."""

    class Strict(GPT2LMHeadModel):  # type: ignore[no-untyped-call]
        def forward(self, *args: Any, labels: Any = None, **kwargs: Any) -> Any:
            if labels is None:
                raise ValueError("labels are wanted")
            return super().forward(*args, labels=labels, **kwargs)

    ids = tokens()
    model = Strict(gpt2().config)
    result = run_overfit(model, {"input_ids": ids, "labels": ids}, optimizer=adam(1e-2), max_steps=3, diagnose=False)
    assert result.record.generated is None
    (kept,) = [each for each in result.not_asked if each.question == "what it predicts"]
    assert kept.why.endswith("ValueError: labels are wanted")
    assert not kept.ours
