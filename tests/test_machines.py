"""The tests that touch kernels, as other processors would run them: libraries are told to leave newer instructions be.

`make test-machines` runs them all in each form, with one thread and with two: 20 minutes on two cores. Here two forms
run a few of them. Where a processor lacks what is to be left be, or a library knows no such variable, forms are alike.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

FORMS: dict[str, dict[str, str]] = {
    "all that the processor has": {},
    "no AMX, no bfloat16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "no AVX-512": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "torch's plainest code": {"ATEN_CPU_CAPABILITY": "default"},
}
THREADS = (1, 2)
TOUCH_KERNELS = ("tests/model", "tests/generation", "tests/training")


def run_tests(variables: Mapping[str, str], threads: int, *arguments: str, capture: bool) -> tuple[int, str]:
    """Runs tests in a process with these variables; returns its exit code and, if it is captured, its output."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--threads={threads}", *arguments]
    result = subprocess.run(
        command,
        cwd=Path(__file__).parents[1],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.STDOUT if capture else None,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout or ""


@pytest.mark.parametrize("forms", [["no AMX, no bfloat16"], ["no AVX-512", "torch's plainest code"]], ids=" and ".join)
def test_bits_that_must_be_the_same_are_the_same_on_other_processors(forms):
    variables = {name: value for form in forms for name, value in FORMS[form].items()}
    files = ("tests/generation/test_row_invariant.py", "tests/generation/test_inference_weights.py")
    code, output = run_tests(variables, 2, *files, "-k", "batch_invariant and (odd or 50-18)", capture=True)
    assert code == 0, output


def main() -> int:
    """Runs all of them in all forms; returns 1 if any failed."""
    failed = []
    for name, variables in FORMS.items():
        for threads in THREADS:
            print(f"\n--- {name}, threads: {threads}", flush=True)
            if run_tests(variables, threads, *TOUCH_KERNELS, capture=False)[0]:
                failed.append(f"{name}, threads: {threads}")
    print("\n" + ("\n".join(["failed:", *failed]) if failed else "all passed"))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
