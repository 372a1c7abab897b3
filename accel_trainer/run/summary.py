"""The result of a run as JSON, and the card that travels with its weights."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from accel_trainer.checkpoints.store import versions
from accel_trainer.metrics.verdict import verdict
from accel_trainer.run.scoring import report

if TYPE_CHECKING:
    from accel_trainer.config import RunConfig
    from accel_trainer.run.forecast_data import ForecastData
    from accel_trainer.run.scoring import Baselines
    from accel_trainer.tasks.base import Meter
    from accel_trainer.trainer.loop import Trainer


def summarise(
    run: str,
    config: RunConfig,
    trainer: Trainer,
    data: ForecastData,
    scores: dict[str, Any],
    baselines: Baselines,
    others: dict[str, Meter],
) -> dict[str, Any]:
    """Return everything a reader of the result needs, JSON-ready.

    Args:
        run: its name.
        config: its options.
        trainer: after training.
        data: what it was trained on.
        scores: of the model on the test windows.
        baselines: which were made, left out, and why.
        others: their errors on the same windows.
    """
    state = trainer.state
    assert state.stop is not None
    scored = {name: report(meter, data) for name, meter in others.items()}
    facts = data.facts()
    return {
        "run": run,
        "model": config.model.name,
        "test": scores,
        "baselines": scored,
        "verdict": verdict(scores["mse"], scored),
        "left_out": baselines.left_out,
        "notes": baselines.notes,
        "stop_reason": state.stop.reason,
        "stop_kind": state.stop.kind,
        "best": dataclasses.asdict(state.best) if state.best else None,
        "protocol": {
            "context": config.data.context,
            "horizon": config.data.horizon,
            "test_windows": facts["splits"]["test"]["windows"],
            "seed": config.run.seed,
            "units": "z-scores of the training rows",
        },
        "training": {
            "step": state.step,
            "updates": state.updates,
            "windows": state.windows,
            "epochs": trainer.epoch,
            "steps_per_epoch": trainer.plan.steps_per_epoch,
            "parameters": sum(p.numel() for p in trainer.model.parameters()),
            "processes": trainer.accelerator.num_processes,
            "device": str(trainer.accelerator.device),
            "precision": trainer.accelerator.mixed_precision,
        },
        "early_stopping": dataclasses.asdict(config.early_stopping),
        "data": facts,
        "versions": versions(),
    }


def model_card(summary: dict[str, Any]) -> str:
    """Return the README that lies beside exported weights."""
    protocol, data = summary["protocol"], summary["data"]
    scores = {summary["model"]: summary["test"], **summary["baselines"]}
    rows = [f"| {name} | {score['mse']:.4f} | {score['mae']:.4f} |" for name, score in scores.items()]
    verdict = summary["verdict"]
    return "\n".join(
        [
            f"# {summary['run']}",
            "",
            f"A {summary['model']} forecaster: {protocol['context']} rows in, {protocol['horizon']} rows ahead, one "
            f"row every {data['period_seconds']:g} s. Trained by accel_trainer on {data['source']}, seed "
            f"{protocol['seed']}.",
            "",
            f"Targets: {', '.join(data['targets'])}",
            "",
            f"Test over {protocol['test_windows']} windows, in z units:",
            "",
            "| | MSE | MAE |",
            "|---|---|---|",
            *rows,
            "",
            f"{verdict[0].upper()}{verdict[1:]}.",
            "",
        ]
    )
