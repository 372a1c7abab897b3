"""The fp16 path: a real GradScaler around a real trainer, on the CPU, which Accelerate does not offer by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import AutocastKwargs
from torch import nn

from accel_trainer.checkpoints.store import Store
from tests.helpers import training


class SteepTask(training.ForecastingTask):
    """A loss so large that a large scale takes its gradients beyond float32."""

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        total, weight = super().loss(model, batch)
        return total * 1e4, weight


def fresh(**options: object) -> Accelerator:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return Accelerator(**(options or {"cpu": True}))


def scaling_accelerator(init_scale: float, **options: object) -> Accelerator:
    # Only the scaler: autocast on the CPU would compute in bf16.
    accelerator = fresh(cpu=True, kwargs_handlers=[AutocastKwargs(enabled=False)])
    accelerator.native_amp = True
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, **options)
    return accelerator


class Exploding(nn.Module):
    """Its loss is never a number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(training.HORIZON, training.TARGETS))

    def forward(self, past_values: torch.Tensor) -> torch.Tensor:
        return self.weight.expand(len(past_values), -1, -1) * torch.nan


def fitted(
    accelerator: Accelerator, model: nn.Module | None = None, store: Store | None = None, **options: object
) -> training.Trainer:
    model = model or training.model()
    data = training.windows(training.series(None))
    config = training.config(training__clip_norm=1.0, **options)
    task = SteepTask(model, training.SHAPE)
    made = training.Trainer(model, task, data, None, config, accelerator=accelerator, store=store)
    made.fit()
    return made


def test_scaling_the_loss_changes_no_result() -> None:
    plain = fitted(fresh(), training__max_steps=12).bare_model.state_dict()
    scaled = fitted(scaling_accelerator(2.0**10), training__max_steps=12).bare_model.state_dict()
    for name in plain:
        torch.testing.assert_close(scaled[name], plain[name], rtol=1e-5, atol=1e-7)


def test_a_step_that_overflows_is_left_out_and_does_not_advance_the_schedule() -> None:
    accelerator = scaling_accelerator(2.0**127, growth_interval=10**6)
    before = accelerator.scaler.get_scale()
    trainer = fitted(accelerator, training__max_steps=30, training__max_nonfinite_steps=30, schedule__name="cosine")
    skipped = trainer.state.step - trainer.state.updates
    assert 0 < skipped < 30
    assert accelerator.scaler.get_scale() == before / 2**skipped
    assert all(torch.isfinite(value).all() for value in trainer.bare_model.state_dict().values())
    whole = training.config().optimizer.lr
    assert trainer.optimizer.param_groups[0]["lr"] > 0  # cosine reaches 0 only after 30 updates
    assert trainer.optimizer.param_groups[0]["lr"] < whole


def test_overflow_without_end_stops_the_run() -> None:
    # Nine halvings bring the scale from 256 below 1, where no smaller one can help any more.
    accelerator = scaling_accelerator(2.0**8)
    trainer = fitted(accelerator, model=Exploding(), training__max_nonfinite_steps=4)
    assert trainer.state.stop is not None
    assert trainer.state.stop.kind == "diverged"
    assert trainer.state.step == 9 + 3
    assert trainer.state.updates == 0


def test_the_scale_survives_a_restart(tmp_path: Path) -> None:
    first = scaling_accelerator(2.0**127, growth_interval=10**6)
    store = Store(tmp_path / "checkpoints")
    fitted(first, store=store, training__max_steps=20, training__max_nonfinite_steps=30)
    scale = first.scaler.get_scale()
    second = scaling_accelerator(2.0**10)
    model = training.model()
    again = training.Trainer(
        model,
        training.ForecastingTask(model, training.SHAPE),
        training.windows(training.series(None)),
        None,
        training.config(training__clip_norm=1.0, training__max_steps=20),
        accelerator=second,
    )
    checkpoint, _ = Store(tmp_path / "checkpoints").newest()
    assert checkpoint is not None
    again.resume(checkpoint)
    assert second.scaler.get_scale() == scale
    assert again.state.step == 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fp16_on_a_gpu_trains_like_fp32() -> None:
    plain = fitted(fresh(mixed_precision="no"), training__max_steps=20).evaluate(
        training.windows(training.series(None))
    )
    half = fitted(fresh(mixed_precision="fp16"), training__max_steps=20)
    assert half.evaluate(training.windows(training.series(None)))["mse"] == pytest.approx(plain["mse"], rel=2e-2)
