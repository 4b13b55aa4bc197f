"""What is wrong with a run, in plain words, and what mends it.

`examine(read_evidence(run))` is what `minigpt doctor` does; `LiveDoctor` is told of a run as it goes.
"""

from minigpt.doctor.evidence import Evidence, new_evidence, read_evidence
from minigpt.doctor.examine import CHECKS, Diagnosis, examine
from minigpt.doctor.finding import Finding
from minigpt.doctor.live import LiveDoctor

__all__ = ["CHECKS", "Diagnosis", "Evidence", "Finding", "LiveDoctor", "examine", "new_evidence", "read_evidence"]
