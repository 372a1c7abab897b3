"""``python -m accel_trainer.checkpoints``: what it shows, and what it never removes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_trainer.checkpoints.__main__ import main
from accel_trainer.checkpoints.files import write_json
from accel_trainer.checkpoints.manifest import problem, write_manifest
from accel_trainer.checkpoints.store import Store
from accel_trainer.run.folder import RunFolder

ROOT = Path(__file__).parents[2]
HEAVY = ["torch", "accelerate", "pandas", "pyarrow", "datasets", "wandb", "matplotlib", "safetensors"]
EXPERIMENT = {"data_digest": "ab12", "batch_size": 8, "experiment": "c0ffee"}


def checkpoint(run: Path, step: int, best: int | None = None, value: float | None = None, **facts: Any) -> Path:
    """Write what lies in a checkpoint as far as these commands look at it."""
    path = run / "checkpoints" / f"step-{step:08d}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(bytes(1000))
    known = None if best is None else {"metric": "val/mse", "value": 0.5, "step": best}
    write_json(path / "state.json", {"trainer": {"step": step, "best": known}})
    metric = None if value is None else {"name": "val/mse", "value": value}
    write_manifest(path, {"step": step, "epoch": step / 8, "metric": metric, "processes": 2, **EXPERIMENT, **facts})
    return path


def flip(file: Path) -> None:
    """Damage a file so that only who reads it can tell."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def amount(folder: Path) -> int:
    """Return the bytes of a folder's files."""
    return sum(file.stat().st_size for file in folder.iterdir())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three checkpoints, of which the second is the best."""
    folder = tmp_path / "bridge"
    checkpoint(folder, 6, best=6, value=0.75)
    checkpoint(folder, 12, best=12, value=0.5)
    checkpoint(folder, 18, best=12)
    return folder


def steps(run: Path) -> list[int]:
    return sorted(Store(run / "checkpoints").folders())


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Return exit code and standard output; an error is said once, in one line, without a traceback."""
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    if code in (0, 4) and not said.err:
        return code, said.out
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return code, said.out + said.err


# ---- list


def test_list_shows_one_row_a_checkpoint_oldest_first(run, capsys):
    code, said = call(capsys, "list", run)
    rows = [line.split() for line in said.splitlines() if line.startswith("step-")]
    assert code == 0
    assert [row[:5] for row in rows] == [
        ["step-00000006", "6", "0.75", "val/mse", "0.7500"],
        ["step-00000012", "12", "1.50", "val/mse", "0.5000"],
        ["step-00000018", "18", "2.25", "–", rows[2][4]],
    ]
    assert [row[-2:] for row in rows] == [["kB", "2"], ["2", "best"], ["2", "newest"]]
    assert "verify" in said.splitlines()[-1], "it says that the large files were not read"


def test_list_for_programs(run, capsys):
    os.utime(run / "checkpoints/step-00000006", (0, 86_400 * 365))
    (run / "checkpoints/.staging-step-00000024").mkdir()
    code, said = call(capsys, "list", run, "--json")
    content = json.loads(said)
    first, second, third = content["checkpoints"]
    assert code == 0
    assert content["run"] == str(run)
    assert first["time"].startswith("1971-01-01") or first["time"].startswith("1970-12-31")
    assert first["metric"] == {"name": "val/mse", "value": 0.75}
    assert third["metric"] is None
    assert (second["step"], second["best"], second["newest"], second["processes"]) == (12, True, False, 2)
    assert third["newest"]
    assert first["bytes"] == amount(Path(first["path"]))
    assert [Path(left["path"]).name for left in content["leftovers"]] == [".staging-step-00000024"]
    assert content["set_aside"] == content["foreign"] == []


def test_list_names_what_lies_beside_the_checkpoints(run, capsys):
    folder = run / "checkpoints"
    (folder / "step-00000006").rename(folder / "damaged-step-00000006-1")
    (folder / ".removing-step-00000003").mkdir()
    (folder / "notes.txt").write_text("mine")
    _, said = call(capsys, "list", run)
    below = [line for line in said.splitlines() if ": " in line]
    assert below == [
        "half written or half removed: .removing-step-00000003 (0 B)",
        f"set aside: damaged-step-00000006-1 ({below[1].rpartition('(')[2]}",
        "no checkpoint: notes.txt (4 B)",
    ]


