"""The model card: the README.md of an exported model, for people and for the Hugging Face hub.

It contains no paths of the machine, and of the data only the names of the sources.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from minigpt import __version__
from minigpt.data.dataset_card import DatasetCard
from minigpt.errors import DataError
from minigpt.export.exporting import ExportSource
from minigpt.model.accounting import parameter_count
from minigpt.runs.folder import RunFolder
from minigpt.text_utils import display_name, escape_control, pluralize

UNKNOWN = "unknown"


def model_card(source: ExportSource) -> str:
    """Returns the card's text."""
    folder, model, checkpoint, license = source.run, source.model.config, source.checkpoint, source.license
    padding = model.vocab_size - source.tokenizer.vocab_size
    facts = {
        "parameters": f"{parameter_count(model):,}",
        "shape": f"{pluralize(model.n_layer, 'layer')}, {pluralize(model.n_head, 'head')}, {model.n_embd} wide, "
        f"{pluralize(model.n_inner, 'hidden unit')}",
        "variants": f"position {model.position}, norm {model.norm}, feed-forward {model.mlp}, "
        f"{'with' if model.bias else 'without'} biases, output {'tied' if model.tie_word_embeddings else 'untied'}",
        "context": pluralize(model.block_size, "token"),
        "vocabulary": f"{source.tokenizer.vocab_size:,} ids, {_code(source.tokenizer.spec)}"
        + (f", and {padding:,} unused" if padding else ""),
        **_figures(folder, checkpoint),
        **_data(folder),
    }
    stated = license or "not stated; the training texts may have licences of their own"
    return f"""---
library_name: transformers
pipeline_tag: text-generation
license: {json.dumps(license or UNKNOWN)}
tags: [gpt2, minigpt]
---

# {_code(folder.name)}

A language model in GPT-2's architecture, trained with Mini-GPT {__version__}
and exported from checkpoint {_code(checkpoint)} of its run.

| | |
|---|---|
{"".join(f"| {name} | {value} |{chr(10)}" for name, value in facts.items())}
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
ids = tokenizer("Once upon a time", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids, max_new_tokens=50, do_sample=True)[0]))
```

Prompt and answer together may have at most {pluralize(model.block_size, "token")}. `<|endoftext|>` in a text is
ordinary characters (`split_special_tokens`); its id separates documents.

Licence: {stated}.
"""


def _figures(folder: RunFolder, checkpoint: str) -> dict[str, str]:
    """Returns the run's results on its validation split."""
    best = folder.best()
    if best is None:
        return {}
    loss, val = best["val_loss"], folder.data()["splits"].get("val")
    figures = {
        "validation loss": f"{loss:.4f} nats per token",
        "validation perplexity": f"{math.exp(min(loss, 700)):,.2f}",
    }
    if val and val["text_bytes"]:
        figures["validation bits per byte"] = f"{loss / math.log(2) * val['tokens'] / val['text_bytes']:.4f}"
    if best["checkpoint"] != checkpoint:
        figures["measured at"] = f"{_code(best['checkpoint'])}, the run's best, not this checkpoint"
    return figures


def _data(folder: RunFolder) -> dict[str, str]:
    """Returns what is known of the data, including its sources if the data set still exists."""
    known = folder.data()
    splits = known["splits"]
    facts = {
        name: f"{pluralize(split['tokens'], 'token')}, {pluralize(split['text_bytes'], 'byte')} of text"
        for name, split in (("training data", splits.get("train")), ("validation data", splits.get("val")))
        if split
    }
    if origin := folder.origin():
        facts["initialised from"] = f"the weights of {_code(display_name(origin['folder']))} ({_code(origin['kind'])})"
    try:
        report = DatasetCard.load(Path(known["folder"])) if known["folder"] else None
    except DataError:
        report = None
    if report and splits and report.train.tokens == splits["train"]["tokens"]:
        facts["sources"] = ", ".join(_code(display_name(source)) for source in report.sources)
    return facts


def _code(text: object) -> str:
    """Returns text as code in a Markdown table; characters that would end it are replaced."""
    shown = escape_control(str(text)).translate(str.maketrans("`|\n\r", "'/  "))
    return f"`{shown}`"
