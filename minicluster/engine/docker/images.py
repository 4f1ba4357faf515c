"""Images: listing, pulling, building, importing, loading, saving. See :class:`minicluster.engine.protocol.Engine`."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from minicluster.engine.docker import answers
from minicluster.engine.docker.client_side import all_credentials, build_context, credentials
from minicluster.engine.docker.errors import translated
from minicluster.engine.http import Api, APIError, ConnectionLost
from minicluster.errors import DISK_FULL, FREE_SPACE, ImageError, Interrupted, MiniclusterError
from minicluster.model.labels import PROFILE
from minicluster.model.naming import printable

if TYPE_CHECKING:
    from minicluster.engine.protocol import Cancel, Image, ImageBuild, Progress


def listing(api: Api) -> list[Image]:
    with translated("list images"):
        return [answers.image(found) for found in api.request("GET", "/images/json")]


def one(api: Api, ref: str) -> Image | None:
    found = inspected(api, ref)
    return answers.inspected_image(found) if found else None


def inspected(api: Api, ref: str) -> Mapping[str, Any] | None:
    with translated(f"inspect image {ref}"):
        try:
            return cast(Mapping[str, Any], api.request("GET", f"/images/{ref}/json"))
        except APIError as error:
            if error.status == 404:
                return None
            raise


def pull(api: Api, ref: str, progress: Progress, timeout: float | None, cancel: Cancel) -> None:
    repository, _, tag = ref.rpartition(":")
    if not repository or "/" in tag:
        repository, tag = ref, "latest"
    if "@" in ref:
        repository, tag = ref, ""
    reasons: list[str] = []
    unexpected: list[Exception] = []
    answered = threading.Event()

    def run() -> None:
        try:
            params = {"fromImage": repository, **({"tag": tag} if tag else {})}
            headers = credentials(repository)
            with (
                translated(f"pull image {ref}"),
                api.open("POST", "/images/create", params=params, headers=headers, timeout=None) as response,
            ):
                for message in response.messages():
                    answered.set()
                    if "error" in message:
                        reasons.append(str(message["error"]))
                    else:
                        progress(" ".join(str(message[k]) for k in ("id", "status", "progress") if message.get(k)))
        except (MiniclusterError, OSError) as error:
            reasons.append(str(getattr(error, "why", "") or error))
        except Exception as error:  # not a failed pull but an error of this program, also in ``progress``
            unexpected.append(error)
        answered.set()

    # In a thread, since an engine that cannot reach its registry is silent for up to a minute.
    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    deadline = time.monotonic() + timeout if timeout is not None else None
    while worker.is_alive():
        worker.join(0.1)
        if cancel.is_set():
            raise Interrupted(f"stopped: pulling image {ref}")
        if deadline is not None and not answered.is_set() and time.monotonic() >= deadline:
            raise ImageError(f"cannot pull image {ref}", f"No registry answered within {timeout:g} s.")
    if unexpected:
        raise unexpected[0]
    if reasons or not inspected(api, ref):
        raise _failed(f"cannot pull image {ref}", "\n".join(reasons) or "The registry has no image for this platform.")


def build(api: Api, build: ImageBuild, progress: Progress, cancel: Cancel) -> None:
    output: list[str] = []
    with translated(f"build image {build.ref}"):
        params = {"t": build.ref, "rm": 1, "forcerm": 1, "labels": dict(build.labels), "buildargs": dict(build.args)}
        params["dockerfile"] = build.dockerfile
        with build_context(build.directory) as archive:
            body = iter(lambda: archive.read(1 << 16), b"")
            headers = {"Content-Type": "application/x-tar"}
            headers |= all_credentials() if build.directory.is_file() else {}  # our own builds pull nothing
            response = api.open("POST", "/build", params=params, headers=headers, body=body, timeout=None)
        try:
            # The engine ends a build whose client disconnects.
            with response, cancel.calls(response.abort):
                for message in response.messages():
                    _read_message(message, build.ref, build.directory, output, progress, build.labels.get(PROFILE, ""))
        except ConnectionLost:
            if not cancel.is_set():
                raise
    if cancel.is_set():
        raise Interrupted(f"stopped: building image {build.ref}")
    if not inspected(api, build.ref):
        raise ImageError(f"image {build.ref} was not built", "\n".join(output[-15:]))


def _read_message(
    message: Mapping[str, Any], ref: str, directory: Path, output: list[str], progress: Progress, profile: str
) -> None:
    """Adds one message of a build to its output. Raises where it says that the build failed."""
    if "error" in message:
        # A build that cannot use what it was given says so in a line that begins with its profile's name.
        prefix = f"{profile}: "
        said = [line.removeprefix(prefix) for line in output[-5:] if profile and line.startswith(prefix)]
        if said:
            raise ImageError(
                f"image {ref} cannot be built",
                "\n".join(said),
                "Pass other files with --set, or use a ready image with --image NAME=REF.",
            )
        if any(DISK_FULL in line.lower() for line in (*output[-15:], str(message["error"]))):
            why = "\n".join([*output[-3:], str(message["error"]).strip()])
            raise ImageError(f"the build of image {ref} failed: the disk is full", why, FREE_SPACE)
        raise ImageError(
            f"the build of image {ref} failed",
            "\n".join([*output[-15:], str(message["error"]).strip()]),
            f"Correct the build in {directory}, or use a ready image with --image NAME=REF.",
        )
    for line in map(printable, str(message.get("stream", "")).splitlines()):  # the engine colours standard error
        if line.strip():
            output.append(line.rstrip())
            progress(line.strip())


def import_tar(api: Api, archive: Iterable[bytes], ref: str, labels: Mapping[str, str]) -> None:
    repository, _, tag = ref.rpartition(":")
    # A change is a line of a Dockerfile, in which $ begins a variable.
    texts = {name: json.dumps(value, ensure_ascii=False).replace("$", r"\$") for name, value in labels.items()}
    changes = [f"LABEL {name}={text}" for name, text in texts.items()]
    params = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": changes}
    with (
        translated(f"import image {ref}"),
        api.open("POST", "/images/create", params=params, body=archive, timeout=None) as response,
    ):
        for message in response.messages():
            if "error" in message:
                raise _failed(f"cannot import image {ref}", str(message["error"]))


def _failed(what: str, why: str) -> ImageError:
    return (
        ImageError(f"{what}: the disk is full", why, FREE_SPACE) if DISK_FULL in why.lower() else ImageError(what, why)
    )


def load(api: Api, archive: Iterable[bytes]) -> list[str]:
    loaded: list[str] = []
    failure = ""
    with translated("load images"):
        headers = {"Content-Type": "application/x-tar"}
        try:
            with api.open(
                "POST", "/images/load", params={"quiet": 1}, headers=headers, body=archive, timeout=None
            ) as response:
                for message in response.messages():
                    failure = failure or str(message.get("error", ""))
                    line = str(message.get("stream", ""))
                    loaded += re.findall(r"^Loaded image(?: ID)?: (\S+)$", line, re.MULTILINE)
        except APIError as error:
            failure = error.message
    if failure or not loaded:
        raise _failed("the engine cannot load it", failure or "The engine found no image in it.")
    return loaded


def save(api: Api, ref: str) -> Iterator[bytes]:
    with translated(f"save image {ref}"), api.open("GET", f"/images/{ref}/get", timeout=None) as response:
        yield from response.chunks()


def remove(api: Api, ref: str) -> None:
    with translated(f"remove image {ref}"):
        api.request("DELETE", f"/images/{ref}")
