"""The notes of a run in Chinese, by the form that each is written in."""

from __future__ import annotations

import functools
import re

_FORMS = r"""
no GPU used \(torch (.+) is a CPU build\)
    未使用 GPU（torch \1 为 CPU 版本）
no GPU used \((.+)\)
    未使用 GPU（\1）
not asked: (\d+) of (\d+) trials: out of time: diagnose_seconds
    未进行：\2 次试验中的 \1 次，诊断时间已用完（diagnose_seconds）
not asked: the rest of the diagnosis: out of time \((.+)\)
    未进行：其余诊断，时间已用完（\1）
not asked: the floor of the loss: a search over free predictions had no time to end
    未询问损失的下限：对自由预测的搜索没有时间完成
not asked: the floor of the loss: a search over free predictions still falls .+
    未询问损失的下限：对自由预测的搜索结束时仍在下降，或训练已低于它
not asked: (.+)
    未询问：\1
not asked either: (.+)
    同样未询问：\1
(\d+) keys that only a trainer reads: (.+)
    \1 个键只有训练器读取：\2
(\d+) keys that nothing here reads: (.+)
    \1 个键在此无人读取：\2
(.+): nothing here reads it; (.+) is read
    \1：在此无人读取；读取的是 \2
(.+): nothing here reads it
    \1：在此无人读取
(.+) is (.+): not applied here, where the sample is always the same
    \1 为 \2：此处样本始终相同，不应用该项
(.+): the loss gives no (.+); the loss calls it (.+)
    \1：损失函数没有 \2；其名称为 \3
limit_train_batches is (.+) and has no effect: an epoch repeats the one batch (\d+) times \((.+)\)
    limit_train_batches 为 \1，不起作用：每个 epoch 将同一批次重复 \2 次（\3）
accum_steps is (\d+) and has no effect: the batch has (.+) samples?
    accum_steps 为 \1，不起作用：批次有 \2 个样本
(.+): (.+) may draw at random; set (?:them|it) to false
    \1：\2 可能引入随机抽样；请设为 false
weights are frozen that no checkpoint has filled: (.+) trains them
    冻结了未由检查点填充的参数：\1 使其参与训练
(.+) has (\d+) entries: only the first is used.*
    \1 有 \2 项：只使用第一项
(.+) has no effect: a run has overfit\.steps_per_epoch steps per epoch
    \1 不起作用：每个 epoch 的步数为 overfit.steps_per_epoch
(.+): no effect, nothing is rendered \((.+) is (.+)\)
    \1：不起作用，未进行渲染（\2 为 \3）
(.+) has no effect: (.+) is (.+)
    \1 不起作用：\2 为 \3
(\d+) of (\d+) tensors of the model not in it: (.+)
    模型的 \2 个张量中有 \1 个不在其中：\3
(\d+) of its (\d+) not in the model: (.+)
    其 \2 个张量中有 \1 个不在模型中：\3
"""


def in_chinese(note: str) -> str | None:
    """A note in Chinese, with its names and numbers; None where it has another form.

    Example:
        >>> in_chinese("not asked: 3 of 9 trials: out of time: diagnose_seconds")
        '未进行：9 次试验中的 3 次，诊断时间已用完（diagnose_seconds）'
    """
    found = ((form.fullmatch(note), said) for form, said in _forms())
    return next((match.expand(said) for match, said in found if match), None)


@functools.cache
def _forms() -> tuple[tuple[re.Pattern[str], str], ...]:
    lines = _FORMS.strip().splitlines()
    return tuple((re.compile(form), said.strip()) for form, said in zip(lines[::2], lines[1::2], strict=True))