def test_list_tells_the_damage_that_can_be_seen_at_a_glance(run, capsys):
    folder = run / "checkpoints"
    flip(folder / "step-00000018/manifest.json")
    (folder / "step-00000006/model.safetensors").unlink()
    flip(folder / "step-00000012/model.safetensors")
    code, said = call(capsys, "list", run)
    assert code == 0
    assert "damaged: step-00000018: manifest.json" in said
    assert "damaged: step-00000006: model.safetensors is missing" in said
    [row] = [line for line in said.splitlines() if line.startswith("step-00000012")]
    assert row.endswith("newest, best"), "the newest of those that seem whole, and what it knows as the best"


def test_list_reads_the_first_format(tmp_path, capsys):
    shutil.copytree(Path(__file__).parent / "format_1", tmp_path / "old")
    code, said = call(capsys, "list", tmp_path / "old")
    assert code == 0
    [row] = [line for line in said.splitlines() if line.startswith("step-")]
    assert row.split()[:4] == ["step-00000012", "12", "–", "–"]
    assert "newest" in row
    assert "damaged" not in said


def test_list_of_a_run_that_has_none_yet(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("")
    code, said = call(capsys, "list", tmp_path)
    assert (code, said) == (0, f"{tmp_path / 'checkpoints'}: no checkpoints\n")


@pytest.mark.parametrize("facts", [{"metric": 3}, {"metric": {"name": 1, "value": "x"}}, {"epoch": "x"}])
def test_list_bears_facts_of_any_kind(tmp_path, capsys, facts):
    checkpoint(tmp_path, 6, **facts)
    write_json(tmp_path / "checkpoints/step-00000006/state.json", [])
    assert call(capsys, "list", tmp_path)[0] == 0


def test_the_checkpoints_folder_stands_for_its_run(run, capsys, monkeypatch):
    expected = f"{run / 'checkpoints/step-00000012'}\n"
    assert call(capsys, "best", run / "checkpoints") == (0, expected)
    monkeypatch.chdir(run / "checkpoints")
    assert call(capsys, "best", ".") == (0, expected)
    monkeypatch.chdir("step-00000006")
    assert call(capsys, "best", "..") == (0, expected)


# ---- verify and best


def test_verify_reads_every_byte(run, capsys):
    folder = run / "checkpoints"
    code, said = call(capsys, "verify", run)
    assert (code, said) == (0, "".join(f"{folder / f'step-{step:08d}'}: ok\n" for step in (6, 12, 18)))
    flip(folder / "step-00000012/model.safetensors")
    code, said = call(capsys, "verify", run)
    assert code == 4
    assert said.splitlines()[1] == (f"{folder / 'step-00000012'}: model.safetensors has changed (its digest differs)")


def test_verify_of_nothing_is_no_success(tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    assert call(capsys, "verify", tmp_path) == (4, f"error: {tmp_path / 'checkpoints'}: no checkpoints\n")


def test_best_prints_a_path_for_scripts(run, capsys):
    assert call(capsys, "best", run) == (0, f"{run / 'checkpoints/step-00000012'}\n")


def test_best_is_what_the_newest_whole_checkpoint_knows(run, capsys):
    flip(run / "checkpoints/step-00000018/state.json")
    flip(run / "checkpoints/step-00000012/state.json")
    assert call(capsys, "best", run) == (0, f"{run / 'checkpoints/step-00000006'}\n")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: flip(folder / "step-00000012/model.safetensors"), "model.safetensors has changed"),
        (lambda folder: shutil.rmtree(folder / "step-00000012"), "no manifest.json"),
        (lambda folder: [flip(file) for file in folder.glob("*/state.json")], "no checkpoint verifies"),
        (lambda folder: [shutil.rmtree(path) for path in folder.iterdir()], "no checkpoint verifies"),
        (lambda folder: checkpoint(folder.parent, 24), "no evaluation has given a best checkpoint yet"),
    ],
)
def test_without_a_best_checkpoint(run, capsys, damage, reason):
    damage(run / "checkpoints")
    code, said = call(capsys, "best", run)
    assert code == 4
    assert reason in said


# ---- prune


