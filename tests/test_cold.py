"""Cold starts: what is dropped is gone, and what stays is told, by the byte. The witness is fincore(1)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import cold
from harness.backends import Image, Part, Unseen
from harness.cold import Left, StillCached, check_dropped, check_right, drop_cached
from harness.errors import BadInput, Unavailable
from harness.ledger import Ledger
from harness.measure import Cell, measure
from harness.model import Limits
from harness.store import read
from tests.ground import LONG, ground

if TYPE_CHECKING:
    from tests.conftest import EngineOrSkip

SIZE = 2**20
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
HOLD = """
import ctypes, mmap, sys
with open(sys.argv[1], "r+b") as file:
    mapping = mmap.mmap(file.fileno(), int(sys.argv[2]))
start = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
assert ctypes.CDLL(None).mlock(ctypes.c_void_p(start), ctypes.c_size_t(len(mapping))) == 0
print("held", flush=True)
sys.stdin.read()
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def folder() -> Iterator[Path]:
    """On a disk: what is in a tmpfs is never dropped."""
    with tempfile.TemporaryDirectory(prefix="wb-cold-", dir="/var/tmp") as made:
        yield Path(made)


@pytest.fixture
def cached() -> Callable[[Path], int]:
    """Bytes of a file in the page cache, as somebody else counts them."""
    fincore = shutil.which("fincore")
    if fincore is None:
        pytest.skip("there is no fincore (Debian: util-linux-extra) to look by")
    argv = [fincore, "--bytes", "--noheadings", "--output", "RES"]
    return lambda path: int(subprocess.run([*argv, path], check=True, capture_output=True, text=True).stdout)


def written(path: Path, size: int = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    return path


def part(*paths: Path) -> Part:
    return Part("files", paths)


@contextmanager
def held(path: Path, length: int = 0) -> Iterator[None]:
    """Another process has the beginning of the file mapped and locked; 0: all of it."""
    argv = [sys.executable, "-c", HOLD, str(path), str(length)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield
        finally:
            holder.communicate("", timeout=LONG)


@pytest.mark.parametrize("synced", [True, False], ids=["clean", "dirty"])
def test_what_is_dropped_is_gone(folder: Path, cached: Callable[[Path], int], synced: bool) -> None:
    file = written(folder / "file")
    if synced:
        os.sync()
    assert cached(file) == SIZE
    left = drop_cached([part(file)], "image")
    assert left == [Left("files", SIZE, 0)]
    assert cached(file) == 0
    check_dropped(left)
    content = file.read_bytes()
    assert len(content) == SIZE
    assert cached(file) == SIZE, "the witness sees nothing at all"


def test_folders_are_walked_and_links_are_not_followed(folder: Path, cached: Callable[[Path], int]) -> None:
    outside = written(folder / "outside")
    files = [written(folder / "tree" / name, 5000) for name in ("a", "b/c", "b/d/e")]
    (folder / "tree/hard").hardlink_to(files[0])
    (folder / "tree/soft").symlink_to(outside)
    (folder / "tree/folder").symlink_to(folder)
    (folder / "tree/empty").touch()
    os.mkfifo(folder / "tree/fifo")
    os.sync()
    assert drop_cached([part(folder / "tree", files[0])], "image") == [Left("files", 3 * 5000, 0)]
    assert [cached(file) for file in files] == [0, 0, 0]
    assert cached(outside) == SIZE


def test_many_files(folder: Path) -> None:
    for number in range(3000):
        written(folder / f"{number % 30}/{number}", 100)
    os.sync()
    assert drop_cached([part(folder)], "image") == [Left("files", 300_000, 0)]


def test_what_another_process_uses_stays_and_is_told(folder: Path, cached: Callable[[Path], int]) -> None:
    free, used = written(folder / "free"), written(folder / "used")
    os.sync()
    with held(used):
        left = drop_cached([Part("free", (free,)), Part("used", (used,))], "image")
        assert left == [Left("free", SIZE, 0), Left("used", SIZE, SIZE)]
        assert (cached(free), cached(used)) == (0, SIZE)
        with pytest.raises(StillCached, match=rf"^{SIZE} of the {SIZE} bytes of the image's used stayed"):
            check_dropped(left)
    check_dropped(drop_cached([part(free, used)], "image"))


def test_how_much_may_stay() -> None:
    check_dropped([Left("a", 1000, 10), Left("b", 9000, 90)])
    with pytest.raises(StillCached, match=r"11 of the 1000 bytes of the image's a stayed in the page cache"):
        check_dropped([Left("a", 1000, 11), Left("b", 9000, 90)])
    check_dropped([])


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (Unseen("the engine does not tell"), "the engine does not tell"),
        ((Path("/nonexistent/file"),), "/nonexistent/file: No such file or directory"),
    ],
)
def test_what_cannot_be_examined_is_no_cold_start(paths: Any, reason: str) -> None:
    left = drop_cached([Part("layers", paths)], "image")
    assert [(sample.value, sample.reason, sample.part) for sample in (each.sample() for each in left)] == [
        (None, reason, "layers")
    ]
    with pytest.raises(StillCached, match=f"no cold start is possible: layers: {reason}"):
        check_dropped(left)


