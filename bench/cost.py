"""What minicluster itself costs: time, memory, disk."""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
from pathlib import Path

from measure import NAME, ROOT, Report, median, minicluster, run, spread


def cli(report: Report, rounds: int) -> None:
    """What the command line costs without doing anything."""

    def cpu(*argv: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        minicluster(*argv)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    helps = [cpu("--help") for _ in range(rounds + 1)][1:]
    report.add("minicluster --help, CPU", median(helps), 0.25, "s", spread(helps))
    lists = [minicluster("ls")[0] for _ in range(rounds + 1)][1:]
    report.add("minicluster ls", median(lists), 0.4, "s", spread(lists))


def size(report: Report) -> None:
    """What minicluster itself takes: memory while it creates a cluster, and disk with all that it depends on."""
    code = (
        "import resource, sys\nfrom minicluster.cluster import Cluster\n"
        f"Cluster.up('swarm', name={NAME!r}).down()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    _, text = run(sys.executable, "-c", code)
    report.add("memory at its peak, up and down", int(text.split()[-1]) / 1024, 150, "MB")
    folder = tempfile.mkdtemp(prefix="mc-")
    try:
        run(sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, str(ROOT))
        total = sum(f.lstat().st_size for f in Path(folder).rglob("*") if f.is_file())
        report.add("installed, with every dependency", total / 1e6, 150, "MB")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
