"""Jobs: containers that work for minicluster, the volumes that they use, and the images that are made of results."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from minicluster.engine.protocol import File, Job
from minicluster.errors import Conflict, NotFound
from minicluster.executor import helper
from minicluster.model import labels
from tests.contract.conftest import World, wait

SCRIPT = Path(__file__).parents[2] / "profiles" / "_parts" / "_build" / "job"
ENDED = b"minicluster-job: ended with 3"


def job(world: World, *command: str, image: str = "", **volumes: str) -> Job:
    """A job that runs a command as the sources of parts do."""
    script = File("/build/job", SCRIPT.read_bytes(), 0o755)
    files = (script, File("/given/file", b"given"))
    places = {f"/{place}": name for place, name in volumes.items()}
    return Job(
        world.name("job"),
        image or world.image,
        ("/build/job", *command),
        {"WORD": "word"},
        places,
        files,
        world.labels(),
    )


def test_a_job_gets_files_variables_and_volumes_and_its_result_is_read(world: World) -> None:
    engine, volume = world.engine, world.name("v")
    engine.create_volume(volume, world.labels())
    does = 'mkdir /out; cat /given/file >/out/made; echo "$WORD" >/kept/it; echo "$WORD"; exit 3'
    if world.fake:
        world.fake.works = lambda job: (3, [job.env["WORD"]], {"made": job.files[1].content})
    made = job(world, "sh", "-c", does, kept=volume)
    engine.create_job(made)
    with pytest.raises(Conflict):
        engine.create_job(made)
    engine.start_container(made.name)
    lines = []
    for line in engine.logs(made.name, follow=True):
        lines.append(line.strip())
        if lines[-1] == ENDED:
            break
    assert [line for line in lines if line] == [b"word", ENDED]
    archive = b"".join(engine.read_archive(made.name, "/out"))
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = tar.extractfile("out/made")
        assert found
        assert found.read() == b"given"
    with pytest.raises(Conflict):
        engine.remove_volume(volume)  # it is in use
    engine.remove_container(made.name)
    assert engine.container(made.name) is None


def test_a_job_that_is_killed_is_gone(world: World) -> None:
    made = job(world, "sleep", "1000")
    if world.fake:
        world.fake.works = lambda _job: (0, [], {})
    world.engine.create_job(made)
    world.engine.start_container(made.name)
    world.engine.kill_container(made.name)
    wait(lambda: world.engine.container(made.name) is None)


def test_a_job_waits_for_word_and_is_ended(world: World) -> None:
    made = replace(
        job(world, "sh", "-c", "trap 'exit 0' USR2; read -r word; echo $word; sleep 1000 & wait"), stdin=True
    )
    if world.fake:
        world.fake.helper_says = "go"
        made = replace(made, on_containers=True, env={helper.WAITS: "1"})
    world.engine.create_job(made)
    said = world.engine.attach(made.name)
    world.engine.start_container(made.name)
    said.write(helper.WORD)
    assert next(line for line in said.lines() if line.strip() == b"go")
    said.close()
    world.engine.end_job(made.name, "USR2")
    wait(lambda: world.engine.container(made.name) is None)
    world.engine.end_job(made.name)  # no error where there is none


def test_a_job_that_never_ran_is_removed_when_it_is_ended(world: World) -> None:
    made = job(world, "true")
    world.engine.create_job(made)
    world.engine.end_job(made.name)
    assert world.engine.container(made.name) is None
    with pytest.raises(NotFound):
        world.engine.attach(made.name)


def test_a_job_that_is_never_started_shows_the_files_of_its_image(world: World) -> None:
    """That is how clients and programs are copied out of an image."""
    ref = imported(world, {})
    made = Job(world.name("job"), ref, ("/",), {}, {}, (), world.labels())
    world.engine.create_job(made)
    assert world.engine.get_file(made.name, "/a/program") == b"content"
    stat = world.engine.stat_path(made.name, "/a/program")
    assert stat
    assert stat.kind == "file"
    assert world.engine.stat_path(made.name, "/a/nothing") is None
    world.engine.remove_container(made.name)


def test_a_job_of_an_image_that_is_not_there(world: World) -> None:
    with pytest.raises(NotFound):
        world.engine.create_job(job(world, "true", image=f"{world.name('none')}:1"))
    assert world.engine.container(world.name("job")) is None


# Images and volumes of jobs


def imported(world: World, about: dict[str, str]) -> str:
    """A new image of one file, with labels."""
    ref = f"{world.name('labelled')}:1"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("a/program")
        entry.size, entry.mode = 7, 0o755
        tar.addfile(entry, io.BytesIO(b"content"))
    world.refs.append(ref)
    world.engine.import_image(iter([buffer.getvalue()]), ref, about)
    return ref


@pytest.mark.parametrize(
    "value",
    [
        "go",
        "etcd v3.6.16",
        "",
        '"quoted" and \\ and $HOME ${PATH}',
        "https://example.org/a?b=c&d=%20",
        "größer",
    ],
)
def test_an_imported_image_has_its_labels(world: World, value: str) -> None:
    about = {labels.BUILD: "part/x", labels.SOURCE: value}
    ref = imported(world, about)
    image = next(image for image in world.engine.images() if ref in image.tags)
    assert about.items() <= image.labels.items()


def test_what_a_volume_takes(world: World) -> None:
    engine, volume = world.engine, world.name("v")
    assert engine.volume_size(volume) is None
    engine.create_volume(volume, world.labels())
    made = job(world, "sh", "-c", "head -c 1048576 /dev/zero >/kept/it", kept=volume)
    engine.create_job(made)
    engine.start_container(made.name)
    wait(lambda: any(b"ended" in line for line in engine.logs(made.name)))
    engine.remove_container(made.name)
    size = engine.volume_size(volume)
    assert size is not None
    assert 1 << 20 <= size < 1 << 21
    engine.remove_volume(volume)
    assert engine.volume_size(volume) is None
