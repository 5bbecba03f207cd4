"""Every fixed text of the experiment record and of the terminal, in each language; numbers and names stay."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.suggest import nearest
from pytest_overfit.text import LANGUAGES
from pytest_overfit.text.cause_titles import meaning, seen_forms, title
from pytest_overfit.text.note_translations import in_chinese

Words = Mapping[str, str]

_TABLE: Mapping[str, tuple[str, str]] = {
    "title": ("Experiment record: {title}", "实验记录：{title}"),
    "item": ("Item", "项目"),
    "value": ("Value", "内容"),
    # the run
    "date": ("Date", "日期"),
    "test": ("Test", "测试"),
    "call": ("{title}, call {call}", "{title}，第 {call} 次调用"),
    "verdict": ("Verdict", "判定"),
    "passed": ("passed", "通过"),
    "failed": ("failed", "未通过"),
    "not_judged": ("not judged", "未判定"),
    "steps": ("Steps", "步数"),
    "steps_of": ("{steps} of {planned}; {stop}", "{steps} / {planned}；{stop}"),
    "duration": ("Duration", "耗时"),
    "seconds": ("{seconds:.1f} s ({step_ms:.0f} ms a step)", "{seconds:.1f} 秒（每步 {step_ms:.0f} 毫秒）"),
    "stop_passed": ("stopped early: every limit held", "所有阈值均已满足，提前停止"),
    "stop_max_steps": ("used its whole step budget", "步数预算已用完"),
    "stop_max_seconds": ("cut short by max_seconds", "达到 max_seconds 时限，被提前截断"),
    "stop_hung": ("hung: the code did not come back", "代码挂起，未返回"),
    "stop_non_finite": ("stopped at the first non-finite value", "出现首个非有限值（NaN 或无穷大）时停止"),
    "stop_interrupted": ("interrupted", "被中断"),
    "stop_no_trainable_parameters": ("not trained: no parameter is trainable", "未训练：没有可训练的参数"),
    "stop_detached": ("not trained: the objective has no gradient", "未训练：目标函数没有梯度"),
    "state_running": ("The run is still going: there is no verdict yet.", "运行仍在进行，尚无判定。"),
    "state_interrupted": (
        "The run was interrupted after {steps} steps: it proves nothing.",
        "运行在第 {steps} 步后被中断，不能证明任何结论。",
    ),
    "state_killed": (
        "The run was killed after {steps} steps: it proves nothing. What was known until then is above.",
        "运行在第 {steps} 步后被终止，不能证明任何结论；以上是终止前已记录的内容。",
    ),
    "state_not_run": ("Nothing was trained.", "未进行任何训练。"),
    "error": ("Error", "错误"),
    "phase warm-up": ("warm-up", "预热"),
    "phase training": ("training", "训练"),
    "phase probes": ("probes", "探测"),
    "phase trial": ("trial", "试验"),
    "phase pair": ("pair", "读取图像对"),
    "phase loader": ("loader", "读取数据"),
    "phase model": ("model", "构建模型"),
    # the pair
    "pair": ("Pair", "图像对"),
    "sequence": ("Sequence: {name}", "序列：{name}"),
    "frame": ("Frame", "帧"),
    "scene": ("Scene", "场景"),
    "image": ("Image", "图像"),
    "valid_pixels": ("Valid pixels", "有效像素"),
    "valid_ratio": ("Valid ratio", "有效像素比例"),
    # the settings
    "settings": ("Training settings", "训练设置"),
    "model": ("Model", "模型"),
    "loss_function": ("Loss function", "损失函数"),
    "optimizer": ("Optimizer", "优化器"),
    "learning_rate": ("Learning rate", "学习率"),
    "rates": ("{first} at first, {most} at most, {last} at the end", "初始 {first}，最高 {most}，结束时 {last}"),
    "weight_decay": ("Weight decay", "权重衰减"),
    "epochs": ("Epochs", "训练轮数"),
    "epochs_of": (
        "at most {epochs} of {per} steps each ({planned} steps)",
        "最多 {epochs} 轮，每轮 {per} 步（共 {planned} 步）",
    ),
    "budget": ("Step budget", "步数预算"),
    "batch_size": ("Batch size", "批大小"),
    "one_pair": ("1 (one pair, the same at every step)", "1（同一图像对，每一步都不变）"),
    "one_batch": ("one fixed batch", "一个固定的批次"),
    "image_size": ("Image width", "图像宽度"),
    "frozen": ("Frozen modules", "冻结模块"),
    "frozen_match": (
        "{pattern} ({tensors} tensors, {numel} parameters)",
        "{pattern}（{tensors} 个张量，{numel} 个参数）",
    ),
    "none": ("none", "无"),
    "parameters": ("Trainable parameters", "可训练参数"),
    "share": ("{part} of {total}", "{part} / {total}"),
    "precision": ("Precision", "精度"),
    "seed": ("Seed", "随机种子"),
    "seeds": ("Seeds", "随机种子"),
    "device": ("Device", "设备"),
    "threads": ("{device}, CPU threads: {threads}", "{device}，CPU 线程数：{threads}"),
    "memory": ("Peak memory", "峰值内存"),
    "environment": ("Environment", "环境"),
    # the losses
    "loss": ("Loss", "损失"),
    "epoch": ("Epoch", "轮次"),
    "step": ("Step", "步"),
    "train_loss": ("Train Loss", "训练损失"),
    "val_loss": ("Val Loss", "验证损失"),
    "camera_loss": ("Camera Loss", "相机损失"),
    "depth_loss": ("Depth Loss", "深度损失"),
    "last": ("{number} (last)", "{number}（最后）"),
    "at_step": ("{value} (step {step})", "{value}（第 {step} 步）"),
    "epoch_caption": (
        "An epoch is {per} steps; a row has the values of its last step. The run took {steps} steps.",
        "每轮 {per} 步，每行为该轮最后一步的数值；本次运行共 {steps} 步。",
    ),
    "no_steps": ("No step was recorded.", "没有记录到任何训练步。"),
    "worst_seed": ("Seed {seed}, which did worst:", "表现最差的随机种子 {seed}："),
    # what was seen
    "observations": ("Observations", "观察"),
    "fell": (
        "Did the loss fall? Yes: from {first} (step 1) to {last} (step {steps}); lowest {best} (step {at}).",
        "损失是否下降？是：从 {first}（第 1 步）降到 {last}（第 {steps} 步），最低 {best}（第 {at} 步）。",
    ),
    "not_fell": (
        "Did the loss fall? No: from {first} (step 1) to {last} (step {steps}); lowest {best} (step {at}).",
        "损失是否下降？否：从 {first}（第 1 步）变为 {last}（第 {steps} 步），最低 {best}（第 {at} 步）。",
    ),
    "overfit_yes": ("Did the model overfit the sample? Yes.", "模型是否过拟合该样本？是。"),
    "overfit_since": (
        "Did the model overfit the sample? Yes: every limit held from step {step} on.",
        "模型是否过拟合该样本？是：自第 {step} 步起，所有阈值均持续满足。",
    ),
    "overfit_no": (
        "Did the model overfit the sample? No: {missed} of {count} criteria missed.",
        "模型是否过拟合该样本？否：{count} 项判据中有 {missed} 项未达到。",
    ),
    "overfit_unknown": ("Did the model overfit the sample? Not known.", "模型是否过拟合该样本？未知。"),
    "non_finite": ("First NaN or infinity: {what}, step {step}", "首个 NaN 或无穷大：{what}，第 {step} 步"),
    "in_module": ("{text}, module {module}", "{text}，模块 {module}"),
    "problems": ("Problems", "问题"),
    "no_problems": ("No criterion was missed.", "所有判据均已满足。"),
    "problem": ("{name}: {observed}, allowed {allowed}", "{name}：{observed}，要求 {allowed}"),
    "where": ("where: {where}", "位置：{where}"),
    "next": ("next: {hint}", "下一步：{hint}"),
    "notes": ("Notes", "备注"),
    "criterion": ("Criterion", "判据"),
    "observed": ("Observed", "实测"),
    "allowed": ("Allowed", "要求"),
    "margin": ("Margin", "裕度"),
    "ok": ("ok", "通过"),
    "FAILED": ("FAILED", "未通过"),
    "skipped": ("skipped", "未判定"),
    "below_zero": ("below 0", "低于 0"),
    "since": ("Since step", "自该步起"),
    "term": ("Term", "损失项"),
    "final": ("Final value", "最终值"),
    "limit": ("Limit", "阈值"),
    "confidence": (
        "The objective is negative: its confidence term has no floor, so the bounded terms decide.",
        "总损失为负：置信度项没有下界，因此由有下界的损失项判定。",
    ),
    # why
    "causes": ("Causes", "原因诊断"),
    "not_named": ("No cause is proven, shown or observed.", "没有证实、显示或观察到任何原因。"),
    "not_diagnosed": ("The run was not diagnosed.", "未对本次运行进行诊断。"),
    "twins": ("Twins: the same run, executed otherwise", "孪生运行：同一训练，换一种执行方式"),
    "twin": ("Twin", "孪生"),
    "outcome": ("Outcome", "结果"),
    "exchanged": ("Exchanged", "替换内容"),
    "asked": ("What was asked", "诊断提问"),
    "question": ("Question", "提问"),
    "measured": ("Measured", "测量内容"),
    "answer": ("Answer", "回答"),
    "cause": ("**{id}** ({strength}): {observed}", "**{id}**（{strength}）：{observed}"),
    "proven": ("proven by a trial", "经对照试验证实"),
    "shown": ("shown by a probe", "由探测显示"),
    "observed_strength": ("observed while the run went", "运行中观察到"),
    "cause_where": ("Where: {where}", "位置：{where}"),
    "change": ("What to change: {advice}", "修改建议：{advice}"),
    # a saved run
    "comparison": ("Comparison with the saved run {name}", "与已保存的运行 {name} 对比"),
    "saved": ("Saved: {saved}", "保存于：{saved}"),
    "quantity": ("Quantity", "量"),
    "then": ("Saved run", "已保存的运行"),
    "now": ("This run", "本次运行"),
    "ratio": ("Ratio", "比值"),
    "range": ("Range over seeds", "各种子范围"),
    "moved": ("moved", "有变化"),
    "not_moved": ("as before", "无变化"),
    "broken": ("over the {allowed} that was allowed", "超过允许的 {allowed}"),
    # what follows
    "conclusion": ("Conclusion", "结论"),
    "concluded_passed": (
        "Model, loss, optimizer and data path memorise this sample: the gate is passed.",
        "模型、损失函数、优化器和数据通路能够记住该样本：检查通过。",
    ),
    "reserve": (
        "It took {steps} of {planned} steps: the rest is the reserve.",
        "用了 {planned} 步中的 {steps} 步：其余为余量。",
    ),
    "thin": (
        "That is little: another seed or machine may miss it. Run several seeds (--overfit-seeds 0,1,2).",
        "余量偏小：换一个随机种子或机器可能无法达到。建议用多个随机种子运行（--overfit-seeds 0,1,2）。",
    ),
    "concluded_failed": (
        "The gate is not passed: something in the model, the loss, the optimizer or the data has to change first.",
        "检查未通过：需要先修正模型、损失函数、优化器或数据。",
    ),
    "next_step": ("Next step: {advice}", "下一步：{advice}"),
    "next_passed": (
        "train on the full data, and keep this test as a gate.",
        "在完整数据上训练，并保留此测试作为门禁。",
    ),
    "next_cause": ("{advice} ({id}), then run it again.", "{advice}（{id}），然后重新运行。"),
    "next_rerun": ("run it again to the end.", "重新运行直到结束。"),
    "next_look": ("look at the problems above, the first one first.", "从第一项开始，逐项检查上述问题。"),
    "joint": (" ", ""),
    "again": ("Run it again", "复现命令"),
}


def words(lang: str) -> Words:
    """The fixed texts of a language.

    Example:
        >>> words("en")["train_loss"], words("zh")["train_loss"]
        ('Train Loss', '训练损失')

    Raises:
        OverfitError: there is no such language.
    """
    if lang not in LANGUAGES:
        near = nearest(lang, LANGUAGES)
        raise OverfitError(
            f"no texts in {lang!r}",
            where="lang",
            allowed=" | ".join(LANGUAGES),
            hint=f"did you mean {near}?" if near else None,
        )
    column = LANGUAGES.index(lang)
    return {key: texts[column] for key, texts in _TABLE.items()}


def translated(line: str, lang: str) -> str:
    """Lines of the terminal in a language: what is fixed in it, part by part; what is not known stays as it is.

    Example:
        >>> translated("  where: loss_camera, step 60 of 60", "zh")
        '  位置：loss_camera, step 60 of 60'
        >>> translated("objective 0.79, allowed < 0.01: frozen, see ::camera", "zh")
        'objective 0.79，要求 < 0.01：frozen 参数被冻结，见 ::camera'
    """
    if lang == "en" or not line.strip():
        return line
    if "\n" in line:
        return "\n".join(translated(each, lang) for each in line.split("\n"))
    mark, said = re.match(r"((?:E\b)?\s*(?:AssertionError: |Failed: )?)(.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
    named = title(said, lang)
    known = _PHRASES.get(said.casefold()) or (named if named != said else in_chinese(said))
    if known:
        return mark + known
    old = said.split("; ")
    for pattern, now in _patterns(whole=len(old) > 1):
        if found := pattern.fullmatch(said):
            fields = found.groupdict()
            parts = {n: part if n in RAW else translated(part, lang) for n, part in fields.items()}
            return mark + now.format(**parts, meaning=meaning(fields.get("id", ""), lang))
    new = [translated(part, lang) for part in old] if len(old) > 1 else old
    return mark + ("; " if new == old else "；").join(new)


@functools.cache
def _patterns(*, whole: bool) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Patterns of the English, with the Chinese: of a whole line, or of a part of one too."""
    seen = sorted(seen_forms(), key=lambda form: -len(re.sub(r"{\w+}", "", form[0])))  # the one that says most first
    table = _LINES if whole else (*_LINES, *_PARTS, *seen)
    return tuple((re.compile(re.sub(r"\\{(\w+)\\}", _field, re.escape(first))), now) for first, now in table)


