"""Nothing of ours is left: after a run, after Ctrl-C, and after kill -9 followed by `weighbridge clean`.

Every campaign here is a real one on real engines, started as a user starts it; inventories tell what it left. Signals
are sent upon the program's own progress events or the lines of its ledger, never after a time.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import docker as sdk
import pytest

from harness import bundle, cgroup, workloads
from harness.errors import Unavailable
from harness.store import Result
from tests.inventory import Inventory, arguments, descendants
from tests.sites import TIMEOUT, Site, set_up

Case = TypeVar("Case")
engine = pytest.mark.engine

AT_ONCE = 3
LIBVIRT = "libvirt/pc,accel=tcg"
SNAPSHOT = "libvirt/snapshot,accel=tcg"
TARGETS = ("host", "namespace", "docker", LIBVIRT)
ALL = ",".join(TARGETS)
# (phase, which event of it): of `preparing` the first comes before the engine is started, the second before the image
# is made. The first run is the warm-up.
MOMENTS = (("preparing", 1), ("preparing", 2), ("starting", 1), ("waiting", 1), ("weighing", 1), ("stopping", 1))

LINES = range(2, 8)
"""Of a ledger: from the first object of the preparation to those of the first run."""

# Ends itself by SIGKILL the moment that a given number of lines is in its ledger.
KILLED_AT = (
    sys.executable,
    "-c",
    """
import os, signal, sys
from harness import cli, ledger

left, write = int(sys.argv.pop(1)), ledger.Ledger._write
def counting(self, line):
    global left
    write(self, line)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
ledger.Ledger._write = counting
cli.main()
""",
)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    if os.geteuid() != 0:
        pytest.skip("a stage of its own needs root")
    with set_up() as here:
        yield here


def same(before: Inventory, after: Inventory, but: str = "no such thing") -> None:
    changes = [change for change in before.changes(after) if but not in change]
    assert not changes, "\n" + "\n".join(changes)


@pytest.fixture
def nothing_left(site: Site) -> Iterator[None]:
    """Compares the inventory before the test with the one after it."""
    before = site.take()
    yield
    same(before, site.take())


@pytest.fixture(scope="module")
def one_of_all(site: Site) -> tuple[int, Result, list[str]]:
    """The first campaign there ever was on this stage: its exit code, its result, and what it left."""
    before = site.take()
    with site.start(ALL, "--engines", "private", "--rounds", "1") as program:
        code = program.end()
        return code, program.result(), before.changes(site.take())


@pytest.fixture
def target(request: pytest.FixtureRequest, one_of_all: tuple[int, Result, list[str]]) -> str:
    """Skips the test, or fails it, where the target cannot run here."""
    wanted: str = request.param
    with request.getfixturevalue("engine_or_skip")(wanted.partition("/")[0]):
        for absent in one_of_all[1].unavailable:
            if absent.target == wanted:
                raise Unavailable(absent.reason, absent.hint)
    return wanted


every_target = pytest.mark.parametrize("target", TARGETS, indirect=True)


def all_ok(result: Result) -> bool:
    return bool(result.runs) and all(run.ok for run in result.runs) and result.footer is not None


def some_at_once(do: Callable[[Case], None], cases: Iterable[Case]) -> None:
    """Some campaigns beside each other: they must stand that anyway, and much of their time is waiting."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(do, cases))


@engine
def test_a_run_leaves_nothing(one_of_all: tuple[int, Result, list[str]]) -> None:
    code, result, left = one_of_all
    assert (code, all_ok(result), left) == (0, True, [])


@engine
@every_target
@pytest.mark.usefixtures("nothing_left")
def test_interrupted_in_any_phase(site: Site, target: str) -> None:
    def interrupt(moment: tuple[str, int]) -> None:
        with site.start(target, "--engines", "private", "--rounds", "1") as program:
            program.until(*moment)
            program.interrupt(signal.SIGINT)
            assert program.end() == 130, (moment, program.said)
            footer = program.result().footer
            assert footer is not None
            assert (footer.complete, footer.stopped) == (False, "interrupted by SIGINT")

    some_at_once(interrupt, MOMENTS)


@engine
@every_target
@pytest.mark.usefixtures("nothing_left")
def test_killed_in_any_phase(site: Site, target: str) -> None:
    def kill(moment: tuple[str, int]) -> None:
        with site.start(target, "--engines", "private", "--rounds", "1") as program:
            program.until(*moment)
            program.popen.kill()
            assert program.end() == -signal.SIGKILL
            assert program.result().footer is None

    some_at_once(kill, MOMENTS)
    assert "released" in site.clean()
    assert site.clean() == "nothing was left behind"


