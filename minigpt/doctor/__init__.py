"""What is wrong with a run, and the command that fixes it.

`diagnose(read_evidence(run))` is what `minigpt doctor` does; `LiveDoctor` checks a run as it goes.
"""

from minigpt.doctor.diagnose import CHECKS, Diagnosis, diagnose
from minigpt.doctor.evidence import Evidence, evidence_of, new_evidence, read_evidence
from minigpt.doctor.finding import Finding
from minigpt.doctor.live import LiveDoctor

__all__ = [
    "CHECKS",
    "Diagnosis",
    "Evidence",
    "Finding",
    "LiveDoctor",
    "diagnose",
    "evidence_of",
    "new_evidence",
    "read_evidence",
]
