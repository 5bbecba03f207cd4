"""Causes of two-view batches: scale, units, camera conventions, alignment, sky, confidence. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from pytest_overfit.diagnose.cause import Cause
from pytest_overfit.diagnose.evidence import Evidence
from pytest_overfit.diagnose.family import Family, Question
from pytest_overfit.two_view.diagnose import predicted_depth, view_agreement
from pytest_overfit.two_view.diagnose.confidence import ConfidencePrices, confidence_pays
from pytest_overfit.two_view.diagnose.predicted_depth import (
    EncodingCompared,
    another_encoding,
    one_pose_for_all,
)
from pytest_overfit.two_view.diagnose.views import ViewsPredicted, ViewsSeen

if TYPE_CHECKING:
    from torch import Tensor

    from pytest_overfit.run.context import RunContext

RULES: tuple[Callable[[ViewsSeen, ViewsPredicted | None], Iterator[Cause]], ...] = (
    *view_agreement.RULES,
    *predicted_depth.RULES,
)


def views_seen(context: RunContext, outputs: Mapping[str, Tensor]) -> ViewsSeen | None:
    """What the batch itself shows of its views."""
    from pytest_overfit.two_view.diagnose.view_geometry import measure_views

    return measure_views(context.task.batch)


def views_predicted(context: RunContext, outputs: Mapping[str, Tensor]) -> ViewsPredicted | None:
    """What the trained model predicts for them."""
    from pytest_overfit.two_view.diagnose.predicted_views import measure_predictions

    return measure_predictions(outputs, context.task.batch)


def encoding(context: RunContext, outputs: Mapping[str, Tensor]) -> EncodingCompared | None:
    """What the loss says of the true cameras."""
    from pytest_overfit.two_view.diagnose.predicted_views import encoding_compared

    return encoding_compared(context.task)


def prices(context: RunContext, outputs: Mapping[str, Tensor]) -> ConfidencePrices | None:
    """What the loss pays for each confidence."""
    from pytest_overfit.two_view.diagnose.confidence_price import measure_prices

    return measure_prices(context, outputs)


def of_views(evidence: Evidence) -> Iterator[Cause]:
    """All that is wrong with the views of a batch, or with what is predicted for them."""
    views = evidence.fact(ViewsSeen)
    if views is not None:
        for rule in RULES:
            yield from rule(views, evidence.fact(ViewsPredicted))


QUESTIONS = (
    Question("whether the views agree", views_seen),
    Question("predictions against the views", views_predicted),
    Question("which encoding of the cameras the loss compares", encoding),
    Question("what the loss pays for confidence", prices),
)
LEAD = '''
The geometry of two views is checked if the batch is a mapping with `depths` (B, S, H, W), `extrinsics` (B, S, 3, 4),
world2cam in OpenCV axes, and `intrinsics` (B, S, 3, 3) in pixels; `images` (B, S, 3, H, W) and `point_masks` (B, S, H,
W) are read where they are there. Points of one view are looked up in the other. A batch is blamed only where its views
do not agree as they are and do agree with one thing changed.

The examples share a small scene, a textured wall behind textured ground and under a sky, and a model that memorises its
depth.

<!-- prelude -->
```python
def two_views(size=24, focal=26.0):
    """Images, depths in metres (0: sky), cameras (world2cam, OpenCV axes) and masks of one pair."""
    intrinsics = torch.tensor([[focal, 0.0, size / 2], [0.0, focal, size / 2], [0.0, 0.0, 1.0]])
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, 0.0, 0.12], [0.0, 0.0, 0.0], [-0.12, 0.0, 0.0]]))
    second = torch.cat([turn, torch.tensor([[-1.1], [0.15], [0.2]])], dim=1)
    v, u = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    rays = torch.stack([u, v, torch.ones_like(u)], dim=-1).float() @ torch.linalg.inv(intrinsics).T
    images, depths, cameras = [], [], torch.stack([torch.eye(3, 4), second])
    for camera in cameras:
        ray, centre = rays @ camera[:, :3], -camera[:, 3] @ camera[:, :3]
        wall, ground = (6 - centre[2]) / ray[..., 2], (1.4 - centre[1]) / ray[..., 1]
        hit = centre + ray * wall[..., None]
        wall = torch.where((hit[..., 1] > -1.4) & (hit[..., 0].abs() < 3.2), wall, torch.inf)
        depth = torch.minimum(wall, torch.where(ground > 0, ground, torch.inf))
        depths.append(torch.where(depth < 12, depth, 0.0))
        x, y, z = (centre + ray * depths[-1][..., None]).unbind(-1)
        waves = torch.stack([1.7 * x, 2.1 * y + x, 1.3 * z])
        images.append(torch.where(depths[-1] > 0, 0.5 + 0.2 * waves.sin() + 0.15 * (2.3 * waves.flip(0)).cos(), 0.9))
    images, depths = torch.stack(images)[None], torch.stack(depths)[None]
    intrinsics = intrinsics.expand(1, 2, 3, 3).clone()
    batch = {"images": images, "depths": depths, "point_masks": depths > 0}
    return {**batch, "extrinsics": cameras[None], "intrinsics": intrinsics}


class Depth(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(2), nn.Linear(3 * 24 * 24, 32), nn.Tanh(), nn.Linear(32, 24 * 24))

    def forward(self, images):
        return {"depth": self.net(images - 0.5).exp().view(1, 2, 24, 24)}


def depth_loss(model, batch):
    predicted, mask = model(batch["images"])["depth"], batch["point_masks"]
    return (predicted[mask] / batch["depths"][mask] - 1).abs().mean()


batch = two_views()
```
'''
FAMILY = Family(
    group="two-view",
    order=190,
    rules=(of_views, another_encoding, one_pose_for_all, confidence_pays),
    questions=QUESTIONS,
    lead=LEAD,
    docs="""
