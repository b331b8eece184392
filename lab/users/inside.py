"""python -m lab.users.inside FOLDER DISK: run the steps of this machine, and record their leftovers.

Whose steps: `lab.machine=NAME` on the kernel's command line, a key of steps.MACHINES. After each step FOLDER is
written to DISK as a tar, so that the records of a machine that is ended at its deadline are there too.

Runs as root by the system's Python: only the standard library is there. Each step is a login of its user by ssh, as
from another machine, so that PAM, logind and the user's manager do what they do for people. One session of each user
stays open throughout: the end of a user's last session would hide what a step left running.
"""

from __future__ import annotations

import json
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from lab.users import inventory
from lab.users.steps import JOINING, MACHINES, USERS, Step, steps

KEY = Path("/root/.ssh/id_ed25519")
SETTLING = 60.0
"""Seconds that daemons get to remove the resources of an instance."""
POLL = 3.0


def main(out: Path, disk: Path) -> int:
    """Run every step even if earlier ones failed. Return 0 if all exited with 0 and left nothing, else 1."""
    name = _machine()
    out.mkdir(parents=True, exist_ok=True)
    _make_key()
    _record_system(out / f"system-{name}.txt")
    done: list[dict[str, object]] = []
    with ExitStack() as sessions:
        for user in USERS:
            _hold_session(sessions, user)
        _say(f"the system is {_output(['systemctl', 'is-system-running'])}")
        before = inventory.take(USERS)
        for step in steps(MACHINES[name]):
            if step.name == f"{step.user}-clone" and step.user != MACHINES[name][0]:
                _copy_downloads(MACHINES[name][0], step.user)
                before = inventory.take(USERS)
            each, before = _do_step(step, out, before)
            done.append(each)
            (out / f"steps-{name}.json").write_text(json.dumps(done, indent=1) + "\n")
            subprocess.run(["tar", "-cf", disk, "-C", out, "."], check=True)
            if joined := JOINING.get(step.name):  # the open session and the user's manager still have the old groups
                subprocess.run(["loginctl", "terminate-user", joined], check=True, timeout=120)
                _hold_session(sessions, joined)
    return 0 if all(each["status"] == 0 and not each["left"] for each in done) else 1


def _machine() -> str:
    words = Path("/proc/cmdline").read_text().split()
    return next(word.partition("=")[2] for word in words if word.startswith("lab.machine="))


def _say(text: str) -> None:
    print(f"lab: {text}", flush=True)


def _make_key() -> None:
    """Create an SSH key with which root logs in as every user."""
    KEY.parent.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", KEY], check=True)
    for user in USERS:
        account = pwd.getpwnam(user)
        folder = Path(account.pw_dir, ".ssh")
        folder.mkdir(mode=0o700, exist_ok=True)
        shutil.copyfile(KEY.with_suffix(".pub"), folder / "authorized_keys")
        for path in (folder, folder / "authorized_keys"):
            shutil.chown(path, account.pw_uid, account.pw_gid)


def _ssh(user: str, command: str) -> list[str]:
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=120"]
    options += ["KexAlgorithms=curve25519-sha256", "HostKeyAlgorithms=ssh-ed25519"]  # the cheapest to emulate
    return ["ssh", "-i", str(KEY), *(f"-o{option}" for option in options), f"{user}@localhost", command]


def _hold_session(stack: ExitStack, user: str) -> None:
    """Open a session that stays open until its standard input is closed."""
    session = subprocess.Popen(
        _ssh(user, "echo open; exec cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert session.stdin is not None and session.stdout is not None
    assert session.stdout.readline() == "open\n", f"{user} cannot log in"
    stack.callback(session.wait)
    stack.callback(session.stdin.close)


def _copy_downloads(owner: str, user: str) -> None:
    """Copy a user's uv cache to another user, so that this slow machine downloads and builds packages once."""
    source, account = Path(pwd.getpwnam(owner).pw_dir, ".cache/uv"), pwd.getpwnam(user)
    target = Path(account.pw_dir, ".cache/uv")
    subprocess.run(["install", "-d", "-o", user, "-g", str(account.pw_gid), target.parent], check=True)
    subprocess.run(["cp", "--archive", source, target], check=True)
    subprocess.run(["chown", "--recursive", f"{account.pw_uid}:{account.pw_gid}", target], check=True)


def _record_system(file: Path) -> None:
    """Record a description of the machine: manager, control groups, AppArmor, daemons, versions."""
    commands = (
        ["uname", "-a"],
        ["systemctl", "--version"],
        ["systemctl", "--failed", "--no-legend"],
        ["stat", "--file-system", "--format=%T", "/sys/fs/cgroup"],
        ["cat", "/sys/fs/cgroup/cgroup.subtree_control"],
        ["aa-status"],
        ["systemctl", "is-active", "docker.service", "libvirtd.service", "apparmor.service"],
        ["docker", "version"],
        ["id", "alice"],
        ["id", "bob"],
        ["ls", "-l", "/dev/kvm"],
    )
    text = "".join(f"$ {' '.join(argv)}\n{_output(argv)}\n\n" for argv in commands)
    file.write_text(text)


def _do_step(step: Step, out: Path, before: set[str]) -> tuple[dict[str, object], set[str]]:
    """Run a step; return its record, and the inventory after it."""
    _say(f"{step.name} begins: {step.user}: {step.command}")
    began = time.monotonic()
    status = _run(step, out / f"{step.name}.txt")
    seconds = round(time.monotonic() - began, 1)
    _collect(step, out)
    left, after = _find_leftovers(before)
    for line in left:
        _say(f"{step.name} left: {line}")
    _say(f"{step.name} ended with {status} after {seconds:.0f} s")
    return {"name": step.name, "user": step.user, "status": status, "seconds": seconds, "left": left}, after


def _run(step: Step, kept: Path) -> int:
    """Run the step's command; return its exit status, 124 if it timed out."""
    command = f"timeout --kill-after=60 {step.timeout:g} bash -lc {_quote(step.command)}"
    with (
        kept.open("wb") as file,
        subprocess.Popen(
            _ssh(step.user, command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as child,
    ):
        assert child.stdout is not None
        for line in child.stdout:
            file.write(line)
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        return child.wait()


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _collect(step: Step, out: Path) -> None:
    """Copy the step's newest result files, as `<step>.jsonl`."""
    home = Path(pwd.getpwnam(step.user).pw_dir)
    for pattern in step.results:
        found = sorted(home.glob(pattern))
        if found:
            shutil.copyfile(found[-1], out / f"{step.name}.jsonl")


def _find_leftovers(before: set[str]) -> tuple[list[str], set[str]]:
    """Wait up to SETTLING seconds for the inventory to equal `before`; return differences and the last inventory."""
    deadline = time.monotonic() + SETTLING
    while True:
        after = inventory.take(USERS)
        changes = [f"+ {thing}" for thing in sorted(after - before)] + [
            f"- {thing}" for thing in sorted(before - after)
        ]
        if not changes or time.monotonic() > deadline:
            return changes, after
        time.sleep(POLL)


def _output(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False
        )
    except FileNotFoundError:
        return f"{argv[0]} is missing"
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
