"""Text generation: samplers, the engine that runs them, and the text that comes out."""

from minigpt.generation.engine import Engine
from minigpt.generation.inference_weights import for_inference
from minigpt.generation.outputs import StepOutput
from minigpt.generation.text import Sample, generate, sample, stream, stream_samples
from minigpt.sampling_params import SamplingParams

__all__ = [
    "Engine",
    "Sample",
    "SamplingParams",
    "StepOutput",
    "for_inference",
    "generate",
    "sample",
    "stream",
    "stream_samples",
]
