"""The options of `prepare`, checked before anything is read. How sources are read: minigpt/source_options.py."""

from __future__ import annotations

from dataclasses import dataclass

from minigpt.errors import ConfigError
from minigpt.tokenizers import reads_training_text

SPLITS = ("document", "sequence")
VAL_FRACTION = 0.1


@dataclass(frozen=True)
class PrepareOptions:
    """The arguments of `prepare`, as explained there.

    Raises:
        ConfigError: one is invalid, or contradicts another.
        TokenizerError: there is no such tokenizer.
    """

    sources: tuple[str, ...]
    val_sources: tuple[str, ...]
    tokenizer: str
    val_fraction: float | None
    split_by: str
    block_size: int
    seed: int

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("There is nothing to prepare", remedy="Name a file, a folder, hf:owner/name, or pylib.")
        if self.val_sources and (self.val_fraction is not None or self.split_by != "document"):
            option = (
                f"--split-by {self.split_by}" if self.val_fraction is None else f"--val-fraction {self.val_fraction}"
            )
            what = "With validation files of your own, nothing is drawn from the other text"
            raise ConfigError(what, got=option, remedy=f"Leave out {option.split()[0]}, or --val.")
        if not 0 < self.share <= 0.5:
            what = "The validation fraction must be greater than 0 and at most 0.5"
            raise ConfigError(what, got=self.share, remedy="The default is 0.1; 0.01 is enough for gigabytes.")
        if self.split_by not in SPLITS:
            raise ConfigError("Unknown way to split", got=self.split_by, remedy=f"Choose one of {', '.join(SPLITS)}.")
        if self.block_size < 1:
            raise ConfigError("The block size must be positive", got=self.block_size, remedy="The default is 512.")
        if not 0 <= self.seed < 2**63:
            raise ConfigError("The seed is out of range", got=self.seed, remedy="Give a number from 0 to 2^63 - 1.")
        reads_training_text(self.tokenizer)  # raises now, not after a pass over the text, if the spec is invalid

    @property
    def share(self) -> float:
        """The share of the text to draw for validation."""
        return VAL_FRACTION if self.val_fraction is None else self.val_fraction
