"""Limits of an ordinary user under cgroup version 2: in a group that is delegated to the user, or in a systemd scope.

The first half has a tree of plain files, and stubs of busctl and systemctl: they stand in for systemd. The second half
has the kernel's own tree and an ordinary user in a group that root delegated.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import cgroup, delegation, user_manager
from harness.delegation import HARNESS, enter_delegated_group
from harness.ledger import Ledger
from harness.limiting import Refusal
from harness.model import Limits
from tests.ground import REPOSITORY, ground

UID = 1000
CAMPAIGN = "campaign"


@dataclass
class Machine:
    """A fake machine. tree: the cgroup root, which is closed to the user; calls: the log of the stubs' calls."""

    tree: Path
    own: Path
    stubs: Path
    calls: Path
    closed: set[Path]

    def group(self, path: str, *, controllers: str = "cpu memory pids", pids: Sequence[int] = ()) -> Path:
        """Create a group with the kernel's files."""
        folder = self.tree / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.controllers").write_text(f"{controllers}\n")
        for name in ("cgroup.subtree_control", "cgroup.type"):
            (folder / name).write_text("")
        (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        return folder

    def put_us(self, path: str, **more: str) -> Path:
        """Put this process into that group."""
        self.own.write_text(f"1:name=systemd:/elsewhere\n0::/{path}\n")
        return self.group(path, pids=[os.getpid()], **more)

    def close(self, folder: Path) -> None:
        """Take away the user's write access to a group."""
        self.closed |= {folder, folder / "cgroup.procs", folder / "cgroup.subtree_control"}

    def stub(self, program: str, script: str = "") -> None:
        path = self.stubs / program
        path.write_text(f'#!/bin/sh\necho {program} "$XDG_RUNTIME_DIR" "$@" >>{self.calls}\n{script}\n')
        path.chmod(0o755)

    def move_us_when_asked(self, path: str, *, controllers: str = "cpu memory pids") -> Path:
        """Have the stub of systemctl move this process, as systemd does before it returns."""
        scope = self.group(path, controllers=controllers)
        self.stub("busctl", "echo 'o \"/org/freedesktop/systemd1/job/32\"'")
        self.stub("systemctl", f"echo 0::/{path} >{self.own}; echo {os.getpid()} >{scope}/cgroup.procs")
        return scope


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """An ordinary user in the scope of a login session, with a user manager that answers."""
    made = Machine(tmp_path / "cgroup", tmp_path / "own", tmp_path / "bin", tmp_path / "calls", set())
    made.stubs.mkdir()
    made.calls.touch()
    made.group("")
    (made.tree / "cgroup.type").unlink()
    (made.tree / "cgroup.subtree_control").write_text("cpu memory pids")
    made.close(made.tree)
    made.close(made.put_us("user.slice/session-1.scope"))
    monkeypatch.setattr(cgroup, "ROOT", made.tree)
    monkeypatch.setattr(delegation, "OWN", made.own)
    monkeypatch.setattr(user_manager, "SYSTEMD", tmp_path)
    monkeypatch.setattr(user_manager, "RUNTIME", tmp_path / "run")
    monkeypatch.setattr(user_manager, "describe_user", lambda: "bob")
    monkeypatch.setattr(os, "geteuid", lambda: UID)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in made.closed)
    monkeypatch.setattr(Path, "rmdir", shutil.rmtree)  # a group's files are no obstacle to the kernel
    monkeypatch.setenv("PATH", f"{made.stubs}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/another")  # as after su
    monkeypatch.setenv("WEIGHBRIDGE_STATE", str(tmp_path / "state"))
    (tmp_path / "run" / str(UID)).mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(tmp_path / "run" / str(UID) / "bus"))
        bus.listen()
        made.move_us_when_asked("user.slice/user@1000.service/app.slice/weighbridge-campaign.scope")
        yield made


@pytest.fixture
def ledger(machine: Machine) -> Iterator[Ledger]:
    with Ledger() as opened:
        opened.campaign = CAMPAIGN
        yield opened


