"""What one profile takes of another: builds and files, by PROFILE:PATH."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from minicluster import paths
from minicluster.errors import ProfileError
from minicluster.model.spec import Overrides, Spec
from minicluster.profile import catalog, folders
from minicluster.profile.image_tag import build_hash, build_ref
from minicluster.profile.load import load
from minicluster.profile.resolve import resolve
from tests.unit.samples import LEAST

Write = Callable[..., Path]
SHARING = (
    LEAST.replace("{image: example/node}", '{build: "zookeeper:image"}')
    + '    files: {/etc/zk-ask: {source: "zookeeper:files/bin/zk-ask"}}\n'
)
ROOT = Path(__file__).parents[2]


def spec_of(folder: Path, bundled: bool = False) -> Spec:
    loaded = load(folder, bundled=bundled)
    return resolve(loaded, cluster="c", overrides=Overrides(), subnet="172.28.0.0/24")


def own(name: str, **files: str) -> Path:
    """A profile of the user's own."""
    folder = paths.config_home() / "profiles" / name
    for path, content in {"profile.yaml": LEAST.replace("least", name), **files}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


def test_a_file_of_another_profile_is_that_file(write_profile: Write) -> None:
    (file,) = spec_of(write_profile(SHARING)).nodes[0].files
    assert file.content == (folders.bundled_directory() / "zookeeper/files/bin/zk-ask").read_text()


def test_a_build_of_another_profile_counts_whole(write_profile: Write) -> None:
    folder = folders.bundled_directory() / "zookeeper" / "image"
    image = spec_of(write_profile(SHARING)).images["node"]
    assert Path(image.build) == folder
    assert image.ref == build_ref("least", "node", folder)
    assert image.ref.endswith(build_hash(folder))


def test_a_template_of_another_profile_sees_this_ones_settings(write_profile: Write) -> None:
    own("other", **{"conf.j2": "{{ settings.port }}\n"})
    text = LEAST + "settings: {port: 7}\n"
    text = text.replace("    image: node\n", '    image: node\n    files: {/c: {source: "other:conf.j2"}}\n')
    assert spec_of(write_profile(text)).nodes[0].files[0].content == "7\n"


def test_an_error_in_such_a_template_names_its_file(write_profile: Write) -> None:
    folder = own("other", **{"conf.j2": "a\n{{ settings.prot }}\n"})
    text = LEAST + '    files: {/c: {source: "other:conf.j2"}}\nsettings: {port: 7}\n'
    with pytest.raises(ProfileError) as caught:
        spec_of(write_profile(text))
    assert caught.value.what.startswith(f"{folder.resolve()}/conf.j2:2:1")


@pytest.mark.parametrize("path", ["zookeeper:../etcd/files/bin/etcd-node", "zookeeper:/etc/passwd", "zookeeper:.."])
def test_nothing_outside_of_the_other_profile_is_reached(write_profile: Write, path: str) -> None:
    with pytest.raises(ProfileError) as caught:
        load(write_profile(LEAST + f'    files: {{/x: {{source: "{path}"}}}}\n'))
    assert "is outside of profile zookeeper's folder" in caught.value.what
    assert "profile.yaml:10:26" in caught.value.what


def test_a_profile_that_is_not_there_is_named_with_the_nearest(write_profile: Write) -> None:
    with pytest.raises(ProfileError) as caught:
        load(write_profile(SHARING.replace("zookeeper:image", "zookeepr:image")))
    assert "profile.yaml:5:17: no profile named 'zookeepr'" in caught.value.what
    assert caught.value.fix == "Did you mean 'zookeeper'?"


def test_what_is_not_in_the_other_profile_is_named(write_profile: Write) -> None:
    with pytest.raises(ProfileError, match="no such file: zookeeper:files/none"):
        load(write_profile(SHARING.replace("files/bin/zk-ask", "files/none")))
    with pytest.raises(ProfileError, match="no Dockerfile in 'zookeeper:none'"):
        load(write_profile(SHARING.replace("zookeeper:image", "zookeeper:none")))


def test_a_users_own_profile_may_be_shared_and_goes_before_a_bundled_one(write_profile: Write) -> None:
    folder = own("zookeeper", **{"image/Dockerfile": "FROM own\n", "files/bin/zk-ask": "mine\n"})
    spec = spec_of(write_profile(SHARING))
    assert spec.nodes[0].files[0].content == "mine\n"
    assert Path(spec.images["node"].build) == (folder / "image").resolve()


def test_a_bundled_profile_shares_with_bundled_ones_alone(write_profile: Write) -> None:
    """Whatever the user calls zookeeper: what comes with minicluster stays what it is."""
    own("zookeeper", **{"image/Dockerfile": "FROM own\n", "files/bin/zk-ask": "mine\n"})
    assert spec_of(write_profile(SHARING), bundled=True).nodes[0].files[0].content != "mine\n"
    assert "mine" not in catalog.validate("mesos").profile.summary


def test_a_file_name_with_a_colon_is_no_reference(write_profile: Write) -> None:
    text = LEAST + '    files: {/x: {source: "files/a:b"}}\n'
    assert spec_of(write_profile(text, {"files/a:b": "here\n"})).nodes[0].files[0].content == "here\n"


