"""Every setting of a model and its training, as frozen dataclasses filled from a preset, a TOML file and options.

Each of three layers overrides the one before: a preset (a TOML file in `minigpt/presets`), the user's own TOML file,
and settings given by name (`--train.lr 1e-3`, or `{"train.lr": 1e-3}` from Python). `resolve` merges them and reports
every mistake at once. The string under a field is its help on the command line.

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

Position: TypeAlias = Literal[
    "learned",
    "sinusoidal",
    "rope",
    "none",
]
Norm: TypeAlias = Literal["layernorm", "rmsnorm"]
MLP: TypeAlias = Literal["gelu", "relu2", "swiglu"]
Optimizer: TypeAlias = Literal[
    "adam",
    "adamw",
    "muon",
]
Schedule: TypeAlias = Literal["constant", "linear", "cosine", "wsd", "one-cycle"]
IGNORE_INDEX = -1
"""The target of a position that does not count towards the loss, such as padding."""

MAX_PADDING = 1024
"""How many more ids a model may have than its tokenizer, to make its vocabulary a round number or for later use."""

OnNonfinite: TypeAlias = Literal["stop", "rewind"]
Compile: TypeAlias = Literal["auto", "on", "off"]
Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """The shape of the transformer. The defaults are those of preset `seed`, with GPT-2's vocabulary."""

    vocab_size: int = 0
    "Number of token ids; 0 for those of the data's tokenizer. More of them pad the vocabulary, as to a multiple of 64."
    block_size: int = 512
    "Context length: the maximum number of tokens the model sees at once."
    n_layer: int = 2
    "Number of transformer blocks."
    n_head: int = 4
    "Number of attention heads per block; must divide n-embd."
    n_kv_head: int | None = None
    "Number of key/value heads, each shared by a group of query heads (Ainslie 2023); must divide n-head, the default."
    n_embd: int = 128
    "Width of the residual stream, that is, the length of each token's vector."
    n_inner: int = 512
    "Number of hidden units in each feed-forward layer, usually 4 x n-embd."
    dropout: float = 0.1
    "Dropout probability for embeddings, attention weights and the outputs of sub-layers."
    bias: bool = True
    "Give linear layers and norms a bias, as GPT-2 does."
    position: Position = "learned"
    "Position encoding: learned vectors (GPT-2), sinusoidal (Vaswani 2017), rope (Su 2021) or none."
    norm: Norm = "layernorm"
    "Normalization before each sub-layer: layernorm (Ba 2016) or rmsnorm (Zhang 2019)."
    qk_norm: bool = False
    "Normalize each head's queries and keys, which keeps attention scores bounded (Henry 2020)."
    mlp: MLP = "gelu"
    "Feed-forward layer: gelu (GPT-2), relu2 (So 2021) or swiglu (Shazeer 2020)."
    tie_word_embeddings: bool = True
    "Use the token embedding's matrix as the output projection too (Press and Wolf 2017)."

    @property
    def head_dim(self) -> int:
        """Length of one head's query, key and value vectors."""
        return self.n_embd // self.n_head

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    def problems(self) -> Iterator[str]:
        """Yields each mistake as a sentence that says how to fix it."""
        if self.vocab_size < 0:
            yield f"model.vocab_size is {self.vocab_size}; it must be positive, or 0 for the tokenizer's"
        for name in ("block_size", "n_layer", "n_head", "n_embd", "n_inner"):
            if getattr(self, name) < 1:
                yield f"model.{name} is {getattr(self, name)}; it must be positive"
        if self.n_head >= 1 and self.n_embd % self.n_head:
            yield f"model.n_embd {self.n_embd} is not divisible by model.n_head {self.n_head}; change one of them"
        elif self.n_head >= 1 and self.position == "rope" and self.head_dim % 2:
            yield f"rope needs an even model.n_embd / model.n_head, not {self.n_embd} / {self.n_head}"
        if self.n_head >= 1 and (self.kv_heads < 1 or self.n_head % self.kv_heads):
            yield f"model.n_kv_head {self.n_kv_head} does not divide model.n_head {self.n_head}; change one of them"
        if self.position == "sinusoidal" and self.n_embd % 2:
            yield f"sinusoidal positions need an even model.n_embd, not {self.n_embd}"
        if not 0 <= self.dropout <= 0.99:
            yield f"model.dropout is {self.dropout}; it must be from 0 to 0.99"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long to train, on what batches, and when to save and validate."""

    epochs: int = 10
    "Passes over the training split."
    steps: int | None = None
    "Number of optimizer steps, instead of epochs; the learning-rate schedule spans them."
    batch_size: int = 8
    "Sequences per optimizer step, over all devices."
    grad_accum_steps: int = 1
    "Micro-batches per optimizer step, run one after another to save memory; the result is the same."
    lr: float = 5e-4
    "Peak learning rate."
    grad_clip: float = 1.0
    "Clip the norm of the whole gradient to this; 0 turns clipping off."
    validate_every: int | None = None
    "Also validate (and save) every N steps, not only at the ends of epochs (short epochs: every 50 steps or so)."
    patience: int = 0
    "Stop early after N validations without a lower loss; 0 turns this off. The schedule still spans the full length."
    log_every: int = 10
    "Log a line of metrics.jsonl every N steps."
    health_every: int = 100
    "Record the health of gradients, updates and hidden units every N steps, for `minigpt doctor`; 0 turns this off."
    sample_prompts: int = 4
    "Passages of the validation text to continue at the end of each epoch, for samples.jsonl; 0 turns this off."
    save_every: int | None = None
    "Also save a checkpoint every N steps; each validation saves one anyway."
    save_minutes: float = 10.0
    "Save a checkpoint when the last one is this many minutes old; 0 turns this off."
    keep_checkpoints: int = 2
    "Number of latest checkpoints to keep, in addition to the best."
    on_nonfinite: OnNonfinite = "stop"
    "After five consecutive steps without a finite gradient: stop, or rewind to the last checkpoint and reshuffle."
    skip_spikes: bool = False
    "Skip steps whose gradient norm is far above normal, instead of only reporting them."
    seed: int = 1
    "Determines the initial weights, the order of the data and dropout."

    def problems(self) -> Iterator[str]:
        """Yields each mistake as a sentence that says how to fix it."""
        for name in ("epochs", "batch_size", "grad_accum_steps", "log_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                yield f"train.{name} is {getattr(self, name)}; it must be positive"
        for name in ("health_every", "sample_prompts", "patience"):
            if getattr(self, name) < 0:
                yield f"train.{name} is {getattr(self, name)}; it must be 0 (off) or positive"
        if not (self.save_minutes >= 0 and math.isfinite(self.save_minutes)):
            yield f"train.save_minutes is {self.save_minutes}; it must be 0 (off) or positive"
        for name in ("steps", "validate_every", "save_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                yield f"train.{name} is {getattr(self, name)}; it must be positive, or omitted"
        if self.grad_accum_steps >= 1 and self.batch_size % self.grad_accum_steps:
            yield (
                f"train.batch_size {self.batch_size} is not a multiple of "
                f"train.grad_accum_steps {self.grad_accum_steps}; change one of them"
            )
        if not (self.lr > 0 and math.isfinite(self.lr)):
            yield f"train.lr is {self.lr}; it must be positive, such as 5e-4"
        if not (self.grad_clip >= 0 and math.isfinite(self.grad_clip)):
            yield f"train.grad_clip is {self.grad_clip}; it must be 0 (off) or positive"
        if not 0 <= self.seed < 2**63:
            yield f"train.seed is {self.seed}; it must be from 0 to 2^63 - 1"


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Which optimizer, and its settings."""

    name: Optimizer = "adam"
    "adam (Kingma 2015), adamw (Loshchilov 2019), or muon (Jordan 2024) for matrices with AdamW for the rest."
    beta1: float = 0.9
    "Adam's decay rate for the running mean of the gradient."
    beta2: float = 0.999
    "Adam's decay rate for the running mean of the squared gradient."
    eps: float = 1e-8
    "Adam's epsilon, added to the denominator."
    weight_decay: float = 0.0
    "Weight decay of matrices and embeddings, never of biases and norms; adam adds it to the gradient."
    momentum: float = 0.95
    "Muon's momentum."

    def problems(self) -> Iterator[str]:
        """Yields each mistake as a sentence that says how to fix it."""
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                yield f"optimizer.{name} is {getattr(self, name)}; it must be at least 0 and below 1"
        if not 0 < self.eps < math.inf:
            yield f"optimizer.eps is {self.eps}; it must be a small positive number such as 1e-8"
        if not 0 <= self.weight_decay < math.inf:
            yield f"optimizer.weight_decay is {self.weight_decay}; it must be 0 or positive"


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate changes from step to step."""

    name: Schedule = "constant"
    "Shape after warm-up: constant, linear, cosine, wsd (constant, then linear decay) or one-cycle."
    warmup_steps: int = 0
    "Steps over which the rate rises to its peak (one-cycle: 0 means 30% of all steps)."
    max_warmup_ratio: float | None = None
    "Upper limit of a preset's warm-up as a fraction of all steps, for short runs; your own warmup-steps override it."
    min_lr_ratio: float = 0.1
    "Final learning rate as a fraction of the peak, reached one step after the last, so that every step learns."
    decay_ratio: float = 0.2
    "wsd: fraction of all steps spent decaying, at the end."

    def problems(self) -> Iterator[str]:
        """Yields each mistake as a sentence that says how to fix it."""
        if self.warmup_steps < 0:
            yield f"schedule.warmup_steps is {self.warmup_steps}; it must be 0 or positive"
        if self.max_warmup_ratio is not None and not 0 <= self.max_warmup_ratio <= 1:
            yield f"schedule.max_warmup_ratio is {self.max_warmup_ratio}; it must be from 0 to 1"
        if not 0 <= self.min_lr_ratio <= 1:
            yield f"schedule.min_lr_ratio is {self.min_lr_ratio}; it must be from 0 to 1"
        if not 0 < self.decay_ratio <= 1:
            yield f"schedule.decay_ratio is {self.decay_ratio}; it must be above 0 and at most 1"

    def warmup(self, total_steps: int) -> int:
        """Returns the number of warm-up steps in a run of `total_steps`."""
        if self.name == "one-cycle" and not self.warmup_steps:
            return max(1, round(0.3 * total_steps))
        if self.max_warmup_ratio is None:
            return self.warmup_steps
        return min(self.warmup_steps, round(self.max_warmup_ratio * total_steps))


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """What to run on. `minigpt device` shows what `auto` chooses on this machine, and why."""

    device: str = "auto"
    "auto, cpu, cuda, cuda:1 or mps."
    precision: Precision = "auto"
    "Number format of matrix products; weights and losses stay float32. auto measures which is fast."
    compile: Compile = "auto"
    "Compile the model with torch.compile. On a GPU, auto measures whether that pays for itself."
    threads: int | None = None
    "Number of CPU threads; all cores by default."

    def problems(self) -> Iterator[str]:
        """Yields each mistake as a sentence that says how to fix it."""
        if self.threads is not None and not 1 <= self.threads <= 1024:
            yield f"machine.threads is {self.threads}; it must be from 1 to 1024, or omitted"


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a run, in groups."""

    model: GPTConfig = field(default_factory=GPTConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)

    def check(self, mistakes: Sequence[str] = ()) -> None:
        """Raises ConfigError naming every invalid setting, after the `mistakes` found before."""
        found = [*mistakes, *(problem for name in GROUPS for problem in getattr(self, name).problems())]
        if found:
            count = "One setting is" if len(found) == 1 else f"{len(found)} settings are"
            raise ConfigError(f"{count} invalid", remedy="\n".join(f"  - {mistake}" for mistake in found).lstrip())

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Returns the settings as nested plain values."""
        return asdict(self)

    def to_toml(self) -> str:
        """Returns the settings as TOML that `--config` reads; settings that are None are omitted."""
        import tomli_w

        given = {
            group: {name: value for name, value in values.items() if value is not None}
            for group, values in self.to_dict().items()
        }
        return tomli_w.dumps(given)


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
        name: the value of `--preset`.
        summary: one line for the help.
        tokenizer: the tokenizer it was measured with, as `minigpt prepare` takes it.
        settings: values by dotted name.
    """

    name: str
    summary: str
    tokenizer: str
    settings: dict[str, Any]


