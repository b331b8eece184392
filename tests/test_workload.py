"""Workloads of one's own: what a workload.toml may say, and what is told of one that cannot be built."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import bundle, debian, workloads
from harness.errors import BadInput, Unavailable
from harness.store import Result, read
from tests.ground import REPOSITORY, Ground, Said, ground
from tests.test_bundle import FakeDebian

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip


GOOD = 'packages = ["busybox-static"]\nstart = "start"\n'
EXAMPLE = REPOSITORY / "docs/example-workload"
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups") if os.geteuid() == 0 else ()


def describe(folder: Path, text: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "start").write_text("")
    (folder / "workload.toml").write_text(text)
    return str(folder)


def refused(folder: Path, text: str, told: str) -> str:
    """What it is told that writes this workload.toml: one line that names the file, and says `told`."""
    with pytest.raises(BadInput) as error:
        workloads.load(describe(folder, text))
    line = str(error.value)
    assert line.startswith(f"{folder}/workload.toml: ")
    assert told in line
    assert "\n" not in line
    return line


def test_hello_comes_with_the_program() -> None:
    hello = workloads.load("hello")
    assert "hello" in workloads.names()
    assert hello.packages == ("busybox-static",)
    assert hello.start.is_file()


def test_a_folder_is_a_workload_too(tmp_path: Path) -> None:
    text = 'packages = ["busybox-static"]\nstart = "start"\n[files]\n"/srv/data" = "start"\n'
    mine = workloads.load(describe(tmp_path / "mine", text))
    assert (mine.name, mine.files) == ("mine", (("/srv/data", tmp_path / "mine/start"),))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('packages = ["busybox-static"]', 'start is missing; write start = "start"'),
        ('packages = ["busybox-static"]\n[files]\nstart = "start"', "above [files]"),
        ('start = "start"', 'packages is missing; write packages = ["busybox-static"]'),
        ("", "packages is missing"),
        (
            'package = ["busybox-static"]\nstart = "start"',
            "unknown key 'package'; known: packages, start, build, files",
        ),
        (f"{GOOD}strat = 1", "unknown key 'strat'"),
        (
            'packages = "busybox-static"\nstart = "start"',
            "packages: Expected `array`, got `str`; write it as packages =",
        ),
        ('packages = ["busybox-static", 1]\nstart = "start"', "packages: Expected `str`, got `int`"),
        ('packages = ["busybox-static"]\nstart = ["start"]', "start: Expected `str`, got `array`; write it as start ="),
        (f"{GOOD}build = true", "build: Expected `str | null`, got `bool`"),
        (f'{GOOD}files = "data"', "files: Expected `object`, got `str`"),
        (f'{GOOD}[files]\n"/a" = 7', 'files: Expected `str`, got `int`; write it as "/srv/data.txt" ='),
        ('packages = ["busybox-static"', "not TOML"),
        (f"{GOOD}start = 'again'", "not TOML"),
        (f"{GOOD}build = {'[' * 100_000}", "not TOML"),
        (f"{GOOD}build = {'9' * 5000}", "not TOML"),
        pytest.param(f"{GOOD}files{'.a' * 5000} = 1", "not TOML in UTF-8: nested deeper than", id="dotted key"),
        ('packages = ["bash"]\nstart = "start"', "busybox-static"),
        ('packages = ["busybox-static", "--help"]\nstart = "start"', "--help"),
        ('packages = ["busybox-static", "Redis"]\nstart = "start"', "'Redis' is not the name"),
        ('packages = ["busybox-static", "redis-"]\nstart = "start"', "'redis-' is not the name"),
        ('packages = ["busybox-static", "redis=7"]\nstart = "start"', "'redis=7' is not the name"),
        ('packages = ["busybox-static"]\nstart = "absent"', "no file 'absent'"),
        ('packages = ["busybox-static"]\nstart = "start/below"', "no file 'start/below'"),
        ('packages = ["busybox-static"]\nstart = ""', "'' is a folder"),
        ('packages = ["busybox-static"]\nstart = "/etc/passwd"', "leads out of the folder"),
        ('packages = ["busybox-static"]\nstart = "a\\u0000b"', "'a\\x00b' cannot be read"),
        (f'packages = ["busybox-static"]\nstart = "{"a" * 300}"', "File name too long"),
        (f'{GOOD}build = "absent"', "no file 'absent'"),
        (f'{GOOD}[files]\n"/a" = "absent"', "no file 'absent'"),
        (f'{GOOD}[files]\n"/a" = "../x"', "'../x' leads out of the folder"),
        (f'{GOOD}[files]\n"/a" = "../../../../../etc/passwd"', "leads out of the folder"),
        *(
            (f'{GOOD}[files]\n"{target}" = "start"', "not a plain absolute path")
            for target in ("srv", "", ".", "/", "//a", "/a/", "/a//b", "/a/./b", "/a/../../b", "/..", "../x")
        ),
        (f'{GOOD}[files]\n"/a\\nb" = "start"', "'/a\\nb' cannot be a file's name"),
        (f'{GOOD}[files]\n"/{"ä" * 128}" = "start"', "at most 255 bytes"),
        *(
            (f'{GOOD}[files]\n"{target}" = "start"', f"{target} is made by Weighbridge")
            for target in (
                *("/init", "/start", "/build", "/run/doorbell", "/etc/weighbridge-bundle"),
                *("/init/below", "/proc", "/proc/self/x", "/dev/null", "/dev", "/sys/x"),
            )
        ),
        (f'{GOOD}[files]\n"/run" = "start"', "/run, which has to be a folder for /run/doorbell"),
        (f'{GOOD}[files]\n"/bin/tool" = "start"', "write /usr/bin/tool"),
        (f'{GOOD}[files]\n"/a" = "start"\n"/a" = "start"', "not TOML"),
        (f'{GOOD}[files]\n"/a" = "start"\n"/a/b/c" = "start"', "/a, which has to be a folder for /a/b/c"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    refused(tmp_path / "mine", text, told)


def test_what_is_no_text_is_told(tmp_path: Path) -> None:
    describe(tmp_path / "mine", GOOD)
    (tmp_path / "mine/workload.toml").write_bytes(b"\xff\xfe" + GOOD.encode("utf-16-le"))
    with pytest.raises(BadInput, match=r"workload\.toml: it is not TOML in UTF-8"):
        workloads.load(str(tmp_path / "mine"))


@pytest.mark.parametrize("name", ["my workload", "größe", ".hidden", "a\nb", "\udcff", "-x", "a" * 65])
def test_a_folder_has_a_plain_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput) as told:
        workloads.load(describe(tmp_path / name, GOOD))
    assert f"{name!r} cannot be a workload's: at most 64 letters" in str(told.value)
    assert str(told.value).replace("\udcff", "?").isprintable()


def link_loop(path: Path) -> None:
    path.symlink_to(path.name + "-2")
    path.with_name(path.name + "-2").symlink_to(path.name)


def plain_file(path: Path, mode: int) -> None:
    path.touch()
    path.chmod(mode)


def unix_socket(path: Path) -> None:
    """Bound by a short name: a socket's path holds 107 bytes."""
    with socket.socket(socket.AF_UNIX) as listening, tempfile.TemporaryDirectory() as short:
        listening.bind(f"{short}/s")
        Path(short, "s").rename(path)