@engine
@every_target
@pytest.mark.usefixtures("nothing_left")
def test_killed_with_each_object_that_it_makes(site: Site, target: str) -> None:
    """The object before has just been made, the one that the ledger has last has not."""

    def kill(line: int) -> None:
        program = (*KILLED_AT, str(line))
        with site.start(target, "--engines", "private", "--rounds", "1", program=program) as running:
            assert running.end() == -signal.SIGKILL, running.said

    some_at_once(kill, LINES)
    assert "released" in site.clean()
    assert site.clean() == "nothing was left behind"


@engine
@pytest.mark.parametrize("target", [LIBVIRT], indirect=True)
@pytest.mark.usefixtures("nothing_left")
def test_killed_while_libvirt_asks_qemu_what_it_can(site: Site, target: str) -> None:
    """That QEMU has left our process tree, and libvirt does not list it."""
    with site.start(target, "--engines", "private", "--rounds", "1") as program:
        program.until("preparing")
        deadline = time.monotonic() + TIMEOUT
        while not any("-qmp" in arguments(process) for process in descendants()):
            assert time.monotonic() < deadline
        program.popen.kill()
        program.end()
    assert "released" in site.clean()


@engine
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("nothing_left")
def test_other_signals_do_as_ctrl_c_does(site: Site, number: signal.Signals) -> None:
    with site.start("namespace", "--rounds", "1") as program:
        program.until("weighing")
        program.interrupt(number)
        assert program.end() == 128 + number
        footer = program.result().footer
        assert footer is not None
        assert footer.stopped == f"interrupted by {number.name}"


@engine
@pytest.mark.parametrize("target", ["docker"], indirect=True)
@pytest.mark.usefixtures("nothing_left")
def test_further_signals_do_not_stop_the_cleaning_up(site: Site, target: str) -> None:
    """As long as there is a ledger the campaign is not over."""
    with site.start(f"host,{target}", "--engines", "private", "--rounds", "1") as program:
        program.until("waiting")
        [path] = (site.folder / "state/ledgers").iterdir()
        while path.exists():
            program.interrupt(signal.SIGINT)
            program.interrupt(signal.SIGTERM)
        program.end()
        assert program.result().footer is not None


@engine
@pytest.mark.usefixtures("nothing_left")
def test_a_living_campaign_is_touched_neither_by_clean_nor_by_another_one(site: Site) -> None:
    with site.start("host,namespace", "--rounds", "1") as living:
        living.until("weighing")
        living.interrupt(signal.SIGSTOP)
        assert site.clean() == "nothing was left behind"
        with site.start("host", "--rounds", "1") as another:
            assert another.end() == 0
        living.interrupt(signal.SIGCONT)
        assert living.end() == 0
        assert all_ok(living.result())


@engine
@pytest.mark.usefixtures("nothing_left", "one_of_all")
def test_two_campaigns_at_once(site: Site) -> None:
    def weigh(_: int) -> None:
        with site.start(ALL, "--engines", "private", "--rounds", "1") as program:
            assert program.end() == 0, program.said
            assert all_ok(program.result())

    some_at_once(weigh, range(2))


class Users:
    """The user's own engines on the stage, each with something in it."""

    def __init__(self, site: Site, docker: sdk.DockerClient) -> None:
        self._site = site
        self._docker = docker

    def hold(self) -> dict[str, list[str]]:
        """What is in them."""
        containers = self._docker.containers.list(all=True)
        virsh = "import libvirt; print(*(d.name() for d in libvirt.open('qemu:///system').listAllDomains()))"
        argv = self._site.stage.within(sys.executable, "-c", virsh)
        return {
            "images": sorted(str(image.id) for image in self._docker.images.list(all=True)),
            "containers": sorted(f"{container.name} {container.status}" for container in containers),
            "networks": sorted(str(network.id) for network in self._docker.networks.list()),
            "volumes": sorted(str(volume.id) for volume in self._docker.volumes.list()),
            "domains": subprocess.check_output(argv, text=True, timeout=TIMEOUT).split(),
        }


@contextmanager
def daemon(site: Site, name: str, *flags: str) -> Iterator[None]:
    """A daemon of the user's, from when it says by sd_notify(3) that it is ready."""
    program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip(f"there is no {name}")
    door, log = site.folder / name, site.folder / f"{name}.log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, log.open("w") as output:
        notify.bind(str(door))
        notify.settimeout(TIMEOUT)
        argv = site.stage.within("setpriv", "--pdeathsig", "KILL", program, *flags)
        environment = {**site.environment, "NOTIFY_SOCKET": str(door)}
        with subprocess.Popen(argv, env=environment, stdout=output, stderr=output, process_group=0) as popen:
            try:
                while b"READY=1" not in notify.recv(4096):
                    pass
                yield
            finally:
                popen.terminate()
                with suppress(subprocess.TimeoutExpired):
                    popen.wait(20)
                popen.kill()


SHORT_KEEPALIVE = "keepalive_interval = 1\nkeepalive_count = 1\n"
"""Disconnects a client that does not respond for 2 s; every boot takes longer than that."""