def _field(found: re.Match[str]) -> str:
    return f"(?P<{found[1]}>{_WORD if found[1].startswith('word') else '.+?'})"


_PHRASES = {texts[0].casefold(): texts[1] for key, texts in _TABLE.items() if key.startswith("stop_")} | {
    "proven": _TABLE["proven"][1],
    "shown": _TABLE["shown"][1],
    "observed": _TABLE["observed_strength"][1],
    "none found": "未发现",
}
RAW = ("advice", "name")  # what is to be pasted
_WORD = r"\S+"
# Lines of the terminal; the first that fits is taken, and what stands in its fields is looked up in turn.
_LINES = (
    ("change: {advice}", "修改：{advice}"),
    ("why: {id} ({strength}): {observed}; pytest-overfit explain {name}",
     "原因：{id}（{strength}）：{observed}。{meaning}pytest-overfit explain {name}"),
    ("why: {id} ({strength}); pytest-overfit explain {name}",
     "原因：{id}（{strength}）：{meaning}pytest-overfit explain {name}"),
    ("why: no cause is proven, shown or observed; {rest}", "原因：没有证实、显示或观察到任何原因；{rest}"),
    ("{steps} of {planned} steps in {seconds} s ({step_ms} ms a step), {stop}; {place}",
     "{steps} / {planned} 步，{seconds} 秒（每步 {step_ms} 毫秒），{stop}；{place}"),
)  # fmt: skip
# What has no "; " in it.
_PARTS = (
    ("{what}: {id}, see ::{teller}", "{what}：{id}，见 ::{teller}"),
    ("why: {id} ({strength}): {observed}", "原因：{id}（{strength}）：{observed}"),
    ("less likely: {ids}", "可能性较小：{ids}"),
    _TABLE["where"],
    _TABLE["next"],
    ("note: {note}", "备注：{note}"),
    ("time: {times}", "耗时：{times}"),
    ("report: {place}", "报告：{place}"),
    ("overfit: {passed} of {count} memorised", "overfit：{count} 次调用中 {passed} 次记住样本"),
    ("{missed} of {count} criteria missed", "{count} 项判据中有 {missed} 项未达到"),
    ("{missed} of {count} criteria missed: {names}", "{count} 项判据中有 {missed} 项未达到：{names}"),
    ("{held} of {count} criteria", "{count} 项判据中的 {held} 项"),
    ("{word} more", "另有 {word} 项"),
    ("{names} and {word} more", "{names} 等，另有 {word} 项"),
    ("{observed}, allowed {allowed}: {why}", "{observed}，要求 {allowed}：{why}"),
    ("{observed}, allowed {allowed}", "{observed}，要求 {allowed}"),
    ("{limit} for {steps} steps in a row", "{limit}（连续 {steps} 步）"),
    ("{value} (start {first}, best {best})", "{value}（初始 {first}，最好 {best}）"),
    ("{steps} of {planned} steps in {seconds} s ({step_ms} ms a step), {stop}",
     "{steps} / {planned} 步，{seconds} 秒（每步 {step_ms} 毫秒），{stop}"),
    ("{steps} of {planned} steps in {seconds} s", "{steps} / {planned} 步，{seconds} 秒"),
    ("missed {names}", "未达到：{names}"),
    ("not judged: {why}", "未判定：{why}"),
    ("not asked: {what}", "未提问：{what}"),
    ("no GPU used ({why})", "未使用 GPU（{why}）"),
    ("{steps} steps, all finite", "{steps} 步，数值均有限"),
    ("{tensors} tensors learn, {frozen} frozen as declared", "{tensors} 个张量在学习，{frozen} 个按声明冻结"),
    ("{terms} falling, largest climb {climb}", "{terms} 项下降，最大回升 {climb}"),
    ("{first} in evaluation, {last} in training", "评估模式 {first}，训练模式 {last}"),
    ("valid depth {shares}", "有效深度 {shares}"),
    ("{digest}, drawn {times} times", "{digest}，取样 {times} 次"),
    ("{pair}: valid {first} and {last}, geometry contradicts in {share}",
     "{pair}：有效像素 {first} 和 {last}，几何矛盾 {share}"),
    ("it falls, and would reach its limit at step {step}: give it more steps, or look at the learning rate",
     "仍在下降，预计在第 {step} 步达到阈值：增加步数，或检查学习率"),
    ("it did not fall: look at the learning rate, {rest}", "没有下降：检查学习率、冻结模块和 ::gradients"),
    ("{word}: {rest}", "{word}: {rest}"),
)  # fmt: skip
