"""Every optimizer by name: it descends, takes its own options, decays what it should; and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from accel_trainer.config import OptimizerOptions
from accel_trainer.errors import ConfigError
from accel_trainer.optim.groups import parameter_groups
from accel_trainer.optim.registry import OPTIMIZERS, check_optimizer, create_optimizer

# A rate at which each goes down a bowl; those that rescale the gradient need none of their own.
RATES = {"adadelta": 10.0, "adagrad": 0.5, "sgd": 0.1}


def bowl(model: nn.Module) -> torch.Tensor:
    """A convex function of all weights, 0 where they are all 1."""
    return torch.stack([(p - 1).square().sum() for p in model.parameters()]).sum()


def descend(options: OptimizerOptions, steps: int = 100) -> tuple[float, float]:
    """Return the value of the bowl before and after some steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    optimizer = create_optimizer(options, model)
    before = bowl(model).item()
    for _ in range(steps):
        optimizer.zero_grad()
        bowl(model).backward()
        optimizer.step()
    return before, bowl(model).item()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_descends(name):
    before, after = descend(OptimizerOptions(name=name, lr=RATES.get(name, 0.05)))
    assert after < 0.2 * before


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("adadelta", {"rho": 0.8, "eps": 1e-5}),
    ("adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-9}),
    ("adam", {"betas": (0.8, 0.95), "eps": 1e-7, "amsgrad": True}),
    ("adamax", {"betas": (0.8, 0.95), "eps": 1e-7}),
    ("adamw", {"betas": (0.8, 0.95), "eps": 1e-7, "amsgrad": True, "fused": True}),
    ("nadam", {"betas": (0.8, 0.95), "momentum_decay": 1e-3}),
    ("radam", {"betas": (0.8, 0.95), "eps": 1e-7}),
    ("rmsprop", {"alpha": 0.9, "momentum": 0.5, "centered": True}),
    ("sgd", {"momentum": 0.9, "dampening": 0.0, "nesterov": True}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=[name for name, _ in OPTIONS])
def test_options_reach_the_class_and_the_rest_are_torchs_defaults(name, options):
    model = nn.Linear(3, 2)
    # As YAML gives them: lists instead of tuples.
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    optimizer = create_optimizer(OptimizerOptions(name=name, lr=0.5, options=given), model)
    assert type(optimizer).__name__.lower() == name
    plain = type(optimizer)(model.parameters(), lr=0.5)
    for group in optimizer.param_groups:
        assert group["lr"] == 0.5
        assert {key: group[key] for key in options} == options
        for key in group.keys() - options.keys() - {"params", "param_names", "weight_decay"}:
            assert group[key] == plain.defaults[key], key


def test_every_optimizer_is_tested():
    assert [name for name, _ in OPTIONS] == list(OPTIMIZERS)


@pytest.mark.parametrize(
    ("name", "options", "key", "part"),
    [
        ("adamw", {"beta": [0.9, 0.99]}, "optimizer.options.beta", "did you mean 'betas'?"),
        ("sgd", {"betas": [0.9, 0.99]}, "optimizer.options.betas", "known: momentum, dampening, nesterov"),
        ("adamw", {"betas": [0.9]}, "optimizer.options.betas", "a list in brackets, of numbers"),
        ("adamw", {"eps": "small"}, "optimizer.options.eps", "a number"),
        ("adamv", {}, "optimizer.name", "did you mean 'adam"),
        ("AdamW", {}, "optimizer.name", "did you mean 'adamw'?"),
        (":Adam", {}, "optimizer.name", "not of the form module:Class"),
        ("module:", {}, "optimizer.name", "not of the form module:Class"),
        (".module:Adam", {}, "optimizer.name", "not of the form module:Class"),
        ("my module:Adam", {}, "optimizer.name", "not of the form module:Class"),
    ],
)
def test_wrong_names_and_options_are_refused_before_torch_is_needed(name, options, key, part):
    with pytest.raises(ConfigError) as caught:
        check_optimizer(name, options)
    assert caught.value.key == key
    assert part in caught.value.problem
    with pytest.raises(ConfigError):
        create_optimizer(OptimizerOptions(name=name, options=options), nn.Linear(1, 1))


def test_values_that_the_class_refuses_are_told_with_its_own_words():
    with pytest.raises(ConfigError, match=r"optimizer\.options: adamw refused .*beta"):
        create_optimizer(OptimizerOptions(options={"betas": [2.0, 0.9]}), nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="Nesterov"):
        create_optimizer(OptimizerOptions(name="sgd", options={"nesterov": True}), nn.Linear(1, 1))


def test_checking_needs_no_torch():
    code = (
        "import sys; from accel_trainer.optim.registry import check_optimizer\n"
        "check_optimizer('adamw', {'betas': [0.9, 0.99]}); check_optimizer('a.b:C', {'x': 1})\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


# ---- weight decay ----------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Weights of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.bias = nn.Parameter(torch.zeros(4, 5))  # a bias for each of several maps has two dimensions
        self.gain = nn.Parameter(torch.ones(()))
        self.bias_of_attention = nn.Parameter(torch.ones(2, 2))  # only by its last name is something a bias
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def names_by_decay(model: nn.Module, weight_decay: float, **options: Any) -> dict[float, set[str]]:
    groups = parameter_groups(model, weight_decay, **options)
    return {group["weight_decay"]: {name for name, _ in group["params"]} for group in groups}


def test_biases_and_norms_do_not_decay():
    assert names_by_decay(Net(), 0.1) == {
        0.1: {"linear.weight", "bias_of_attention"},
        0.0: {"linear.bias", "norm.weight", "norm.bias", "bias", "gain"},
    }


def test_all_decay_when_asked_for():
    model = Net()
    everything = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names_by_decay(model, 0.1, decay_all=True) == {0.1: everything}


def test_no_group_is_empty():
    assert len(parameter_groups(nn.LayerNorm(3), 0.1)) == 1
    assert len(parameter_groups(nn.Linear(3, 3, bias=False), 0.1)) == 1


@pytest.mark.parametrize("decay_all", [False, True])
def test_decay_pulls_only_what_it_should(decay_all):
    model = nn.Linear(3, 2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    options = OptimizerOptions(name="adamw", lr=0.1, weight_decay=0.5, decay_all=decay_all)
    optimizer = create_optimizer(options, model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before["weight"] * 0.95)
    torch.testing.assert_close(model.bias.detach(), before["bias"] * (0.95 if decay_all else 1.0))


def test_a_checkpoint_can_tell_which_state_is_whose():
    optimizer = create_optimizer(OptimizerOptions(), nn.Linear(3, 2))
    assert [group["param_names"] for group in optimizer.state_dict()["param_groups"]] == [["weight"], ["bias"]]


# ---- optimizers from elsewhere ---------------------------------------------------------------------------------------

OWN = """
import torch

class Slow(torch.optim.SGD):
    def __init__(self, params, lr, damping=1.0, **more):
        self.damping = damping
        super().__init__(params, lr=lr * damping)

class Strict(torch.optim.SGD):
    def __init__(self, params, lr, damping=1.0):
        super().__init__(params, lr=lr * damping)

def make(params, lr):
    return torch.optim.SGD(params, lr=lr)

def make_nothing(params, lr):
    return 3

class NoRate(torch.optim.SGD):
    def __init__(self, params):
        super().__init__(params, lr=1.0)

number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, under a name that no other test has imported."""
    name = f"own_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    return name


def test_a_class_from_a_module_in_the_current_folder(own):
    options = OptimizerOptions(name=f"{own}:Slow", lr=0.5, weight_decay=0.1, options={"damping": 0.1, "extra": 1})
    optimizer = create_optimizer(options, nn.Linear(3, 2))
    assert optimizer.damping == 0.1
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.05]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    before, after = descend(OptimizerOptions(name=f"{own}:make", lr=0.1))
    assert after < 0.2 * before


@pytest.mark.parametrize(
    ("attribute", "options", "part"),
    [
        ("Strict", {"dampnig": 1}, "takes no such option; did you mean 'damping'?"),
        ("Slwo", {}, "has no 'Slwo'; did you mean 'Slow'?"),
        ("make_nothing", {}, "is not a torch.optim.Optimizer"),
        ("NoRate", {}, "refused"),
        ("number", {}, "is a int, not a class"),
    ],
)
def test_what_is_no_optimizer_is_refused(own, attribute, options, part):
    with pytest.raises(ConfigError) as caught:
        create_optimizer(OptimizerOptions(name=f"{own}:{attribute}", options=options), nn.Linear(3, 2))
    assert part in str(caught.value)


def test_a_module_that_is_not_there(own):
    with pytest.raises(ConfigError, match=r"optimizer\.name: 'not_here:Slow': cannot import 'not_here'"):
        create_optimizer(OptimizerOptions(name="not_here:Slow"), nn.Linear(3, 2))
