"""Bundles: the same content in every form, built once, readable by whoever runs it."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import bundle, command, debian, places, workloads
from harness.command import CommandFailed
from harness.errors import BadInput, Unavailable, WrongBundle
from harness.workloads import Workload

REPOSITORY = Path(bundle.__file__).parent.parent
BUSYBOX = "#!/bin/sh\necho bin/sh usr/bin/env sbin/ip linuxrc\n"  # all that a build asks of it


class FakeDebian:
    """Stands in for Debian's archive: every package is there, and together they hold this."""

    def __init__(self) -> None:
        self.down = False
        self.unpacked: list[tuple[str, ...]] = []

    def unpack(self, packages: tuple[str, ...], into: Path) -> dict[str, str]:
        if self.down:
            raise Unavailable("the archive cannot be reached", "try again")
        self.unpacked.append(packages)
        into.mkdir()
        (into / "bin").mkdir()
        (into / "bin/busybox").write_text(BUSYBOX)
        (into / "bin/busybox").chmod(0o4755)
        (into / "usr/bin").mkdir(parents=True)
        (into / "usr/bin/env").write_text("not an applet\n")
        (into / "etc").mkdir()
        (into / "etc/out").symlink_to("/tmp")
        return dict.fromkeys(packages, "1.0")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WEIGHBRIDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeDebian:
    fake = FakeDebian()
    monkeypatch.setattr(debian, "unpack", fake.unpack)
    return fake


@pytest.fixture
def tight_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def mine(folder: Path, files: str = "") -> Workload:
    folder.mkdir(exist_ok=True)
    (folder / "start").write_text("")
    (folder / "workload.toml").write_text(f'packages = ["busybox-static"]\nstart = "start"\n[files]\n{files}')
    return workloads.load(str(folder))


def test_every_form_has_the_same_digest(fake: FakeDebian) -> None:
    made = bundle.build(workloads.load("hello"))
    assert bundle.digest_of_tree(made.root) == made.sha256
    assert bundle.digest_of_tree(made.tree()) == made.sha256
    assert bundle.digest_of_tar(made.tar()) == made.sha256
    assert (made.root / "etc/weighbridge-bundle").read_text() == made.sha256 + "\n"
    made.disk()  # it refuses a disk of another digest
    with pytest.raises(WrongBundle):
        made._verify("another", "its disk")


