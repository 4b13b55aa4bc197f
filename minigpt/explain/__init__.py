"""Seeing inside a model: its tensors for a text, where its logits come from, and what changes if parts are removed.

import torch
import minigpt
from minigpt import explain

model, tokenizer = minigpt.load("runs/demo")
trace = explain.record_trace(model, torch.from_numpy(tokenizer.encode("Return the")).long())
explain.logit_attribution(model, trace, position=-1, token=int(trace.logits[-1].argmax()))
"""

from minigpt.explain.attribution import components, head_by_source, logit_attribution, logit_lens
from minigpt.explain.head_scores import (
    attention_patterns,
    head_scores,
    induction_chance,
    induction_length,
    induction_scores,
    repeated_tokens,
)
from minigpt.explain.interventions import (
    ablate,
    ablate_each_head,
    ablate_heads_of_layer,
    head_outputs,
    heads_replaced,
    mean_outputs,
    patch,
    recovered,
)
from minigpt.explain.tokens import in_context_score, nearest_tokens, token_losses
from minigpt.explain.trace import Trace, record_trace

__all__ = [
    "Trace",
    "ablate",
    "ablate_each_head",
    "ablate_heads_of_layer",
    "attention_patterns",
    "components",
    "head_by_source",
    "head_outputs",
    "head_scores",
    "heads_replaced",
    "in_context_score",
    "induction_chance",
    "induction_length",
    "induction_scores",
    "logit_attribution",
    "logit_lens",
    "mean_outputs",
    "nearest_tokens",
    "patch",
    "record_trace",
    "recovered",
    "repeated_tokens",
    "token_losses",
]
