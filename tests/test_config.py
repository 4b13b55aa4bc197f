"""Settings: layers, mistakes, and the way to TOML and back."""

from __future__ import annotations

import pytest

from minigpt.config import Config, GPTConfig, load_preset, preset_names, resolve
from minigpt.errors import ConfigError


def test_the_defaults_are_the_preset_seed():
    assert resolve("seed") == resolve() == Config()


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_works_and_explains_itself(name):
    preset = load_preset(name)
    assert preset.summary
    assert preset.tokenizer
    assert isinstance(resolve(name), Config)


def test_each_layer_overrides_the_one_before(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text("[train]\nlr = 0.01\nbatch-size = 16\n[model]\nn_layer = 3\n")
    config = resolve("seed", file, {"train.lr": 0.02})
    assert (config.train.lr, config.train.batch_size, config.model.n_layer, config.train.epochs) == (0.02, 16, 3, 10)


def test_a_file_may_name_its_preset_and_an_option_overrides_it(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('preset = "nonsense"\n')
    with pytest.raises(ConfigError, match="nonsense"):
        resolve(file=file)
    assert resolve("seed", file) == Config()


def test_toml_and_back(tmp_path):
    config = resolve(overrides={"train.steps": 7, "train.lr": 1e-5, "model.bias": False, "machine.device": 'a"b\\c'})
    file = tmp_path / "config.toml"
    file.write_text(config.to_toml())
    assert resolve(file=file) == config


def test_all_mistakes_come_in_one_report():
    with pytest.raises(ConfigError) as caught:
        resolve(overrides={"train.lrr": 1.0, "model.n_head": 3, "train.epochs": 1.5, "model.norm": "layrnorm"})
    message = str(caught.value)
    assert "4 settings are invalid" in message
    assert "train.lrr: unknown setting. Did you mean train.lr?" in message
    assert "train.epochs is 1.5; it must be a whole number" in message
    assert "Did you mean layernorm?" in message
    assert "128 is not divisible by model.n_head 3" in message


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("train.lr", 0.0),
        ("train.lr", float("nan")),
        ("train.grad_clip", -1.0),
        ("train.grad_accum_steps", 3),
        ("train.seed", -1),
        ("model.dropout", 1.0),
        ("optimizer.beta2", 1.0),
        ("optimizer.eps", 0.0),
        ("optimizer.weight_decay", -0.1),
        ("schedule.min_lr_ratio", 2.0),
        ("schedule.decay_ratio", 0.0),
        ("schedule.warmup_steps", -1),
        ("schedule.max_warmup_ratio", 1.5),
        ("machine.threads", 0),
        ("machine.threads", 10**12),
        ("optimizer.eps", float("inf")),
        ("train.lr", 10**400),
        ("train.steps", 0),
        ("model.bias", 1),
    ],
)
def test_a_value_that_cannot_work_is_named(setting, value):
    with pytest.raises(ConfigError, match=setting):
        resolve(overrides={setting: value})


def test_a_whole_number_serves_as_a_rate():
    assert resolve(overrides={"train.grad_clip": 1}).train.grad_clip == 1.0


def test_rope_needs_an_even_head():
    assert any("rope" in problem for problem in GPTConfig(n_embd=36, n_head=4, position="rope").problems())


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml"):
        resolve(file=tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[train\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        resolve(file=broken)


def test_settings_in_another_encoding_are_read_or_refused_with_the_command_that_helps(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text("[train]\nsteps = 7\n", encoding="utf-8-sig")
    assert resolve(file=file).train.steps == 7
    for encoding, command in {
        "utf-16": r"iconv -f UTF-16 -t UTF-8 \S*my.toml > \S*my.utf8.toml",
        "utf-16-le": "iconv -f UTF-16LE",
        "utf-32": "iconv -f UTF-32",
    }.items():
        file.write_text("[train]\nsteps = 7\n", encoding=encoding)
        with pytest.raises(ConfigError, match=f"not valid TOML.*{command}"):
            resolve(file=file)


def test_a_files_preset_must_be_a_name(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text("preset = 5\n")
    with pytest.raises(ConfigError, match="5"):
        resolve(file=file)


def test_a_length_in_epochs_overrides_an_earlier_one_in_steps_and_the_other_way_round(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text("[train]\nsteps = 7\n")
    assert resolve(file=file).train.steps == 7
    assert resolve(file=file, overrides={"train.epochs": 2}).train.steps is None
    assert resolve(file=file, overrides={"train.epochs": 2, "train.steps": 9}).train.steps == 9


def test_a_number_of_warm_up_steps_lifts_an_earlier_limit(tmp_path):
    limit = resolve("shakespeare").schedule.max_warmup_ratio
    assert limit is not None
    own = resolve("shakespeare", overrides={"schedule.warmup_steps": 30})
    assert (own.schedule.warmup_steps, own.schedule.max_warmup_ratio) == (30, None)
    file = tmp_path / "config.toml"
    for config in (own, resolve("shakespeare")):
        file.write_text(config.to_toml())
        assert resolve(file=file) == config


@pytest.mark.parametrize("name", preset_names())
def test_a_presets_warm_up_fits_a_short_run(name):
    schedule = resolve(name).schedule
    assert schedule.warmup(20) < 10
    assert schedule.warmup(10_000) == schedule.warmup_steps
