"""Names and options become models, or errors that say what would be right; checking them needs no torch."""

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from accel_trainer.errors import ConfigError
from accel_trainer.models import MODELS, ForecastShape, check_model, create_model, list_models

SHAPE = ForecastShape(context=48, horizon=12, channels=5, targets=3, season=24)


@pytest.mark.parametrize("info", list_models(), ids=lambda info: info.name)
def test_every_model_forecasts_its_targets(info):
    model = create_model(info.name, SHAPE, {})
    past = torch.randn(4, 48, 5)
    assert model(past).shape == (4, 12, 3)
    assert model(past, torch.rand(4, 48, 5) > 0.2).shape == (4, 12, 3)
    assert any(p.requires_grad for p in model.parameters()) == info.trainable
    assert info.name == info.name.lower()
    assert info.summary
    assert "\n" not in info.summary


@pytest.mark.parametrize("info", list_models(), ids=lambda info: info.name)
def test_every_model_runs_without_reading_from_the_device(info):
    """A host read of data, which is a hidden wait on a GPU, would break the graph in two."""
    model = create_model(info.name, SHAPE, {})
    past, observed = torch.randn(4, 48, 5), torch.rand(4, 48, 5) > 0.2
    traced = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(traced(past, observed), model(past, observed), equal_nan=True)


def test_only_models_with_something_to_train_can_be_trained():
    for name, info in MODELS.items():
        if info.trainable:
            check_model(name, {})
        else:
            with pytest.raises(ConfigError, match=r"baseline with nothing to train.*nlinear"):
                check_model(name, {})


@pytest.mark.parametrize(
    ("name", "options", "key", "message"),
    [
        ("NLinear", {}, "model.name", "did you mean 'nlinear'"),
        ("dlineer", {}, "model.name", "did you mean 'dlinear'"),
        ("xgboost", {}, "model.name", "module:Class"),
        ("nlinear", {"individua": True}, "model.options.individua", "did you mean 'individual'"),
        ("nlinear", {"individual": "perhaps"}, "model.options.individual", "true or false"),
        ("dlinear", {"kernel_size": 24}, "model.options.kernel_size", "odd"),
        ("dlinear", {"kernel_size": -1}, "model.options.kernel_size", "odd"),
        ("my/model.py:Model", {}, "model.name", "form module:Class"),
        ("my.model:", {}, "model.name", "form module:Class"),
    ],
)
def test_mistakes_are_named(name, options, key, message):
    for use in (lambda: check_model(name, options), lambda: create_model(name, SHAPE, options)):
        with pytest.raises(ConfigError, match=message) as caught:
            use()
        assert caught.value.key == key


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_forecasters.py").write_text(
        textwrap.dedent("""
            from torch import nn

            class Mean(nn.Module):
                def __init__(self, shape, width: int, depth: int = 2):
                    super().__init__()
                    self.shape, self.width, self.depth = shape, width, depth

            def make(shape):
                return nn.Linear(shape.context, shape.horizon)

            def forgot_to_return(shape):
                Mean(shape, 1)

            CONSTANT = 3
        """)
    )
    (tmp_path / "needs_more.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != ""])
    yield
    sys.modules.pop("own_forecasters", None)


@pytest.mark.usefixtures("own_module")
def test_a_model_of_ones_own():
    check_model("own_forecasters:Mean", {"width": 4})
    model = create_model("own_forecasters:Mean", SHAPE, {"width": 4})
    assert (model.shape, model.width, model.depth) == (SHAPE, 4, 2)
    assert isinstance(create_model("own_forecasters:make", SHAPE, {}), nn.Linear)


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("own_forecaster:Mean", {}, "own_forecaster"),
        ("own_forecasters:Maen", {}, "did you mean 'Mean'"),
        ("own_forecasters:Mean", {}, r"'width'.*\(shape, width: int, depth: int = 2\)"),
        ("own_forecasters:Mean", {"width": 1, "heads": 2}, "'heads'"),
        ("own_forecasters:forgot_to_return", {}, "NoneType, not a torch.nn.Module"),
        ("own_forecasters:CONSTANT", {}, "int, not a class"),
        ("needs_more:Model", {}, "a_package_that_is_not_there"),
    ],
)
def test_mistakes_with_a_model_of_ones_own_are_named(name, options, message):
    with pytest.raises(ConfigError, match=message):
        create_model(name, SHAPE, options)


@pytest.mark.parametrize(
    ("season", "reason"), [(None, "no season is known"), (49, "49 rows does not fit into a context of 48")]
)
def test_seasonal_naive_says_why_it_cannot_be_used(season, reason):
    shape = ForecastShape(48, 12, 5, 3, season=season)
    assert reason in MODELS["seasonal_naive"].why_not(shape)
    with pytest.raises(ConfigError, match=reason):
        create_model("seasonal_naive", shape, {})
    assert MODELS["seasonal_naive"].why_not(SHAPE) is None
    assert MODELS["persistence"].why_not(shape) is None


def test_impossible_shapes_are_refused():
    for sizes in ((0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 1, 2), (1, 1, 1, 0)):
        with pytest.raises(ValueError, match="no forecast"):
            ForecastShape(*sizes)


def test_names_and_options_are_checked_without_torch():
    code = (
        "import sys; from accel_trainer.models import check_model, list_models;"
        "check_model('dlinear', {'kernel_size': 5}); check_model('my.module:Model', {}); list_models();"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_classes_can_be_imported_from_the_package():
    import accel_trainer.models as models

    for name in models.__all__:
        assert getattr(models, name).__class__ is not None
    with pytest.raises(AttributeError, match="NLinaer"):
        _ = models.NLinaer
