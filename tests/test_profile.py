"""Profiles of machines: ours are whole, and of a user's that is not one clear line says what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import backends
from harness.errors import BadInput, Unavailable
from harness.ledger import Ledger
from harness.model import Limits, Plan
from harness.vm import machine, profile
from harness.vm.backend import VmBackend
from harness.vm.machine import Machine
from tests.test_guest import bzimage

EVERY = [(backend, name) for backend in ("libvirt", "qemu") for name in profile.names(backend)]
DIRECT = profile.of_name("libvirt", "direct").domain


def vm(**differing: object) -> Machine:
    told = {
        "name": "weighbridge-1-2",
        "accelerator": "tcg",
        "vcpus": 1,
        "memory": 2**28,
        "kernel": Path("/kernel"),
        "initramfs": Path("/initramfs"),
        "disk": Path("/a,b/overlay"),
        "doorbell": "7",
        "console": "8",
    }
    return Machine(**{**told, **differing})  # type: ignore[arg-type]


@pytest.mark.parametrize(("backend", "name"), EVERY)
def test_each_of_ours_is_whole(backend: str, name: str) -> None:
    mine = profile.of_name(backend, name)
    filled = machine.domain(mine, vm()) if backend == "libvirt" else " ".join(machine.arguments(mine, vm()))
    assert not re.search(r"\{[a-z_]+\}", filled)
    assert mine.about and "\n" not in mine.about
    assert bool(mine.console) != mine.restore, "a boot has phases, and a restored machine none"
    if mine.console:
        assert list(mine.console.values())[-1] == "kernel"


def test_the_ones_that_are_promised_are_there() -> None:
    assert {"pc", "q35", "firmware", "direct", "snapshot", "reporting"} == set(profile.names("libvirt"))
    assert {"pc", "micro", "snapshot"} == set(profile.names("qemu"))


def test_a_comma_in_a_path_is_no_end_of_an_option() -> None:
    words = machine.arguments(profile.of_name("qemu", "pc"), vm(accelerator="kvm"))
    assert "file=/a,,b/overlay,format=qcow2,if=none,id=disk" in words
    assert words[words.index("-cpu") + 1] == "host"
    assert words[words.index("-append") + 1] == profile.of_name("qemu", "pc").command_line


def test_a_clock_is_told_where_nothing_else_tells_it() -> None:
    micro = profile.of_name("qemu", "micro")
    rate = machine.tsc_khz()
    assert rate is None or 100_000 < rate < 10_000_000
    assert "tsc_early_khz=2600000" in machine.command_line(micro, "tcg", 2_600_000)
    assert "tsc" not in machine.command_line(micro, "tcg", None) + machine.command_line(micro, "kvm", 2_600_000)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<domain", "is no XML: "),
        (DIRECT.replace("</domain>", f"{'<a>' * 5000}{'</a>' * 5000}</domain>"), "is no XML: nested deeper than"),
        ("<network/>", "is no domain of libvirt's: it begins with <network>"),
        (DIRECT.replace("{doorbell}", "/x"), "has no place for the doorbell: {doorbell} stands nowhere in it"),
        (DIRECT.replace("{disk}", "/dev/null"), "has no place for the disk"),
        (DIRECT.replace("{command_line}", ""), "has no place for the command line"),
        (DIRECT.replace("{vcpus}", "{cpus}"), "there is nothing to put in the place of {cpus}; known: "),
        (DIRECT.replace("qboot.rom", "absent.rom"), "<loader> names the file /usr/share/qemu/absent.rom"),
    ],
)
def test_a_domain_that_cannot_be_one(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "mine.xml"
    path.write_text(text)
    with pytest.raises(BadInput) as refused:
        profile.of_file("libvirt", path)
    assert told in str(refused.value) and str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("about = ", "Invalid value"),
        (f"about = {'[' * 5000}", "nested deeper than"),
        (f"about = {'9' * 5000}", "4300 digits"),
        ('about = "x"', "arguments is missing"),
        ('about = "x"\nbogus = 1', "bogus"),
        ('about = "x"\nboot = "network"', "boot"),
        ('about = "x"\narguments = ["-m", "{memory}B"]', "has no place for the name"),
    ],
)
def test_a_toml_that_cannot_be_one(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=re.escape(told)):
        profile.of_file("qemu", path)


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot read the profile .*absent\.xml: No such file"):
        profile.of_file("libvirt", tmp_path / "absent.xml")


@pytest.mark.parametrize("target", ["libvirt/pc,direct", "qemu/q35", "libvirt/accel=tcg", "libvirt/pc,profile=x.xml"])
def test_a_target_names_one_profile(target: str) -> None:
    with Ledger() as ledger, pytest.raises(BadInput, match=r"name one profile|unknown option"):
        backends.create(target, ledger, Plan())


def test_a_kernel_without_virtio_is_told_before_anything_starts(tmp_path: Path) -> None:
    kernel = bzimage(tmp_path / "vmlinuz")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/modules.order").touch()
    plan = Plan(kernel=str(kernel), modules=str(tmp_path / "modules"))
    with (
        Ledger() as ledger,
        pytest.raises(BadInput, match=r"cannot drive its machine: virtio_pci is neither a module in"),
    ):
        backends.create("libvirt/pc", ledger, plan)
    (tmp_path / "modules/modules.builtin").write_text("kernel/virtio_pci.ko\nkernel/virtio_blk.ko\n")
    with Ledger() as ledger, pytest.raises(BadInput, match="virtio_console is neither"):
        backends.create("qemu/pc", ledger, plan)


def test_a_machine_that_finds_one_cpu_is_not_asked_for_two() -> None:
    assert profile.of_name("libvirt", "direct").most_cpus == 1
    assert profile.of_name("libvirt", "pc").most_cpus is None
    with Ledger() as ledger:
        backend = backends.create("qemu/snapshot,accel=tcg", ledger, Plan())
        assert isinstance(backend, VmBackend)
        with pytest.raises(Unavailable, match=r"has 1 vCPU at the most, and 1\.5 CPUs"):
            backend.check_limits(Limits(1.5, 2**28))