def sparse(path: Path, size: int = 10 * 2**30) -> None:
    with path.open("wb") as file:
        file.truncate(size)


Make = Callable[[Path], None]
MAKES: dict[str, tuple[Make, str]] = {
    "a link leading out": (lambda path: path.symlink_to("../../outside"), "leads out of the folder"),
    "an absolute link": (lambda path: path.symlink_to("/etc/passwd"), "is an absolute link"),
    "an absolute link within": (lambda path: path.symlink_to(path.parent / "start"), "is an absolute link"),
    "a dangling link": (lambda path: path.symlink_to("nowhere"), "is a link to what is not there"),
    "a link loop": (link_loop, "cannot be read"),
    "a setuid file": (lambda path: plain_file(path, 0o4755), "is setuid or setgid"),
    "a setgid file": (lambda path: plain_file(path, 0o2755), "is setuid or setgid"),
    "a FIFO": (os.mkfifo, "is neither a file nor a folder"),
    "a socket": (unix_socket, "is neither a file nor a folder"),
    "10 GB": (sparse, "its files have 10.0 GiB, and a bundle takes 1 GiB of them"),
}
if os.geteuid() == 0:
    MAKES["a device"] = (
        lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
        "is neither a file nor a folder",
    )


@pytest.mark.parametrize("what", MAKES)
@pytest.mark.parametrize("role", ["start", "build", "file", "in a folder"])
def test_what_cannot_be_in_a_bundle(tmp_path: Path, role: str, what: str) -> None:
    make, told = MAKES[what]
    (tmp_path / "outside").touch()
    texts = {
        "start": GOOD.replace('"start"', '"thing"'),
        "build": f'{GOOD}build = "thing"',
        "file": f'{GOOD}[files]\n"/srv/thing" = "thing"',
        "in a folder": f'{GOOD}[files]\n"/srv/www" = "www"',
    }
    name = "www/thing" if role == "in a folder" else "thing"
    (tmp_path / "mine/www").mkdir(parents=True)
    make(tmp_path / "mine" / name)
    refused(tmp_path / "mine", texts[role], told)
    if what != "10 GB":
        refused(tmp_path / "mine", texts[role], repr(name))


