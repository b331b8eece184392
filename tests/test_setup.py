"""The set-up: installs what is missing, once, and without root says what it would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

TOOLS = ["cat", "chmod", "cksum", "dirname", "env", "grep", "head", "ln", "mkdir", "rm", "sed", "stat", "touch", "true"]

# Programs that stand in for the system's. What they were told is in `calls`, what is installed in `installed`.
STUBS = {
    "gcc": "",
    "id": """
        case "$1" in
        -un) echo alice ;;
        -Gn) echo alice sudo $(cat groups) ;;
        *) echo "$UID_TOLD" ;;
        esac""",
    "apt-cache": '! grep -qxF -- "$2" unknown 2>/dev/null',
    "sudo": 'echo "sudo $*" >>calls; exit 1',
    "apt-config": "echo \"lists='$PWD/lists/'\"",
    "apt-get": """
        echo "apt-get $*" >>calls
        case "$*" in
        *update*) rm -f stale; mkdir -p lists; touch lists/archive_Packages ;;
        *install*) [ ! -e stale ] || exit 100; for word; do echo "$word" >>installed; done ;;
        esac""",
    "dpkg-query": r"""
        for word; do grep -qxF -- "$word" installed && echo "installed $word"; done""",
    "pkg-config": '[ "$*" != "--exists libvirt" ] || grep -qxF libvirt-dev installed',
    "uv": f"""
        echo "uv $*" >>calls
        mkdir -p .venv/bin
        touch .venv/bin/weighbridge
        chmod +x .venv/bin/weighbridge
        ln -sf {sys.executable} .venv/bin/python""",
}


class Checkout:
    """A checkout whose set-up meets stubs only, but for the programs in /usr/sbin and /usr/bin/python3."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("setup.sh", "pyproject.toml", "uv.lock"):
            shutil.copy(REPOSITORY / name, folder)
        (folder / "bin").mkdir()
        for name, text in STUBS.items():
            self.stub(name, text)
        for name in TOOLS:
            (folder / "bin" / name).symlink_to(shutil.which(name) or "/nonexistent")
        (folder / "bin/python3").symlink_to(sys.executable)
        (folder / "installed").touch()
        (folder / "groups").touch()
        self.release("bookworm")
        (folder / "lists").mkdir()
        (folder / "lists/archive_Packages").touch()

    def stub(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def release(self, codename: str, files: str = "/nonexistent") -> None:
        """Make the checkout's machine one of that release, with these sockets and devices of engines."""
        (self.folder / "os-release").write_text(f'NAME="A system"\nVERSION_CODENAME={codename}\n')
        text = (REPOSITORY / "setup.sh").read_text()
        text = text.replace("os_release=/etc/os-release", f"os_release={self.folder}/os-release")
        text = text.replace("/var/run/docker.sock /dev/kvm", files)
        (self.folder / "setup.sh").write_text(text)

    def setup(self, *options: str, uid: int = 0) -> tuple[list[str], str]:
        """What it called, and what it said."""
        (self.folder / "calls").write_text("")
        env = {"PATH": str(self.folder / "bin"), "UID_TOLD": str(uid)}
        done = subprocess.run(
            ["/bin/sh", "./setup.sh", *options], cwd=self.folder, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return (self.folder / "calls").read_text().splitlines(), done.stdout + done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def packages(call: str) -> list[str]:
    """What a call of apt-get installs."""
    return [word for word in call.split(" install ")[1].split() if not word.startswith("-")]


def test_what_a_machine_without_anything_needs_is_told_whatever_is_here(checkout: Checkout) -> None:
    asked = ["/bin/sh", "./setup.sh", "--packages"]
    told = [
        subprocess.run(asked, cwd=checkout.folder, env={"PATH": path}, capture_output=True, text=True, check=True)
        for path in (str(checkout.folder / "bin"), os.environ["PATH"])
    ]
    assert told[0].stdout == told[1].stdout and told[0].stderr == ""
    assert {"python3", "gcc", "libvirt-dev", "qemu-system-x86", "docker.io"} <= set(told[0].stdout.split())
    assert not (checkout.folder / "calls").exists() and not (checkout.folder / ".venv").exists()


def test_a_second_run_finds_nothing_to_do(checkout: Checkout) -> None:
    (install, sync), _ = checkout.setup()
    assert install.startswith("apt-get -q install -y --no-install-recommends --no-remove ")
    assert {"libvirt-dev", "libvirt-daemon-system", "qemu-system-x86", "qemu-utils"} <= set(packages(install))
    assert "gcc" not in packages(install)  # is here
    assert sync.startswith("uv sync --frozen --inexact --python /")
    assert checkout.setup() == ([], "")


def test_setup_compiles_the_command_line_library_for_users_whose_python_writes_no_bytecode(checkout: Checkout) -> None:
    library = checkout.folder / ".venv/lib/python3.11/site-packages/click"
    checkout.stub("uv", f"{STUBS['uv']}\nmkdir -p {library}; touch {library}/core.py")
    checkout.setup()
    assert list(library.glob("__pycache__/core.*.pyc"))


def test_no_dev_leaves_out_the_tests_packages_until_they_are_asked_for(checkout: Checkout) -> None:
    (_, without), _ = checkout.setup("--no-dev")
    assert without.endswith(" --no-dev")
    assert checkout.setup("--no-dev") == ([], "")
    (everything,), _ = checkout.setup()
    assert everything.startswith("uv sync") and "--no-dev" not in everything
    assert checkout.setup("--no-dev") == ([], "")


@pytest.mark.parametrize("name", ["uv.lock", "pyproject.toml", "setup.sh"])
def test_what_changed_is_synced_and_nothing_else_is_done(checkout: Checkout, name: str) -> None:
    checkout.setup()
    with (checkout.folder / name).open("a") as file:
        file.write("# changed\n")
    calls, _ = checkout.setup()
    assert [call.split()[0] for call in calls] == ["uv"]


def test_a_broken_environment_is_made_anew(checkout: Checkout) -> None:
    checkout.setup()
    venv = checkout.folder / ".venv"
    (venv / "kept").touch()
    (venv / "bin/python").unlink()
    (venv / "bin/python").symlink_to("/nonexistent/python3")
    calls, _ = checkout.setup()
    assert [call.split()[0] for call in calls] == ["uv"]
    assert not (venv / "kept").exists()


def test_a_checkout_that_was_moved_gets_an_environment_of_its_own(checkout: Checkout, tmp_path: Path) -> None:
    checkout.setup()
    (checkout.folder / ".venv/kept").touch()
    stamp = checkout.folder / ".venv/.synced"
    stamp.write_text(stamp.read_text().replace(str(tmp_path), "/elsewhere"))
    checkout.setup()
    assert not (checkout.folder / ".venv/kept").exists()
    assert checkout.setup() == ([], "")


def test_a_sync_that_fails_is_tried_again_even_where_the_change_is_undone(checkout: Checkout) -> None:
    checkout.setup()
    working, locked = (checkout.folder / "bin/uv").read_text(), (checkout.folder / "uv.lock").read_text()
    checkout.stub("uv", 'echo "no network" >&2; exit 2')
    (checkout.folder / "uv.lock").write_text("# changed")
    with pytest.raises(AssertionError, match="no network"):
        checkout.setup()
    checkout.stub("uv", working)
    (checkout.folder / "uv.lock").write_text(locked)
    calls, _ = checkout.setup()
    assert [call.split()[0] for call in calls] == ["uv"]


def test_apt_is_updated_where_it_has_no_lists(checkout: Checkout) -> None:
    shutil.rmtree(checkout.folder / "lists")
    calls, _ = checkout.setup()
    assert [call.split()[:3] for call in calls[:2]] == [["apt-get", "-q", "update"], ["apt-get", "-q", "install"]]
    shutil.rmtree(checkout.folder / "lists")
    assert checkout.setup()[0] == ["apt-get -q update"]  # bundles are made of what apt knows


def test_apt_is_updated_where_its_lists_are_stale(checkout: Checkout) -> None:
    (checkout.folder / "stale").touch()
    calls, said = checkout.setup()
    assert [call.split()[2] for call in calls] == ["install", "update", "install", "--frozen"]
    assert calls[0] == calls[2]
    assert "could not" not in said


def test_without_root_the_line_to_run_is_told_and_the_rest_is_done(checkout: Checkout, tmp_path: Path) -> None:
    shutil.rmtree(checkout.folder / "lists")
    calls, said = checkout.setup(uid=1000)
    assert [call.split()[0] for call in calls] == ["sudo", "uv"]
    assert "--extra" not in calls[1]
    assert "libvirt's targets are left out" in said
    (checkout.folder / "lists").mkdir()
    (checkout.folder / "lists/archive_Packages").touch()
    as_root = packages(checkout.setup()[0][0])
    line = f"sudo apt-get update && sudo apt-get install --no-install-recommends {' '.join(as_root)}"
    assert f"setup: not root, so please run: {line}\n" in said


def test_sudo_without_a_password_does(checkout: Checkout) -> None:
    checkout.stub("sudo", 'echo sudo >>calls; shift; "$@"')
    calls, said = checkout.setup(uid=1000)
    assert [call.split()[0] for call in calls] == ["sudo", "sudo", "apt-get", "uv"]
    assert "please run" not in said


def test_without_apt_the_missing_is_named(checkout: Checkout) -> None:
    (checkout.folder / "bin/apt-get").unlink()
    calls, said = checkout.setup()
    assert [call.split()[0] for call in calls] == ["uv"]
    assert "there is no apt-get here" in said
    assert "qemu-system-x86" in said


def test_headers_that_come_later_bring_the_extra(checkout: Checkout) -> None:
    calls, _ = checkout.setup(uid=1000)
    assert "--extra" not in calls[-1]
    (checkout.folder / "installed").write_text("libvirt-dev\npython3-dev\n")
    calls, said = checkout.setup(uid=1000)
    has_headers = "libvirt's targets are left out" not in said  # Python's, on this machine
    assert [call for call in calls if call.endswith("--extra libvirt")] == calls[1:] * has_headers


@pytest.mark.parametrize(("codename", "there"), [("bookworm", False), ("noble", False), ("trixie", True), ("", True)])
def test_packages_names_only_what_the_suite_has(checkout: Checkout, codename: str, there: bool) -> None:
    """The packages are those of the named suite, else of this machine's release; apt needs no lists."""
    shutil.rmtree(checkout.folder / "lists")
    checkout.release(codename)
    for asked in ([], [codename] if codename else []):
        argv = ["/bin/sh", "./setup.sh", "--packages", *asked]
        env = {"PATH": str(checkout.folder / "bin")}
        done = subprocess.run(argv, cwd=checkout.folder, env=env, capture_output=True, text=True, check=True)
        assert ("docker-cli" in done.stdout.split()) == there
        assert {"docker.io", "util-linux-extra"} <= set(done.stdout.split())


def test_debian_13_gets_its_split_packages(checkout: Checkout) -> None:
    assert "docker-cli" not in packages(checkout.setup()[0][0])
    (checkout.folder / "installed").write_text("")
    checkout.release("trixie")
    (install,), _ = checkout.setup()
    assert "docker-cli" in packages(install)


def test_a_package_that_apt_does_not_have_is_named_and_the_rest_installed(checkout: Checkout) -> None:
    (checkout.folder / "unknown").write_text("mmdebstrap\n")
    for lists in (True, False):
        if not lists:
            (checkout.folder / "installed").write_text("")
            shutil.rmtree(checkout.folder / "lists")
        calls, said = checkout.setup()
        install = next(call for call in calls if " install " in call)
        assert "mmdebstrap" not in packages(install) and "bubblewrap" in packages(install)
        assert "setup: this system's archive has no package mmdebstrap\n" in said


@pytest.fixture
def engine_files(tmp_path: Path) -> list[Path]:
    """A socket and a device of an engine, of two groups, which only members of these groups and root can use."""
    files = [tmp_path / "docker.sock", tmp_path / "kvm"]
    for file, group in zip(files, ("games", "video"), strict=True):
        file.touch()
        file.chmod(0o660)
        shutil.chown(file, group=group)
    return files


ORDINARY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away and become an ordinary user")
class TestGroups:
    """The last line of set-up, for a user without access to an engine's socket or device."""

    def last_line(self, checkout: Checkout, files: list[Path], uid: int = 1000) -> str:
        checkout.release("bookworm", " ".join(map(str, files)))
        script = (checkout.folder / "setup.sh").read_text()
        functions = script[: script.index('if [ "${1-}" = --packages ]')]
        env = {"PATH": str(checkout.folder / "bin"), "UID_TOLD": str(uid)}
        for folder in checkout.folder, *checkout.folder.parents:
            if not folder.stat().st_mode & 0o001:  # pytest's own, which are closed
                folder.chmod(0o755)
        done = subprocess.run(
            [*ORDINARY, "/bin/sh", "-c", f"{functions}\nprint_group_remedy", "./setup.sh"],
            cwd=checkout.folder, env={**env, "PATH": f"{env['PATH']}:/usr/bin"}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr

    def test_groups_of_socket_and_device_are_joined(self, checkout: Checkout, engine_files: list[Path]) -> None:
        asked = "setup: to use Docker or KVM, please run this, then log in again: sudo usermod -aG games,video alice\n"
        assert self.last_line(checkout, engine_files) == asked

    def test_missing_files_print_nothing(self, checkout: Checkout, tmp_path: Path) -> None:
        assert self.last_line(checkout, [tmp_path / "docker.sock", tmp_path / "kvm"]) == ""

    def test_root_sees_no_group_line(self, checkout: Checkout, engine_files: list[Path]) -> None:
        assert self.last_line(checkout, engine_files, uid=0) == ""

    def test_a_file_that_is_open_to_all_prints_nothing(self, checkout: Checkout, engine_files: list[Path]) -> None:
        engine_files[0].chmod(0o666)
        assert self.last_line(checkout, engine_files).endswith("usermod -aG video alice\n")

    def test_a_group_that_does_not_help_is_not_joined(self, checkout: Checkout, engine_files: list[Path]) -> None:
        engine_files[0].chmod(0o600)
        os.chown(engine_files[1], 0, 0)
        assert self.last_line(checkout, engine_files) == ""

    def test_one_group_is_named_once(self, checkout: Checkout, engine_files: list[Path]) -> None:
        shutil.chown(engine_files[0], group="video")
        assert self.last_line(checkout, engine_files).endswith("usermod -aG video alice\n")

    def test_a_member_of_an_older_session_logs_in_again(self, checkout: Checkout, engine_files: list[Path]) -> None:
        (checkout.folder / "groups").write_text("games")
        joined, missing = self.last_line(checkout, engine_files).splitlines()
        assert joined == "setup: please log in again: this session is older than alice's membership of games"
        assert missing.endswith("sudo usermod -aG video alice")


def run_make(*arguments: str, **variables: str) -> list[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of a make that runs us
    env |= variables
    command = ["make", "-n", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_make_says_what_a_newcomer_is_told() -> None:
    lint = [".venv/bin/ruff format --check", ".venv/bin/ruff check", ".venv/bin/mypy"]
    assert run_make("run", "ARGS=--rounds 3") == [
        "./setup.sh --no-dev",
        ".venv/bin/weighbridge run --workloads hello,python,redis --report reports/latest --rounds 3",
    ]
    check = '.venv/bin/pytest --numprocesses 2 --dist loadfile -m "not engine and not browser and not long"'
    others = 'WEIGHBRIDGE_REQUIRE=docker .venv/bin/pytest -m "engine or browser or long"'
    *before, first, second = run_make("test", "REQUIRE=docker")
    assert before == ["./setup.sh", "./setup.sh chromium fonts-wqy-microhei", *lint]
    assert first.startswith(check) and second.startswith(others)
    assert run_make("check")[-4:] == [*lint, check]
    assert (REPOSITORY / ".ci/run").read_text().endswith("exec make test\n")


ENGINE_TEST = """
from harness.errors import Unavailable

def test_docker(engine_or_skip):
    with engine_or_skip("docker"):
        {does}
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("does", "required", "code", "told"),
    [
        ('raise Unavailable("no dockerd", "get one")', "", 0, "1 skipped"),
        ('raise Unavailable("no dockerd", "get one")', "docker", 1, "asks for docker: no dockerd. Try: get one"),
        ("pass", "docker", 0, "1 passed"),
        ("pass", "docker,libvirt", 1, "no test ran on libvirt"),
    ],
)
def test_a_required_engine_is_not_skipped(tmp_path: Path, does: str, required: str, code: int, told: str) -> None:
    shutil.copy(REPOSITORY / "tests/conftest.py", tmp_path)
    (tmp_path / "test_engine.py").write_text(ENGINE_TEST.format(does=does))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", "--rootdir", tmp_path, tmp_path],
        cwd=REPOSITORY,
        env={**os.environ, "WEIGHBRIDGE_REQUIRE": required, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, told in done.stdout) == (code, True), done.stdout