def test_prune_leaves_the_newest_and_the_best(run, capsys):
    checkpoint(run, 24, best=12)
    before = {path: path.stat().st_mtime_ns for path in (run / "checkpoints").rglob("*")}
    first, third = (amount(run / f"checkpoints/step-{step:08d}") for step in (6, 18))
    code, said = call(capsys, "prune", run)
    assert code == 0
    assert steps(run) == [12, 24]
    assert f"kept: {run / 'checkpoints/step-00000024'}" in said
    assert f"removed: {run / 'checkpoints/step-00000006'} ({first / 1000:.1f} kB)" in said
    assert said.splitlines()[-1] == f"{(first + third) / 1000:.1f} kB freed"
    assert all(path.stat().st_mtime_ns == before[path] for path in (run / "checkpoints").rglob("*"))
    assert not (run / "status.json").exists()
    code, said = call(capsys, "prune", run)
    assert (code, said.splitlines()[-1]) == (0, "0 B freed")


def test_prune_keeps_as_many_as_asked_for_and_the_best_that_each_knows_of(run, capsys):
    checkpoint(run, 24, best=24)
    call(capsys, "prune", run, "--keep_last", 2)
    assert steps(run) == [12, 18, 24], "should 24 be damaged one day, 18 goes on and needs 12"


@pytest.mark.parametrize("flag", [["--dry_run"], ["--dry_run", "true"], ["--dry_run=true"]])
def test_a_dry_run_only_tells(run, capsys, flag):
    checkpoint(run, 24, best=12)
    before = sorted(run.rglob("*"))
    first, third = (amount(run / f"checkpoints/step-{step:08d}") for step in (6, 18))
    code, said = call(capsys, "prune", *flag, run)
    assert code == 0
    assert sorted(run.rglob("*")) == before, "not even a lock file"
    assert f"would be removed: {run / 'checkpoints/step-00000018'} ({third / 1000:.1f} kB)" in said
    assert said.splitlines()[-1] == f"{(first + third) / 1000:.1f} kB would be freed"


def test_prune_with_dry_run_false_removes(run, capsys):
    call(capsys, "prune", run, "--dry_run", "false")
    assert steps(run) == [12, 18]


def test_prune_keeps_what_verifies_even_if_newer_ones_are_damaged(run, capsys):
    for step in (24, 30):
        flip(checkpoint(run, step, best=24) / "model.safetensors")
    call(capsys, "prune", run)
    assert steps(run) == [12, 18]


def test_prune_clears_what_killed_processes_and_resumed_runs_left(run, capsys):
    folder = run / "checkpoints"
    for name in (".staging-step-00000024", ".removing-step-00000003", "damaged-step-00000018-1"):
        shutil.copytree(folder / "step-00000018", folder / name)
    shutil.copytree(folder / "step-00000018", folder / "replaced-step-00000018-12")
    call(capsys, "prune", run)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000012", "step-00000018"]


def test_prune_leaves_alone_what_is_not_its_own(run, tmp_path, capsys):
    folder = run / "checkpoints"
    others = [
        checkpoint(run, 2, experiment="another"),
        checkpoint(run, 3, format=99),
        checkpoint(run, 4),
        folder / "step-00000005",
        folder / "step-7",
        folder / "damaged-by-me",
        folder / "notes.txt",
        folder / ".staging-note",
        folder / "step-00000001",
    ]
    (folder / "step-00000004/manifest.json").write_text("{")
    for other in others[3:6]:
        other.mkdir()
    for other in others[6:8]:
        other.write_text("mine")
    (tmp_path / "archive").mkdir()
    (folder / "step-00000012").rename(tmp_path / "archive/step")
    (folder / "step-00000012").symlink_to(tmp_path / "archive/step")
    shutil.copytree(folder / "step-00000006", tmp_path / "archive/first")
    (folder / "step-00000001").symlink_to(tmp_path / "archive/first")
    code, said = call(capsys, "prune", run)
    assert code == 0
    assert all(other.exists() for other in others)
    assert all(str(other) in said for other in others), "it says so"
    assert not (folder / "step-00000006").exists()
    assert (tmp_path / "archive/first/state.json").exists()
    assert call(capsys, "best", run) == (0, f"{folder / 'step-00000012'}\n")


