"""Files and flags into a configuration: what they may say, which of them wins, and what a mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from accel_trainer import train
from accel_trainer.config import (
    DataOptions,
    EvaluationOptions,
    ModelOptions,
    OptimizerOptions,
    PredictOptions,
    RunConfig,
    RunOptions,
    ScheduleOptions,
    SplitOptions,
    TrackingOptions,
    TrainingOptions,
)
from accel_trainer.data.bhm_options import BridgeOptions
from accel_trainer.settings import SettingsError, flatten, from_dict, read_settings, to_dict, to_yaml
from accel_trainer.yaml_files import read_yaml

# What YAML 1.1, YAML 1.2 or a careless writer would take for something else than a text.
TRAPS = [
    *("null", "~", "true", "no", "off", "y", "1", "007", "0x1F", "0o17", "1_000", "1e-3", "1E5", ".5", "5.", "-.inf"),
    *(
        "nan",
        "2025-01-01",
        "2025-01-01T06:00",
        "1:30",
        "12:30:00",
        "[a]",
        "{a: b}",
        "a: b",
        "- a",
        "? a",
        "# a",
        "a #b",
    ),
    *(
        "<<",
        "=",
        "!a",
        "&a",
        "*",
        "strain_*",
        "@a",
        "`a`",
        "%a",
        "'",
        '"',
        "\\",
        "é",
        "\n",
        "a\nb",
        "\t",
        " a ",
        "\u2028",
        "\x85",
    ),
]


def read(folder: Path, text: str, *flags: str) -> RunConfig:
    """Read one file and flags after it."""
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return read_settings(["--config", str(path), *flags]).config


def mistake(folder: Path, text: str, *flags: str) -> SettingsError:
    """Return the error of a file and flags after it."""
    with pytest.raises(SettingsError) as caught:
        read(folder, text, *flags)
    return caught.value


# ---- YAML as people write it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1", 1.0),
        ("+1e2", 100.0),
        ("1_0.5", 10.5),
        ("0.1", 0.1),
    ],
)
def test_numbers_in_every_common_form(tmp_path, text, number):
    config = read(tmp_path, f"optimizer: {{lr: {text}, options: {{eps: [[{text}], {{deep: {text}}}]}}}}")
    assert config.optimizer.lr == number
    assert config.optimizer.options == {"eps": [[number], {"deep": number}]}
    assert read(tmp_path, "", "--optimizer.lr", text).optimizer.lr == number
    assert read(tmp_path, "", f"--optimizer.options.eps=[{text}]").optimizer.options == {"eps": [number]}


def test_no_is_a_precision_and_a_day_is_a_text(tmp_path):
    config = read(
        tmp_path,
        "training: {mixed_precision: no}\n"
        "data:\n  split: {kind: date, validation_start: 2025-03-01, test_start: 12:30:00}\n  targets: [on, 007]",
    )
    assert config.training.mixed_precision == "no"
    assert (config.data.split.validation_start, config.data.split.test_start) == ("2025-03-01", "12:30:00")
    assert config.data.targets == ["on", "007"]


@pytest.mark.parametrize(("word", "value"), [("true", True), ("false", False), ("yes", True), ("no", False)])
def test_switches(tmp_path, word, value):
    assert read(tmp_path, f"predict: {{enabled: {word}}}").predict.enabled is value
    assert read(tmp_path, "", "--predict.enabled", word).predict.enabled is value
    assert read(tmp_path, "", f"--predict.enabled={word}").predict.enabled is value


def test_a_section_may_be_empty_and_so_may_a_file(tmp_path):
    assert read(tmp_path, "optimizer:\n  # lr: 1\ndata:\n  split:\n") == RunConfig()
    assert read(tmp_path, "") == RunConfig()
    assert read_settings([]).config == RunConfig()


def test_null_where_nothing_is_meant(tmp_path):
    config = read(tmp_path, "training: {max_steps: null, clip_norm: ~}\nrun: {name: }")
    assert (config.training.max_steps, config.training.clip_norm, config.run.name) == (None, None, None)
    assert "null is not allowed; expected a number" in str(mistake(tmp_path, "optimizer: {lr: null}"))
    assert "null is not allowed" in str(mistake(tmp_path, "optimizer: {options: }"))
    flags = ("--training.max_steps", "null", "--run.name", "null")
    config = read(tmp_path, "training: {max_steps: 5}\nrun: {name: a}", *flags)
    assert (config.training.max_steps, config.run.name) == (None, None)


# ---- flags -----------------------------------------------------------------------------------------------------------


def test_flags_in_both_forms_with_lists_and_negative_numbers(tmp_path):
    config = read(
        tmp_path,
        "optimizer: {options: {betas: [0.1, 0.2], eps: 1e-6}}",
        *("--optimizer.lr=1e-2", "--data.targets", "[a, strain_*]", "--optimizer.options.betas", "[0.9,0.99]"),
        *("--model.options={individual: true, offset: -3, sort: no}", "--model.options.shift", "-1e-1"),
    )
    assert config.optimizer.lr == 0.01
    assert config.data.targets == ["a", "strain_*"]
    assert config.optimizer.options == {"betas": [0.9, 0.99], "eps": 1e-6}
    assert config.model.options == {"individual": True, "offset": -3, "sort": "no", "shift": -0.1}
    assert "-0.5 is out of range" in str(mistake(tmp_path, "", "--early_stopping.min_delta", "-0.5"))


@pytest.mark.parametrize("flags", [["--do_predict"], ["--do_predict", "true"], ["--predict.enabled"]])
def test_a_switch_alone_is_on(tmp_path, flags):
    assert read(tmp_path, "", *flags, "--training.epochs", "2").predict.enabled
    assert read(tmp_path, "", "--training.epochs", "2", *flags).predict.enabled
    assert not read(tmp_path, "", *flags, "--predict.enabled", "false").predict.enabled


def test_later_files_win_over_earlier_ones_and_flags_over_all(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("training: {epochs: 1, batch_size: 1}\nmodel: {options: {a: 1, b: 1}}\noptimizer: {lr: 1}")
    second.write_text("training: {epochs: 2}\nmodel: {options: {b: 2}}\noptimizer: {lr: 2}")
    argv = ["--training.epochs", "3", "--config", str(first), "--model.options.c=3", f"--config={second}"]
    settings = read_settings(argv)
    training = settings.config.training
    assert (training.epochs, training.batch_size, settings.config.optimizer.lr) == (3, 1, 2.0)
    assert settings.config.model.options == {"b": 2, "c": 3}  # a component's options belong together: replaced whole
    assert settings.source["training.epochs"] == "--training.epochs"
    assert settings.source["training.batch_size"] == str(first)
    assert settings.source["optimizer.lr"] == str(second)
    assert settings.source["model.options.c"] == "--model.options.c"
    assert "data.context" not in settings.source


def test_the_flags_of_a_command_are_its_own(tmp_path):
    base = RunConfig(training=TrainingOptions(epochs=7), model=ModelOptions(options={"a": 1}))
    asked = []

    def trained(extras):
        asked.append(extras)
        return base

    settings = read_settings(["--checkpoint=runs/a", "--data.path", "b.csv"], ["data"], ["checkpoint"], base=trained)
    assert asked == [{"checkpoint": "runs/a"}]
    assert settings.extras == {"checkpoint": "runs/a"}
    assert settings.config.training.epochs == 7
    assert settings.config.data.path == "b.csv"
    with pytest.raises(SettingsError, match=r"training\.epochs: unknown option"):
        read_settings(["--training.epochs", "3"], ["data"], ["checkpoint"])
    with pytest.raises(SettingsError, match="--checkpoint needs a value"):
        read_settings(["--checkpoint", "--data.path", "b.csv"], ["data"], ["checkpoint"])


def test_help_and_print_config_are_only_noted():
    assert read_settings(["--help"]).help_only
    assert read_settings(["-h", "--training.epochs", "3"]).help_only
    settings = read_settings(["--print_config", "--training.epochs", "3"])
    assert settings.print_only
    assert settings.config.training.epochs == 3
    with pytest.raises(SettingsError, match=r"--print_config takes no value, but 'my\.yaml' was given"):
        read_settings(["--print_config", "my.yaml"])


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("optimizer: {lrr: 1}", ["optimizer.lrr: unknown option", "did you mean 'optimizer.lr'?"]),
        ("optimiser: {lr: 1}", ["optimiser: unknown option", "did you mean 'optimizer'?"]),
        ("model: {lr: 1}", ["model.lr: unknown option", "did you mean 'optimizer.lr'?"]),
        ("lr: 1", ["lr: unknown option", "did you mean 'optimizer.lr'?"]),
        ("zzz: 1", ["zzz: unknown option", "sections: checkpoint, data, early_stopping"]),
        ("data: {split: {qqq: 1}}", ["data.split.qqq: unknown option", "data.split has: kind, train"]),
        ("optimizer: 3", ["optimizer: 3 is not a section"]),
        ("data: {split: [1]}", ["data.split: [1] is not a section"]),
        ("training: {loss: msee}", ["training.loss: 'msee'", "mse, mae, huber, smooth_l1", "did you mean 'mse'?"]),
        ("training: {epochs: 2.5}", ["training.epochs: 2.5", "a whole number"]),
        ("training: {epochs: true}", ["training.epochs: True", "a whole number"]),
        ("optimizer: {lr: fast}", ["optimizer.lr: 'fast'", "a number"]),
        ("run: {name: 5}", ["run.name: 5", "put it in quotes"]),
        ("data: {targets: a}", ["data.targets: 'a'", "write [a]"]),
        ("data: {missing: [-99]}", ["data.missing: [-99]", "put each of them in quotes"]),
        ("optimizer: {lr: 0}", ["optimizer.lr: 0.0 is out of range; allowed: a number above 0"]),
        ("optimizer: {lr: .nan}", ["optimizer.lr: nan is out of range"]),
        ("training: {batch_size: 0}", ["training.batch_size: 0 is out of range; allowed: 1 or more"]),
        ("data: {bhm: {days: .inf}}", ["data.bhm.days: inf is out of range"]),
        ("data: {split: {train: 0.9, test: 0.3}}", ["data.split: train 0.9 + test 0.3", "no rows for validation"]),
        ("data: {split: {kind: date}}", ["data.split: kind date needs validation_start and test_start"]),
        ("data: {split: {end: 2025-01-01}}", ["data.split.end: has no effect with kind ratio"]),
        ("data: {targets: [a], covariates: [a]}", ["data.covariates: 'a' is among data.targets"]),
        ("- a", ["expected sections such as data: and model:, found list"]),
        ("model: {name: a", ["line 1 is not valid YAML"]),
        ("model: {name: a}\n\nmodel: {name: b}", ["line 3 is not valid YAML: the key 'model' is given twice"]),
        ("model:\n  name: a\n  name: b", ["line 3 is not valid YAML: the key 'name' is given twice"]),
        ("model: {options: {a: 1, a: 2}}", ["the key 'a' is given twice"]),
        ("run: {name: {{name}}}", ["line 1 is not valid YAML: the key {'name': None} is not a name"]),
        ("run: {[a]: 1}", ["the key ['a'] is not a name"]),
        ("model: {options: {1: 2, a: 3}}", ["the key 1 is not a name"]),
        ("run: !!python/object:os.system {}", ["line 1 is not valid YAML: could not determine a constructor"]),
        ("training:\n\tepochs: 3", ["line 2 is not valid YAML"]),
    ],
)
def test_a_mistake_in_a_file_names_the_file_and_what_would_be_right(tmp_path, text, parts):
    message = str(mistake(tmp_path, text))
    for part in [*parts, str(tmp_path / "run.yaml")]:
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--lr", "1"], ["lr: unknown option", "did you mean 'optimizer.lr'?", "[command line]"]),
        (["--optimizer.lrr=1"], ["optimizer.lrr: unknown option", "did you mean 'optimizer.lr'?"]),
        (["--optimizer", "{lr: 1}"], ["optimizer: is a section", "--optimizer.NAME VALUE"]),
        (["--data.split", "0.5"], ["data.split: is a section", "--data.split.NAME VALUE"]),
        (["--optimizer.lr"], ["optimizer.lr: needs a value [command line]"]),
        (["--optimizer.lr", "--training.epochs", "3"], ["optimizer.lr: needs a value"]),
        (["--optimizer.lr", "fast"], ["optimizer.lr: 'fast'", "a number", "[command line]"]),
        (["--optimizer.lr", "-1"], ["optimizer.lr: -1.0 is out of range", "[--optimizer.lr]"]),
        (["--training.epochs", "1e3"], ["training.epochs: '1e3'", "a whole number"]),
        (["--predict.enabled", "maybe"], ["predict.enabled: 'maybe'", "true or false"]),
        (["--data.targets", "a"], ["data.targets: 'a'", "write [a]"]),
        (["--model.options.x", "[1"], ["model.options.x: '[1' is not a valid value"]),
        (["--model.options", "3"], ["model.options: 3 is not allowed; expected a mapping"]),
        (["--config"], ["--config needs a YAML file"]),
        (["--config", "--training.epochs", "3"], ["--config needs a YAML file"]),
        (["--config", "nowhere/run.yaml"], ["nowhere/run.yaml: no such file"]),
        (["run.yaml"], ["'run.yaml' is not an option", "--section.name value"]),
        (["--"], ["'--' is not an option"]),
        (["-x"], ["'-x' is not an option"]),
        (["--run.name", "../other"], ["run.name: '../other' cannot be a folder's name"]),
    ],
)
def test_a_mistake_in_a_flag_names_the_flag_and_what_would_be_right(flags, parts):
    with pytest.raises(SettingsError) as caught:
        read_settings(flags)
    for part in parts:
        assert part in str(caught.value)


def test_a_contradiction_names_all_who_took_part(tmp_path):
    message = str(mistake(tmp_path, "data: {split: {train: 0.9}}", "--data.split.test", "0.3"))
    assert message.endswith(f"[{tmp_path / 'run.yaml'}, --data.split.test]")


def test_a_missing_file_is_told_its_nearest_neighbour(tmp_path):
    (tmp_path / "bridge.yaml").write_text("")
    with pytest.raises(SettingsError, match=r"brigde\.yaml: no such file; did you mean '.*bridge\.yaml'"):
        read_settings(["--config", str(tmp_path / "brigde.yaml")])


def test_files_that_are_no_text_are_refused_in_words(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"run: \xff\xfe")
    with pytest.raises(SettingsError, match=r"run\.yaml: cannot be read"):
        read_settings(["--config", str(path)])
    with pytest.raises(SettingsError, match="cannot be read"):
        read_settings(["--config", str(tmp_path)])


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("run: {name: a, dir: DIR}\noptimizer: {lrr: 1}", []),
        ("optimizer: {lrr: 1}\nrun: {name: a, dir: DIR}", []),
        ("optimizer: {lrr: 1}", ["--run.name", "a", "--run.dir=DIR"]),
        ("run: {name: b, dir: DIR}\noptimizer: {lr: -1}", ["--run.name=a"]),
        ("run: {dir: DIR}", ["--run.name=a", "--optimizer.lr", "fast"]),
        ("training: {epochs: [}", ["--run.dir", "DIR", "--run.name", "a"]),
    ],
)
def test_an_error_knows_the_folder_of_the_run_it_belongs_to(tmp_path, text, flags):
    flags = [flag.replace("DIR", str(tmp_path)) for flag in flags]
    assert mistake(tmp_path, text.replace("DIR", str(tmp_path)), *flags).run_folder == tmp_path / "a"


@pytest.mark.parametrize(
    "text", ["{name: ..}", "{name: ../x}", "{name: /x}", "{name: 5}", "{name: a, dir: 5}", "{name: ''}", "5", "[a]"]
)
def test_a_folder_that_cannot_be_a_runs_is_not_written_to(tmp_path, text):
    assert mistake(tmp_path, f"run: {text}\noptimizer: {{lrr: 1}}").run_folder is None


# ---- there and back --------------------------------------------------------------------------------------------------

texts = st.sampled_from(TRAPS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(1e-300, 1e300)
counts = st.integers(1, 10**20)
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
options = st.dictionaries(texts, plain_values, max_size=3)
names = texts.filter(lambda s: s == s.strip() and s not in ("", ".", "..") and not set(s) & set('/\\:*?"<>|\0'))
splits = st.one_of(
    st.builds(SplitOptions, train=st.floats(0.1, 0.5), test=st.floats(0.1, 0.4)),
    st.builds(SplitOptions, kind=st.just("date"), validation_start=texts, test_start=texts, end=st.none() | texts),
    st.builds(SplitOptions, kind=st.just("ett")),
)
sections = {
    "run": st.builds(
        RunOptions,
        name=st.none() | names,
        dir=texts.filter(bool),
        resume=texts.filter(bool),
        seed=st.integers(0, 2**32 - 1),
        expect_processes=st.none() | counts,
        allow_changes=st.lists(texts, max_size=2),
    ),
    "data": st.builds(
        DataOptions,
        path=st.none() | texts.filter(str.strip),
        time_column=st.none() | texts,
        period=st.none() | positive,
        targets=st.lists(texts.map("t".__add__), max_size=2),
        covariates=st.lists(texts.map("c".__add__), max_size=2),
        missing=st.lists(texts, max_size=3),
        context=counts,
        split=splits,
        bhm=st.builds(BridgeOptions, days=st.floats(1, 36525), kind=st.sampled_from(["concrete", "steel"])),
    ),
    "model": st.builds(ModelOptions, name=texts.filter(bool), options=options),
    "optimizer": st.builds(
        OptimizerOptions, lr=positive, weight_decay=st.floats(0, 1), decay_all=st.booleans(), options=options
    ),
    "schedule": st.builds(ScheduleOptions, name=st.sampled_from(["constant", "cosine"]), min_ratio=st.floats(0, 1)),
    "training": st.builds(
        TrainingOptions,
        max_steps=st.none() | counts,
        loss=st.sampled_from(["mse", "mae"]),
        clip_norm=st.none() | positive,
        mixed_precision=st.sampled_from([None, "no", "fp16", "bf16"]),
        deterministic=st.booleans(),
    ),
    "tracking": st.builds(TrackingOptions, trackers=st.lists(texts, max_size=2), project=texts.filter(bool)),
    "evaluation": st.builds(EvaluationOptions, every_steps=st.none() | counts, baselines=st.lists(texts, max_size=2)),
    "predict": st.builds(PredictOptions, enabled=st.booleans()),
}
configs = st.builds(RunConfig, **sections)


@given(config=configs)
@hypothesis_settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_a_configuration_written_as_yaml_is_read_back_unchanged(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "there_and_back.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    back = read_settings(["--config", str(path)]).config
    assert back == config
    assert to_yaml(back) == to_yaml(config)
    assert from_dict(read_yaml(path)) == config
    assert from_dict(to_dict(config)) == config


def test_lists_that_are_one_object_are_read_back_as_two(tmp_path):
    shared = ["a", "b"]
    config = RunConfig(data=DataOptions(missing=shared), evaluation=EvaluationOptions(baselines=shared))
    assert read(tmp_path, to_yaml(config)) == config


def test_print_config_fed_back_prints_itself(tmp_path, capsys):
    flags = ["--run.name=a", "--optimizer.lr", "1e-8", "--training.mixed_precision", "no", "--model.options.x=[1e-3]"]
    flags += ["--data.split.kind", "date", "--data.split.validation_start=1e6", "--data.split.test_start", "2e6"]
    assert train.main([*flags, "--print_config"]) == 0
    printed = capsys.readouterr().out
    path = tmp_path / "printed.yaml"
    path.write_text(printed, encoding="utf-8")
    assert train.main(["--config", str(path), "--print_config"]) == 0
    assert capsys.readouterr().out == printed
    assert read_settings(["--config", str(path)]).config == read_settings(flags).config


def test_flat_names_of_a_tree():
    flat = flatten(to_dict(RunConfig(model=ModelOptions(options={"a": {"b": 1}}))))
    assert flat["model.options.a.b"] == 1
    assert flat["optimizer.options"] == {}
    assert flat["data.split.kind"] == "ratio"
