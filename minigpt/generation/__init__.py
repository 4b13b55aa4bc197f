"""Words out: samplers, the engine that drives them, and the text that comes of it."""

from minigpt.generation.detokenize import TextPiece
from minigpt.generation.engine import stream_steps
from minigpt.generation.inference_weights import for_inference
from minigpt.generation.samplers import Sampling
from minigpt.generation.text import Sample, generate, sample, stream, stream_pieces

__all__ = [
    "Sample",
    "Sampling",
    "TextPiece",
    "for_inference",
    "generate",
    "sample",
    "stream",
    "stream_pieces",
    "stream_steps",
]
