"""The names by which torch calls the operations that are worth a note."""

from __future__ import annotations

CLASSIFIERS = ("cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div",
               "ctc_loss", "soft_margin_loss", "multi_margin_loss")  # fmt: skip
REGRESSORS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "gaussian_nll_loss", "poisson_nll_loss",
              "cosine_embedding_loss")  # fmt: skip
LOSSES = frozenset(CLASSIFIERS + REGRESSORS)
ARITHMETIC = frozenset({"sub", "__sub__", "__rsub__", "rsub", "add", "__add__", "mul", "__mul__", "div", "__truediv__",
                        "__radd__", "__rmul__", "add_", "mul_", "__iadd__", "__imul__"})  # fmt: skip
SQUASHERS = frozenset({"softmax", "log_softmax", "sigmoid", "tanh"})
RECTIFIERS = frozenset({"relu", "relu_", "relu6", "threshold"})
GATED = frozenset({"gelu", "silu", "mish", "hardswish"})  # next to 0 far below zero
COMPARED = frozenset({"gt", "lt", "ge", "le", "__gt__", "__lt__", "__ge__", "__le__"})
STEPS = frozenset({"round", "sign", "floor", "ceil", "trunc", "sgn", "heaviside", "bucketize"})  # a gradient of zero
CHOICES = frozenset({"argmax"})
CLAMPS = frozenset(
    {"clamp", "clip", "clamp_", "clip_", "clamp_min", "clamp_max", "clamp_max_", "clamp_min_", "hardtanh"}
)
RANDOM = frozenset({
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "rand", "randn",
    "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "bernoulli_", "normal", "normal_",
    "uniform_", "exponential_", "multinomial", "gumbel_softmax", "random_", "poisson", "rrelu", "dropout_",
})  # fmt: skip
FRESH = frozenset({"zeros_like", "ones_like", "full_like", "empty_like"})
ATTENTIONS = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})
WRITES = frozenset({"__setitem__", "index_put_", "index_put", "index_copy_", "index_copy", "scatter_", "scatter"})