def test_a_scope_is_requested_for_this_process_and_groups_are_created_in_it(machine: Machine, ledger: Ledger) -> None:
    scope = machine.tree / "user.slice/user@1000.service/app.slice/weighbridge-campaign.scope"
    with enter_delegated_group(ledger):
        assert cgroup.find_refusals() == {"cpus": None, "memory": None}
        assert (scope / HARNESS / "cgroup.procs").read_text() == str(os.getpid())
        assert (scope / "cgroup.subtree_control").read_text() == "+cpu +memory"
        with cgroup.limited(ledger, "one", Limits(0.5, 2**20)) as group:
            assert group.folders == {"cpu": scope / "one", "memory": scope / "one"}
            assert {each.mechanism for each in group.applied().values()} == {
                "cfs quota, cgroup v2",
                "memory cgroup, cgroup v2",
            }
        assert not (scope / "one").exists()
    assert cgroup.refusal() is not None
    runtime = user_manager.RUNTIME / str(UID)
    properties = f"PIDs au 1 {os.getpid()} Delegate b 1 CollectMode s inactive-or-failed"
    call, start = machine.calls.read_text().splitlines()
    assert call == (
        f"busctl {runtime} --user call org.freedesktop.systemd1 /org/freedesktop/systemd1 "
        "org.freedesktop.systemd1.Manager StartTransientUnit ssa(sv)a(sa(sv)) weighbridge-campaign.scope fail 4 "
        f"{properties} Description s Weighbridge campaign campaign 0"
    )
    assert start == f"systemctl {runtime} --user --quiet start weighbridge-campaign.scope"


def no_bus(machine: Machine) -> None:
    (user_manager.RUNTIME / str(UID) / "bus").unlink()


def no_listener(machine: Machine) -> None:
    no_bus(machine)
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(user_manager.RUNTIME / str(UID) / "bus"))


def no_systemd(machine: Machine) -> None:
    user_manager.SYSTEMD = machine.tree / "absent"


def version_1(machine: Machine) -> None:
    (machine.tree / "cgroup.controllers").unlink()
    for controller in ("cpu", "cpuacct", "memory"):
        machine.close(machine.group(controller))


def no_cpu_in_the_kernel(machine: Machine) -> None:
    (machine.tree / "cgroup.controllers").write_text("memory pids")
    machine.move_us_when_asked("app.slice/weighbridge-campaign.scope", controllers="")