def preset_names() -> list[str]:
    """Returns the names of all presets, sorted."""
    return sorted(file.name.removesuffix(".toml") for file in _presets().iterdir() if file.name.endswith(".toml"))


def load_preset(name: str) -> Preset:
    """Reads a preset.

    Raises:
        ConfigError: if there is no preset of that name.
    """
    if name not in preset_names():
        raise ConfigError(
            "No such preset",
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
    """Merges a preset, a TOML file and single settings into one configuration.

    Args:
        preset: the name of a preset. The default is the one the file names (`preset = "laptop"`), or `seed`.
        file: a TOML file with the groups of `Config`; every setting is optional.
        overrides: values by dotted name, such as `{"train.lr": 1e-3}`.
        model: the shape of an existing model. It replaces the preset's, and neither file nor overrides may change it,
            except for its dropout.

    Raises:
        ConfigError: naming every mistake: unknown names, wrong types, invalid values.
    """
    from_file = _read_toml(file) if file else {}
    named = from_file.pop("preset", None)
    if named is not None and not isinstance(named, str):
        raise ConfigError("preset must be a name", got=named, remedy='For example: preset = "laptop".')
    layers = [load_preset(preset or named or "seed").settings, from_file, dict(overrides or {})]
    mistakes = _fix_model(layers, model) if model else []
    settings: dict[str, Any] = {}
    for layer in layers:
        if "train.epochs" in layer:
            settings.pop("train.steps", None)  # a length in epochs overrides one in steps from a lower layer
        if "schedule.warmup_steps" in layer:
            settings.pop("schedule.max_warmup_ratio", None)  # an explicit number of steps is not limited
        settings.update(layer)
    return _build(settings, mistakes)


def _fix_model(layers: list[dict[str, Any]], model: GPTConfig) -> list[str]:
    """Replaces the first layer's model settings by `model`; returns which settings of other layers contradict it."""
    fixed = {f"model.{name}": value for name, value in asdict(model).items()}
    layers[0] = {**layers[0], **fixed}
    return [
        f"{name} is {value!r}, but the existing model has {fixed[name]!r}; omit it"
        for layer in layers[1:]
        for name, value in layer.items()
        if name in fixed and name != "model.dropout" and value != fixed[name]
    ]


def check_one_length(epochs: int | None, steps: int | None) -> None:
    """Raises ConfigError if a run is given two lengths."""
    if epochs is not None and steps is not None:
        raise ConfigError(
            "A run has one length, in epochs or in steps",
            got=f"{epochs} epochs and {steps} steps",
            remedy="Give --epochs or --steps, not both.",
        )


def with_model(config: Config, **changes: Any) -> Config:
    """Returns the configuration with some of its model's settings changed."""
    return replace(config, model=replace(config.model, **changes))


def vocabulary_fits(vocab_size: int, tokenizer_size: int) -> bool:
    """Whether a model's vocabulary fits a tokenizer: as large, or larger by a padding of up to MAX_PADDING."""
    return 0 <= vocab_size - tokenizer_size <= MAX_PADDING


def with_vocabulary(config: Config, tokenizer_size: int) -> Config:
    """Returns the configuration for a tokenizer of so many ids; a larger vocabulary, as padding, is kept.

    Raises:
        ConfigError: if the model's vocabulary is smaller than the tokenizer's, or larger by more than MAX_PADDING.
    """
    size = config.model.vocab_size or tokenizer_size
    if not vocabulary_fits(size, tokenizer_size):
        raise ConfigError(
            "The model's vocabulary does not fit the tokenizer",
            got=f"model.vocab_size {size:,}, the tokenizer has {tokenizer_size:,} ids",
            remedy=f"Omit it, or give up to {MAX_PADDING:,} more than the tokenizer has.",
        )
    return with_model(config, vocab_size=size)


def _presets() -> Traversable:
    return resources.files("minigpt") / "presets"


def _build(settings: Mapping[str, Any], mistakes: list[str]) -> Config:
    """Builds the configuration, or raises ConfigError with `mistakes` and all others found."""
    known = _known_settings()
    values: dict[str, dict[str, Any]] = {name: {} for name in GROUPS}
    for name, value in settings.items():
        if name not in known:
            mistakes.append(f"{name}: unknown setting. {did_you_mean(name, list(known))}".rstrip())
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
    """Returns the type of every setting by its dotted name."""
    return {
        f"{group}.{name}": kind for group, settings in GROUPS.items() for name, kind in get_type_hints(settings).items()
    }


def _fit(value: Any, kind: Any) -> tuple[Any, str]:
    """Returns the value converted to the type `kind`, and what is wrong with it ('' if nothing is)."""
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        hint = did_you_mean(str(value), list(choices))
        return value, "" if value in choices else f"choose one of {', '.join(choices)}. {hint}".rstrip(" .")
    options = get_args(kind) or (kind,)
    if value is None and type(None) in options:
        return None, ""
    wanted = options[0]
    if wanted is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e300:
        value = float(value)
    if type(value) is not wanted or (wanted is int and abs(value) >= 2**63):
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        return value, f"it must be {names[wanted]}"
    return value, ""


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        content = read_bytes(file, MOST_JSON)
    except OSError as error:
        raise ConfigError(
            "Cannot read the configuration file", got=f"{file}: {why(error)}", remedy="Check its path."
        ) from None
    except ValueError as error:
        raise ConfigError(
            "Cannot read the configuration file", got=f"{file}: {error}", remedy="Give a TOML file of settings."
        ) from None
    try:
        return _flatten(parse_toml(content))
    except ValueError as error:
        raise ConfigError(
            "The configuration file is not valid TOML",
            got=f"{file}: {error}",
            remedy=advice(sniff(content[:HEAD_BYTES]), str(file)) or "Fix it, or omit --config.",
        ) from None


def _flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{key.replace('-', '_')}": item for key, item in value.items()})
        else:
            flat[name] = value
    return flat
