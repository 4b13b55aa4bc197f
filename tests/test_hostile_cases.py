"""The short form of benchmarks/hostile.py and kills.py: hostile cases, kills and accidents, none of which may go wrong.

Both run in one process of their own, which has imported everything and forks for each case.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import hostile, kills
bad = hostile.main(["--cases", "80", "--results", sys.argv[2]])
sections = [word for name in ("kills", "signals", "users", "together", "lost") for word in ("--only", name)]
bad |= kills.main(["--kills", "6", "--signals", "1", "--quick", *sections])
sys.exit(bad)
"""


def test_nothing_goes_wrong_in_hostile_cases_kills_and_accidents(tmp_path):
    results = tmp_path / "results.jsonl"
    command = [sys.executable, "-c", SCRIPT, str(BENCHMARKS), str(results)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert len(results.read_text().splitlines()) == 80
