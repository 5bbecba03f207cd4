"""What the id of a cause means, in a language that is not that of the ids."""

from __future__ import annotations

TITLES = dict(each.strip().split(" ", 1) for each in """
optimizer-coverage 优化器未覆盖全部参数 | no-update 参数未更新 | grad-clip 梯度裁剪过强
no-step 未调用 optimizer.step() | grad-accumulation 梯度未清零或累积未平均 | step-order 训练步的调用顺序错误
optimizer-state 优化器状态丢失 | weights-reset 权重被重置 | not-frozen 声明冻结的参数仍在变化 | drift 无梯度的量在漂移
ema 滑动平均未跟随权重 | not-loaded 检查点权重未加载 | lr-high 学习率过大 | lr-low 学习率过小 | few-steps 训练步数不足
lr-schedule 学习率调度不当 | lr-group 某参数组的学习率不当 | weight-decay 权重衰减过强
optimizer-hyperparameter 优化器超参数不当 | no-gradient 计算图被切断，参数没有梯度 | loss-detached 损失没有梯度
unused 参数未被使用 | zero-gradient 梯度为零 | frozen 参数被冻结 | unregistered 模块或张量未注册
tie-lost 共享权重已断开 | double-activation 重复的激活函数 | broadcast 形状不一致，发生广播 | loss-clamped 损失被截断
loss-floor 损失存在下限 | vacuous 损失没有监督任何内容 | unsupervised 部分样本没有监督
loss-ignores-output 损失与输出无关 | target-mismatch 预测与目标不对应 | loss-scale 损失的量级错误
loss-sign 损失的符号错误 | term-missing 缺少损失项 | term-weight 损失项权重不当 | term-stuck 某一损失项不下降
target-scale 目标的尺度不当 | input-scale 输入的尺度不当 | batch-changes 样本在各步之间变化
degenerate-batch 数据退化 | nonfinite-data 数据含 NaN 或无穷大 | label-conflict 标签互相矛盾
nonfinite-loss 损失出现非有限值 | nonfinite-gradient 梯度出现非有限值 | nonfinite-output 输出出现非有限值
precision 数值精度不足 | gradient-explosion 梯度爆炸 | backend 执行方式有误 | dead-units 神经元失活
saturation 激活饱和 | output-range 输出范围不够 | capacity 模型容量不足 | output-scale 输出被缩放到接近零
symmetry 单元对称 | constant-output 输出恒定 | input-ignored 输入被忽略 | batch-mixing 样本之间相互影响
stochastic 前向过程随机性过大 | mode-gap 训练与评估模式不一致 | leak 答案泄漏到输入
wrong-backward 反向传播的不是所报告的损失 | wrong-model 训练的不是所报告的模型 | scale 尺度错误 | units 单位不一致
camera-convention 相机坐标约定错误 | misalignment 深度、图像与内参不对齐 | sky 天空像素带有深度
confidence-runaway 置信度失控
""".replace("\n", "|").split("|") if each.strip())  # fmt: skip


def title(cause: str, lang: str) -> str:
    """The id of a cause, with what it means in a language that is not that of the ids.

    Example:
        >>> title("lr-low", "en"), title("lr-low", "zh"), title("mine.own", "zh")
        ('lr-low', 'lr-low 学习率过小', 'mine.own')
    """
    return f"{cause} {TITLES[cause]}" if lang == "zh" and cause in TITLES else cause
