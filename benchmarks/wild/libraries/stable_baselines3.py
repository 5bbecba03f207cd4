"""stable-baselines3: the policies of its algorithms, on one recorded batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, MultiInputActorCriticPolicy
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor
from torch.nn import functional as F

from benchmarks.wild.case import Program
from benchmarks.wild.parts import integers, normal

NUMBERS = spaces.Box(-3.0, 3.0, (5,), np.float32)
MOVES = spaces.Discrete(3)
TRAITS = "reinforcement terms dict"


def rate(progress: float) -> float:
    """The learning rate that the policy asks for; ours is the program's."""
    return 1e-3


def recorded() -> dict[str, Any]:
    """States, actions, how much better they were than expected, what was won, and how likely they were."""
    return {
        "state": normal(8, 5),
        "action": integers(0, 3, 8, seed=1),
        "advantage": normal(8, seed=2),
        "won": normal(8, seed=3),
        "log_probability": torch.full((8,), -1.0986),
    }


def proximal(model: Any, batch: Any) -> Tensor:
    """The clipped objective of PPO, the error of the value, and a little entropy."""
    value, log_probability, entropy = model.evaluate_actions(batch["state"], batch["action"])
    ratio = (log_probability - batch["log_probability"]).exp()
    advantage = batch["advantage"]
    clipped = torch.min(advantage * ratio, advantage * ratio.clamp(0.8, 1.2)).mean()
    loss: Tensor = -clipped + 0.5 * F.mse_loss(value.flatten(), batch["won"]) - 0.01 * entropy.mean()
    return loss


def behaviour(model: Any, batch: Any) -> Tensor:
    """Cloning: how unlikely the recorded actions are."""
    _, log_probability, _ = model.evaluate_actions(batch["state"], batch["action"])
    loss: Tensor = -log_probability.mean()
    return loss


def temporal_difference(model: Any, batch: Any) -> Tensor:
    """The error of the value of the action, beside what a frozen copy says of the next state."""
    with torch.no_grad():
        target = batch["won"] + 0.9 * model.q_net_target(batch["state"].roll(1, 0)).max(1).values
    told = model.q_net(batch["state"]).gather(1, batch["action"][:, None])[:, 0]
    return F.smooth_l1_loss(told, target)


def critics(model: Any, batch: Any) -> Tensor:
    """Both critics beside what was won."""
    told = model.critic(batch["state"], batch["continuous"])
    return torch.stack([F.mse_loss(each[:, 0], batch["won"]) for each in told]).sum()


def several_senses() -> dict[str, Any]:
    """States of two senses."""
    return {**recorded(), "state": {"place": normal(8, 3, seed=4), "touch": normal(8, 2, seed=5)}}


def program(name: str, model: Any, batch: Any, loss: Any, limit: float, **more: Any) -> Program:
    """A policy."""
    traits = frozenset([*TRAITS.split(), *more.pop("traits", "").split()])
    library = "stable_baselines3"
    return Program(f"{library}/{name}", library, model, batch, loss, limit, traits=traits, **{"lr": 3e-3, **more})


def programs() -> Iterator[Program]:
    """Actors with critics, then values alone."""
    senses = spaces.Dict(
        {"place": spaces.Box(-3.0, 3.0, (3,), np.float32), "touch": spaces.Box(-3.0, 3.0, (2,), np.float32)}
    )
    yield program(
        "ActorCriticPolicy",
        lambda: ActorCriticPolicy(NUMBERS, MOVES, rate),
        recorded,
        proximal,
        -0.1,
        given={"unbounded": True},
    )
    yield program(
        "MultiInputActorCriticPolicy",
        lambda: MultiInputActorCriticPolicy(senses, MOVES, rate),
        several_senses,
        behaviour,
        0.01,
        given={"unused": ["mlp_extractor.value_net.*", "value_net.*"]},
        traits="labels",
    )
    yield program(
        "DQNPolicy",
        lambda: DQNPolicy(NUMBERS, MOVES, rate),
        recorded,
        temporal_difference,
        0.01,
        given={"unused": ["q_net_target.*"]},
        traits="adapter",
    )
    yield program(
        "ContinuousCritic",
        lambda: SACPolicy(NUMBERS, spaces.Box(-1.0, 1.0, (2,), np.float32), rate, net_arch=[64, 64]).critic,
        lambda: {**recorded(), "continuous": normal(8, 2, seed=6).tanh()},
        lambda model, batch: torch.stack(
            [F.mse_loss(each[:, 0], batch["won"]) for each in model(batch["state"], batch["continuous"])]
        ).sum(),
        0.02,
        traits="regression tuple",
    )
