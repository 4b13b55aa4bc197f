"""`minigpt generate`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

from cyclopts import Group, Parameter

from minigpt.cli.console import say
from minigpt.cli.generate_options import SearchOptions, ShownOptions, TextOptions
from minigpt.errors import ConfigError, DataError, MiniGPTError
from minigpt.files import MOST_JSON, parse_json, read_stream, utf8, why
from minigpt.sniff import FORMATS, HEAD_BYTES, RECORDS, advice, sniff
from minigpt.text_utils import pluralize

if TYPE_CHECKING:
    from minigpt.generation import Sample, TextPiece
    from minigpt.generation.inference_weights import DtypeChoice
    from minigpt.generation.text import SamplingParams
    from minigpt.model import GPT
    from minigpt.tokenizers import Tokenizer

LOSS_TOKENS = 4096
"""So many tokens of the validation split tell what rounded weights cost."""

ROWS = 32
"""So many texts are made side by side at the most: what is quickest for them is chosen."""

MUTUALLY_EXCLUSIVE = (
    ("--prompt", "--prompts"),
    ("--interactive", "--prompt"),
    ("--interactive", "--prompts"),
    ("--interactive", "--samples"),
    ("--interactive", "--best-of"),
    ("--interactive", "--beams"),
    ("--interactive", "--json"),
    ("--beams", "--best-of"),
    ("--beams", "--explain"),
    ("--show-probabilities", "--explain"),
    ("--show-probabilities", "--json"),
)
"""Options that do not go together."""


def _group(title: str, place: int) -> Parameter:
    return Parameter(name="*", group=Group(title, sort_key=place))


def generate_command(
    run: Path,
    /,
    *,
    prompt: Annotated[list[str] | None, Parameter(negative="")] = None,
    prompts: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    interactive: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    samples: int = 1,
    weights: Literal["auto", "float32", "bfloat16", "int8"] = "auto",
    checkpoint: str = "best",
    device: str = "auto",
    options: Annotated[TextOptions, _group("How the text is chosen", 1)] = TextOptions(),  # noqa: B008 (frozen)
    shown: Annotated[ShownOptions, _group("What is shown", 2)] = ShownOptions(),  # noqa: B008
    search: Annotated[SearchOptions, _group("Looking for a likely text", 3)] = SearchOptions(),  # noqa: B008
) -> None:
    """Continue a prompt in a trained model's words.

    The text streams as it is chosen, token by token, until the model ends the document or max-new-tokens are there.
    Several texts are made side by side, and shown one after the other.

    Examples:

    `minigpt generate runs/books --prompt "It was" --max-new-tokens 200`

    `minigpt generate runs/books --prompt "It was" --temperature 0`

    `minigpt generate runs/books --prompt "It was" --samples 5 --stop "."`

    `minigpt generate runs/books --prompts questions.txt --json`

    `minigpt generate runs/books --interactive`

    Parameters
    ----------
    run
        Run folder of `minigpt train`.
    prompt
        The text to continue; without one, a new document begins. May be repeated. One that begins with a dash:
        --prompt="- like this".
    prompts
        File of prompts, one a line; of a .jsonl file, the field "prompt" of each line. - reads standard input.
    interactive
        Ask for one prompt after another; settings can be changed in between: type /help there.
    samples
        How many texts for each prompt; their seeds are seed, seed + 1, ...
    weights
        Form of the weights: float32 is exact, bfloat16 and int8 are rounded and quicker. auto measures whether that
        pays, and takes float32 for a text that must come again: with --seed, --temperature 0, --beams, --interactive.
    checkpoint
        best (lowest validation loss), latest, or a step number.
    device
        auto, cpu, cuda, mps.
    """
    given = {"--prompt": prompt, "--prompts": prompts, "--interactive": interactive, "--samples": samples != 1}
    given |= {"--show-probabilities": shown.show_probabilities, "--explain": shown.explain, "--json": shown.as_json}
    given |= {"--best-of": search.best_of is not None, "--beams": search.beams is not None}
    _check_together({name for name, value in given.items() if value not in (None, False)})
    _check_counts(samples, search)
    texts = read_prompts(prompts) if prompts is not None else prompt or [""]

    from minigpt.cli.generate_views import make_view, show
    from minigpt.generation.inference_weights import choose_dtype
    from minigpt.generation.notes import notes_of_all, stop_notes
    from minigpt.generation.search import DRAWN
    from minigpt.generation.text import SamplingRequest
    from minigpt.runs.folder import load
    from minigpt.runtime import detect_runtime
    from minigpt.tokenizers.base import utf8

    texts = [utf8(text).decode() for text in texts]  # what was no character on the command line is U+FFFD
    machine = detect_runtime(device, "float32")
    model, tokenizer = load(run, checkpoint, machine.device)
    request = SamplingRequest.read(model, tokenizer, options.settings(tokenizer))  # mistakes are found before all work
    context, notes = model.config.block_size, stop_notes(tokenizer, request)
    for note in [*([] if interactive else notes_of_all(tokenizer, texts, context)), *notes.values()]:
        say(f"note: {note}")
    again = interactive or options.seed is not None or options.temperature == 0 or search.beams is not None
    kind = "float32" if weights == "auto" and again else weights
    choice = choose_dtype(model, kind, rows=min(ROWS, len(texts) * (search.texts or samples)))
    if shown.verbose:
        reason = choice.reason if kind == weights else "the text is to come again"
        say(f"device {machine.device} ({machine.device_reason}), weights {choice.kind} ({reason})")
    if interactive:
        from minigpt.cli.interactive import Conversation

        Conversation(choice.model, tokenizer, options, shown).run()
        return
    settings = {**asdict(options), **({} if search.texts is None else asdict(search)), "weights": choice.kind}
    if search.beams is not None:
        settings = {name: value for name, value in settings.items() if name not in DRAWN}
    view = make_view(tokenizer, shown, settings, many=len(texts) * samples > 1, context=context, notes=notes)
    made, begun = [], time.perf_counter()
    for group, pieces in _groups(choice.model, tokenizer, texts, samples, options, search, shown):
        show(view, group, pieces)
        made += group
    if shown.verbose:
        _say_cost(run, model, tokenizer, choice, made, time.perf_counter() - begun)


def _groups(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    samples: int,
    options: TextOptions,
    search: SearchOptions,
    shown: ShownOptions,
) -> Iterator[tuple[list[Sample], Iterator[TextPiece]]]:
    """Yields texts to show together, with the pieces that are still to come for them."""
    from minigpt.generation import Sample, stream_pieces
    from minigpt.generation.search import DRAWN, beam_search, best_of
    from minigpt.generation.text import SamplingRequest

    settings = options.settings(tokenizer)
    if search.texts is None:
        request = SamplingRequest.read(model, tokenizer, settings)
        settings["seed"] = request.seed
        likely, explain = shown.likelihoods, shown.explain
        pieces = stream_pieces(model, tokenizer, prompts, n=samples, logprobs=likely, explain=explain, **settings)
        yield [Sample(prompt, seed) for prompt in prompts for seed in request.seeds(samples)], pieces
    elif search.beams is None:
        for prompt in prompts:
            drawn = best_of(model, tokenizer, prompt, n=search.texts, explain=shown.explain, **settings)
            yield drawn[:samples], iter(())
    else:
        unasked = {name for name in DRAWN if getattr(options, name) == getattr(TextOptions(), name)}
        kept = cast("SamplingParams", {name: value for name, value in settings.items() if name not in unasked})
        for prompt in prompts:
            beams = beam_search(
                model, tokenizer, prompt, beams=search.beams, length_penalty=search.length_penalty, **kept
            )
            yield list(beams[:samples]), iter(())


def read_prompts(file: Path) -> list[str]:
    """Returns the prompts in a file: its lines, or the field `prompt` of each when its name ends in .jsonl.

    Blank lines at the end are none; of a .jsonl file none are.

    Raises:
        DataError: if it cannot be read, or a line is no such object.
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
        remedy = advice(found, "" if piped else str(file)) or "Give a file of UTF-8 text, a prompt in each line."
        raise DataError("The prompts cannot be read", got=f"{file}: {why(error)}", remedy=remedy) from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise DataError(
            "There are no prompts",
            got="nothing in standard input" if piped else f"{file} is empty",
            remedy="Write a prompt in each line.",
        )
    if file.suffix != ".jsonl":
        return lines
    return [_prompt_field(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _prompt_field(number: int, line: str) -> str:
    try:
        prompt = parse_json(line)["prompt"]
    except (ValueError, LookupError):
        prompt = None
    if not isinstance(prompt, str):
        raise DataError(
            f"Line {number} of the prompts is no JSON object with a text as its prompt",
            got=line[:80],
            remedy='Write {"prompt": "..."} in each line.',
        )
    return prompt


def _check_together(given: set[str]) -> None:
    for pair in MUTUALLY_EXCLUSIVE:
        if given.issuperset(pair):
            raise ConfigError(f"{pair[0]} and {pair[1]} do not go together", remedy="Leave one of them out.")


def _check_counts(samples: int, search: SearchOptions) -> None:
    from minigpt.generation.search import check_beams
    from minigpt.generation.text import check_samples

    check_samples(samples)
    if search.best_of is not None:
        check_samples(search.best_of, "texts")
    if search.beams is not None:
        check_beams(search.beams, search.length_penalty)
    elif search.length_penalty != SearchOptions().length_penalty:
        raise ConfigError("--length-penalty is for --beams only", remedy="Add --beams, or leave it out.")
    if search.texts is not None and samples > search.texts:
        remedy = f"Give 1 to {search.texts}, as many as are made."
        raise ConfigError("More samples are to be shown than are made", got=samples, remedy=remedy)


def _say_cost(
    run: Path, model: GPT, tokenizer: Tokenizer, choice: DtypeChoice, made: Sequence[Sample], seconds: float
) -> None:
    """Says how fast it was, and what rounded weights cost in loss: on validation text, or else on the text made."""
    from minigpt.generation.inference_weights import loss_change
    from minigpt.generation.text import prompt_ids
    from minigpt.runs.folder import RunFolder

    count = sum(len(sample.tokens) for sample in made)
    say(f"{pluralize(count, 'token')} in {seconds:.2f} s: {count / seconds:,.0f} tokens/s")
    if choice.kind == "float32":
        return
    try:
        shard, source = RunFolder.open(run).open_data().val, "the validation split"
        ids = shard.read(0, min(LOSS_TOKENS, shard.n_tokens)).tolist()
    except MiniGPTError:  # the data set may be elsewhere
        source, ids = "this text", [*prompt_ids(tokenizer, made[0].prompt), *made[0].tokens] if made else []
    if len(ids) > 1:
        loss, change = loss_change(model, choice.model, ids)
        say(
            f"loss on {pluralize(len(ids), 'token')} of {source}: {loss:.4f} in float32, {change:+.4f} in {choice.kind}"
        )
