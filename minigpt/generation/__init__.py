"""Words out: samplers and the engine that drives them."""

from minigpt.generation.engine import generate, stream, stream_ids
from minigpt.generation.samplers import Sampling

__all__ = ["Sampling", "generate", "stream", "stream_ids"]
