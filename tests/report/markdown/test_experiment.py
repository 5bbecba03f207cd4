"""The experiment record: what it says of a run, in both languages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_overfit.judge.finding import Finding, number
from pytest_overfit.report.ci.summary import summary_markdown
from pytest_overfit.report.markdown.experiment import experiment_record
from pytest_overfit.report.record.document import Change, Comparison, Pair, PairView
from pytest_overfit.result import OverfitResult
from pytest_overfit.run.record import FreezeMatch
from pytest_overfit.settings.criteria import Limit
from pytest_overfit.text.cause_titles import meaning
from tests.support.documents import broken, finished, healthy, two_view, unstarted
from tests.support.markdown import assert_well_formed, blocks, headings, items, tables, values_of
from tests.support.records import record


def test_a_two_view_run_has_every_section() -> None:
    """Headings in order, tables in order."""
    source = experiment_record(two_view())
    assert_well_formed(source)
    assert headings(source) == [
        "# Experiment record: configs/tiny.yaml",
        "## Pair",
        "## Training settings",
        "## Loss",
        "## Observations",
        "### Problems",
        "### Notes",
        "## What was asked",
        "## Conclusion",
        "## Run it again",
    ]
    assert blocks(source) == [("bash", "pytest --overfit-config configs/tiny.yaml\n")]


def test_chinese_has_the_same_sections() -> None:
    """The words of the field, and the same tables."""
    source = experiment_record(two_view(), "zh")
    assert_well_formed(source)
    assert [heading.lstrip("# ") for heading in headings(source)] == [
        "实验记录：configs/tiny.yaml",
        "图像对",
        "训练设置",
        "损失",
        "观察",
        "问题",
        "备注",
        "诊断提问",
        "结论",
        "复现命令",
    ]
    english = tables(experiment_record(two_view()))
    assert [[len(row) for row in rows] for rows in tables(source)] == [[len(row) for row in rows] for rows in english]
    assert tables(source)[3][0] == ["轮次", "训练损失", "验证损失", "相机损失", "深度损失"]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_losses_are_those_of_the_record(lang: str) -> None:
    """Epochs 1, 10 and the last, at their last step."""
    document = two_view()
    assert document.result is not None
    run = document.result.record
    rows = tables(experiment_record(document, lang))[3][1:]
    last = -(-run.steps // 20)
    ends = [20, 200, run.steps]
    assert [row[0].split(" ")[0].split("（")[0] for row in rows] == ["1", "10", str(last)]
    for place, term in ((1, "objective"), (3, "loss_camera"), (4, "loss_reg_depth")):
        assert [row[place] for row in rows] == [number(run.curves[term][end - 1]) for end in ends]
    assert run.evaluation is not None
    assert rows[-1][2] == number(run.evaluation.val["objective"])
    first = number(run.val_curves["objective"][run.val_steps.index(1)])
    assert rows[0][2] == {"en": f"{first} (step 1)", "zh": f"{first}（第 1 步）"}[lang]


def test_settings_are_those_of_the_run() -> None:
    """Learning rate, epochs, batch size, seed, device, frozen modules with their counts."""
    document = two_view()
    assert document.result is not None
    frozen = replace(document.result.record, freeze_matches=(FreezeMatch("*aggregator*", 52, 1_234_567),))
    source = experiment_record(replace(document, result=replace(document.result, record=frozen)))
    settings = values_of(source, 2)
    rates = document.result.record.learning_rate
    assert settings["Optimizer"] == "torch.optim.AdamW"
    assert settings["Learning rate"] == f"0.05 at first, 0.05 at most, {number(rates[-1])} at the end"
    assert settings["Epochs"] == "at most 30 of 20 steps each (600 steps)"
    assert settings["Batch size"] == "1 (one pair, the same at every step)"
    assert settings["Frozen modules"] == "*aggregator* (52 tensors, 1,234,567 parameters)"
    assert (settings["Precision"], settings["Seed"], settings["Device"]) == ("float32", "0", "cpu, CPU threads: 1")
    assert values_of(source, 0)["Date"] == "2026-03-05 14:07:31+08:00"


def test_the_pair_has_its_views() -> None:
    """Scene, image name, valid ratio; the guide's own numbers."""
    views = (PairView("0001", "0001_083.jpeg.jpg", 213634, 246568), PairView("0001", "3775224815_2e30aeddbb_o.jpg.jpg"))
    source = experiment_record(unstarted(pair=Pair("aerial_megadepth_0001_0", views)))
    assert_well_formed(source)
    assert tables(source)[1][1:] == [
        ["0", "0001", "0001_083.jpeg.jpg", "213634 of 246568", "86.6 %"],
        ["1", "0001", "3775224815_2e30aeddbb_o.jpg.jpg", "–", "–"],
    ]