# A libvirt hook (hooks.html), which gets the domain's XML when a domain is created. It leaves the file that libvirt's
# AppArmor driver leaves, for machines without AppArmor.
LIKE_APPARMOR = """#!/bin/sh
[ "$2 $3" = "prepare begin" ] || exit 0
uuid=$(sed -n "s|.*<uuid>\\(.*\\)</uuid>.*|\\1|p" | head -n 1)
: > "/etc/apparmor.d/libvirt/libvirt-$uuid"
"""


@pytest.fixture
def users(site: Site, one_of_all: tuple[int, Result, list[str]]) -> Iterator[Users]:
    """Engines that run on the stage as they would on the machine: they change its links, firewall and ip_forward."""
    for absent in one_of_all[1].unavailable:
        pytest.skip(f"{absent.target}: {absent.reason}")
    group = f"{site.folder.name}-users"
    flags = ["--data-root", str(site.folder / "docker"), "--cgroup-parent", f"/{group}"]
    with ExitStack() as stack:
        stack.callback(cgroup.remove, group)
        stack.enter_context(daemon(site, "dockerd", *flags, "--exec-opt", "native.cgroupdriver=cgroupfs"))
        site.stage.path("/etc/libvirt/libvirtd.conf").write_text(SHORT_KEEPALIVE)
        hook = site.stage.path("/etc/libvirt/hooks/qemu")
        hook.parent.mkdir()
        hook.write_text(LIKE_APPARMOR)
        hook.chmod(0o755)
        # Where libvirt's user may not open /dev/kvm, libvirtd looks for it anew, for half a minute, at every start.
        who = 'user = "root"\ngroup = "root"\n' if Path("/dev/kvm").exists() else ""
        site.stage.path("/etc/libvirt/qemu.conf").write_text('security_driver = "none"\n' + who)
        stack.enter_context(daemon(site, "virtlogd"))
        stack.enter_context(daemon(site, "libvirtd"))
        client = sdk.DockerClient(base_url=f"unix://{site.stage.path('/run/docker.sock')}", timeout=int(TIMEOUT))
        stack.callback(client.close)
        client.api.import_image_from_file(str(bundle.build(workloads.load("hello")).tar()), repository="theirs")
        container = client.containers.run("theirs", ["sleep", "1000000"], name="theirs", detach=True)
        stack.callback(container.remove, force=True)
        client.networks.create("theirs")
        with vm_of_the_users(site):
            yield Users(site, client)


@contextmanager
def vm_of_the_users(site: Site) -> Iterator[None]:
    """A machine of the user's, paused; by it libvirtd makes the control groups of all machines."""
    was = {group for group in (cgroup.ROOT / "machine", *cgroup.ROOT.glob("*/machine")) if group.exists()}
    vm = "<domain type='qemu'><name>theirs</name><memory>65536</memory><os><type>hvm</type></os></domain>"
    # Asked what it can the daemon looks at each QEMU there is, and keeps that in its cache.
    make = "import libvirt; c = libvirt.open('qemu:///system'); c.getCapabilities();"
    make += f"c.createXML({vm!r}, libvirt.VIR_DOMAIN_START_PAUSED)"
    end = "import libvirt; libvirt.open('qemu:///system').lookupByName('theirs').destroy()"
    subprocess.run(site.stage.within(sys.executable, "-c", make), check=True, timeout=TIMEOUT)
    try:
        yield
    finally:
        subprocess.run(site.stage.within(sys.executable, "-c", end), check=True, timeout=TIMEOUT)
        for group in {cgroup.ROOT / "machine", *cgroup.ROOT.glob("*/machine")} - was:
            for folder, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):  # a machine of somebody else's came into it
                    Path(folder).rmdir()


SWEPT = "+ file: /run/docker/netns/"
"""dockerd unmounts the namespace of a container that is gone at once, and sweeps up the empty files once a minute."""


@engine
def test_engines_of_the_users_are_left_as_they_were(site: Site, users: Users) -> None:
    before, held = site.take(), users.hold()
    whose: dict[str, str] = {}
    for targets in (ALL, SNAPSHOT):
        with site.start(targets, "--engines", "user", "--rounds", "1") as program:
            assert program.end() == 0, program.said
            result = program.result()
        assert all_ok(result)
        whose |= {target.target: target.whose for target in result.targets if target.whose != "system"}
    assert whose == {"docker": "user", LIBVIRT: "user", SNAPSHOT: "user"}
    same(before, site.take(), SWEPT)
    assert users.hold() == held

    def kill(case: tuple[str, tuple[str, int]]) -> None:
        target, moment = case
        with site.start(target, "--engines", "user", "--rounds", "1") as program:
            program.until(*moment)
            program.popen.kill()
            program.end()

    some_at_once(kill, [(target, moment) for target in ("docker", LIBVIRT) for moment in MOMENTS[1:]])
    assert "released" in site.clean()
    same(before, site.take(), SWEPT)
    assert users.hold() == held
