"""`minigpt explore`: a run from the inside, on a page in the browser.

Not here: the page and its server (minigpt.explorer).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def explore_command(
    run: Path,
    other: Path | None = None,
    /,
    *,
    data: Path | None = None,
    browser: Annotated[bool, Parameter(negative="--no-browser")] = True,
    port: int = 0,
) -> None:
    """See inside a model: attention, what each layer predicts, where a logit comes from, what each head is good for.

    Opens a page in the browser that only this machine can reach; Ctrl-C ends it. Nothing is written.

    Examples:

    `minigpt explore runs/first`

    `minigpt explore runs/first runs/second`

    `minigpt explore runs/first --no-browser --port 8000`

    Parameters
    ----------
    run
        Run folder of `minigpt train`.
    other
        Another run on the same data set, to compare with it.
    data
        Data set of the runs, if it has moved.
    browser
        Open the page in the browser.
    port
        Port on 127.0.0.1; 0 uses any free one.
    """
    import webbrowser

    from minigpt.cli.console import Console
    from minigpt.explorer.explored_run import ExploredRun
    from minigpt.explorer.serve import serve
    from minigpt.explorer.session import Session

    session = Session([ExploredRun(path, data) for path in (run, other) if path is not None])

    def on_start(address: str) -> None:
        Console().print(f"{address}\nOpen it in a browser on this machine. Ctrl-C ends the server.")
        if browser:
            webbrowser.open(address)

    serve(session, port, on_start)
