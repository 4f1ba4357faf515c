#!/usr/bin/env python3
"""life.py [PYTEST-OPTION...]: seconds until a Kubernetes cluster works again after each failure, as a table.

Runs the tests of failures and recovery, which print them (docs/kubernetes-life.md has their figures).
"""

from __future__ import annotations

import re
import subprocess
import sys

from measure import ROOT

FILES = [f"tests/engine/kubernetes/test_{name}.py" for name in ("life", "masters", "balancer")]


def main() -> None:
    pytest = [sys.executable, "-m", "pytest", "-m", "", "-rP", "-p", "no:xdist", "-p", "no:cacheprovider", *FILES]
    done = subprocess.run(
        [*pytest, *sys.argv[1:]], cwd=ROOT, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )
    print("| what | seconds |\n| --- | --- |")
    for what, seconds in re.findall(r"^(\S.*): ([0-9.]+) s$", done.stdout, re.M):
        print(f"| {what} | {seconds} |")
    print(done.stdout.splitlines()[-1] if done.stdout else "", file=sys.stderr)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
