"""Score a trained forecaster: ``python -m accel_trainer.evaluate --checkpoint runs/bhm [--data.path other.csv]``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel_trainer.checks import check_baselines, check_fixed, check_path
from accel_trainer.command import Outcome, leave, run_command
from accel_trainer.errors import ExitCode, UserError, nearest, not_written
from accel_trainer.help_text import print_command_help
from accel_trainer.launching import check_launch
from accel_trainer.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accel_trainer.settings import Settings

_SPLITS = ("train", "validation", "test", "all")
_HELP = """Score a trained forecaster and its baselines.

  --checkpoint FOLDER   a run (its best weights), a checkpoint or an exported model folder
  --split NAME          train, validation, test or all; by default test, and all rows of another --data.path
  --json FILE           also write every figure to a JSON file
  --trust MODULE:CLASS  load a model of your own; its code runs"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv

    def body(_: Outcome) -> ExitCode:
        settings = read_settings(
            arguments, ("data", "evaluation"), ("checkpoint", "split", "json", "trust"), base=configuration_of
        )
        if settings.help_only:
            print_command_help("python -m accel_trainer.evaluate", _HELP, ("data", "evaluation"))
            return ExitCode.OK
        check_fixed(settings.source)
        check_path(settings.config.data.path)
        check_baselines(settings.config.evaluation.baselines)
        check_launch(None)
        split = settings.extras.get("split", "all" if "data.path" in settings.source else "test")
        if split not in _SPLITS:
            raise UserError(f"--split: {split!r} is none of {', '.join(_SPLITS)}{nearest(split, _SPLITS)}")
        if "json" in settings.extras and not Path(settings.extras["json"]).parent.is_dir():
            raise UserError(f"--json {settings.extras['json']}: there is no folder to write it to")
        evaluate(settings, split)
        return ExitCode.OK

    return run_command(body)


def configuration_of(extras: dict[str, str]) -> Any:
    """Return the configuration that a ``--checkpoint`` was trained with; needs no torch."""
    from accel_trainer.run.trained import Trained

    if "checkpoint" not in extras:
        raise UserError("--checkpoint is missing: a run folder such as runs/bhm, a checkpoint or a model folder")
    return Trained.from_pretrained(extras["checkpoint"], named_by="--checkpoint").config


def evaluate(settings: Settings, split: str) -> dict[str, Any]:
    """Score a checkpoint and its baselines on all processes; print and return the result.

    Raises:
        UserError: checkpoint and data do not fit together.
    """
    from accel_trainer.checkpoints.files import write_json
    from accel_trainer.launching import check_processes
    from accel_trainer.metrics.verdict import verdict
    from accel_trainer.run.lines import machine_line
    from accel_trainer.run.scoring import Baselines, report
    from accel_trainer.run.trained import Trained
    from accel_trainer.tasks.forecasting import ForecastingTask
    from accel_trainer.terminal import Terminal, results_table, sensors_table
    from accel_trainer.trainer.evaluation import Evaluator
    from accel_trainer.trainer.precision import create_accelerator

    config = settings.config
    accelerator = create_accelerator(config.training)
    check_processes(accelerator.num_processes, None)
    terminal = Terminal(enabled=accelerator.is_main_process)
    terminal.say(machine_line(accelerator))
    trained = Trained.from_pretrained(settings.extras["checkpoint"])
    terminal.say(f"weights: {trained.folder}")
    model = trained.load_model(settings.extras.get("trust")).to(accelerator.device)
    task = ForecastingTask(model, trained.shape, config.training.loss, config.training.loss_delta)
    data = trained.read_data(config.data, accelerator.device, whole=split == "all")
    for note in data.table.notes:
        terminal.say(f"data: {note}")
    splits = dict(zip(_SPLITS, data.windows(time_features=task.wants_time_features), strict=False))
    samples = splits["test" if split == "all" else split]

    evaluator = Evaluator(accelerator, task, config.evaluation.batch_size)
    scores = report(evaluator.measure(model, samples), data)
    # Without training rows in this file the closed form would be solved from what it is scored on.
    training = None if split == "all" else splits["train"]
    baselines = Baselines(config.evaluation.baselines, trained.shape, training, evaluator)
    others = {name: report(meter, data) for name, meter in baselines.score(samples).items()}
    result: dict[str, Any] = {
        "checkpoint": str(trained.folder),
        "data": data.facts(),
        "split": split,
        "windows": len(samples),
        "model": config.model.name,
        "scores": scores,
        "baselines": others,
        "left_out": baselines.left_out,
        "verdict": verdict(scores["mse"], others),
    }
    title = f"{config.data.path}, {split} rows ({len(samples):,} windows, z units of the training rows)"
    results_table(terminal, title, config.model.name, scores, others)
    sensors_table(terminal, scores)
    for name, reason in baselines.left_out.items():
        terminal.say(f"{name} was left out: {reason}")
    terminal.say(result["verdict"])
    if accelerator.is_main_process and "json" in settings.extras:
        path = Path(settings.extras["json"])
        try:
            write_json(path, result)
        except OSError as error:
            raise not_written(f"--json {path}", error) from None
        terminal.say(f"written: {path}")
    return result


if __name__ == "__main__":
    leave(main())
