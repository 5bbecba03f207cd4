"""Model classes of public libraries, healthy and stopped too early: does every run end with a verdict?

    python -m venv zoo
    zoo/bin/pip install torch==2.13.0 -c constraints.txt              # first, so that nothing brings another torch
    zoo/bin/pip install -e . -c constraints.txt
    zoo/bin/pip install --no-deps transformers diffusers peft torch_geometric x-transformers gpytorch linear_operator \
        normflows e3nn pytorch-forecasting vector-quantize-pytorch entmax zuko torchdiffeq lightning ...
    zoo/bin/python benchmarks/libraries.py [name ...]

One line each: library, class, how the healthy run ended, and the run that was given three steps. A library that is not
installed is listed as such. Exits 1 where a run ended in an exception instead of a verdict.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pytest_overfit import OverfitResult, run_overfit

Case = tuple[str, Callable[[], dict[str, Any]]]
SHORT = 3  # steps that no model learns its batch in
LABELS = torch.tensor([0, 1, 2, 1])
IDS = torch.randint(3, 60, (4, 8), generator=torch.Generator().manual_seed(0))


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, 1e-2)


class Headed(nn.Module):
    """A layer of a library between two linear ones; of a tuple that it returns the first tensor goes on."""

    def __init__(self, layer: nn.Module, width: int, inputs: int = 6) -> None:
        super().__init__()
        self.stem, self.layer, self.head = nn.Linear(inputs, width), layer, nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.layer(self.stem(x))
        return self.head(out[0] if isinstance(out, tuple) else out)


def classified(model: Callable[[], nn.Module], x: torch.Tensor) -> dict[str, Any]:
    return {"model": model, "data": (x, LABELS), "loss": nn.CrossEntropyLoss()}


def transformers_bert() -> dict[str, Any]:
    import transformers

    config = transformers.BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, num_labels=3,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    batch = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": LABELS}
    return {"model": lambda: transformers.BertForSequenceClassification(config), "data": batch}


def transformers_t5() -> dict[str, Any]:
    import transformers

    config = transformers.T5Config(
        vocab_size=60,
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
        dropout_rate=0.0,
    )
    return {
        "model": lambda: transformers.T5ForConditionalGeneration(config),
        "data": {"input_ids": IDS, "labels": IDS.flip(0)},
    }


def peft_lora() -> dict[str, Any]:
    import peft

    given = transformers_bert()
    config = peft.LoraConfig(task_type="SEQ_CLS", r=8, target_modules=["query", "value"])
    return {**given, "model": lambda: peft.get_peft_model(given["model"](), config), "frozen": ["*base_layer*"]}


def diffusers_unet() -> dict[str, Any]:
    import diffusers

    def loss(model: Any, batch: Any) -> torch.Tensor:
        return F.mse_loss(model(batch["noisy"], batch["step"]).sample, batch["noise"])

    def model() -> Any:
        return diffusers.UNet2DModel(
            sample_size=8,
            block_out_channels=(16, 32),
            norm_num_groups=4,
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )

    batch = {"noisy": torch.randn(2, 3, 8, 8), "noise": torch.randn(2, 3, 8, 8), "step": torch.tensor([10, 500])}
    return {"model": model, "data": batch, "loss": loss}


def geometric_data() -> dict[str, Any]:
    import torch_geometric

    edges = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])
    data = torch_geometric.data.Data(x=torch.randn(6, 4), edge_index=edges, y=torch.arange(6) % 3)

    def loss(model: Any, batch: Any) -> torch.Tensor:
        return F.cross_entropy(model(batch.x, batch.edge_index), batch.y)

    return {"model": lambda: torch_geometric.nn.GCN(4, 64, 1, 3), "data": data, "loss": loss}


def geometric_hetero() -> dict[str, Any]:
    import torch_geometric

    data = torch_geometric.data.HeteroData()
    data["user"].x, data["user"].y, data["item"].x = torch.randn(6, 4), torch.arange(6) % 3, torch.randn(4, 5)
    data["item", "of", "user"].edge_index = torch.tensor([[0, 1, 2, 3, 0, 1], [0, 1, 2, 3, 4, 5]])

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.head = torch_geometric.nn.SAGEConv((5, 4), 64), nn.Linear(64, 3)

        def forward(self, x: Any, edges: Any) -> torch.Tensor:
            key = ("item", "of", "user")
            return self.head(self.convolution((x["item"], x["user"]), edges[key]).tanh())

    def loss(model: Any, batch: Any) -> torch.Tensor:
        return F.cross_entropy(model(batch.x_dict, batch.edge_index_dict), batch["user"].y)

    return {"model": Net, "data": data, "loss": loss}


def x_transformers_decoder() -> dict[str, Any]:
    import x_transformers

    def model() -> Any:
        return x_transformers.AutoregressiveWrapper(
            x_transformers.TransformerWrapper(
                num_tokens=60, max_seq_len=8, attn_layers=x_transformers.Decoder(dim=32, depth=1, heads=2)
            )
        )

    return {"model": model, "data": IDS, "loss": lambda m, b: m(b)}


def gpytorch_exact() -> dict[str, Any]:
    import gpytorch

    x = torch.linspace(0, 1, 8)
    y = torch.sin(6 * x)

    class Process(gpytorch.models.ExactGP):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__(x, y, gpytorch.likelihoods.GaussianLikelihood())
            self.mean, self.kernel = (
                gpytorch.means.ConstantMean(),
                gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel()),
            )

        def forward(self, x: torch.Tensor) -> Any:
            return gpytorch.distributions.MultivariateNormal(self.mean(x), self.kernel(x))

    def loss(model: Any, batch: Any) -> torch.Tensor:
        return -gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)(model(batch[0]), batch[1])

    return {"model": Process, "data": (x, y), "loss": loss, "objective": 0.0, "unbounded": True}


def normflows_flow() -> dict[str, Any]:
    import normflows

    def model() -> Any:
        layers: list[Any] = []
        for _ in range(4):
            layers += [
                normflows.flows.AffineCouplingBlock(normflows.nets.MLP([1, 32, 32, 2], init_zeros=True)),
                normflows.flows.Permute(2, mode="swap"),
            ]
        return normflows.NormalizingFlow(normflows.distributions.DiagGaussian(2), layers)

    return {"model": model, "data": torch.randn(16, 2), "loss": lambda m, b: m.forward_kld(b), "objective": 2.0}


def e3nn_irreps() -> dict[str, Any]:
    from e3nn import o3

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.irreps_in, self.irreps_mid = o3.Irreps("2x0e+1x1o"), o3.Irreps("16x0e+8x1o")
            self.product = o3.FullyConnectedTensorProduct(self.irreps_in, self.irreps_in, self.irreps_mid)
            self.head = o3.Linear(self.irreps_mid, o3.Irreps("3x0e"))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.product(x, x))

    return classified(Net, torch.randn(4, 5))


def forecasting_nbeats() -> dict[str, Any]:
    import pandas
    from pytorch_forecasting import NBeats, TimeSeriesDataSet
    from pytorch_forecasting.metrics import MAE

    count = 30
    frame = pandas.DataFrame(
        {"time": range(count), "group": "a", "value": [0.1 * (i % 7) + 0.01 * i for i in range(count)]}
    )
    data = TimeSeriesDataSet(
        frame,
        time_idx="time",
        target="value",
        group_ids=["group"],
        max_encoder_length=12,
        max_prediction_length=4,
        time_varying_unknown_reals=["value"],
    )
    batch = next(iter(data.to_dataloader(train=True, batch_size=4, shuffle=False)))

    def model() -> Any:
        return NBeats.from_dataset(
            data, loss=MAE(), learning_rate=1e-2, widths=[32, 64], dropout=0.0, logging_metrics=[]
        )

    return {"model": model, "data": batch, "objective": 0.05}


def vector_quantize() -> dict[str, Any]:
    import vector_quantize_pytorch

    def model() -> Any:
        return Headed(vector_quantize_pytorch.VectorQuantize(dim=32, codebook_size=16), 32)

    return classified(lambda: model(), torch.randn(4, 6))


def entmax_attention() -> dict[str, Any]:
    import entmax

    def loss(model: Any, batch: Any) -> torch.Tensor:
        return entmax.entmax15_loss(model(batch[0]), batch[1]).mean()

    body = lambda: nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 3))  # noqa: E731
    return {"model": body, "data": (torch.randn(4, 6), LABELS), "loss": loss}


def zuko_flow() -> dict[str, Any]:
    import zuko

    def loss(model: Any, batch: Any) -> torch.Tensor:
        return -model(batch[1]).log_prob(batch[0]).mean()

    data = torch.randn(8, 2), torch.randn(8, 3)
    return {
        "model": lambda: zuko.flows.NSF(2, 3, transforms=2),
        "data": data,
        "loss": loss,
        "objective": 0.5,
        "unbounded": True,
    }


def torchdiffeq_ode() -> dict[str, Any]:
    import torchdiffeq

    class Rate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 16))

        def forward(self, time: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rate, self.stem, self.head = Rate(), nn.Linear(6, 16), nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torchdiffeq.odeint(self.rate, self.stem(x), torch.tensor([0.0, 1.0]), method="rk4")[-1])

    return classified(Net, torch.randn(4, 6))


CASES: tuple[Case, ...] = (
    ("transformers BertForSequenceClassification", transformers_bert),
    ("transformers T5ForConditionalGeneration", transformers_t5),
    ("peft PeftModel", peft_lora),
    ("diffusers UNet2DModel", diffusers_unet),
    ("torch_geometric GCN", geometric_data),
    ("torch_geometric SAGEConv on HeteroData", geometric_hetero),
    ("x_transformers Decoder", x_transformers_decoder),
    ("gpytorch ExactGP", gpytorch_exact),
    ("normflows NormalizingFlow", normflows_flow),
    ("e3nn FullyConnectedTensorProduct", e3nn_irreps),
    ("pytorch_forecasting NBeats", forecasting_nbeats),
    ("vector_quantize_pytorch VectorQuantize", vector_quantize),
    ("entmax entmax15_loss", entmax_attention),
    ("zuko NSF", zuko_flow),
    ("torchdiffeq odeint", torchdiffeq_ode),
)


def outcome(given: dict[str, Any], **more: Any) -> tuple[str, bool]:
    """One run in words, and whether it ended in an exception."""
    torch.manual_seed(0)
    options = {"optimizer": adam, **given, **more}
    if issubclass(type(given["model"]), nn.Module):
        options.pop("optimizer")
    model, data, loss = options.pop("model"), options.pop("data"), options.pop("loss", None)
    try:
        result: OverfitResult = run_overfit(model, data, loss, **options)
    except Exception as error:
        if "--trace" in sys.argv:
            traceback.print_exc()
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:90]}", True
    missed = [finding.name for finding in result.findings if finding.missed]
    causes = [cause.id for cause in result.causes[:1]]
    words = "passed" if result.passed else f"failed ({', '.join([*missed, *causes])})"
    broken = sum(each.ours for each in result.not_asked)
    return f"{words}{f', {broken} questions of ours broke' if broken else ''}", bool(broken)


def lines() -> Iterator[tuple[str, bool]]:
    wanted = [name for name in sys.argv[1:] if not name.startswith("-")]
    for name, make in CASES:
        if wanted and not any(part in name for part in wanted):
            continue
        try:
            torch.manual_seed(0)
            given = make()
        except ImportError as error:
            yield f"{name:46s} not installed: {error}", False
            continue
        healthy, first = outcome(given)
        short, second = outcome(given, max_steps=SHORT)
        yield f"{name:46s} healthy: {healthy}  short: {short}", first or second


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    broken = 0
    for line, bad in lines():
        print(line, flush=True)
        broken += bad
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
