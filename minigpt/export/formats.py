"""The formats in which a model can be exported.

A new format is a file with a function `write(source: ExportSource, folder: Path) -> None` (see exporting.py), which
fills an empty folder, and a line in `FORMATS`. Its module is imported only when it is used.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExportFormat:
    """A format in which other programs open a model.

    Attributes:
        opened_by: the programs that open it, for messages.
        module: the module whose `write` makes it.
    """

    opened_by: str
    module: str


FORMATS = {
    "hf": ExportFormat("Hugging Face's transformers, as a GPT-2 model", "minigpt.export.hugging_face"),
}