def test_final_values_stand_against_their_limits() -> None:
    """The numbers of the findings."""
    document = two_view()
    assert document.result is not None
    camera = document.result.finding("camera")
    assert camera.margin is not None
    (rows,) = (rows for rows in tables(experiment_record(document)) if rows[0][0] == "Term")
    assert [row[0] for row in rows[1:]] == ["objective", "loss_camera", "loss_reg_depth"]
    assert rows[2] == [
        "loss_camera",
        camera.observed.removeprefix("loss_camera "),  # of the steps that it is held for, not the last one
        "< 0.001",
        f"{camera.margin:.3g}x",
        str(camera.steps_to_pass),
        "passed",
    ]
    assert rows[1][3] == "below 0"


def test_a_failed_run_names_problem_cause_and_next_step() -> None:
    """Observed against allowed, the strongest cause first, what to change."""
    document = broken("sgd_rate_of_twenty")
    assert document.result is not None
    source = experiment_record(document)
    assert_well_formed(source)
    assert "## Causes" in headings(source)
    told = items(source)
    missed = [finding for finding in document.findings if finding.missed]
    assert [finding.name for finding in missed] == ["finite"]
    for finding in missed:
        assert f"{finding.name}: {finding.observed}, allowed {finding.allowed}" in told
        assert f"where: {finding.where}" in told
    for finding in document.findings:
        assert finding.judged or f"{finding.name} (not judged): {finding.observed}" in told
    cause = document.result.causes[0]
    assert cause.id == "lr-high"
    assert f"lr-high (proven by a trial): {cause.observed}" in told
    assert f"What to change: {cause.advice}" in told
    assert source.endswith(
        f"Next step: `{cause.advice}` (lr-high), then run it again.\n\n## Run it again\n\n"
        "```bash\npytest tests/test_sgd_rate_of_twenty.py::test_learns\n```\n"
    )
    found = document.result.record.non_finite
    assert found is not None
    assert f"First NaN or infinity: {found.what}, step {found.step}" in told


def test_a_cause_is_in_chinese_with_what_it_means() -> None:
    """What was seen, with its numbers; its meaning; and what is to be pasted as it is."""
    document = broken("missing_step")
    assert document.result is not None
    source = experiment_record(document, "zh")
    assert_well_formed(source)
    cause = document.result.causes[0]
    told = items(source)
    seen = "250 个训练步中优化器只更新了 0 次，前 3 步有 3 次反向传播"
    assert f"no-step 未调用 optimizer.step()（由探测显示）：{seen}" in told
    assert meaning("no-step", "zh") in told
    assert "objective：objective 1.621（初始 1.621，最好 1.621），要求 < 0.01（连续 5 步）" in told
    assert f"修改建议：{cause.advice}" in told
    assert f"下一步：`{cause.advice}`（no-step），然后重新运行。" in source


def test_a_plain_test_has_steps_and_no_camera() -> None:
    """No config, no epochs; columns only for terms that exist."""
    document = healthy()
    assert document.result is not None
    rows = tables(experiment_record(document))[2]
    assert rows[0] == ["Step", "Train Loss"]
    assert [row[0] for row in rows[1:]] == ["1", "10", "50", f"{document.result.record.steps} (last)"]
    assert values_of(experiment_record(document), 1)["Batch size"] == "one fixed batch"