def test_a_link_leads_nowhere_outside_of_what_is_brought_along(tmp_path: Path) -> None:
    """It is brought as a link: what it points to has to come with it. A single file is brought as what it is."""
    www = tmp_path / "mine/www"
    www.mkdir(parents=True)
    (www / "page").touch()
    (www / "index").symlink_to("page")
    (www / "all").symlink_to(".")
    text = f'{GOOD}[files]\n"/srv/www" = "www"\n"/srv/one" = "www/index"'
    mine = workloads.load(describe(tmp_path / "mine", text))
    assert mine.files == (
        ("/srv/one", www / "page"),
        ("/srv/www/all", www / "all"),
        ("/srv/www/index", www / "index"),
        ("/srv/www/page", www / "page"),
    )
    (www / "start").symlink_to("../start")
    refused(tmp_path / "mine", text, f"'www/start' leads out of the folder {str(www)!r}")


@pytest.mark.parametrize("name", [b"a\nb", b"a\xffb", b"a\x1b[31mb"])
def test_a_name_that_nobody_can_print(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / "mine/www"
    folder.mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).touch()
    told = refused(tmp_path / "mine", f'{GOOD}[files]\n"/srv" = "www"', "cannot be a file's name here")
    assert repr(f"/srv/{os.fsdecode(name)}") in told
    assert told.isprintable()


def test_two_files_to_one_path(tmp_path: Path) -> None:
    (tmp_path / "mine/www").mkdir(parents=True)
    (tmp_path / "mine/www/page").touch()
    text = f'{GOOD}[files]\n"/srv" = "www"\n"/srv/page" = "start"'
    refused(tmp_path / "mine", text, "two files go to /srv/page")
    refused(tmp_path / "mine", text.replace("/srv/page", "/srv/page/x"), "/srv/page, which has to be a folder")


def test_a_folder_without_files(tmp_path: Path) -> None:
    (tmp_path / "mine/www/empty").mkdir(parents=True)
    refused(tmp_path / "mine", f'{GOOD}[files]\n"/srv" = "www"', "the folder 'www' has no files")
    refused(tmp_path / "mine", GOOD.replace('"start"', '"www"'), "'www' is a folder, and a file is wanted")


def test_many_files_are_summed_up(tmp_path: Path) -> None:
    """11 files of 100 MB are too many, 10 are not; so is a description that nobody can have written."""
    (tmp_path / "mine/www").mkdir(parents=True)
    text = f'{GOOD}[files]\n"/srv" = "www"'
    for number in range(10):
        sparse(tmp_path / f"mine/www/{number}", 100 * 2**20)
    assert len(workloads.load(describe(tmp_path / "mine", text)).files) == 10
    sparse(tmp_path / "mine/www/10", 100 * 2**20)
    refused(tmp_path / "mine", text, "its files have 1.1 GiB")
    sparse(tmp_path / "mine/workload.toml")
    with pytest.raises(BadInput, match="more than 1 MiB"):
        workloads.load(str(tmp_path / "mine"))


@pytest.mark.parametrize("name", ["nope", "", "..", "/nowhere"])
def test_an_unknown_workload_lists_the_known_ones(name: str) -> None:
    with pytest.raises(BadInput, match="hello"):
        workloads.load(name)


# As a user sees it.


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    with ground() as here:
        yield here


def weigh(place: Ground, folder: str | Path, *prefix: str, targets: str = "host") -> Said:
    arguments = ("--workloads", folder, "--rounds", "1", "--progress", "none", "-o", "mine.jsonl")
    home = {"HOME": str(place.folder)}
    return place.weighbridge("run", "--targets", targets, *arguments, environment=home, prefix=prefix)


def one_line(said: Said, *words: str) -> None:
    """All that it says is one line with these words, and it ends with exit code 2."""
    assert said.code == 2, said.err
    assert said.out == ""
    assert said.err.startswith("weighbridge: ")
    assert said.err.count("\n") == 1, said.err
    assert said.err[:-1].isprintable()
    for word in words:
        assert word in said.err


