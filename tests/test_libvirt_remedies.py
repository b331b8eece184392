"""Each reason why a libvirt driver cannot be used, or has no KVM, has the remedy of its cause."""

from __future__ import annotations

import errno
import grp
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import limiting, remedies, slices
from harness.engines import libvirt_connection, libvirt_remedies
from harness.engines.libvirt_remedies import explain_refusal, format_service_command, mend_missing_kvm
from harness.errors import Unavailable
from harness.model import Plan

SYSTEM, SESSION, EMBEDDED = "qemu:///system", "qemu:///session", "qemu:///embed?root=/state/vm"
LEGACY, MODULAR = "/var/run/libvirt/libvirt-sock", "/var/run/libvirt/virtqemud-sock"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ordinary user, on a machine with systemd and the units of both daemons, of which none is installed."""
    for name in ("systemd", "units", "bin", "init.d", "home", "run"):
        (tmp_path / name).mkdir()
    for name in ("libvirtd", "virtqemud"):
        (tmp_path / f"units/{name}.socket").touch()
    monkeypatch.setattr(slices, "SYSTEMD", tmp_path / "systemd")
    monkeypatch.setattr(libvirt_remedies, "UNITS", (tmp_path / "units",))
    monkeypatch.setattr(libvirt_remedies, "INIT_SCRIPTS", tmp_path / "init.d")
    real, bin_folder = shutil.which, tmp_path / "bin"
    monkeypatch.setattr(shutil, "which", lambda name, path=None: real(name, path=str(bin_folder)))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(remedies, "get_user_name", lambda: "alice")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path


def install(machine: Path, *names: str) -> None:
    for name in names:
        (machine / "bin" / name).touch(0o755)


def hint(uri: str, message: str, number: int = -1, code: int = 38) -> str:
    error = SimpleNamespace(get_error_message=lambda: message, get_error_code=lambda: code, get_int1=lambda: number)
    found = explain_refusal(uri, error)
    assert found.reason == f"libvirt at {uri.partition('?')[0]}: {message}"
    assert "leave out" not in found.hint
    return found.hint


def failed(path: str, number: int) -> tuple[str, int]:
    return f"Failed to connect socket to '{path}': {os.strerror(number)}", number


@pytest.mark.parametrize(
    ("installed", "path", "unit"),
    [
        (("libvirtd",), LEGACY, "libvirtd"),
        (("virtqemud",), MODULAR, "virtqemud"),
        (("libvirtd", "virtqemud"), MODULAR, "virtqemud"),
        (("libvirtd", "virtqemud"), LEGACY, "libvirtd"),
        (("virtqemud",), LEGACY, "virtqemud"),
    ],
)
def test_system_daemon_that_does_not_run_is_started_or_restarted(
    machine: Path, installed: tuple[str, ...], path: str, unit: str
) -> None:
    install(machine, *installed)
    assert hint(SYSTEM, *failed(path, errno.ENOENT)) == f"run `sudo systemctl start {unit}.socket`"
    assert hint(SYSTEM, *failed(path, errno.ECONNREFUSED)) == f"run `sudo systemctl restart {unit}`"


def test_system_daemon_is_installed_only_where_its_program_or_unit_is_missing(machine: Path) -> None:
    assert hint(SYSTEM, *failed(LEGACY, errno.ENOENT)) == "run `sudo apt-get install libvirt-daemon-system`"
    install(machine, "libvirtd")
    assert "install" not in hint(SYSTEM, *failed(LEGACY, errno.ENOENT))
    (machine / "units/libvirtd.socket").unlink()
    assert hint(SYSTEM, *failed(LEGACY, errno.ENOENT)) == "run `sudo apt-get install libvirt-daemon-system`"


def test_system_daemon_without_systemd_is_started_by_its_init_script_or_itself(machine: Path) -> None:
    (machine / "systemd").rmdir()
    install(machine, "libvirtd")
    assert hint(SYSTEM, *failed(LEGACY, errno.ENOENT)) == "run `sudo libvirtd --daemon`"
    (machine / "init.d/libvirtd").touch()
    assert format_service_command("restart", "libvirtd") == "run `sudo service libvirtd restart`"


@pytest.mark.parametrize(
    ("message", "number"),
    [
        failed(LEGACY, errno.EACCES),
        ("authentication unavailable: no polkit agent available to authenticate action 'org.libvirt.unix.manage'", -1),
    ],
)
def test_user_without_permission_joins_the_group(
    machine: Path, monkeypatch: pytest.MonkeyPatch, message: str, number: int
) -> None:
    install(machine, "libvirtd")
    message = message.replace("/var/run/libvirt", str(machine / "run"))
    group = SimpleNamespace(gr_gid=4_000_000, gr_mem=[])
    monkeypatch.setattr(grp, "getgrnam", lambda name: group)
    assert hint(SYSTEM, message, number) == "run `sudo usermod -aG libvirt alice`, then log in again"
    group.gr_mem.append("alice")
    assert hint(SYSTEM, message, number).startswith("log in again, or run `newgrp libvirt`")
    group.gr_gid = os.getegid()
    assert hint(SYSTEM, message, number) == f"run `{limiting.format_root_command()}`"


def test_session_whose_daemon_does_not_start(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(machine / "closed"))
    missing = failed(f"{machine}/run/libvirt/libvirt-sock", errno.ENOENT)
    assert hint(SESSION, *missing).startswith("run `sudo apt-get install libvirt-daemon`")
    install(machine, "virtqemud")
    assert hint(SESSION, *missing).startswith("run `virtqemud --verbose`")
    (machine / "closed").mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(machine / "closed/config"))
    assert hint(SESSION, "Cannot recv data: Connection reset by peer", errno.ECONNRESET).startswith(
        "run `export XDG_CONFIG_HOME=$(mktemp -d)`"
    )
    assert hint(SESSION, "Failed to find user record for uid '1000'").startswith("run `sudo useradd --uid 1000 ")


@pytest.mark.parametrize(
    ("uri", "message", "variable"),
    [
        (EMBEDDED, "Failed to create state dir /state/vm/run/qemu: Permission denied", "WEIGHBRIDGE_STATE"),
        (EMBEDDED, "operation failed: Failed to create state dir '{}/run/libvirt/hostdevmgr'", "XDG_RUNTIME_DIR"),
        (EMBEDDED, "operation failed: Failed to create state dir '{}/home/.cache/libvirt/hostdevmgr'", "HOME"),
        (EMBEDDED, "operation failed: Failed to create state dir '{}/cache/libvirt/hostdevmgr'", "XDG_CACHE_HOME"),
        (SESSION, "Cannot create user runtime directory '{}/run/libvirt': Permission denied", "XDG_RUNTIME_DIR"),
        (SESSION, "cannot create config directory '{}/home/.config/libvirt'", "HOME"),
    ],
)
def test_folder_that_cannot_be_created_is_placed_elsewhere(
    machine: Path, monkeypatch: pytest.MonkeyPatch, uri: str, message: str, variable: str
) -> None:
    if variable == "XDG_CACHE_HOME":
        monkeypatch.setenv(variable, str(machine / "cache"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert hint(uri, message.format(machine), errno.EACCES).startswith(f"run `export {variable}=$(mktemp -d)`")


@pytest.mark.parametrize("uri", [EMBEDDED, SYSTEM, SESSION])
def test_driver_is_installed_where_libvirt_has_none(uri: str) -> None:
    message = f"no connection driver available for {uri}"
    assert hint(uri, message, code=5) == "run `sudo apt-get install libvirt-daemon-driver-qemu qemu-system-x86`"


def test_embedded_driver_that_fails_otherwise_is_not_installed_again() -> None:
    assert "LIBVIRT_LOG_OUTPUTS=1:stderr" in hint(EMBEDDED, "internal error: something else")


@pytest.mark.parametrize(
    ("plan", "options"),
    [
        (Plan(engines="user"), "--engines user"),
        (Plan(libvirt_uri=SYSTEM), "--libvirt-uri"),
        (Plan(engines="user", libvirt_uri=SYSTEM), "--libvirt-uri and --engines user"),
    ],
)
def test_option_is_left_out_only_where_it_was_given(monkeypatch: pytest.MonkeyPatch, plan: Plan, options: str) -> None:
    @contextmanager
    def refused(uri: str) -> Iterator[Any]:
        raise Unavailable("no socket", "start it")
        yield

    monkeypatch.setattr(libvirt_connection, "load_sdk", lambda: None)
    monkeypatch.setattr(libvirt_connection, "open_connection", refused)
    with pytest.raises(Unavailable) as error, libvirt_connection.open_user_connection(plan, SYSTEM):
        pass
    assert error.value.hint == f"start it, or leave out {options} to use the embedded driver"


@pytest.mark.parametrize(
    ("uri", "daemon", "remedy"),
    [
        (SYSTEM, "libvirtd", "run `sudo systemctl restart libvirtd`: libvirt looks for KVM when it starts"),
        (SYSTEM, "virtqemud", "run `sudo systemctl restart virtqemud`: libvirt looks for KVM when it starts"),
        (SESSION, "libvirtd", "run `kill 17`: "),
        (EMBEDDED, None, "-accel kvm -machine none -display none`: QEMU prints why"),
    ],
)
def test_without_kvm_the_remedy_is_that_of_the_engine(
    machine: Path, monkeypatch: pytest.MonkeyPatch, uri: str, daemon: str | None, remedy: str
) -> None:
    monkeypatch.setattr(libvirt_remedies, "program", lambda pid: daemon)
    install(machine, "libvirtd", "virtqemud")
    emulator = machine / "qemu"
    emulator.write_text("#!/bin/sh\necho 'Accelerators supported in QEMU binary:'; echo tcg; echo kvm\n")
    emulator.chmod(0o755)
    assert remedy in mend_missing_kvm(uri, str(emulator), [17] if daemon else [])
    emulator.write_text("#!/bin/sh\necho 'Accelerators supported in QEMU binary:'; echo tcg\n")
    assert "is built without KVM: sudo apt-get install qemu-system-x86" in mend_missing_kvm(uri, str(emulator), [17])
