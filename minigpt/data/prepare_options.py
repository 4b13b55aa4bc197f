"""What the user of `prepare` chose, checked before anything is read.

Not here: how sources are read (minigpt/source_options.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from minigpt.errors import ConfigError
from minigpt.tokenizers import reads_training_text

SPLITS = ("document", "sequence")
VAL_FRACTION = 0.1


@dataclass(frozen=True)
class PrepareOptions:
    """The arguments of `prepare`, as it explains them.

    Raises:
        ConfigError: one makes no sense, or contradicts another.
        TokenizerError: there is no such tokenizer.
    """

    names: tuple[str, ...]
    val_names: tuple[str, ...]
    tokenizer: str
    val_fraction: float | None
    split_by: str
    block_size: int
    seed: int

    def __post_init__(self) -> None:
        if not self.names:
            raise ConfigError("There is nothing to prepare", remedy="Name a file, a folder, hf:owner/name, or pylib.")
        if self.val_names and self.val_fraction is not None:
            raise ConfigError(
                "With validation files of your own, no share of the text is drawn",
                got=f"--val-fraction {self.val_fraction}",
                remedy="Leave out --val-fraction, or --val.",
            )
        if self.val_names and self.split_by != "document":
            raise ConfigError(
                "With validation files of your own, nothing is drawn from the other text",
                got=f"--split-by {self.split_by}",
                remedy="Leave out --split-by, or --val.",
            )
        if not 0 < self.share <= 0.5:
            raise ConfigError(
                "The share of validation must lie above 0 and at most at 0.5",
                got=self.share,
                remedy="0.1 is usual; 0.01 will do for gigabytes.",
            )
        if self.split_by not in SPLITS:
            raise ConfigError(
                "There is no such way to split", got=self.split_by, remedy=f"There are: {', '.join(SPLITS)}."
            )
        if self.block_size < 1:
            raise ConfigError("The block size must be positive", got=self.block_size, remedy="512 is usual.")
        if not 0 <= self.seed < 2**63:
            raise ConfigError("The seed is out of range", got=self.seed, remedy="Give a number from 0 to 2^63 - 1.")
        reads_training_text(self.tokenizer)  # raises now, not after a pass over the text, if the spec is wrong

    @property
    def share(self) -> float:
        """The share of the text to draw for validation."""
        return VAL_FRACTION if self.val_fraction is None else self.val_fraction
