"""Every setting of a model and its training: frozen dataclasses, filled from a preset, a TOML file and options.

Three layers, each overriding the one before: a preset (a TOML file in `minigpt/presets`), the user's own TOML file,
and what was given by name (`--train.lr 1e-3`, or `{"train.lr": 1e-3}` from Python). `resolve` joins them and reports
every mistake at once. The comment under a field is its help on the command line.

Nothing here imports torch: the command line reads these classes for its help, and that must be quick.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

from minigpt.errors import ConfigError, did_you_mean
from minigpt.files import MOST_JSON, parse_toml, read_bytes, why
from minigpt.sniff import HEAD_BYTES, advice, sniff

Position: TypeAlias = Literal["learned", "sinusoidal", "rope", "none"]
Norm: TypeAlias = Literal["layernorm", "rmsnorm"]
MLP: TypeAlias = Literal["gelu", "relu2", "swiglu"]
Optimizer: TypeAlias = Literal["adam", "adamw", "muon"]
Schedule: TypeAlias = Literal["constant", "linear", "cosine", "wsd", "one-cycle"]
IGNORE_INDEX = -1
"""A target that does not count: padding, or a token that is not to be predicted."""

OnNonfinite: TypeAlias = Literal["stop", "rewind"]
Compile: TypeAlias = Literal["auto", "on", "off"]
Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """The shape of the transformer. The defaults are the preset `seed`, with GPT-2's vocabulary."""

    vocab_size: int = 50_257
    "Token ids the model knows. Training takes it from the data set's tokenizer."
    block_size: int = 512
    "Context length: the most tokens the model sees at once."
    n_layer: int = 2
    "Number of transformer blocks."
    n_head: int = 4
    "Attention heads in each block; must divide n-embd."
    n_kv_head: int | None = None
    "Key and value heads, each shared by several heads (Ainslie 2023); must divide n-head, which is the default."
    n_embd: int = 128
    "Width of the residual stream: the length of each token's vector."
    n_inner: int = 512
    "Hidden units of each feed-forward layer, usually 4 x n-embd."
    dropout: float = 0.1
    "Share dropped in training of embeddings, attention weights and blocks' outputs."
    bias: bool = True
    "Whether linear layers and norms have a bias, as in GPT-2."
    position: Position = "learned"
    "How the model knows where a token is: learned vectors (GPT-2), sinusoidal (Vaswani 2017), rope (Su 2021)."
    norm: Norm = "layernorm"
    "Normalisation before each sub-layer: layernorm (Ba 2016) or rmsnorm (Zhang 2019)."
    qk_norm: bool = False
    "Whether each head's queries and keys are normalised, which keeps attention scores in bounds (Henry 2020)."
    mlp: MLP = "gelu"
    "Feed-forward layer: gelu (GPT-2), relu2 (So 2021) or swiglu (Shazeer 2020)."
    tie_word_embeddings: bool = True
    "Whether the output projection is the token embedding's own matrix (Press and Wolf 2017)."

    @property
    def head_dim(self) -> int:
        """Length of one head's query, key and value vectors."""
        return self.n_embd // self.n_head

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    def problems(self) -> Iterator[str]:
        """Yields each mistake as a sentence with its remedy."""
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "n_inner"):
            if getattr(self, name) < 1:
                yield f"model.{name} is {getattr(self, name)}; give a positive number"
        if self.n_head >= 1 and self.n_embd % self.n_head:
            yield f"model.n_embd {self.n_embd} is not divisible by model.n_head {self.n_head}; change either"
        elif self.n_head >= 1 and self.position == "rope" and self.head_dim % 2:
            yield f"rope turns pairs of numbers, and model.n_embd / model.n_head is odd: {self.n_embd} / {self.n_head}"
        if self.n_head >= 1 and (self.kv_heads < 1 or self.n_head % self.kv_heads):
            yield f"model.n_kv_head {self.n_kv_head} does not divide model.n_head {self.n_head}; change either"
        if self.position == "sinusoidal" and self.n_embd % 2:
            yield f"sinusoidal positions need an even model.n_embd, not {self.n_embd}"
        if not 0 <= self.dropout <= 0.99:
            yield f"model.dropout is {self.dropout}; give a share from 0 to 0.99"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how hard to train."""

    epochs: int = 10
    "Passes over the training split."
    steps: int | None = None
    "Stop after this many optimizer steps instead; the schedule is laid out over them."
    batch_size: int = 8
    "Sequences in each optimizer step, over all devices."
    grad_accum_steps: int = 1
    "Split each batch into this many parts, run one after another, to save memory. The result is the same."
    lr: float = 5e-4
    "Peak learning rate."
    grad_clip: float = 1.0
    "Largest norm of the whole gradient; 0 switches clipping off."
    validate_every: int | None = None
    "Validate (and save) after this many steps too. Of epochs shorter than 50 steps not every end is validated."
    patience: int = 0
    "End early after this many validations without a lower loss; 0: never. The schedule still spans the full length."
    log_every: int = 10
    "Steps between two lines of metrics.jsonl."
    health_every: int = 100
    "Steps between two looks at gradients, updates and units, for `minigpt doctor`; 0 for none."
    sample_prompts: int = 4
    "Passages of the validation text, continued at epochs' ends that are validated, for samples.jsonl; 0 for none."
    save_every: int | None = None
    "Save a checkpoint after this many steps too; there is one at each validation anyway."
    save_minutes: float = 10.0
    "Save a checkpoint when the last one is this old; 0 switches that off."
    keep_checkpoints: int = 2
    "Newest checkpoints to keep, beside the best."
    on_nonfinite: OnNonfinite = "stop"
    "After five steps in a row without a finite gradient: stop, or rewind to the last checkpoint and reorder the data."
    skip_spikes: bool = False
    "Skip a step whose gradient norm is far above the usual, instead of only saying so."
    seed: int = 1
    "Decides the initial weights, the order of the data and the dropout."

    def problems(self) -> Iterator[str]:
        """Yields each mistake as a sentence with its remedy."""
        for name in ("epochs", "batch_size", "grad_accum_steps", "log_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                yield f"train.{name} is {getattr(self, name)}; give a positive number"
        for name in ("health_every", "sample_prompts", "patience"):
            if getattr(self, name) < 0:
                yield f"train.{name} is {getattr(self, name)}; give a positive number, or 0 for none"
        if not (self.save_minutes >= 0 and math.isfinite(self.save_minutes)):
            yield f"train.save_minutes is {self.save_minutes}; give a positive number, or 0 for none"
        for name in ("steps", "validate_every", "save_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                yield f"train.{name} is {getattr(self, name)}; give a positive number or leave it out"
        if self.grad_accum_steps >= 1 and self.batch_size % self.grad_accum_steps:
            yield f"train.batch_size {self.batch_size} is no multiple of train.grad_accum_steps {self.grad_accum_steps}"
        if not (self.lr > 0 and math.isfinite(self.lr)):
            yield f"train.lr is {self.lr}; give a positive number such as 5e-4"
        if not (self.grad_clip >= 0 and math.isfinite(self.grad_clip)):
            yield f"train.grad_clip is {self.grad_clip}; give a positive number, or 0 for none"
        if not 0 <= self.seed < 2**63:
            yield f"train.seed is {self.seed}; give a number from 0 to 2^63 - 1"


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Which optimizer, and its own settings."""

    name: Optimizer = "adam"
    "adam (Kingma 2015), adamw (Loshchilov 2019), or muon (Jordan 2024) for matrices with AdamW for the rest."
    beta1: float = 0.9
    "Adam's memory of the gradient."
    beta2: float = 0.999
    "Adam's memory of the squared gradient."
    eps: float = 1e-8
    "Added to Adam's denominator."
    weight_decay: float = 0.0
    "Pull of matrices towards zero (never of biases, norms); in adam it is added to the gradient."
    momentum: float = 0.95
    "Muon's momentum."

    def problems(self) -> Iterator[str]:
        """Yields each mistake as a sentence with its remedy."""
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                yield f"optimizer.{name} is {getattr(self, name)}; give a number from 0 up to, not including, 1"
        if not 0 < self.eps < math.inf:
            yield f"optimizer.eps is {self.eps}; give a small positive number such as 1e-8"
        if not 0 <= self.weight_decay < math.inf:
            yield f"optimizer.weight_decay is {self.weight_decay}; give 0 or a positive number"


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate moves from step to step."""

    name: Schedule = "constant"
    "Shape after the warm-up: constant, linear, cosine, wsd (flat, then a linear decay), or one-cycle."
    warmup_steps: int = 0
    "Steps over which the rate rises to its peak (one-cycle: 0 means 30 % of all steps)."
    max_warmup_ratio: float | None = None
    "Longest warm-up, as a share of all steps; presets set it for short runs. Your own warmup-steps are not cut."
    min_lr_ratio: float = 0.1
    "Where the rate falls to, as a share of the peak: reached one step after the last, so that every step learns."
    decay_ratio: float = 0.2
    "wsd: share of all steps spent decaying, at the end."

    def problems(self) -> Iterator[str]:
        """Yields each mistake as a sentence with its remedy."""
        if self.warmup_steps < 0:
            yield f"schedule.warmup_steps is {self.warmup_steps}; give 0 or a positive number"
        if self.max_warmup_ratio is not None and not 0 <= self.max_warmup_ratio <= 1:
            yield f"schedule.max_warmup_ratio is {self.max_warmup_ratio}; give a share of all steps from 0 to 1"
        if not 0 <= self.min_lr_ratio <= 1:
            yield f"schedule.min_lr_ratio is {self.min_lr_ratio}; give a share of the peak from 0 to 1"
        if not 0 < self.decay_ratio <= 1:
            yield f"schedule.decay_ratio is {self.decay_ratio}; give a share of all steps above 0, up to 1"

    def warmup(self, total_steps: int) -> int:
        """Returns the steps of warm-up in a run of so many steps in all."""
        if self.name == "one-cycle" and not self.warmup_steps:
            return max(1, round(0.3 * total_steps))
        if self.max_warmup_ratio is None:
            return self.warmup_steps
        return min(self.warmup_steps, round(self.max_warmup_ratio * total_steps))


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """What to run on. `minigpt device` shows what `auto` chooses here, and why."""

    device: str = "auto"
    "auto, cpu, cuda, cuda:1, mps."
    precision: Precision = "auto"
    "Number format of the matrix products; weights and losses stay float32. auto measures what is fast."
    compile: Compile = "auto"
    "Whether torch.compile makes the model's code. auto measures on a GPU whether it wins back the time it takes."
    threads: int | None = None
    "CPU threads; all cores when left out."

    def problems(self) -> Iterator[str]:
        """Yields each mistake as a sentence with its remedy."""
        if self.threads is not None and not 1 <= self.threads <= 1024:
            yield f"machine.threads is {self.threads}; give a number from 1 to 1024 or leave it out"


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run's settings, in groups."""

    model: GPTConfig = field(default_factory=GPTConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)

    def check(self, mistakes: Sequence[str] = ()) -> None:
        """Raises ConfigError naming every setting that cannot work, after the `mistakes` found before."""
        found = [*mistakes, *(problem for name in GROUPS for problem in getattr(self, name).problems())]
        if found:
            count = "One setting is" if len(found) == 1 else f"{len(found)} settings are"
            raise ConfigError(f"{count} wrong", remedy="\n".join(f"  - {mistake}" for mistake in found).lstrip())

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Returns the settings as nested plain values."""
        return asdict(self)

    def to_toml(self) -> str:
        """Returns the settings as TOML that `--config` reads; a setting that is None is left out."""
        sections = []
        for group, values in self.to_dict().items():
            lines = [f"{name} = {_toml(value)}" for name, value in values.items() if value is not None]
            sections.append("\n".join([f"[{group}]", *lines]))
        return "\n\n".join(sections) + "\n"


GROUPS: dict[str, Any] = {
    "model": GPTConfig,
    "train": TrainConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "machine": MachineConfig,
}


@dataclass(frozen=True)
class Preset:
    """A named starting point.

    Attributes:
        name: what `--preset` takes.
        summary: one line for the help.
        tokenizer: the tokenizer it was measured with, as `minigpt prepare` takes it.
        settings: dotted names to values.
    """

    name: str
    summary: str
    tokenizer: str
    settings: dict[str, Any]


def preset_names() -> list[str]:
    """Returns the names of the presets, in alphabetical order."""
    return sorted(file.name.removesuffix(".toml") for file in _presets().iterdir() if file.name.endswith(".toml"))


def load_preset(name: str) -> Preset:
    """Reads a preset of the package.

    Raises:
        ConfigError: if there is none of that name.
    """
    if name not in preset_names():
        raise ConfigError(
            "There is no such preset",
            got=name,
            remedy=f"{did_you_mean(name, preset_names())}Presets: {', '.join(preset_names())}.",
        )
    raw = tomllib.loads((_presets() / f"{name}.toml").read_text("utf-8"))
    return Preset(name, raw.pop("summary"), raw.pop("tokenizer"), _flatten(raw))


def resolve(
    preset: str | None = None,
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    model: GPTConfig | None = None,
) -> Config:
    """Joins a preset, a TOML file and single settings into one configuration.

    Args:
        preset: a preset's name; without one the file may name it (`preset = "laptop"`), else it is `seed`.
        file: a TOML file with the groups of `Config`, every setting optional.
        overrides: dotted names to values, such as `{"train.lr": 1e-3}`.
        model: a model that exists already. It takes the place of the preset's, and file and overrides may not change
            it, but for its dropout.

    Raises:
        ConfigError: naming every mistake: unknown names, wrong types, values that cannot work.
    """
    from_file = _read_toml(file) if file else {}
    named = from_file.pop("preset", None)
    if named is not None and not isinstance(named, str):
        raise ConfigError("The file's preset is no name", got=named, remedy='Write for instance preset = "laptop".')
    layers = [load_preset(preset or named or "seed").settings, from_file, dict(overrides or {})]
    mistakes = _fix_model(layers, model) if model else []
    settings: dict[str, Any] = {}
    for layer in layers:
        if "train.epochs" in layer:
            settings.pop("train.steps", None)  # a length in epochs overrides an earlier one in steps
        if "schedule.warmup_steps" in layer:
            settings.pop("schedule.max_warmup_ratio", None)  # whoever names a number of steps gets that number
        settings.update(layer)
    return _build(settings, mistakes)


def _fix_model(layers: list[dict[str, Any]], model: GPTConfig) -> list[str]:
    """Puts a model's settings in the place of the first layer's; returns what contradicts them in the others."""
    fixed = {f"model.{name}": value for name, value in asdict(model).items()}
    layers[0] = {**layers[0], **fixed}
    return [
        f"{name} is {value!r}, but the model that is there already has {fixed[name]!r}; leave it out"
        for layer in layers[1:]
        for name, value in layer.items()
        if name in fixed and name != "model.dropout" and value != fixed[name]
    ]


def with_model(config: Config, **changes: Any) -> Config:
    """Returns the configuration with some settings of its model changed."""
    return replace(config, model=replace(config.model, **changes))


def _presets() -> Traversable:
    return resources.files("minigpt") / "presets"


def _build(settings: Mapping[str, Any], mistakes: list[str]) -> Config:
    """Makes the configuration, or raises ConfigError with these mistakes and all that are found."""
    known = _known_settings()
    values: dict[str, dict[str, Any]] = {name: {} for name in GROUPS}
    for name, value in settings.items():
        if name not in known:
            mistakes.append(f"{name} is no setting. {did_you_mean(name, list(known))}".rstrip())
            continue
        fitted, reason = _fit(value, known[name])
        if reason:
            mistakes.append(f"{name} is {value!r}; {reason}")
            continue
        group, _, key = name.partition(".")
        values[group][key] = fitted
    config = Config(**{name: kind(**values[name]) for name, kind in GROUPS.items()})
    config.check(mistakes)
    return config


def _known_settings() -> dict[str, Any]:
    """Returns the dotted name and type of every setting."""
    return {
        f"{group}.{name}": kind for group, settings in GROUPS.items() for name, kind in get_type_hints(settings).items()
    }


def _fit(value: Any, kind: Any) -> tuple[Any, str]:
    """Returns the value as the type `kind`, and why it does not fit ('' when it does)."""
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        hint = did_you_mean(str(value), list(choices))
        return value, "" if value in choices else f"choose {', '.join(choices)}. {hint}".rstrip(" .")
    options = get_args(kind) or (kind,)
    if value is None and type(None) in options:
        return None, ""
    wanted = options[0]
    if wanted is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e300:
        value = float(value)
    if type(value) is not wanted or (wanted is int and abs(value) >= 2**63):
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        return value, f"give {names[wanted]}"
    return value, ""


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        content = read_bytes(file, MOST_JSON)
    except OSError as error:
        raise ConfigError(
            "The configuration file cannot be read", got=f"{file}: {why(error)}", remedy="Check its path."
        ) from None
    except ValueError as error:
        raise ConfigError(
            "The configuration file cannot be read", got=f"{file}: {error}", remedy="Name a file of settings."
        ) from None
    try:
        return _flatten(parse_toml(content))
    except ValueError as error:
        raise ConfigError(
            "The configuration file is not TOML",
            got=f"{file}: {error}",
            remedy=advice(sniff(content[:HEAD_BYTES]), str(file)) or "Mend it, or leave it out.",
        ) from None


def _flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{key.replace('-', '_')}": item for key, item in value.items()})
        else:
            flat[name] = value
    return flat


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)
