"""Runs upstream's own tests of Kubernetes on a cluster of minicluster's."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from minicluster.engine.discover import connect
from minicluster.errors import MiniclusterError
from tests.conformance import images, report, suite

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".conformance"
AGENTS = 2
REGISTRY = "minicluster-registry:5000"  #: the local registry, as nodes reach it


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./run-tests --conformance",
        description="Runs upstream's own tests of Kubernetes: compiles them and the programs of their images, creates "
        "a cluster, runs what may run in parallel, then the [Serial] tests, then what failed once more, alone. Run "
        "again after an interruption, it goes on where it stopped. Results are in .conformance; a run of all "
        "conformance tests is written into docs/conformance.md.",
    )
    parser.add_argument("--version", default="", help="of Kubernetes, all of it or its beginning (default: the newest)")
    parser.add_argument("--masters", type=int, choices=(1, 3), default=1)
    parser.add_argument("--focus", default="", metavar="RE", help="tests whose names it finds (default: conformance)")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 2, help="tests at a time (default: one a core)"
    )
    parser.add_argument("--failed", action="store_true", help="run what failed once more, and keep the other results")
    parser.add_argument(
        "--record", action="store_true", help="write a run with --focus into docs/conformance.md as well"
    )
    parser.add_argument("--name", default="", help="of the cluster (default: conformance-MASTERS)")
    parser.add_argument("--no-registry", action="store_true", help="use no local registry: pods that pull always fail")
    parser.add_argument("--keep", action="store_true", help="leave the cluster in place")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the tests and removes the cluster, as Ctrl-C does
    try:
        return run(asked)
    except MiniclusterError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted: run the same command again to go on.", file=sys.stderr)
        return 130


def run(asked: argparse.Namespace) -> int:
    engine = connect(start_private=True)
    os.environ["DOCKER_HOST"] = engine.endpoint
    programs = images.programs(engine, asked.version, FOLDER / "bin", say)
    wanted = suite.chosen(programs, asked.focus)
    what = hashlib.sha256(asked.focus.encode()).hexdigest()[:8] if asked.focus else "conformance"
    folder = FOLDER / f"{programs.version}-{asked.masters}-{what}"
    its = suite.Run(programs, folder, folder / "kubeconfig", AGENTS)
    folder.mkdir(parents=True, exist_ok=True)
    had = its.results()
    if not asked.failed and suite.complete(had, wanted):
        its.results_file.unlink(missing_ok=True)  # that run is complete: this is another one
    made, lacking = images.make(programs, suite.images(programs), say)
    say(f"no image stands in for {', '.join(lacking)}")
    with cluster(asked, programs, made, folder):
        suite.phases(its, wanted, asked.processes, say, again=lambda result: asked.failed and result.failed)
    found = its.results()
    results = [found[name] for name in wanted]
    (folder / "junit.xml").write_text(report.junit(results, f"Kubernetes {programs.version}"))
    print(report.text(results))
    print(f"JUnit XML: {folder / 'junit.xml'}; output: {folder / 'e2e.log'}")
    if asked.record or not asked.focus:
        key = f"{programs.version}, {asked.masters}, {asked.focus or 'conformance'}"
        text = report.section(
            results, programs.version, asked.masters, AGENTS, asked.focus, asked.processes, engine.info
        )
        report.write(report.PAGE, key, text)
        print(f"Written: {report.PAGE.relative_to(ROOT)}")
    return 1 if any(result.failed for result in results) else 0


def registry(made: Sequence[str], folder: Path) -> list[str]:
    """Puts images into the local registry; returns options by which it is a mirror of the images' own."""
    images.output("minicluster", "registry", "start", "--quiet")
    host = json.loads(images.output("minicluster", "registry", "status", "--json"))["host"]
    images.push(made, host, say)
    authority = folder / "registry-ca.pem"
    images.output("docker", "cp", "minicluster-registry:/etc/minicluster/tls/ca.pem", str(authority))
    options = ["--registry", f"{REGISTRY},ca={authority},credentials=no"]
    for host in sorted({ref.partition("/")[0] for ref in made}):
        options += ["--registry", f"{host},mirror=https://{REGISTRY},credentials=no"]
    return options


@contextmanager
def cluster(asked: argparse.Namespace, programs: images.Programs, made: Sequence[str], folder: Path) -> Iterator[None]:
    """A cluster with images in its nodes, and in the local registry for pods that pull always."""
    name = asked.name or f"conformance-{asked.masters}"
    options = ["--name", name, "--set", f"version={programs.version}"]
    if not asked.no_registry:
        options += registry(made, folder)
    size = ["--size", f"master={asked.masters}", "--size", f"kv={asked.masters}", "--size", f"agent={AGENTS}"]
    try:
        say(f"cluster {name}")
        subprocess.run(["minicluster", "up", "kubernetes", *options, *size, "--no-kubeconfig"], check=True)
        say(f"{len(made)} images into its nodes")
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            archive = f"{temporary}/images.tar"  # one for all: in it the layers that images share are there once
            images.output("docker", "save", "--output", archive, *made)
            images.output("minicluster", "load", "--cluster", name, "--quiet", archive)
        kubeconfig = images.output("minicluster", "kubeconfig", "--cluster", name)
        (folder / "kubeconfig").write_text(kubeconfig)
        yield
    except subprocess.CalledProcessError as error:
        raise MiniclusterError(f"minicluster up ended with status {error.returncode}") from None
    finally:
        if not asked.keep:
            say(f"removing cluster {name}")
            subprocess.run(["minicluster", "down", name], check=False)


if __name__ == "__main__":
    assert shutil.which("docker"), "the docker client is needed"
    sys.exit(main())