### scale

The structure of the prediction is right and its scale is wrong.

```python
def loss(model, batch):
    predicted, mask = model(batch["images"])["depth"], batch["point_masks"]
    ratio = predicted[mask] / batch["depths"][mask]
    aligned = ratio / ratio.median()  # fixed: aligned = ratio
    return {"objective": (aligned - 1).abs().mean(), "abs_rel": (ratio - 1).abs().mean().detach()}


result = run_overfit(Depth, batch, loss, objective=0.05, abs_rel=0.05, max_steps=150)
```

- **Symptom**: the loss meets its limit, and depths are wrong by a factor.
- **Evidence**: shown: the error of the predicted depth as it is, and after one factor. Certain where predicted cameras
  have the right scale.
- **Fix**: compare depths in the unit of the batch, without aligning the prediction; or normalise both alike.

### units

Quantities of different units meet: metres and centimetres, metric and normalised lengths.

```python
batch["extrinsics"][..., 3] *= 100  # fixed: remove this line
result = run_overfit(Depth, batch, depth_loss, objective=0.05, max_steps=200)
```

- **Symptom**: none in a term of depth or of cameras alone; what combines them (points, reprojection) cannot be fitted.
- **Evidence**: shown, certain: views that agree once translations or depths are multiplied by one factor.
- **Fix**: multiply by the factor that is named; normalise depths, translations and points together.

### camera-convention

Poses are inverted, or in other axes.

```python
rotation = batch["extrinsics"][..., :3].mT
centre = -rotation @ batch["extrinsics"][..., 3:]
batch["extrinsics"] = torch.cat([rotation, centre], dim=-1)  # fixed: remove this line
result = run_overfit(Depth, batch, depth_loss, objective=0.05, max_steps=200)
```

- **Symptom**: none on one batch; across views nothing fits.
- **Evidence**: shown, certain: views that agree under the cameras inverted, or with other axes.
- **Fix**: the conversion that is named, such as `torch.linalg.inv` of the 4x4 matrix for cam2world.

### misalignment

Depth, image and intrinsics do not line up.

```python
batch["images"] = batch["images"].flip(-1)  # fixed: remove this line
result = run_overfit(Depth, batch, depth_loss, objective=0.05, max_steps=200)
```

- **Symptom**: none on one batch; predictions on others are blurred or mirrored.
- **Evidence**: shown, certain: colours, or surfaces, of two views that meet once a map is flipped, shifted or scaled,
  the depths of two views are exchanged, or the focal length is another.
- **Fix**: one transform for all maps of a view, and intrinsics with it.

### sky

Pixels of the sky carry depth.

```python
sky = ~batch["point_masks"]
batch["depths"][sky] = 65.535  # fixed: remove this line
batch["point_masks"][sky] = True  # fixed: remove this line
result = run_overfit(Depth, batch, depth_loss, objective=0.05, max_steps=200)
```

- **Symptom**: the loss hangs on the sky; depths of everything else come late.
- **Evidence**: shown, certain: a connected region of one depth that the other view sees through.
- **Fix**: mask the sky, and check the label that the mask is made of.

### confidence-runaway

The confidence brings the objective down in place of the depth: it runs up, or away to 0.

```python
class Confident(Depth):
    def __init__(self):
        super().__init__()
        self.sure = nn.Linear(24 * 24, 24 * 24)

    def forward(self, images):
        depth = super().forward(images)["depth"]
        return {"depth": depth, "depth_conf": 1 + self.sure(depth.flatten(2)).exp().view_as(depth)}


def loss(model, batch):
    predicted, mask = model(batch["images"]), batch["point_masks"]
    error = (predicted["depth"][mask] / batch["depths"][mask] - 1).abs()
    confidence = predicted["depth_conf"][mask]
    weighted = error / confidence  # fixed: weighted = error * confidence
    return (weighted - 0.05 * confidence.log()).mean()


result = run_overfit(Confident, batch, loss, unbounded=True, objective=0.03, max_steps=200)
```

- **Symptom**: the objective falls, without end or to 0, and depths do not get better.
- **Evidence**: shown, certain: with all predictions held, the loss falls as the confidence alone grows (or shrinks, or
  moves between pixels), whatever the depth is. Certain where that alone met the limit, or made half of the fall of a
  run that failed: the objective of the end is asked with the confidence of the start.
- **Fix**: `error * confidence - a * confidence.log()`, with a gradient for the error; or a bound on the confidence.
""",
)
