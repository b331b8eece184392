"""What is built of others' packages and scripts reaches nothing of this machine, and ends with who builds it."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

import psutil
import pytest

from harness import bundle, command, sandbox, workloads
from harness.command import CommandFailed

pytestmark = pytest.mark.engine

ESCAPE = """\
import os
try:
    os.mkdir("/hole")
    out = os.open("/", os.O_RDONLY)
    os.chroot("/hole")
    os.fchdir(out)
    for _ in range(40):
        os.chdir("..")
    os.chroot(".")
except OSError as error:
    print(error)
try:
    open("{there}").read()
except FileNotFoundError:
    os.fchdir(out)
    open("made", "w").write("kept in")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's can write what that user can")
def test_packages_are_unpacked_nowhere_else(tmp_path: Path) -> None:
    """A link that a package brings may lead anywhere."""
    inside = tmp_path / "inside"
    inside.mkdir()
    outside = Path(tempfile.mkdtemp(dir="/var/tmp"))  # of /tmp it sees nothing
    sandbox.writing_only(inside, ["sh", "-c", f"echo x >{inside}/made; ln -s {outside} {inside}/link"])
    assert (inside / "made").read_text() == "x\n"
    with pytest.raises(CommandFailed, match="Read-only file system"):
        sandbox.writing_only(inside, ["sh", "-c", f"echo x >{inside}/link/escaped"])
    outside.rmdir()  # it is empty


def test_a_build_cannot_leave_the_bundle_by_chroot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "there"
    there.write_text("secret")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/start").touch()
    (tmp_path / "mine/escape.py").write_text(ESCAPE.format(there=there))
    (tmp_path / "mine/build").write_text("python3 /escape.py\n")
    (tmp_path / "mine/workload.toml").write_text(
        'packages = ["busybox-static", "python3"]\nstart = "start"\nbuild = "build"\n'
        '[files]\n"/escape.py" = "escape.py"\n'
    )
    monkeypatch.setenv("WEIGHBRIDGE_CACHE", str(tmp_path / "cache"))
    made = bundle.build(workloads.load(str(tmp_path / "mine")))
    assert (made.root / "made").read_text() == "kept in"


def test_a_build_has_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHBRIDGE_SECRET", "secret")
    for name in ("usr/bin", "dev", "proc"):
        (tmp_path / name).mkdir(parents=True)
    busybox = bundle.build(workloads.load("hello")).root / "usr/bin/busybox"
    (tmp_path / "busybox").write_bytes(busybox.read_bytes())
    (tmp_path / "busybox").chmod(0o755)
    before = os.umask(0o077)
    try:
        told = sandbox.within(tmp_path, ["/busybox", "sh", "-c", "umask; id -u; env; cat /proc/net/dev"])
    finally:
        os.umask(before)
    assert told.startswith("0022\n0\n")
    assert "WEIGHBRIDGE_SECRET" not in told
    assert "eth0" not in told


@pytest.mark.parametrize("where", ["writing", "within"])
def test_all_that_was_started_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """As in an interruption: the one who waits is thrown out of it."""
    monkeypatch.setattr(command, "run", functools.partial(command.run, timeout=0.5))
    left = ["sh", "-c", "setsid sleep 86399 & sleep 86399"]
    with pytest.raises(CommandFailed, match="did not end in time"):
        if where == "writing":
            sandbox.writing_only(tmp_path, left)
        else:
            sandbox.within(Path("/"), ["/bin/" + left[0], *left[1:]])
    assert [process for process in psutil.process_iter(["cmdline"]) if "86399" in (process.info["cmdline"] or ())] == []