@pytest.mark.long
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('packages = ["busybox-static"]', 'start is missing; write start = "start"'),
        (f'{GOOD}[files]\n"/a/../../x" = "start"', "'/a/../../x' is not a plain absolute path"),
        (f'{GOOD}[files]\n"/srv/huge" = "huge"', "its files have 4096.0 GiB"),
        (f'{GOOD}[files]\n"/srv" = "odd"', "'/srv/a\\nb\\udcff' cannot be a file's name"),
    ],
    ids=["no start", "a path leading out", "4 TiB, which nobody reads in the time of a test", "a name of no text"],
)
def test_a_bad_folder_is_told_before_anything_starts(place: Ground, text: str, told: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    describe(folder, text)
    (folder / "odd").mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/odd/a\nb\xff")).touch()
    sparse(folder / "huge", 4 * 2**40)
    one_line(weigh(place, folder), f"{folder}/workload.toml: ", told)
    assert not (place.folder / "mine.jsonl").exists()
    assert place.left() == []


@pytest.mark.long
@pytest.mark.parametrize("closed", ["workload.toml", "start", "data", "www", "www/below", "www/below/page"])
def test_what_we_may_not_read(closed: str) -> None:
    with ground(65534 if NOBODY else None) as here:
        folder = here.folder / "mine"
        (folder / "www/below").mkdir(parents=True)
        describe(folder, f'{GOOD}[files]\n"/srv/data" = "data"\n"/srv/www" = "www"')
        for name in ("data", "www/page", "www/below/page"):
            (folder / name).touch()
        mode = (folder / closed).stat().st_mode
        (folder / closed).chmod(0)
        said = weigh(here, folder, *NOBODY)
        (folder / closed).chmod(mode)
        one_line(said, str(folder / "workload.toml"), closed, "Permission denied")


@pytest.mark.parametrize(
    ("target", "told"),
    [("/usr/bin/env/x/y", "a file is where a folder has to be"), ("/usr/sbin", "it is a folder")],
)
def test_a_file_that_is_in_a_packages_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, told: str
) -> None:
    monkeypatch.setenv("WEIGHBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(debian, "unpack", FakeDebian().unpack)
    mine = workloads.load(describe(tmp_path / "mine", f'{GOOD}[files]\n"{target}" = "start"'))
    with pytest.raises(BadInput, match=f"the workload mine: .*{target}: .*{told}"):
        bundle.build(mine)


def test_a_pattern_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """apt takes libpq.dev for one, and brings whatever fits."""
    monkeypatch.setenv("WEIGHBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(debian, "unpack", lambda packages, into: FakeDebian().unpack(("busybox-static",), into))
    mine = workloads.load(describe(tmp_path / "mine", GOOD.replace("]", ', "libpq.dev"]')))
    with pytest.raises(BadInput, match=r"the workload mine: Debian bookworm has no package libpq\.dev"):
        bundle.build(mine)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('packages = ["busybox-static", "weighbridge-none"]\nstart = "start"', ["no package weighbridge-none"]),
        (f'{GOOD}build = "make"', ["mine/make: ", "there is no such table"]),
    ],
    ids=["an unknown package", "a build that fails"],
)
def test_a_bundle_that_cannot_be_built_is_told(place: Ground, tmp_path: Path, text: str, words: list[str]) -> None:
    describe(tmp_path / "mine", text)
    (tmp_path / "mine/make").write_text("echo begun\necho 'there is no such table' >&2\nfalse\necho never\n")
    one_line(weigh(place, tmp_path / "mine", targets="host,namespace"), "the workload mine: ", *words)
    assert place.left() == []


@pytest.mark.engine
@pytest.mark.parametrize("gone", ["/run", "/etc"])  # the sandbox mounts a /dev of its own, which nobody removes
def test_a_build_does_not_lead_out_of_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    monkeypatch.setenv("WEIGHBRIDGE_CACHE", str(tmp_path / "cache"))
    outside = tmp_path / "outside"
    outside.mkdir()
    mine = tmp_path / "mine"
    describe(mine, f'{GOOD}build = "make"')
    (mine / "make").write_text(f"rm -r {gone}\nln -s {outside} {gone}\n")
    with pytest.raises(BadInput, match=f"the workload mine: .*{gone[1:]}/.*leads out of the bundle"):
        bundle.build(workloads.load(str(mine)))
    assert list(outside.iterdir()) == []


# The example of docs/WORKLOADS.md.


@pytest.fixture(scope="module")
def example(place: Ground, engine_or_skip: EngineOrSkip) -> Result:
    said = weigh(place, EXAMPLE, targets="host,namespace")
    assert said.code in (0, 3), said.err
    return read(place.folder / "mine.jsonl")


@pytest.mark.engine
@pytest.mark.parametrize("target", ["host", "namespace"])
def test_the_example_runs(example: Result, engine_or_skip: EngineOrSkip, target: str) -> None:
    with engine_or_skip(target):
        for absent in example.unavailable:
            if absent.target == target:
                raise Unavailable(absent.reason, absent.hint)
    mine = [run for run in example.runs if run.target == target]
    assert len(mine) == 2
    for run in mine:
        assert run.error is None
        marks = [run.mark(name) for name in ("init", "loaded", "ready")]
        assert None not in marks
        assert marks == sorted(mark for mark in marks if mark is not None)