def test_prune_removes_nothing_where_nothing_verifies(run, capsys):
    folder = run / "checkpoints"
    for path in folder.iterdir():
        flip(path / "model.safetensors")
    shutil.copytree(folder / "step-00000018", folder / "damaged-step-00000018-1")
    before = sorted(folder.rglob("*"))
    code, said = call(capsys, "prune", run)
    assert code == 4
    assert "no checkpoint verifies" in said
    assert sorted(folder.rglob("*")) == before


def test_a_live_run_refuses_to_be_pruned(run, capsys):
    live = RunFolder(run)
    live.lock()
    before = sorted(run.rglob("*"))
    code, said = call(capsys, "prune", run)
    assert code == 2
    assert "is writing to this run" in said
    assert sorted(run.rglob("*")) == before
    live.unlock()
    assert call(capsys, "prune", run)[0] == 0
    live.lock(wait=False)  # and it was let go of
    live.unlock()


@given(
    written=st.dictionaries(st.integers(1, 9), st.tuples(st.booleans(), st.integers(1, 9)), min_size=1, max_size=6),
    keep_last=st.integers(1, 3),
)
@settings(deadline=None, max_examples=60)
def test_prune_never_takes_what_a_run_would_go_on_from(tmp_path_factory, written, keep_last):
    run = tmp_path_factory.mktemp("run")
    for step, (damaged, best) in written.items():
        path = checkpoint(run, step, best=best if best in written and best <= step else None)
        if damaged:
            flip(path / "model.safetensors")
    store = Store(run / "checkpoints")
    before, present = store.newest()[0], set(steps(run))
    code = main(["prune", str(run), "--keep_last", str(keep_last)])
    if before is None:
        assert code == 4
        assert set(steps(run)) == present
        return
    assert code == 0
    after, passed_over = store.newest()
    assert (after, passed_over) == (before, [])
    best = before.best_step()
    assert best is None or store.path(best).exists()
    whole = [step for step in steps(run) if problem(store.path(step)) is None]
    assert len(whole) >= min(keep_last, sum(not damaged for damaged, _ in written.values()))
    left = steps(run)
    assert main(["prune", str(run), "--keep_last", str(keep_last)]) == 0
    assert steps(run) == left


# ---- the command line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "a command is missing: list, verify, best, prune"),
        (["lst", "x"], "'lst' is none of list, verify, best, prune; did you mean 'list'?"),
        (["list"], "the run's folder is missing, such as runs/bhm"),
        (["list", "{run}", "--jsn"], "'--jsn' is unknown; did you mean '--json'?"),
        (["verify", "{run}", "--json"], "'--json' is unknown"),
        (["list", "{run}", "more"], "'more' is unknown"),
        (["list", "{run}x"], "no such folder; did you mean '{run}'?"),
        (["list", "{run}/.."], "holds no run, which would have config.yaml and metrics.jsonl; there are"),
        (["prune", "{run}", "--keep_last", "0"], "keep_last: 0 is not allowed; expected 1 or more"),
        (["prune", "{run}", "--keep_last", "few"], "keep_last: 'few' is not allowed; expected a whole number"),
        (["prune", "{run}", "--dry_run=maybe"], "dry_run: 'maybe' is not allowed; expected true or false"),
        (["prune", "{run}", "--dryrun"], "'--dryrun' is unknown; did you mean '--dry_run'?"),
    ],
)
def test_mistakes_are_named(run, capsys, words, said):
    before = sorted(run.rglob("*"))
    code, error = call(capsys, *(word.format(run=run) for word in words))
    assert code == 2
    assert said.format(run=run) in error
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("command", [[], ["list"], ["verify"], ["best"], ["prune"]])
def test_help(command, capsys):
    code, said = call(capsys, *command, "--help")
    assert code == 0
    assert " ".join(["usage: python -m accel_trainer.checkpoints", *command]) in said
    assert call(capsys, *command, "-h") == (0, said)


@pytest.mark.parametrize("command", ["list", "verify", "best", "prune"])
def test_a_real_process_needs_no_torch(run, command):
    """Modules of these names that cannot be imported stand in the way."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r}))\n"
        "import runpy; runpy.run_module('accel_trainer.checkpoints', run_name='__main__', alter_sys=True)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", code, command, str(run)]
    ended = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "step-00000012" in ended.stdout
