"""What is wrong with a run, in plain words, and what mends it.

`diagnose(read_evidence(run))` is what `minigpt doctor` does; `LiveDoctor` is told of a run as it goes.
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
