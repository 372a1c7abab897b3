"""A file that would run code, put in place of any file of a checkpoint, is refused, whoever reads it.

Whoever can replace a file can also write the manifest that fits, so digests are no help here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import accel_trainer.checkpoints.__main__ as checkpoints
from accel_trainer import evaluate, predict, report, train
from accel_trainer.checkpoints.files import digest, read_json
from accel_trainer.checkpoints.manifest import NAME, problem
from tests.helpers.attacks import MakesFolder, archive, bare, forge, in_process, legacy, list_again, replace
from tests.helpers.runs import PYTHON, checkpoint_steps, command, flags, read, run

FORMAT_1 = Path(__file__).parent / "format_1"
TINY = {
    "data__bhm__days": 3,
    "data__bhm__sensors": 1,
    "data__bhm__period": 600,
    "data__context": 6,
    "data__horizon": 1,
    "training__batch_size": 8,
    "evaluation__every_steps": 2,
    "evaluation__baselines": "[persistence]",
}
DESCRIBES_WEIGHTS = {"evaluate", "evaluate run", "predict", "figure"}
CHECKPOINT = {
    "config.json": {"train", *DESCRIBES_WEIGHTS},
    "manifest.json": {"train", "verify", "best", *DESCRIBES_WEIGHTS},
    "model.safetensors": {"train", *DESCRIBES_WEIGHTS},
    "optimizer.bin": {"train"},
    "random_states_0.pkl": {"train"},
    "scaler.json": DESCRIBES_WEIGHTS,
    "state.json": {"train", "best", "evaluate run", "figure"},
}
"""Files of a checkpoint, and the commands that cannot do without."""
MODEL = ["config.json", "manifest.json", "model.safetensors", "scaler.json"]
ATTACKS = [bare, archive, legacy]


def train_words(where: Path, steps: int = 4, **options: Any) -> list[str]:
    return command(where, "r", **{**TINY, "training__max_steps": steps, **options})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("trained")
    assert in_process(train.main, *train_words(where, steps=2)[3:]) == 0
    assert checkpoint_steps(where / "r") == [2]
    return where


@pytest.fixture
def where(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "runs")


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """The folder that an attack makes; no test may leave it."""
    yield tmp_path / "it ran"
    assert not (tmp_path / "it ran").exists()


def refused(capsys: pytest.CaptureFixture[str], code: int, lines: int = 1) -> bool:
    """Whether a command ended with exit code 4 and one clear line; anything but that and success is a failure."""
    errors = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert code in (0, 4)
    assert [line.startswith("error: ") for line in errors] == [True] * lines * (code == 4)
    return code == 4


def commands(where: Path) -> dict[str, list[Any]]:
    """Every command that reads a checkpoint, by what it is asked for."""
    whole, folder = where / "r", where / "r/checkpoints/step-00000002"
    return {
        "list": [checkpoints.main, "list", whole],
        "verify": [checkpoints.main, "verify", whole],
        "best": [checkpoints.main, "best", whole],
        "evaluate": [evaluate.main, "--checkpoint", folder],
        "evaluate run": [evaluate.main, "--checkpoint", whole],
        "predict": [predict.main, "--checkpoint", folder, "--out", where / "forecast"],
        "figure": [report.main, whole, "--figure", where / "picture.png"],
        "page": [report.main, whole],
        "train": [train.main, *train_words(where)[3:]],
    }


# ---- every file, every command


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_attacks_are_some(tmp_path, attack):
    (tmp_path / "file").write_bytes(attack(tmp_path / "it ran"))
    with suppress(RuntimeError):
        torch.load(tmp_path / "file", weights_only=False)
    assert (tmp_path / "it ran").is_dir()


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", CHECKPOINT)
def test_a_hostile_file_is_refused_where_it_is_needed(where, mark, name, attack, capsys):
    shutil.rmtree(where / "r/model")  # so that the checkpoint is what the run's weights are read from
    replace(where / "r/checkpoints/step-00000002" / name, attack(mark))
    for asked, words in commands(where).items():
        if asked in CHECKPOINT[name]:
            assert refused(capsys, in_process(*words), lines=asked != "verify"), asked


@pytest.mark.parametrize("name", CHECKPOINT)
def test_a_hostile_file_is_not_touched_where_it_is_not_needed(where, mark, name, capsys):
    shutil.rmtree(where / "r/model")
    replace(where / "r/checkpoints/step-00000002" / name, archive(mark))
    for asked, words in commands(where).items():
        if asked not in CHECKPOINT[name]:
            assert not refused(capsys, in_process(*words)), asked
        if asked == "page":
            says_why = "There are no pictures of forecasts" in (where / "r/report.html").read_text(encoding="utf-8")
            assert says_why == ("figure" in CHECKPOINT[name])


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", MODEL)
def test_a_hostile_file_in_an_exported_model(where, mark, name, attack, capsys):
    replace(where / "r/model" / name, attack(mark))
    new = train_words(where, model__init_from=where / "r/model", run__name="new")[3:]
    for words in (
        [evaluate.main, "--checkpoint", where / "r"],
        [evaluate.main, "--checkpoint", where / "r/model"],
        [predict.main, "--checkpoint", where / "r"],
        [report.main, where / "r", "--figure", where / "picture.png"],
        *([[train.main, *new]] if name in ("model.safetensors", NAME) else []),
    ):
        assert refused(capsys, in_process(*words))


@pytest.mark.parametrize("name", ["custom_checkpoint_0.pkl", "pytorch_model.bin", "deeper/scheduler.bin", "no_suffix"])
def test_a_file_that_no_checkpoint_has(where, mark, name, capsys):
    """Accelerate would read some of these if it found them."""
    path = where / "r/checkpoints/step-00000002" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bare(mark))
    assert refused(capsys, in_process(train.main, *train_words(where)[3:]))
    list_again(where / "r/checkpoints/step-00000002")
    assert refused(capsys, in_process(train.main, *train_words(where)[3:]))


@pytest.mark.parametrize("resume", ["r", "r/checkpoints/step-00000002"])
def test_the_checkpoint_of_another_run_is_looked_through_as_well(where, mark, resume, capsys):
    replace(where / "r/checkpoints/step-00000002/optimizer.bin", archive(mark))
    words = train_words(where, run__name="new", run__resume=where / resume)
    assert refused(capsys, in_process(train.main, *words[3:]))


@pytest.mark.slow
@pytest.mark.parametrize("attack", [bare, archive])
def test_real_processes_refuse_it(where, mark, attack, tmp_path):
    folder = where / "r/checkpoints/step-00000002"
    for name in ("model.safetensors", "optimizer.bin"):
        replace(folder / name, attack(mark))
    replace(where / "r/model/model.safetensors", attack(mark))
    for words in (
        train_words(where),
        [*PYTHON, "accel_trainer.evaluate", "--checkpoint", str(folder)],
        [*PYTHON, "accel_trainer.evaluate", "--checkpoint", str(where / "r")],
        [*PYTHON, "accel_trainer.predict", "--checkpoint", str(folder), "--out", str(tmp_path / "out")],
        [*PYTHON, "accel_trainer.report", str(where / "r"), "--figure", str(tmp_path / "picture.png")],
    ):
        ended = run(words, code=4)
        assert ended.stderr.startswith("error: ")
        assert ended.stderr.count("\n") == 1
    for name in ("list", "verify"):
        assert run([*PYTHON, "accel_trainer.checkpoints", name, str(where / "r")]).stderr == ""
    assert read(where / "r/status.json")["exit_code"] == 4


# ---- files that are not where they seem to be


@pytest.mark.parametrize("listed", ["../secret", "{outside}", "link", "linked/secret"])
def test_a_manifest_that_leads_outside(where, listed, capsys, tmp_path):
    folder = where / "r/checkpoints/step-00000002"
    outside = folder.parent / "secret"
    outside.write_text("x")
    (folder / "link").symlink_to(outside)
    (folder / "linked").symlink_to(folder.parent)
    name = listed.format(outside=outside)
    forge(folder, {**read_json(folder / NAME)["files"], name: {"size": 1, "sha256": digest(outside)}})
    assert "outside the folder" in str(problem(folder))
    assert refused(capsys, in_process(checkpoints.main, "verify", where / "r"), lines=0)
    assert refused(capsys, in_process(train.main, *train_words(where)[3:]))
    assert refused(capsys, in_process(evaluate.main, "--checkpoint", folder))


def test_what_lies_behind_a_link_is_not_read(where, mark, capsys, tmp_path):
    folder = where / "r/checkpoints/step-00000002"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/.metadata").write_bytes(bare(mark))
    (folder / "optimizer_0").symlink_to(tmp_path / "elsewhere")
    assert refused(capsys, in_process(train.main, *train_words(where)[3:]))


def test_a_pipe_is_not_waited_for(where, capsys):
    os.mkfifo(where / "r/checkpoints/step-00000002/scaler.pt")
    assert refused(capsys, in_process(train.main, *train_words(where)[3:]))


# ---- trust


class Own:
    """What an optimizer from elsewhere might keep in its state."""


def test_trust_reads_what_a_user_vouches_for(where, capsys):
    path = where / "r/checkpoints/step-00000002/optimizer.bin"
    state = torch.load(path, weights_only=True)
    state["param_groups"][0]["own"] = Own()
    torch.save(state, path)
    list_again(path.parent)
    assert in_process(train.main, *train_words(where)[3:]) == 4
    error = capsys.readouterr().err
    assert "Own" in error
    assert "--checkpoint.trust true" in error
    assert checkpoint_steps(where / "r") == [2]
    assert in_process(train.main, *train_words(where, checkpoint__trust="true")[3:]) == 0
    assert "going on from step 2" in capsys.readouterr().out
    assert checkpoint_steps(where / "r")[-1] == 4


def test_trust_of_what_cannot_be_read(where, capsys):
    path = where / "r/checkpoints/step-00000002/optimizer.bin"
    for content in (b"", b"nothing", b"\x80\x04cno_such_module\nName\n."):
        path.write_bytes(content)
        list_again(path.parent)
        assert refused(capsys, in_process(train.main, *train_words(where, checkpoint__trust="true")[3:]))


@pytest.mark.parametrize("content", [[1, 2], {}, {"state": 1, "param_groups": 2}, {"state": {}, "param_groups": [1]}])
def test_harmless_but_no_optimizer(where, content, capsys):
    path = where / "r/checkpoints/step-00000002/optimizer.bin"
    torch.save(content, path)
    list_again(path.parent)
    assert refused(capsys, in_process(train.main, *train_words(where)[3:]))


def test_a_trusted_attack_runs(where, tmp_path):
    """Trust means what it says; otherwise the tests above prove nothing."""
    path = where / "r/checkpoints/step-00000002/optimizer.bin"
    torch.save(MakesFolder(tmp_path / "it ran"), path)
    list_again(path.parent)
    in_process(train.main, *train_words(where, checkpoint__trust="true")[3:])
    assert (tmp_path / "it ran").is_dir()


# ---- the first released format


def test_a_run_of_the_first_format_goes_on(tmp_path, capsys):
    folder = shutil.copytree(FORMAT_1, tmp_path / "format_1")
    options = {"run.dir": tmp_path, "run.name": "format_1", "training.max_steps": 24}
    words = ["--config", folder / "config.yaml", *flags(options), "--run.allow_changes", "[data.path]"]
    assert in_process(evaluate.main, "--checkpoint", folder) == 0
    assert in_process(train.main, *words) == 0
    said = capsys.readouterr().out
    assert "going on from step 12" in said
    assert read(folder / "status.json")["status"] == "finished"
    assert read(folder / "summary.json")["training"]["step"] == 24
    assert checkpoint_steps(folder)[-1] == 24
    assert in_process(evaluate.main, "--checkpoint", folder) == 0