def test_the_wheel_has_every_profile_and_what_it_shares(tmp_path: Path) -> None:
    """Built and unpacked: the mesos profile is valid there, by files inside of the package alone."""
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        entry_points = next(n for n in archive.namelist() if n.endswith("entry_points.txt"))
        assert "mesos = minicluster.contrib.mesos.cli:app" in archive.read(entry_points).decode()
    code = (
        "from minicluster.profile import catalog; loaded = catalog.validate('mesos');"
        "assert '_profiles' in str(loaded.directory), loaded.directory; print(loaded.profile.name)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "site", capture_output=True, text=True, timeout=60, check=False
    )
    assert said.stdout == "mesos\n", said.stderr


def test_a_common_part_that_is_not_there_is_named_with_the_nearest(write_profile: Write) -> None:
    with pytest.raises(ProfileError) as caught:
        load(write_profile(LEAST + '    files: {/x: {source: "_lob:script.sh"}}\n'))
    assert "profile.yaml:10:26: no folder named '_lob'" in caught.value.what
    assert caught.value.fix == "Did you mean '_lib'?"


def test_common_parts_are_no_profiles_and_count_for_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [name for name in folders.names() if name.startswith("_")]
    before = catalog.fingerprint("etcd")
    hashed = []
    monkeypatch.setattr("minicluster.profile.image_tag.build_hash", lambda folder: (hashed.append(folder), "x")[1])
    assert catalog.fingerprint("etcd") != before
    assert folders.bundled_directory() / "_lib" in hashed


def test_every_profile_may_use_common_parts(write_profile: Write) -> None:
    (file,) = spec_of(write_profile(LEAST + '    files: {/x: {source: "_lib:script.sh"}}\n')).nodes[0].files
    assert file.content == (folders.bundled_directory() / "_lib/script.sh").read_text()


# Parts and programs

BUILT = LEAST.replace("{image: example/node}", "{build: image, parts: [etcd]}") + 'settings: {version: ""}\n'
DOCKERFILE = {"image/Dockerfile": "ARG PART_ETCD\nFROM ${PART_ETCD}\n"}

IN_NODE = BUILT + "programs: {put: {image: node, path: /x, on: worker}}\n"


@pytest.mark.parametrize(
    ("text", "said", "fix"),
    [
        (BUILT.replace("[etcd]", "[etcdd]"), "no part named 'etcdd'", "Did you mean 'etcd'?"),
        (LEAST.replace("example/node}", "example/node, parts: [etcd]}"), "parts are for an image that is built", ""),
        (BUILT + "main_part: runc\n", "no image has a part 'runc'", ""),
        (BUILT + "parts: {runc: {version: '1.5'}}\n", "no image has a part 'runc'", ""),
        (BUILT + "parts: {etcd: {versoin: '3.7'}}\n", "unknown key 'versoin' in parts.etcd. Did you mean", ""),
        (
            BUILT.replace('version: ""', "color: red") + "main_part: etcd\n",
            "main_part needs a setting named version",
            "",
        ),
        (BUILT + "programs: {etcdctl: {image: nod, path: /x}}\n", "no image named 'nod'", "'node'"),
        (BUILT + "programs: {etcdctl: {image: node, path: /x, on: workr}}\n", "no role named 'workr'", "'worker'"),
        (BUILT + "programs: {etcdctl: {image: node, path: /x, part: runc}}\n", "no part named 'runc'", ""),
        (BUILT + "programs: {etcdctl: {image: node, path: /x, minors: -1}}\n", "programs.etcdctl.minors", ""),
        (
            IN_NODE + "apply: [{program: put, run: [a], stdin: true}]\n",
            "12:41: stdin is for a program that runs",
            "stdin",
        ),
        (
            IN_NODE + "apply: [{program: put, run: [a], whole: true}]\n",
            "12:41: whole is for a program that runs",
            "whole",
        ),
    ],
)
def test_a_part_or_a_program_that_names_nothing_is_refused(
    write_profile: Write, text: str, said: str, fix: str
) -> None:
    with pytest.raises(ProfileError) as caught:
        load(write_profile(text, DOCKERFILE))
    assert "profile.yaml:" in caught.value.what
    assert said in caught.value.what
    assert fix in caught.value.fix


def test_a_users_own_profile_may_name_parts(write_profile: Write) -> None:
    text = BUILT + "main_part: etcd\nenv: {V: \"{{ parts['etcd'].version }}\"}\n"
    text += (
        "programs: {etcdctl: {image: node, path: /usr/local/bin/etcdctl, part: etcd, version: [version], minors: 2}}\n"
    )
    spec = spec_of(write_profile(text, DOCKERFILE))
    (part,) = spec.images["node"].parts
    assert (part.name, spec.env["V"]) == ("etcd", part.version)
    program = spec.programs["etcdctl"]
    assert (program.version, program.version_argv, program.minors, program.on) == (part.version, ("version",), 2, "")
    (part,) = spec_of(write_profile(text + "parts: {etcd: {version: '3.7'}}\n", DOCKERFILE)).images["node"].parts
    assert part.version == "v3.7.3"
