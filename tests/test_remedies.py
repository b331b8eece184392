"""Each remedy is one command that suits this machine and this user."""

from __future__ import annotations

import errno
import grp
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import ledger, limiting, remedies
from harness.backends import Options
from harness.backends.host import Host
from harness.engines import docker
from harness.errors import Unavailable
from harness.model import Plan
from harness.vm import kvm

RULE = "sudo tee /etc/udev/rules.d/99-kvm.rules && sudo udevadm control --reload-rules && sudo udevadm trigger"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ordinary user, alice, on a machine without KVM modules, udev or CPU flags."""
    for name in ("SYSCTLS", "SYSFS", "CPUINFO", "UDEV"):
        monkeypatch.setattr(remedies, name, tmp_path / name.lower())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name="alice"))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_gid=1000))
    return tmp_path


def group(monkeypatch: pytest.MonkeyPatch, *members: str, name: str = "kvm") -> None:
    """A group with these members in the user database."""
    entry = SimpleNamespace(gr_name=name, gr_mem=list(members), gr_gid=106)
    monkeypatch.setattr(grp, "getgrnam", lambda asked: entry)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: entry)


def device(monkeypatch: pytest.MonkeyPatch, path: Path, mode: int, gid: int) -> Path:
    """A device that exists with this mode and group."""
    status = SimpleNamespace(st_mode=0o020000 | mode, st_gid=gid)
    real: Callable[..., Any] = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **options: status if self == path else real(self, **options))
    return path


def test_join_group_new_member_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    group(monkeypatch)
    assert remedies.join_group("docker") == "run `sudo usermod -aG docker alice`, then log in again"


def test_join_group_member_of_an_older_session_logs_in_again(monkeypatch: pytest.MonkeyPatch) -> None:
    group(monkeypatch, "alice")
    found = remedies.join_group("docker")
    assert "log in again" in found and "newgrp docker" in found and "usermod" not in found


def test_join_group_primary_group_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    group(monkeypatch)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_gid=106))
    assert "usermod" not in remedies.join_group("docker")


def test_join_group_user_without_a_name_is_left_to_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless(uid: int) -> None:
        raise KeyError(uid)

    group(monkeypatch)
    monkeypatch.setattr(pwd, "getpwuid", nameless)
    assert "sudo usermod -aG docker $USER" in remedies.join_group("docker")


@pytest.mark.parametrize("name", ["kvm", "virt"])
def test_open_kvm_joins_the_group_that_the_device_belongs_to(
    monkeypatch: pytest.MonkeyPatch, machine: Path, name: str
) -> None:
    group(monkeypatch, name=name)
    found = remedies.open_kvm(device(monkeypatch, machine / "kvm", 0o660, 106))
    assert found == f"run `sudo usermod -aG {name} alice`, then log in again"


@pytest.mark.parametrize(("mode", "gid"), [(0o600, 106), (0o660, 0), (0o640, 106)])
def test_open_kvm_changes_the_mode_where_the_group_is_of_no_use(
    monkeypatch: pytest.MonkeyPatch, machine: Path, mode: int, gid: int
) -> None:
    group(monkeypatch)
    path = device(monkeypatch, machine / "kvm", mode, gid)
    assert remedies.open_kvm(path) == f"run `sudo chmod 666 {path}`"  # in a container
    (machine / "udev").touch()
    assert RULE in remedies.open_kvm(path) and "--name-match=kvm" in remedies.open_kvm(path)


@pytest.mark.parametrize(
    ("cpuinfo", "module", "remedy"),
    [
        ("flags\t\t: fpu vmx hypervisor", None, "run `sudo modprobe kvm_intel`"),
        ("flags\t\t: fpu svm", None, "run `sudo modprobe kvm_amd`"),
        ("flags\t\t: fpu svm", "kvm_amd", "docker run --device /dev/kvm"),
        ("flags\t\t: fpu hypervisor", None, "modprobe kvm_intel nested=1"),
        ("flags\t\t: fpu", None, "enable VT-x or AMD-V in this machine's firmware setup"),
        ("Features\t: fp asimd", None, "use a machine whose kernel has KVM"),
    ],
)
def test_load_kvm_by_the_flags_of_the_cpu(machine: Path, cpuinfo: str, module: str | None, remedy: str) -> None:
    (machine / "cpuinfo").write_text(f"processor\t: 0\n{cpuinfo}\n")
    if module:
        (machine / "sysfs" / module).mkdir(parents=True)
    assert remedy in remedies.load_kvm()


@pytest.mark.parametrize(
    ("number", "reason", "remedy"),
    [
        (errno.EACCES, "not permitted to open", "sudo usermod -aG kvm alice"),
        (errno.EPERM, "not permitted to open", "docker run --device /dev/kvm"),
        (errno.ENODEV, "cannot be opened: No such device", "sudo modprobe kvm_intel"),
        (errno.ENXIO, "cannot be opened: No such device or address", "sudo modprobe kvm_intel"),
    ],
)
def test_kvm_refusal_has_the_remedy_of_its_cause(
    monkeypatch: pytest.MonkeyPatch, machine: Path, number: int, reason: str, remedy: str
) -> None:
    """A static device node exists without its module; a container's device cgroup refuses what the mode allows."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    (machine / "cpuinfo").write_text("flags\t\t: vmx\n")
    (machine / "kvm").touch()
    group(monkeypatch)
    monkeypatch.setattr(kvm, "DEVICE", device(monkeypatch, machine / "kvm", 0o660, 106))
    monkeypatch.setattr(os, "open", refuse)
    found = kvm.refusal()
    assert found is not None and reason in found.reason and remedy in found.hint


@pytest.mark.parametrize(
    ("name", "value", "command"),
    [
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
        ("kernel.unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        ("user.max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
    ],
)
def test_user_namespaces_by_the_sysctl_that_forbids_them(machine: Path, name: str, value: str, command: str) -> None:
    path = machine / "sysctls" / name.replace(".", "/")
    path.parent.mkdir(parents=True)
    path.write_text(f"{value}\n")
    assert remedies.allow_user_namespaces() == f"run `sudo {command}`, or as root `{limiting.format_root_command()}`"
    path.write_text("63000\n" if name.startswith("user") else f"{1 - int(value)}\n")
    assert remedies.allow_user_namespaces().startswith(f"run `{limiting.format_root_command()}`:")


def test_commands_of_root_need_no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    assert remedies.install("zstd", "gcc") == "sudo apt-get install zstd gcc"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert remedies.install("zstd") == "apt-get install zstd"
    assert "docker run --privileged" in remedies.allow_user_namespaces()


@pytest.mark.parametrize(
    ("flags", "command"),
    [("vmx hypervisor", "`sudo modprobe kvm_intel nested=1`"), ("vmx", "`sudo apt-get install --only-upgrade qemu-")],
)
def test_kvm_under_which_a_guest_failed_has_commands(machine: Path, flags: str, command: str) -> None:
    (machine / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    found = remedies.mend_kvm(Path("/the cache/kvm/1.json"))
    assert command in found and "`rm '/the cache/kvm/1.json'`" in found


def test_targets_of_root_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHBRIDGE_STATE", str(tmp_path / "state"))
    with ledger.Ledger() as held:
        with pytest.raises(Unavailable) as refused:
            Host(Options("host"), held, Plan()).probe()
        assert refused.value.hint.startswith(f"{limiting.format_root_command()}, or take the target userns-chroot")
        with pytest.raises(Unavailable) as refused, docker.find(Plan(engines="private"), held, {}):
            pass
        assert refused.value.hint.startswith(f"{limiting.format_root_command()} --engines private, or leave out")
