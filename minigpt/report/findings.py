"""What the doctor says of the runs: whether the loss is normal, what is wrong, and what mends it."""

from __future__ import annotations

from collections.abc import Sequence

from minigpt.doctor import Diagnosis, Finding
from minigpt.report.facts import RunFacts
from minigpt.report.html import Html, element, name, with_code


def findings(runs: Sequence[RunFacts]) -> list[Html]:
    """Returns the section; nothing if no run could be looked at."""
    parts: list[Html] = []
    for run in runs:
        if run.diagnosis is None:
            continue
        if len(runs) > 1:
            parts.append(element("h3", name(run.label)))
        parts += _of_run(run, run.diagnosis)
    if any("`minigpt " in finding.fix for run in runs if run.diagnosis for finding in run.diagnosis.findings):
        where = element("a", "How to make it again", href="#commands")
        parts.append(element("p", "What stands for the folders in these commands: ", where, ".", class_="note"))
    return parts


def _of_run(run: RunFacts, diagnosis: Diagnosis) -> list[Html]:
    parts = [element("p", run.shortened(diagnosis.normality.text))]
    if not diagnosis.findings:
        parts.append(element("p", element("b", "Healthy: "), f"{diagnosis.made} checks found nothing to mend."))
    parts += [_finding(run, finding) for finding in diagnosis.findings]
    parts += [
        element("p", run.shortened(f"{line[0].upper()}{line[1:]}."), class_="note") for line in diagnosis.not_checked()
    ]
    return parts


def _finding(run: RunFacts, finding: Finding) -> Html:
    seen, means, remedy = (
        element("p", with_code(run.shortened(text))) for text in (finding.observation, finding.explanation, finding.fix)
    )
    title = element(
        "p", element("b", f"{finding.severity.capitalize()}: {finding.check}"), finding.since and f", {finding.since}"
    )
    return element("div", title, seen, means, remedy, class_=f"finding {finding.severity}")
