"""Words out: samplers, the engine that drives them, and the text that comes of it."""

from minigpt.generation.engine import stream_steps
from minigpt.generation.pieces import Piece
from minigpt.generation.samplers import Sampling
from minigpt.generation.text import Sample, generate, sample, stream, stream_pieces
from minigpt.generation.weights import with_weights

__all__ = [
    "Piece",
    "Sample",
    "Sampling",
    "generate",
    "sample",
    "stream",
    "stream_pieces",
    "stream_steps",
    "with_weights",
]
