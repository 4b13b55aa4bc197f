"""`minigpt generate`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from minigpt.cli.console import say
from minigpt.cli.generate_options import DisplayOptions, SamplingOptions, SearchOptions, inference_runtime
from minigpt.errors import ConfigError, DataError, MiniGPTError
from minigpt.files import MOST_JSON, parse_json, read_stream, utf8, why
from minigpt.sniff import FORMATS, HEAD_BYTES, RECORDS, advice, sniff
from minigpt.text_utils import pluralize

if TYPE_CHECKING:
    from minigpt.generation import Sample, SamplingParams, StepOutput
    from minigpt.generation.inference_weights import DtypeChoice
    from minigpt.model import GPT
    from minigpt.tokenizers import Tokenizer

LOSS_TOKENS = 4096
"""How many tokens of the validation split are used to measure what rounded weights cost."""

MUTUALLY_EXCLUSIVE = (
    ("--prompt", "--prompt-file"),
    ("--interactive", "--prompt"),
    ("--interactive", "--prompt-file"),
    ("--interactive", "--num-samples"),
    ("--interactive", "--best-of"),
    ("--interactive", "--num-beams"),
    ("--interactive", "--json"),
    ("--num-beams", "--best-of"),
    ("--num-beams", "--top-logprobs"),
    ("--show-probabilities", "--top-logprobs"),
    ("--show-probabilities", "--json"),
)
"""Options that cannot be used together."""


def _group(title: str, place: int) -> Parameter:
    return Parameter(name="*", group=Group(title, sort_key=place))


def generate_command(
    run: Path,
    /,
    *,
    prompt: Annotated[list[str] | None, Parameter(negative="")] = None,
    prompt_file: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    interactive: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    num_samples: int = 1,
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto",
    checkpoint: str = "best",
    device: str = "auto",
    threads: int | None = None,
    sampling: Annotated[SamplingOptions, _group("Sampling", 1)] = SamplingOptions(),  # noqa: B008 (frozen)
    display: Annotated[DisplayOptions, _group("Output", 2)] = DisplayOptions(),  # noqa: B008
    search: Annotated[SearchOptions, _group("Search", 3)] = SearchOptions(),  # noqa: B008
) -> None:
    """Generate text with a trained model.

    The text is printed token by token, until the model ends the document or max-new-tokens is reached. Several texts
    are generated at once, and printed one after the other.

    Examples:

    `minigpt generate runs/books --prompt "It was" --max-new-tokens 200`

    `minigpt generate runs/books --prompt "It was" --temperature 0`

    `minigpt generate runs/books --prompt "It was" --num-samples 5 --stop "."`

    `minigpt generate runs/books --prompt-file questions.txt --json`

    `minigpt generate runs/books --interactive`

    Parameters
    ----------
    run
        Run folder of `minigpt train`.
    prompt
        The text to continue; without one, a new document begins. May be repeated. If it begins with a dash:
        --prompt="- like this".
    prompt_file
        File with one prompt per line; in a .jsonl file, the field "prompt" of each line. - reads standard input.
    interactive
        Ask for one prompt after another. Settings can be changed in between: type /help there.
    num_samples
        How many texts to generate for each prompt; their seeds are seed, seed + 1, ...
    dtype
        Data type of the weights: float32 is exact, bfloat16 and int8 are rounded and may be faster. auto picks the
        fastest by measuring, but float32 for reproducible text: with --seed, --temperature 0, --num-beams and
        --interactive.
    checkpoint
        best (lowest validation loss), latest, or a step number.
    device
        auto, cpu, cuda, cuda:1 or mps.
    threads
        Number of CPU threads; all cores by default.
    """
    given: dict[str, object] = {"--prompt": prompt, "--prompt-file": prompt_file, "--interactive": interactive}
    given |= {"--num-samples": num_samples != 1, "--best-of": search.best_of, "--num-beams": search.num_beams}
    given |= {"--show-probabilities": display.show_probabilities, "--json": display.as_json}
    given |= {"--top-logprobs": display.top_logprobs != 0}
    _check_exclusive({name for name, value in given.items() if value not in (None, False)})
    _check_counts(num_samples, sampling, display, search)
    prompts = read_prompts(prompt_file) if prompt_file is not None else prompt or [""]

    from minigpt.cli.generate_views import make_view, show
    from minigpt.generation.engine import MAX_BATCH_SIZE
    from minigpt.generation.inference_weights import choose_dtype
    from minigpt.generation.notes import notes_of_all, stop_notes
    from minigpt.generation.search import DRAW_SETTINGS
    from minigpt.runs.folder import load
    from minigpt.tokenizers.base import utf8

    prompts = [utf8(text).decode() for text in prompts]  # invalid bytes of the command line become U+FFFD
    runtime = inference_runtime(device, threads)
    model, tokenizer = load(run, checkpoint, runtime.device)
    params = sampling.params(tokenizer)
    context, notes = model.config.block_size, stop_notes(tokenizer, params)
    for note in [*([] if interactive else notes_of_all(tokenizer, prompts, context)), *notes.values()]:
        say(f"note: {note}")
    reproducible = interactive or params.seed is not None or params.temperature == 0 or search.num_beams is not None
    wanted = "float32" if dtype == "auto" and reproducible else dtype
    rows = min(MAX_BATCH_SIZE, len(prompts) * (search.n_texts or num_samples))
    choice = choose_dtype(model, wanted, rows)
    if display.verbose:
        reason = choice.reason if wanted == dtype else "for reproducible text"
        say(f"device {runtime.device} ({runtime.device_reason}), weights {choice.dtype} ({reason})")
    if interactive:
        from minigpt.cli.interactive import Conversation

        Conversation(choice.model, tokenizer, sampling, display).run()
        return
    unused = () if search.num_beams is None else DRAW_SETTINGS
    settings = {name: value for name, value in sampling.as_typed().items() if name not in unused}
    if search.n_texts is not None:
        settings |= {name: getattr(search, name) for name in ("best_of", "num_beams", "length_penalty")}
    settings["dtype"] = choice.dtype
    many = len(prompts) * num_samples > 1
    view = make_view(tokenizer, display, settings, many=many, context=context, notes=notes)
    made: list[Sample] = []
    begun = time.perf_counter()
    for samples, outputs in _batches(choice.model, tokenizer, prompts, num_samples, params, search, display):
        show(view, samples, outputs)
        made += samples
    if display.verbose:
        _say_cost(run, model, tokenizer, choice, made, time.perf_counter() - begun)


def _batches(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    num_samples: int,
    params: SamplingParams,
    search: SearchOptions,
    display: DisplayOptions,
) -> Iterator[tuple[Sequence[Sample], Iterator[StepOutput]]]:
    """Yields samples to show together, with the outputs that are still to come for them."""
    from minigpt.generation import stream_samples
    from minigpt.generation.search import beam_search, best_of

    top, logprobs = display.top_logprobs, display.needs_logprobs
    if search.num_beams is not None:
        beams, penalty = search.num_beams, search.length_penalty
        for prompt in prompts:
            found = beam_search(model, tokenizer, prompt, params, num_beams=beams, length_penalty=penalty)
            yield found[:num_samples], iter(())
    elif search.best_of is not None:
        for prompt in prompts:
            best = best_of(model, tokenizer, prompt, params, n=search.best_of, top_logprobs=top)
            yield best[:num_samples], iter(())
    else:
        yield stream_samples(model, tokenizer, prompts, params, n=num_samples, logprobs=logprobs, top_logprobs=top)


def read_prompts(file: Path) -> list[str]:
    """Returns the prompts in a file: its lines, or the field `prompt` of each if its name ends in .jsonl.

    Blank lines at the end are skipped; in a .jsonl file all of them.

    Raises:
        DataError: if the file cannot be read, or a line is not such an object.
    """
    found, piped = "text", str(file) == "-"
    try:
        with nullcontext(sys.stdin.buffer) if piped else file.open("rb") as stream:
            data = read_stream(stream, MOST_JSON)
        found = sniff(data[:HEAD_BYTES])
        if found not in ("text", "8-bit", *RECORDS):
            raise ValueError(f"it is {FORMATS[found].title}")
        lines = [line.removesuffix("\r") for line in utf8(data).split("\n")]
    except (OSError, ValueError) as error:
        remedy = advice(found, "" if piped else str(file)) or "Give a UTF-8 text file with one prompt per line."
        raise DataError("The prompts cannot be read", got=f"{file}: {why(error)}", remedy=remedy) from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        got = "nothing on standard input" if piped else f"{file} is empty"
        raise DataError("No prompts", got=got, remedy="Write one prompt per line.")
    if file.suffix != ".jsonl":
        return lines
    return [_prompt_field(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _prompt_field(number: int, line: str) -> str:
    try:
        prompt = parse_json(line)["prompt"]
    except (ValueError, LookupError):
        prompt = None
    if not isinstance(prompt, str):
        what = f"Line {number} of the prompts is not a JSON object with a string as its prompt"
        raise DataError(what, got=line[:80], remedy='Write {"prompt": "..."} on each line.')
    return prompt


def _check_exclusive(given: set[str]) -> None:
    for pair in MUTUALLY_EXCLUSIVE:
        if given.issuperset(pair):
            raise ConfigError(f"{pair[0]} and {pair[1]} cannot be used together", remedy="Remove one of them.")


def _check_counts(num_samples: int, sampling: SamplingOptions, display: DisplayOptions, search: SearchOptions) -> None:
    from minigpt.generation.search import check_beams
    from minigpt.generation.text import check_num_samples

    check_num_samples(num_samples)
    if display.top_logprobs < 0:
        raise ConfigError("--top-logprobs is negative", got=display.top_logprobs, remedy="Give a number such as 5.")
    if search.best_of is not None:
        check_num_samples(search.best_of, "best-of")
    if search.num_beams is not None:
        check_beams(search.num_beams, search.length_penalty, sampling)
    elif search.length_penalty != SearchOptions().length_penalty:
        raise ConfigError("--length-penalty only works with --num-beams", remedy="Add --num-beams, or remove it.")
    if search.n_texts is not None and num_samples > search.n_texts:
        remedy = f"Give 1 to {search.n_texts}, the number of texts that are generated."
        raise ConfigError("--num-samples is larger than the number of texts", got=num_samples, remedy=remedy)


def _say_cost(
    run: Path, model: GPT, tokenizer: Tokenizer, choice: DtypeChoice, made: Sequence[Sample], seconds: float
) -> None:
    """Prints the speed, and what rounded weights cost in loss: on validation text, or on the generated text."""
    from minigpt.generation.inference_weights import loss_change
    from minigpt.generation.text import prompt_ids
    from minigpt.runs.folder import RunFolder

    count = sum(len(sample.tokens) for sample in made)
    say(f"{pluralize(count, 'token')} in {seconds:.2f} s: {count / seconds:,.0f} tokens/s")
    if choice.dtype == "float32":
        return
    try:
        val, source = RunFolder.open(run).open_data().val, "the validation split"
        ids = val.read(0, min(LOSS_TOKENS, val.n_tokens)).tolist()
    except MiniGPTError:  # the data set may have moved
        source, ids = "this text", [*prompt_ids(tokenizer, made[0].prompt), *made[0].tokens] if made else []
    if len(ids) > 1:
        loss, change = loss_change(model, choice.model, ids)
        tokens = pluralize(len(ids), "token")
        say(f"loss on {tokens} of {source}: {loss:.4f} in float32, {change:+.4f} in {choice.dtype}")
