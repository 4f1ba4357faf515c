"""The private engine: what can be told without starting one."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from minicluster.engine.private import bridge, cleanup, daemon
from minicluster.engine.private.layout import Layout, configuration, find_process, tail
from minicluster.errors import NoEngine, SubnetTaken
from minicluster.host import procfs
from minicluster.profile import addressing


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "engine")


def add_process(root: Path, pid: int, *words: str) -> None:
    folder = root / "proc" / str(pid)
    folder.mkdir(parents=True)
    (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))


def test_names_fit_and_differ_between_folders(tmp_path: Path) -> None:
    one, other = Layout(tmp_path / "one"), Layout(tmp_path / "other")
    assert len(one.bridge) <= 15  # the kernel's limit
    assert len(one.chain) <= 28  # iptables' limit
    for mine, its in ((one.bridge, other.bridge), (one.chain, other.chain), (one.run, other.run)):
        assert mine != its
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert Layout(tmp_path / "link").tag == one.tag


def test_the_pid_file_counts_only_if_the_process_is_ours(layout: Layout, tmp_path: Path) -> None:
    layout.directory.mkdir()
    add_process(tmp_path, 7, "/usr/sbin/sshd", "-D")
    add_process(tmp_path, 8, "dockerd", "--config-file=/somebody/elses.json")
    assert find_process(layout, tmp_path) == 0
    for stale in ("7", "8", "9999", "-1", "not a number", ""):
        layout.pid_file.write_text(stale)
        assert find_process(layout, tmp_path) == 0
    add_process(tmp_path, 10, "dockerd", layout.config_argument, "--containerd-namespace=x")
    assert find_process(layout, tmp_path) == 10  # found though the pid file says otherwise
    layout.pid_file.write_text("10\n")
    assert find_process(layout, tmp_path) == 10


def test_a_zombie_does_not_run(layout: Layout, tmp_path: Path) -> None:
    layout.directory.mkdir()
    add_process(tmp_path, 10)
    layout.pid_file.write_text("10")
    assert find_process(layout, tmp_path) == 0


def test_the_configuration_shares_nothing_with_another_dockerd(layout: Layout, tmp_path: Path) -> None:
    system = tmp_path / "daemon.json"
    system.write_text(json.dumps({"data-root": "/elsewhere", "bip": "10.0.0.1/24", "registry-mirrors": ["M"]}))
    config = configuration(layout, system)
    assert config["data-root"] == str(layout.data)
    assert "bip" not in config
    assert config["registry-mirrors"] == ["M"]  # how to reach the world is the same for both
    assert config["bridge"] == layout.bridge != "docker0"
    # Either would touch what belongs to another engine: its firewall chains, and the device docker0.
    assert config["iptables"] is False
    assert "default-address-pools" not in config


@pytest.mark.parametrize("content", [None, "{ not json", "[]"])
def test_a_missing_or_broken_system_configuration_does_not_matter(
    layout: Layout, tmp_path: Path, content: str | None
) -> None:
    system = tmp_path / "daemon.json"
    if content is not None:
        system.write_text(content)
    assert configuration(layout, system)["hosts"] == [f"unix://{layout.socket}"]


def test_too_long_a_path_is_told_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 80)
    monkeypatch.setenv("XDG_DATA_HOME", str(deep))
    monkeypatch.setattr(daemon, "obstacle", lambda: "")
    with pytest.raises(NoEngine, match="is too long") as caught:
        daemon.start()
    assert "103" in caught.value.why
    assert not deep.exists()


def test_an_obstacle_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(daemon, "obstacle", lambda: "it must run as root")
    with pytest.raises(NoEngine, match="It must run as root") as caught:
        daemon.start()
    assert caught.value.exit_code == 3


def test_nothing_there_is_not_running_and_stopping_it_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    status = daemon.status(size=True)
    assert (status.running, status.pid, status.size) == (False, 0, 0)
    assert daemon.stop().running is False
    assert not status.directory.exists()


def test_the_end_of_the_log_leaves_out_chatter(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        'time="…" level=info msg="Starting up"\n'
        'time="…" level=warning msg="odd"\n'
        'time="…" level=info msg="more"\n'
        "failed to start daemon: no space left on device\n"
    )
    assert tail(log) == 'time="…" level=warning msg="odd"\nfailed to start daemon: no space left on device'
    log.write_text('level=info msg="only this"\n')
    assert tail(log) == 'level=info msg="only this"'
    assert tail(tmp_path / "none") == "(no log)"


def test_mounts_are_listed_deepest_first(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    top = tmp_path / "data"
    (tmp_path / "proc/self/mountinfo").write_text(
        f"1 0 8:1 / / rw - ext4 /dev/x rw\n"
        f"2 1 8:1 / {top} rw - ext4 /dev/x rw\n"
        f"3 2 0:9 / {top}/a\\040b/merged rw - overlay overlay rw\n"
        f"5 2 0:9 / {top}/a\\040b rw - overlay overlay rw\n"
        f"4 1 0:9 / {top}-of-another rw - overlay overlay rw\n"
    )
    assert procfs.mounts_below(top, tmp_path) == [f"{top}/a b/merged", f"{top}/a b"]


@pytest.mark.parametrize(
    ("mount", "expected"),
    [
        ("2 1 8:1 /var{data} {data} rw", True),  # /var is a file system of its own's folder "var"
        ("2 1 8:1 /var/elsewhere {data} rw", False),
        ("2 1 8:2 / {data} rw", False),
        ("2 1 8:1 /var{data}/deeper {data}/deeper rw", False),
    ],
)
def test_a_folder_mounted_on_itself_is_told_from_a_disk_mounted_there(
    tmp_path: Path, mount: str, expected: bool
) -> None:
    data = tmp_path / "data"
    mounts = f"1 0 8:1 /var / rw - ext4 /dev/x rw\n{mount.format(data=data)} - ext4 /dev/x rw\n"
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(mounts)
    assert procfs.mounted_on_itself(data, tmp_path) is expected


def test_disk_usage_counts_a_file_with_two_names_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(os.urandom(1 << 20))
    before = procfs.disk_usage(tmp_path)
    os.link(tmp_path / "a", tmp_path / "b")
    assert (1 << 20) <= before < (1 << 21)
    assert procfs.disk_usage(tmp_path) - before < 1 << 16
    assert procfs.disk_usage(tmp_path / "none") == 0


def test_bridges_are_read_from_dockerds_record(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    record = layout.data / "network/files/local-kv.db"
    record.parent.mkdir(parents=True)
    record.write_bytes(
        b'\0\1{"BridgeName":"br-0123456789ab"}\0{"BridgeName":"br-0123456789ab"}{"BridgeName":"br-ffffffffffff"}'
        b'{"BridgeName":"mc-0123456789ab"}{"BridgeName":"docker0"}{"BridgeName":"eth0"}'
    )
    monkeypatch.setattr(bridge, "exists", lambda name: name != "br-ffffffffffff")
    assert cleanup.bridges(layout) == ["br-0123456789ab", "mc-0123456789ab"]
    assert re.fullmatch("mc-[0-9a-f]{12}", bridge.name())


def test_the_bridge_keeps_clear_of_routes() -> None:
    assert bridge.bridge_subnet([]) == IPv4Network("172.31.255.0/24")  # clusters begin at the other end
    assert bridge.bridge_subnet([IPv4Network("172.31.255.128/25")]) == IPv4Network("172.31.254.0/24")
    assert not bridge.bridge_subnet([IPv4Network("172.16.0.0/12")]).overlaps(addressing.POOL)
    with pytest.raises(SubnetTaken):
        bridge.bridge_subnet([IPv4Network("0.0.0.0/1"), IPv4Network("128.0.0.0/1")])


def test_routes_are_read(tmp_path: Path) -> None:
    def field(address: str) -> str:
        return f"{struct.unpack('=I', socket.inet_aton(address))[0]:08X}"

    def line(device: str, address: str, mask: str) -> str:
        return f"{device}\t{field(address)}\t00000000\t0001\t0\t0\t0\t{field(mask)}\t0\t0\t0\n"

    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/route").write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        + line("eth0", "0.0.0.0", "0.0.0.0")
        + line("eth0", "192.0.2.0", "255.255.255.0")
        + line("mine", "172.28.0.0", "255.255.240.0")
    )
    assert procfs.routes(tmp_path) == [IPv4Network("192.0.2.0/24"), IPv4Network("172.28.0.0/20")]
    assert procfs.routes(tmp_path, but=["mine"]) == [IPv4Network("192.0.2.0/24")]
    assert procfs.routes(tmp_path / "none") == []