REFUSALS: dict[str, tuple[Callable[[Machine], object], str, str]] = {
    "no session": (
        lambda _: shutil.rmtree(user_manager.RUNTIME),
        "no systemd user manager without a login session",
        "sudo loginctl enable-linger bob",
    ),
    "no bus": (no_bus, "bus: No such file or directory", "sudo apt-get install dbus-user-session"),
    "no listener": (no_listener, "bus: Connection refused", "sudo apt-get install dbus-user-session"),
    "no systemd": (no_systemd, "systemd is not running here", "sudo "),
    "version 1": (version_1, "cgroup version 1", "sudo "),
    "another PID namespace": (
        lambda _: setattr(user_manager, "_find_listener", lambda bus: 0),
        "another PID namespace",
        "sudo ",
    ),
    "refused": (
        lambda machine: machine.stub("busctl", "echo 'Call failed: Access denied' >&2; exit 1"),
        "refuses a scope: busctl failed with status 1: Call failed: Access denied",
        "sudo ",
    ),
    "failed": (
        lambda machine: machine.stub("systemctl", "echo 'Unit x.scope not found.' >&2; exit 5"),
        "refuses a scope: systemctl failed with status 5: Unit x.scope not found.",
        "sudo ",
    ),
    "not moved": (lambda machine: machine.stub("systemctl"), "did not move this process into", "sudo "),
    "nothing delegated": (
        lambda machine: machine.move_us_when_asked("app.slice/weighbridge-campaign.scope", controllers="pids"),
        "delegated to bob has pids, but not cpu and memory",
        "/etc/systemd/system/user@.service.d/delegate.conf",
    ),
    "no controller": (no_cpu_in_the_kernel, "the kernel does not offer", "boot with the kernel parameters"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_has_its_reason_and_a_command(
    machine: Machine, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    change, reason, command = REFUSALS[case]
    for name in ("SYSTEMD", "_find_listener"):  # put back at the end
        monkeypatch.setattr(user_manager, name, getattr(user_manager, name))
    change(machine)
    with enter_delegated_group(ledger), cgroup.limited(ledger, "one", Limits()) as group:
        refusal = cgroup.refusal()
        assert refusal is not None
        assert reason in refusal.reason
        assert command in refusal.command
        assert group.folders == {}
        applied = group.applied()
        assert {each.mechanism for each in applied.values()} == {None}
        assert applied["memory"].reason == str(cgroup.find_refusals()["memory"])
    assert not [*machine.tree.rglob("one")]


def test_a_machine_without_busctl(machine: Machine, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program, path=None: None)
    with enter_delegated_group(ledger):
        assert str(cgroup.refusal()) == "the program busctl is not installed. Try: sudo apt-get install systemd"


def test_a_controller_that_is_not_delegated_costs_its_own_limit_alone(machine: Machine, ledger: Ledger) -> None:
    """systemd before 252 delegates memory and pids."""
    scope = machine.move_us_when_asked("app.slice/weighbridge-campaign.scope", controllers="memory pids")
    with enter_delegated_group(ledger), cgroup.limited(ledger, "one", Limits()) as group:
        assert (scope / "cgroup.subtree_control").read_text() == "+memory"
        cpus, memory = (group.applied()[name] for name in ("cpus", "memory"))
        assert "delegated to bob has memory, pids, but not cpu." in (cpus.reason or "")
        assert "Delegate=cpu memory pids" in (cpus.reason or "")
        assert (memory.mechanism, memory.reason) == ("memory cgroup, cgroup v2", None)
        assert group.folders == {"memory": scope / "one", "cpu": scope / "one"}  # cpu.stat is always there
        assert [file.name for file in (scope / "one").iterdir()] == ["memory.max"]


@pytest.mark.parametrize("marked", [False, True])
def test_our_own_group_is_used_where_it_is_delegated(
    machine: Machine, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, marked: bool
) -> None:
    """A service with Delegate=yes, whose slice is root's; or a unit of the user manager that it marks."""
    own = machine.put_us("some.slice/runner.service")
    if marked:
        monkeypatch.setattr(os, "getxattr", lambda path, name: {(own, "user.delegate"): b"1"}[path, name])
    else:
        machine.close(own.parent)
    with enter_delegated_group(ledger):
        assert cgroup.refusal() is None
        with cgroup.limited(ledger, "one", Limits()) as group:
            assert group.folders["memory"] == own / "one"
    assert machine.calls.read_text() == ""


def test_a_unit_of_the_user_manager_that_is_not_delegated_is_left_alone(machine: Machine, ledger: Ledger) -> None:
    """Everything below the user manager is writable, but its groups belong to the user manager."""
    terminal = machine.put_us("user.slice/user@1000.service/app.slice/terminal.scope")
    with enter_delegated_group(ledger):
        assert cgroup.refusal() is None
    assert "StartTransientUnit" in machine.calls.read_text()
    assert not (terminal / HARNESS).exists()


def test_a_delegated_group_with_other_processes_is_second_to_a_scope(machine: Machine, ledger: Ledger) -> None:
    shell = machine.put_us("some.slice/runner.service")
    machine.close(shell.parent)
    (shell / "cgroup.procs").write_text(f"{os.getppid()}\n{os.getpid()}\n")
    with enter_delegated_group(ledger), cgroup.limited(ledger, "one", Limits()) as group:
        assert group.folders["memory"].parent.name == "weighbridge-campaign.scope"
    shutil.rmtree(user_manager.RUNTIME)
    machine.own.write_text("0::/some.slice/runner.service\n")
    with enter_delegated_group(ledger), cgroup.limited(ledger, "one", Limits()) as group:
        assert group.folders["memory"].parent == shell


def test_a_second_campaign_uses_the_group_of_the_first(machine: Machine, ledger: Ledger) -> None:
    """The second one starts in the harness's group: as a child, or as another command of the same shell."""
    scope = machine.group("app.slice/weighbridge-first.scope")
    machine.put_us(f"app.slice/weighbridge-first.scope/{HARNESS}")
    with enter_delegated_group(ledger), cgroup.limited(ledger, "one", Limits()) as group:
        assert group.folders["memory"] == scope / "one"
    assert machine.calls.read_text() == ""


def test_a_path_of_another_cgroup_namespace_is_not_ours(machine: Machine, ledger: Ledger) -> None:
    """A group of that name is there, and it is writable, but this process is not in it."""
    machine.put_us("some.slice/runner.service")
    (machine.tree / "some.slice/runner.service/cgroup.procs").write_text("1\n")
    shutil.rmtree(user_manager.RUNTIME)
    with enter_delegated_group(ledger):
        assert "no systemd user manager" in str(cgroup.refusal())


def test_root_of_a_whole_machine_changes_nothing(machine: Machine, ledger: Ledger) -> None:
    machine.closed.clear()
    with enter_delegated_group(ledger), cgroup.limited(ledger, "one", Limits()) as group:
        assert group.folders["memory"] == machine.tree / "one"
    assert machine.calls.read_text() == ""


def test_the_kernels_root_group_is_never_divided(
    machine: Machine, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root on a machine without an enabled controller gets the command that enables them; nothing is changed."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    machine.closed.clear()
    (machine.tree / "cgroup.subtree_control").write_text("")
    (machine.tree / "cgroup.procs").write_text(f"{os.getpid()}\n")
    machine.own.write_text("0::/\n")
    with enter_delegated_group(ledger):
        assert cgroup.refusal() == Refusal(
            f"the cpu controller is not enabled at {machine.tree}",
            f"echo '+cpu +memory' | sudo tee {machine.tree}/cgroup.subtree_control",
        )
    assert not (machine.tree / HARNESS).exists()


def test_entries_of_earlier_ledgers_are_still_released(machine: Machine, tmp_path: Path) -> None:
    """Earlier entries have the name of a group at the root; later ones have the absolute path of a folder."""
    named, placed = machine.group("weighbridge-old"), machine.group("app.slice/x.scope/weighbridge-new")
    cgroup.remove(name="weighbridge-old")
    cgroup.remove(folders=[str(placed), str(machine.tree / "gone")])
    assert (named.exists(), placed.exists(), placed.parent.exists()) == (False, False, True)


def test_systemd_may_remove_a_group_first(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It removes a scope, and all groups in it, when its last process ends."""
    outer, inner = machine.group("x.scope"), machine.group("x.scope/weighbridge-1")

    def gone(folder: Path) -> None:
        shutil.rmtree(outer, ignore_errors=True)
        raise FileNotFoundError(folder)

    monkeypatch.setattr(Path, "rmdir", gone)
    cgroup.remove(folders=[str(inner)])
    delegation.leave(str(outer))
    assert not outer.exists()


# In the kernel's own tree.

NOBODY = 65534
MOUNTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
"""Mount points of cgroup version 2: alone, and beside the controllers of version 1."""
JOIN = 'echo 0 >"$1/cgroup.procs" && shift && exec "$@"'
CHILD = """
import json, os, sys
from pathlib import Path
from harness import cgroup, delegation
from harness.ledger import Ledger
from harness.limiting import Refusal
from harness.model import Limits

cgroup.ROOT, controllers = Path(sys.argv[1]), tuple(sys.argv[2:])
delegation.CONTROLLERS = controllers
if "memory" not in controllers:
    cgroup.LIMITED_BY.clear()
    cgroup.LIMITED_BY["memory"] = controllers[0]
    cgroup.settings = lambda limits: {controllers[0]: {"hugetlb.2MB.max": "2097152"}}
with Ledger() as ledger, delegation.enter_delegated_group(ledger):
    with cgroup.limited(ledger, ledger.name(), Limits()) as group:
        place, files = delegation._find_own_group(), {}
        for controller, folder in group.folders.items():
            for file in cgroup.settings(Limits()).get(controller, {}):
                files[file] = (folder / file).read_text().strip()
        print(json.dumps([str(cgroup.refusal()), str(place), files]), flush=True)
        input()
"""


@dataclass(frozen=True)
class Delegated:
    """A group that root delegated to NOBODY, who has nothing above it."""

    root: Path
    folder: Path
    controllers: tuple[str, ...]
    environment: dict[str, str]

    @contextmanager
    def started(self, *argv: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command as NOBODY where a process of the delegated group now starts, and kill it at the end."""
        below = self.folder / HARNESS
        join = ["sh", "-c", JOIN, "join", str(below if below.exists() else self.folder)]
        user = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
        with subprocess.Popen(
            [*join, *user, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.environment
        ) as child:
            try:
                yield child
            finally:
                child.kill()

    @contextmanager
    def campaign(self) -> Iterator[tuple[subprocess.Popen[str], str, dict[str, str]]]:
        """Yield a process with an instance's group, the control group that it is in, and the instance's limits."""
        with self.started(sys.executable, "-P", "-c", CHILD, str(self.root), *self.controllers) as child:
            assert child.stdout is not None
            refusal, place, files = json.loads(child.stdout.readline())
            assert refusal == "None"
            yield child, place, files

    def groups(self) -> list[str]:
        return sorted(folder.name for folder in self.folder.iterdir() if folder.is_dir())

    def pids(self, group: str = "") -> list[int]:
        return [int(pid) for pid in (self.folder / group / "cgroup.procs").read_text().split()]

    def enabled(self) -> list[str]:
        return (self.folder / "cgroup.subtree_control").read_text().split()


@pytest.fixture
def delegated() -> Iterator[Delegated]:
    if os.geteuid() != 0:
        pytest.skip("only root can delegate a group")
    if not all(folder.stat().st_mode & 0o5 == 0o5 for folder in (REPOSITORY, *REPOSITORY.parents)):
        pytest.skip(f"{REPOSITORY} is not open to ordinary users")
    root = next((each for each in MOUNTS if (each / "cgroup.controllers").exists()), None)
    offered = set((root / "cgroup.controllers").read_text().split()) if root else set()
    controllers = ("cpu", "memory") if {"cpu", "memory"} <= offered else ("hugetlb",)
    if root is None or not set(controllers) <= offered or not os.access(root, os.W_OK):
        pytest.skip("cgroup version 2 has no controller to delegate here")
    control = root / "cgroup.subtree_control"
    ours = [controller for controller in controllers if controller not in control.read_text().split()]
    outer = Path(tempfile.mkdtemp(prefix="weighbridge-test-", dir=root))
    try:
        outer.chmod(0o755)
        folder = outer / "delegated"
        for above in (control, outer / "cgroup.subtree_control"):
            above.write_text(" ".join(f"+{controller}" for controller in controllers))
        folder.mkdir()
        for path in (folder, folder / "cgroup.procs", folder / "cgroup.subtree_control"):
            os.chown(path, NOBODY, NOBODY)
        with ground(NOBODY) as here:
            yield Delegated(root, folder, controllers, {**os.environ, **here.environment})
    finally:
        cgroup.remove(folders=[str(outer)])
        control.write_text(" ".join(f"-{controller}" for controller in ours))


@pytest.mark.engine
def test_all_processes_move_down_and_back(delegated: Delegated) -> None:
    """The kernel refuses controllers to groups below one that has processes: a shell's, for example."""
    with delegated.started("cat") as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdin.write("in\n")
        shell.stdin.flush()
        assert shell.stdout.readline() == "in\n"
        with delegated.campaign() as (child, place, files):
            assert place == str(delegated.folder / HARNESS)
            assert len(files) == len(delegated.controllers)
            assert "max" not in files.values()
            assert sorted(delegated.pids(HARNESS)) == sorted([shell.pid, child.pid])
            assert len(delegated.groups()) == 2
            child.communicate("\n")
            assert child.returncode == 0
        assert (delegated.groups(), delegated.pids(), delegated.enabled()) == ([], [shell.pid], [])


@pytest.mark.engine
def test_the_last_of_two_campaigns_undoes_it(delegated: Delegated) -> None:
    with delegated.campaign() as (first, _, _), delegated.campaign() as (second, _, _):
        first.communicate("\n")
        assert first.returncode == 0
        assert set(delegated.controllers) == set(delegated.enabled())
        assert len(delegated.groups()) == 2
        assert delegated.pids(HARNESS) == [second.pid]
        second.communicate("\n")
        assert second.returncode == 0
    assert (delegated.groups(), delegated.enabled()) == ([], [])


@pytest.mark.engine
def test_clean_undoes_the_move_of_a_killed_campaign(delegated: Delegated) -> None:
    """The reaper runs outside the group and finds it by its absolute path."""
    with delegated.started("cat") as shell:
        with delegated.campaign() as (child, _, _):
            child.send_signal(signal.SIGKILL)
            child.wait()
            assert len(delegated.groups()) == 2
        reaper = [sys.executable, "-P", "-c", "from harness import ledger; print(*ledger.reap().values())"]
        user = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
        done = subprocess.run(
            [*user, *reaper], env=delegated.environment, capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout == "None\n"
        assert (delegated.groups(), delegated.pids(), delegated.enabled()) == ([], [shell.pid], [])
