"""libvirt's control groups: the group of a machine, and the removal of a partition with its slice."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import cgroup, slices
from harness.command import CommandFailed
from harness.engines import libvirt, libvirt_traces
from harness.engines.libvirt_traces import is_group_of
from harness.ledger import Ledger, _resolve

CAMPAIGN = "weighbridge-20261127-085735-b35ee1"
SCOPE = r"machine-qemu\x2dembed\x2d669e5b1f\x2d{}.scope"


@pytest.mark.parametrize(
    ("folder", "identity", "name"),
    [
        (SCOPE.format(r"2\x2dweighbridge\x2d20261127\x2d085735\x2db35ee1\x2d18"), 2, f"{CAMPAIGN}-18"),
        (f"qemu-embed-669e5b1f-2-{CAMPAIGN}-18.libvirt-qemu", 2, f"{CAMPAIGN}-18"),
        (f"qemu-2-{CAMPAIGN}-18.libvirt-qemu", 2, f"{CAMPAIGN}-18"),
        (rf"machine-qemu\x2d17\x2d{CAMPAIGN}-18.scope".replace("-b35ee1-", r"\x2db35ee1\x2d"), 17, f"{CAMPAIGN}-18"),
        # 64 characters: the last digits of a name are cut off, and a dash that would then be the last one.
        (f"qemu-embed-669e5b1f-4567-{CAMPAIGN}-1234.libvirt-qemu", 4567, f"{CAMPAIGN}-123456"),
        (f"qemu-embed-669e5b1f-45678-{CAMPAIGN}-123.libvirt-qemu", 45678, f"{CAMPAIGN}-123456"),
        (f"qemu-embed-669e5b1f-45678901-{CAMPAIGN}.libvirt-qemu", 45678901, f"{CAMPAIGN}-123456"),
    ],
)
def test_group_of_a_machine_is_found_by_its_number_and_name(folder: str, identity: int, name: str) -> None:
    assert is_group_of(folder, identity, name)


@pytest.mark.parametrize(
    ("folder", "identity", "name"),
    [
        (f"qemu-embed-669e5b1f-4567-{CAMPAIGN}-1234.libvirt-qemu", 4568, f"{CAMPAIGN}-123456"),
        (f"qemu-embed-669e5b1f-3-{CAMPAIGN}-18.libvirt-qemu", 3, f"{CAMPAIGN}-1"),
        (f"qemu-embed-669e5b1f-3-{CAMPAIGN}-1.libvirt-qemu", 3, f"{CAMPAIGN}-18"),
        (f"{CAMPAIGN}-1.partition", 3, f"{CAMPAIGN}-1"),
        ("weighbridge_20261127_085735_b35ee1_1.slice", 3, f"{CAMPAIGN}-1"),
        ("machine.slice", 3, f"{CAMPAIGN}-1"),
        ("session-3.scope", 3, f"{CAMPAIGN}-1"),
        ("emulator", 3, f"{CAMPAIGN}-1"),
        ("", 3, f"{CAMPAIGN}-1"),
    ],
)
def test_other_groups_are_not_the_machines(folder: str, identity: int, name: str) -> None:
    assert not is_group_of(folder, identity, name)


SYSTEMCTL = """#!/bin/sh
printf '%s %s\\n' "$@" >> "$CALLS"
exit "$STATUS"
"""


@pytest.fixture
def under_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    """Stand-in for systemd: its folder, and a systemctl that records its calls and exits with this status."""

    def set_up(status: int) -> Path:
        (tmp_path / "system").mkdir()
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/systemctl").write_text(SYSTEMCTL)
        (tmp_path / "bin/systemctl").chmod(0o755)
        (tmp_path / "cgroup").mkdir()
        monkeypatch.setattr(slices, "SYSTEMD", tmp_path / "system")
        monkeypatch.setattr(cgroup, "ROOT", tmp_path / "cgroup")
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
        monkeypatch.setenv("STATUS", str(status))
        return tmp_path / "calls"

    return set_up


@pytest.mark.parametrize("status", [0, slices.NOT_LOADED])
def test_partition_goes_with_its_slice(under_systemd: Callable[[int], Path], status: int) -> None:
    calls = under_systemd(status)
    for folder in ("ours.partition", "ours.slice", "theirs.slice"):
        (cgroup.ROOT / folder).mkdir()
    libvirt_traces.remove_partition("ours")
    assert calls.read_text() == "stop ours.slice\n"
    assert [path.name for path in cgroup.ROOT.iterdir()] == ["theirs.slice"]


def test_partition_of_an_earlier_version_goes_with_its_escaped_slice(under_systemd: Callable[[int], Path]) -> None:
    """Its name has dashes, which systemd escapes; its entry in the ledger names the control group alone."""
    calls = under_systemd(0)
    unit = CAMPAIGN.replace("-", r"\x2d") + r"\x2d1.slice"
    for folder in (f"{CAMPAIGN}-1.partition", unit, f"{CAMPAIGN}-1.slice"):
        (cgroup.ROOT / folder).mkdir()
    _resolve("harness.cgroup:remove")(name=f"{CAMPAIGN}-1.partition")
    assert calls.read_text() == f"stop {unit}\n"
    assert [path.name for path in cgroup.ROOT.iterdir()] == [f"{CAMPAIGN}-1.slice"]


@pytest.mark.parametrize("what", [{"name": f"{CAMPAIGN}-1"}, {"folders": [f"/sys/fs/cgroup/cpu/{CAMPAIGN}.partition"]}])
def test_group_that_is_no_partition_has_no_slice(under_systemd: Callable[[int], Path], what: dict[str, object]) -> None:
    calls = under_systemd(0)
    _resolve("harness.cgroup:remove")(**what)
    assert not calls.exists()


def test_slice_that_does_not_stop_stays_in_the_ledger(under_systemd: Callable[[int], Path]) -> None:
    under_systemd(1)
    with pytest.raises(CommandFailed):
        libvirt_traces.remove_partition("ours")


def test_without_systemd_no_slice_is_stopped(
    under_systemd: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = under_systemd(0)
    monkeypatch.setattr(slices, "SYSTEMD", tmp_path / "none")
    libvirt_traces.remove_partition("ours")
    assert not calls.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a partition")
def test_partition_has_no_dash_which_systemd_would_escape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, under_systemd: Callable[[int], Path]
) -> None:
    calls = under_systemd(0)
    monkeypatch.setenv("WEIGHBRIDGE_STATE", str(tmp_path))
    monkeypatch.setattr(cgroup, "make_partition", lambda name: (cgroup.ROOT / name).mkdir())
    with Ledger() as ledger, libvirt._partition(ledger) as partition:
        assert partition is not None and "-" not in partition
        assert (cgroup.ROOT / f"{partition[1:]}.partition").is_dir()
    assert calls.read_text() == f"stop {partition[1:]}.slice\n"


@pytest.mark.parametrize(
    ("release", "what"),
    [
        ("harness.cgroup:remove", {"name": f"{CAMPAIGN}-1.partition"}),
        ("harness.engines.libvirt:destroy_domain", {"uri": "qemu:///system", "name": f"{CAMPAIGN}-2"}),
        ("harness.engines.libvirt_traces:remove", {"campaign": CAMPAIGN, "paths": []}),
        ("harness.engines.libvirt_traces:end_emulators", {"root": "/var/lib/weighbridge/b35ee1/vm"}),
    ],
)
def test_ledger_of_an_earlier_version_can_still_be_released(release: str, what: dict[str, object]) -> None:
    inspect.signature(_resolve(release)).bind(**what)