def test_the_digest_is_of_content_and_modes_only(fake: FakeDebian, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(bundle.build(workloads.load("hello")).root, tree, symlinks=True)
    digest = bundle.digest_of_tree(tree)
    os.utime(tree / "init")
    (tree / "etc/weighbridge-bundle").write_text("something else")
    assert bundle.digest_of_tree(tree) == digest
    seen = {digest}
    (tree / "start").chmod(0o600)
    seen.add(bundle.digest_of_tree(tree))
    (tree / "start").write_text("true\n")
    seen.add(bundle.digest_of_tree(tree))
    (tree / "usr/bin/sh").unlink()
    seen.add(bundle.digest_of_tree(tree))
    (tree / "usr/bin/sh").symlink_to("elsewhere")
    seen.add(bundle.digest_of_tree(tree))
    assert len(seen) == 5
    os.mkfifo(tree / "run/fifo")
    with pytest.raises(BadInput, match="fifo"):
        bundle.digest_of_tree(tree)


def test_the_tree_is_laid_out_as_engines_need_it(fake: FakeDebian, tight_umask: None) -> None:
    root = bundle.build(workloads.load("hello")).root
    assert (root / "bin").readlink() == Path("usr/bin")
    assert (root / "bin/sh").resolve() == (root / "linuxrc").resolve() == root / "usr/bin/busybox"
    assert (root / "sbin/ip").resolve() == root / "usr/bin/busybox"
    assert not (root / "bin/env").is_symlink()  # a package's own program comes before an applet
    assert stat.S_IMODE((root / "usr/bin/busybox").stat().st_mode) == 0o755  # and not setuid
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert (root / "run/doorbell").stat().st_size == 0
    for path in (root.parent, root, root / "usr/sbin", root / "init"):
        assert path.stat().st_mode & 0o055 == 0o055  # others must get in, whatever our umask is
    for path in (root / "start", root / "run/doorbell", root / "etc/weighbridge-bundle"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_the_second_build_is_from_the_cache(fake: FakeDebian) -> None:
    first = bundle.build(workloads.load("hello"))
    fake.down = True
    assert bundle.build(workloads.load("hello")) == first
    assert fake.unpacked == [("busybox-static",)]


def test_a_changed_file_makes_another_bundle(fake: FakeDebian, tmp_path: Path) -> None:
    first = bundle.build(mine(tmp_path / "mine", '"/srv/a" = "start"'))
    (tmp_path / "mine/start").write_text("true\n")
    second = bundle.build(workloads.load(str(tmp_path / "mine")))
    assert first.sha256 != second.sha256
    assert (second.root / "srv/a").read_text() == "true\n"


def test_every_file_is_one_of_its_own(fake: FakeDebian, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy for another uid would keep no hard links, and weigh more than the bundle that it is of."""

    def linked(packages: tuple[str, ...], into: Path) -> dict[str, str]:
        told = fake.unpack(packages, into)
        (into / "usr/bin/twin").hardlink_to(into / "usr/bin/env")
        return told

    monkeypatch.setattr(debian, "unpack", linked)
    root = bundle.build(workloads.load("hello")).root
    env, twin = root / "usr/bin/env", root / "usr/bin/twin"
    assert env.read_bytes() == twin.read_bytes()
    assert (env.stat().st_nlink, twin.stat().st_nlink) == (1, 1)


def test_two_campaigns_build_one_bundle(fake: FakeDebian) -> None:
    built: list[bundle.Bundle] = []
    threads = [threading.Thread(target=lambda: built.append(bundle.build(workloads.load("hello")))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 4
    assert len(fake.unpacked) == 1


def test_what_could_not_be_built_is_built_the_next_time(fake: FakeDebian, cache: Path) -> None:
    fake.down = True
    with pytest.raises(Unavailable, match="cannot be reached"):
        bundle.build(workloads.load("hello"))
    fake.down = False
    assert bundle.build(workloads.load("hello")).packages == {"busybox-static": "1.0"}


def test_what_a_killed_maker_left_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / ".thing.draft").mkdir()
    (tmp_path / ".thing.draft/half").touch()
    made = places.made_once(tmp_path / "thing", lambda draft: draft.mkdir())
    assert not list(made.iterdir())

    def fail(draft: Path) -> None:
        draft.mkdir()
        raise BadInput("no")

    with pytest.raises(BadInput):
        places.made_once(tmp_path / "other", fail)
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / ".other.draft").exists()


def test_a_file_is_not_led_out_of_the_bundle(fake: FakeDebian, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="leads out"):
        bundle.build(mine(tmp_path / "mine", '"/etc/out/weighbridge-escaped" = "start"'))
    assert not Path("/tmp/weighbridge-escaped").exists()
    with pytest.raises(BadInput, match="it is a folder"):
        bundle.build(mine(tmp_path / "mine", '"/usr" = "start"'))


def test_a_tree_belongs_to_whom_it_shall(fake: FakeDebian, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bundle.build(workloads.load("hello"))
    assert made.tree(os.geteuid()) == made.tree(None) == made.root
    if os.geteuid() == 0:
        tree = made.tree(65534)
        owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in [tree, *tree.rglob("*")]}
        assert owners == {(65534, 65534)}
        assert bundle.digest_of_tree(tree) == made.sha256
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    with pytest.raises(BadInput, match="4321"):
        made.tree(4321)


def test_the_disk_belongs_to_root(fake: FakeDebian) -> None:
    disk = bundle.build(workloads.load("hello")).disk()
    debugfs = command.find("debugfs", "e2fsprogs")
    told = command.run([debugfs, "-R", "stat /usr/bin/busybox", disk])
    assert "User:     0   Group:     0" in told
    assert "Mode:  0755" in told
    assert command.run([debugfs, "-R", "cat /init", disk]) == workloads.INIT.read_text()
    assert "lost+found" not in command.run([debugfs, "-R", "ls /", disk])
    assert disk.stat().st_blocks * 512 < 4 * 2**20 < disk.stat().st_size
    assert disk.stat().st_mode & 0o777 == 0o644
    command.run([command.find("e2fsck", "e2fsprogs"), "-f", "-n", disk])


def test_what_is_missing_is_named(fake: FakeDebian, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bundle.build(workloads.load("hello"))
    monkeypatch.setattr(shutil, "which", lambda program, path=None: None)
    with pytest.raises(Unavailable) as missing:
        made.disk()
    assert missing.value.hint == "apt-get install e2fsprogs"


def test_a_missing_mmdebstrap_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program, path=None: None)
    with pytest.raises(Unavailable) as missing:
        debian.unpack(["busybox-static"], tmp_path / "new")
    assert missing.value.hint == "apt-get install mmdebstrap"


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tight_umask: None) -> None:
    monkeypatch.setenv("WEIGHBRIDGE_STATE", str(tmp_path / "a/b"))
    assert places.state() == tmp_path / "a/b"
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a", tmp_path / "a/b")} == {0o755}
    (tmp_path / "a/b").chmod(0o711)
    assert stat.S_IMODE(places.state().stat().st_mode) == 0o711  # what was there is the user's
    (tmp_path / "file").touch()
    for hopeless in (tmp_path / "file", tmp_path / "file/below", Path("/proc/weighbridge")):
        monkeypatch.setenv("WEIGHBRIDGE_STATE", str(hopeless))
        with pytest.raises(BadInput, match=f"{hopeless}.*WEIGHBRIDGE_STATE"):
            places.state()
    monkeypatch.delenv("WEIGHBRIDGE_STATE")
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert places.state() == tmp_path / "home/.local/state/weighbridge"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert places.state() == tmp_path / "xdg/weighbridge"


def test_user_without_a_home_is_asked_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WEIGHBRIDGE_STATE", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)  # no user of this number is in the user database
    with pytest.raises(BadInput, match="uid 4000000 has no home: name a folder by HOME or XDG_STATE_HOME"):
        places.state()


def test_a_failing_command_says_its_last_words() -> None:
    with pytest.raises(CommandFailed) as failed:
        command.run(["sh", "-c", "echo one >&2; echo two >&2; exit 3"])
    assert str(failed.value) == "sh failed with status 3: two"
    assert (failed.value.status, failed.value.log) == (3, "one\ntwo")
    with pytest.raises(CommandFailed, match="did not end in time"):
        command.run(["sleep", "60"], timeout=0.05)
    with pytest.raises(Unavailable):
        command.run(["weighbridge-no-such-program"])
    assert command.run(["cat"], stdin="ä") == "ä"


@pytest.mark.engine
@pytest.mark.parametrize(("name", "dependency"), [("python", "libpython3-stdlib"), ("redis", "redis-tools")])
def test_a_real_bundle_is_built_once(name: str, dependency: str) -> None:
    """The second use takes at most a tenth of the first, with every form verified."""

    def use() -> tuple[bundle.Bundle, float]:
        began = time.monotonic()
        made = bundle.build(workloads.load(name))
        for form in (made.tree, made.tar, made.disk):
            form()
        return made, time.monotonic() - began

    (first, long), (second, short) = use(), use()
    assert first == second
    assert short <= 0.1 * long
    assert {"busybox-static", "libc6", dependency} <= set(first.packages)
    assert all(version[0].isdigit() for version in first.packages.values())
    assert first.bytes > 20 * 2**20


@pytest.mark.engine
def test_what_mmdebstrap_says_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(debian.UnknownPackages) as unknown:
        debian.unpack(["busybox-static", "weighbridge-no-such-package"], tmp_path / "unknown")
    assert unknown.value.packages == {"weighbridge-no-such-package"}
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WEIGHBRIDGE_MIRROR", f"http://127.0.0.1:{closed.getsockname()[1]}/debian")
        with pytest.raises(Unavailable) as absent:
            debian.unpack(["busybox-static"], tmp_path / "absent")
    assert "Failed to fetch http://127.0.0.1" in absent.value.reason
    assert "WEIGHBRIDGE_MIRROR" in absent.value.hint


def test_the_archives_of_another_system_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian 12's own sources are, mirrors and all; those of Ubuntu, of others, and of Debian 13 are not."""
    listed = [  # apt 2.6 does not know the last field
        "Debian|http://ftp.cn.debian.org/debian/ bookworm main|$(SIGNED_BY)",
        "Debian|http://ftp.cn.debian.org/debian/ bookworm main|$(SIGNED_BY)",
        "Debian|http://security.debian.org/ bookworm-security main|$(SIGNED_BY)",
        "Debian|http://ftp.cn.debian.org/debian/ trixie main|$(SIGNED_BY)",
        "Docker|https://download.docker.com/linux/debian/ bookworm stable|$(SIGNED_BY)",
        "Ubuntu|http://archive.ubuntu.com/ubuntu/ noble main|$(SIGNED_BY)",
    ]
    monkeypatch.setattr(command, "run", lambda argv: "\n".join(listed))
    assert debian.sources() == [
        "deb http://ftp.cn.debian.org/debian/ bookworm main",
        "deb http://security.debian.org/ bookworm-security main",
    ]


def of_another_system(run: Callable[..., str]) -> Callable[..., str]:
    """Runs programs, but apt-get is one that has no archives of Debian."""
    return lambda argv, **options: "" if argv[0] == "apt-get" else run(argv, **options)


@pytest.mark.engine
def test_a_root_of_its_own_on_another_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "run", of_another_system(command.run))
    assert set(debian.unpack(["busybox-static"], tmp_path / "root")) == {"busybox-static", "usr-is-merged"}
    assert not (tmp_path / "root/etc/apt").exists()


@pytest.mark.engine
def test_a_workload_may_build_in_its_bundle(tmp_path: Path) -> None:
    """It sees the bundle alone, as its root; what it makes is in the bundle, a failure is the workload's."""
    (tmp_path / "start").touch()
    (tmp_path / "workload.toml").write_text('packages = ["busybox-static"]\nstart = "start"\nbuild = "make"\n')
    (tmp_path / "make").write_text("{ id -u; ls /; ip link; } >/made\n")
    made = bundle.build(workloads.load(str(tmp_path)))
    told = (made.root / "made").read_text()
    assert told.startswith("0\n")
    assert {"init", "start", "usr"} < set(told.split())
    assert "home" not in told.split()
    assert "eth" not in told  # no network
    assert not (made.root / "build").exists()
    (tmp_path / "make").write_text("echo no such database >&2; false; true\n")
    with pytest.raises(BadInput, match=r"make: .*no such database"):
        bundle.build(workloads.load(str(tmp_path)))


@pytest.mark.engine
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_an_ordinary_user_builds_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    theirs = Path("/tmp") / f"weighbridge-test-nobody-{os.getpid()}"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    code = (
        "from harness import bundle, workloads; made = bundle.build(workloads.load('python'));"
        "print(made.sha256, made.tree(), made.tar(), made.disk(), sep='\\n')"
    )
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    try:
        env = {**os.environ, "WEIGHBRIDGE_CACHE": str(theirs), "PATH": "/usr/bin:/bin"}
        told = command.run([*nobody, sys.executable, "-c", code], env=env, cwd=REPOSITORY).split()
        assert told[0] == bundle.build(workloads.load("python")).sha256
        shown = command.run([command.find("debugfs", "e2fsprogs"), "-R", "stat /init", told[3]])
        assert "User:     0   Group:     0" in shown
    finally:
        shutil.rmtree(theirs)