def test_every_term_with_a_limit_has_a_column() -> None:
    """Beside camera and depth."""
    run = record(curves={**record().curves, "loss_T": (0.3,) * 99 + (0.0004,)})
    document = finished("a.yaml", OverfitResult(run, ()), limits={"loss_T": Limit(below=0.001)})
    rows = tables(experiment_record(document))[2]
    assert rows[0] == ["Step", "Train Loss", "Val Loss", "Camera Loss", "Depth Loss", "loss_T"]
    assert rows[-1] == ["100 (last)", "0.005", "0.005", "0.0005", "0.004", "0.0004"]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_several_seeds(lang: str) -> None:
    """One row each, and the losses of the one that did worst."""
    document = healthy(seeds=(0, 1, 2))
    assert document.result is not None
    source = experiment_record(document, lang)
    assert_well_formed(source)
    *_, finals, seeds, _asked = tables(source)
    assert [row[0] for row in finals[1:]] == [row[0] for row in seeds[1:]] == ["0", "1", "2"]
    judged = [run.finding("objective").observed.split()[1] for run in document.result.runs]
    assert [row[3] for row in seeds[1:]] == judged
    assert str(document.result.record.seed) in source.split("## Loss" if lang == "en" else "## 损失")[1].split("\n")[2]


def test_a_negative_loss_is_explained() -> None:
    """It proves nothing alone."""
    assert "The objective is negative: its confidence term has no floor" in experiment_record(two_view())
    assert "置信度项没有下界" in experiment_record(two_view(), "zh")
    assert "confidence term" not in experiment_record(healthy())


def test_a_small_reserve_is_told() -> None:
    """Flaky limits are the commonest complaint: of the steps of the budget hardly any are left."""
    held = Finding("camera", True, "loss_camera 0.00096", "< 0.001", margin=1.04, steps_to_pass=90)
    run = record(steps=98, planned_steps=100)
    source = experiment_record(finished("a.yaml", OverfitResult(run, (held,))))
    assert "It took 98 of 100 steps: the rest is the reserve. That is little" in source
    assert "That is little" not in experiment_record(two_view())


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_comparison_says_what_moved(lang: str) -> None:
    """Ratios, ranges, and what grew by more than was allowed."""
    changes = (
        Change("steps to pass", 100, 160, 1.6, (1.5, 1.7), 3, True, allowed=1.5),
        Change("objective", 0.005, 0.0052, 1.04, (1.0, 1.1), 3, False),
        Change("seconds", 2.0, 4.0, 2.0, (2.0, 2.0), 0, True),
    )
    compared = Comparison("nightly", "2026-03-01 02:00", changes, note="other seeds | <b>")
    source = experiment_record(replace(healthy(), comparison=compared), lang)
    assert_well_formed(source)
    (rows,) = (rows for rows in tables(source) if len(rows[0]) == 7)
    verdicts = {
        "en": ["over the 1.5x that was allowed", "as before", "moved"],
        "zh": ["超过允许的 1.5x", "无变化", "有变化"],
    }
    assert [row[-1] for row in rows[1:]] == verdicts[lang]
    assert rows[1][1:6] == ["100", "160", "1.6x", "1.5x – 1.7x", "3"]
    assert rows[3][4] == "–"


BUGS = (
    "rate_from_integer_division",
    "prediction_against_itself",
    "objective_negated",
    "layer_never_called",
    "depth_flipped",
)


@pytest.mark.parametrize("bug", BUGS)
def test_every_kind_of_run_has_a_record(bug: str) -> None:
    """Whatever real findings and causes say."""
    document = broken(bug)
    assert document.result is not None
    for lang in ("en", "zh"):
        source = experiment_record(document, lang)
        assert_well_formed(source)
        assert [cause.id in source for cause in document.result.causes] == [True] * len(document.result.causes)
    assert document.result.causes
    assert_well_formed(summary_markdown([document]))