@as_root
def test_nobody_is_told_of_the_files_of_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For them mincore(2) calls every page resident: that would be a wrong number, not a failure."""
    folder.chmod(0o755)
    file = written(folder / "file")
    os.seteuid(65534)
    try:
        [left] = drop_cached([part(file)], "image")
    finally:
        os.seteuid(0)
    assert left.resident is None
    assert "only its owner" in str(left.reason)


def test_all_caches_are_dropped_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = folder / "drop_caches"
    switch.touch()
    monkeypatch.setattr(cold, "DROP_CACHES", switch)
    file = written(folder / "file")
    drop_cached([part(file)], "image")
    assert switch.read_text() == ""
    check_right("all")
    assert drop_cached([part(file)], "all") == [Left("files", SIZE, 0)]
    assert switch.read_text() == "3"


def test_all_caches_are_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold, "DROP_CACHES", Path("/nonexistent/drop_caches"))
    check_right(None)
    check_right("image")
    with pytest.raises(BadInput, match=r"^cold: all caches .* --cold=image"):
        check_right("all")


@as_root
def test_an_ordinary_user_is_told_at_once() -> None:
    with ground(65534) as here:
        said = here.weighbridge("run", "--cold=all", "--targets", "namespace", prefix=NOBODY)
        assert (said.code, said.out) == (2, "")
        [line] = said.err.splitlines()
        assert line.startswith("weighbridge: cold: all caches cannot be dropped")
        assert not (here.folder / "results").exists()


class Unreadable:
    """An engine whose image cannot be examined. It must never be started."""

    refreshed = False

    def refresh(self, image: Image) -> None:
        self.refreshed = True


class Bundle:
    sha256 = "0" * 64


def test_a_start_that_cannot_be_cold_is_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHBRIDGE_STATE", str(tmp_path))
    backend: Any = Unreadable()
    bundle: Any = Bundle()
    image = Image(bundle, Limits(), (Part("layers", Unseen("the engine does not tell")),))
    with Ledger() as ledger:
        run = measure(
            Cell("docker", "hello", backend, image), ledger, 1.0, 0, 1, "measured", lambda phase: None, "image"
        )
    assert backend.refreshed
    assert (run.cold, run.ok, run.marks) == (True, False, [])
    assert run.error is not None
    assert (run.error.phase, run.error.type) == ("starting", "StillCached")
    assert "the engine does not tell" in run.error.message
    assert [(sample.metric, sample.value) for sample in run.samples] == [("cache.resident", None)]


@pytest.mark.engine
@pytest.mark.parametrize("target", ["namespace", "docker"])
def test_cold_starts(engine_or_skip: EngineOrSkip, target: str) -> None:
    with ground() as here:
        output = here.folder / "cold.jsonl"
        said = here.weighbridge(
            *("run", "--cold", "--targets", target, "--engines", "private", "--rounds", "1"),
            *("--progress", "none", "-o", output),
        )
        result = read(output)
        with engine_or_skip(target):
            for absent in result.unavailable:
                raise Unavailable(absent.reason, absent.hint)
        assert said.code == 0, said.err
        assert here.left() == []
    assert result.header.plan.cold == "image"
    assert [(run.phase, run.cold, run.error) for run in result.runs] == [
        ("warmup", True, None),
        ("measured", True, None),
    ]
    shared = sum(sample.value or 0 for sample in result.images[0].samples)
    for run in result.runs:
        resident = [sample.value for sample in run.samples if sample.metric == "cache.resident"]
        assert len(resident) == 1
        assert resident[0] is not None
        assert 0 <= resident[0] <= cold.TOLERATED * shared
        assert run.mark("ready") is not None


def test_the_holes_of_a_file_are_not_its_size(folder: Path) -> None:
    """A sparse disk all of whose data is cached is not cold, however large it seems to be."""
    sparse = folder / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1000 * SIZE)
        file.write(os.urandom(SIZE))
    os.sync()
    with held(sparse, SIZE):
        [left] = drop_cached([part(sparse)], "image")
        assert (left.size, left.resident) == (SIZE, SIZE)
        with pytest.raises(StillCached):
            check_dropped([left])
