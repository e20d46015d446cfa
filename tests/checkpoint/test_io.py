import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from plait.checkpoint import FileReader, FileWriter, StoredTensor, io
from plait.checkpoint.open_files import OpenFiles
from plait.errors import CheckpointError, OutputError


@pytest.fixture(params=["0", "1"], ids=["positioned", "plain"])
def mode(request, monkeypatch):
    monkeypatch.setenv("PLAIT_PLAIN_IO", request.param)
    if request.param == "1":  # so that a slip into the other mode fails
        monkeypatch.delattr(os, "preadv")
        monkeypatch.delattr(os, "pwrite")
    return request.param


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    made = {}
    for i in range(12):
        content = rng.integers(0, 256, 5000 + i, np.uint8).tobytes()
        path = tmp_path / f"f{i}"
        path.write_bytes(content)
        made[str(path)] = content
    return made


def test_reads_into_any_buffer(mode, files):
    file, content = next(iter(files.items()))
    with FileReader() as reader:
        for buffer in (
            bytearray(100),
            np.empty(100, np.uint8),
            np.empty((25, 4), np.uint8),
            memoryview(bytearray(100)),
        ):
            reader.read_into(file, 1234, buffer)
            assert bytes(buffer) == content[1234:1334]
        whole = np.empty(len(content), np.uint8)
        reader.read_into(file, 0, whole)
        assert whole.tobytes() == content
        reader.read_into(file, 10, np.empty((0, 4), np.uint8))
        part = np.zeros(20, np.uint8)
        reader.read_into(file, 3, part[5:10])
        assert part.tobytes() == bytes(5) + content[3:8] + bytes(10)


def test_long_reads_and_writes_go_in_parts(mode, files, monkeypatch, tmp_path):
    monkeypatch.setattr(io, "_MOST", 7)
    file, content = next(iter(files.items()))
    buffer = bytearray(4000)
    with FileReader() as reader, FileWriter() as writer:
        reader.read_into(file, 501, buffer)
        assert buffer == content[501:4501]
        writer.create(str(tmp_path / "out"), 5000)
        writer.write_at(str(tmp_path / "out"), 900, buffer)
    assert (tmp_path / "out").read_bytes() == bytes(900) + content[501:4501] + bytes(100)


def test_a_file_that_ends_too_soon(mode, files, tmp_path):
    file, content = next(iter(files.items()))
    with FileReader() as reader:
        with pytest.raises(
            CheckpointError, match=rf"truncated while reading: 10 bytes wanted at {len(content) - 4}, 4 there"
        ):
            reader.read_into(file, len(content) - 4, bytearray(10))
        with pytest.raises(CheckpointError, match="0 there"):
            reader.read_into(file, 10**12, bytearray(10))
        with pytest.raises(CheckpointError, match="cannot be read: No such file"):
            reader.read_into(str(tmp_path / "none"), 0, bytearray(1))


def test_many_threads_few_files_open(mode, files):
    names = list(files)
    with FileReader(limit=2) as reader:

        def read(seed):
            rng = np.random.default_rng(seed)
            buffer = bytearray(64)
            for _ in range(200):
                file = names[rng.integers(len(names))]
                offset = int(rng.integers(0, 4900))
                reader.read_into(file, offset, buffer)
                assert buffer == files[file][offset : offset + 64]

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read, range(8)))
        assert len(reader._files) <= 2 + 8


def test_descriptors_in_use_are_never_closed(tmp_path):
    import io as system_io

    for i in range(5):
        (tmp_path / str(i)).write_bytes(b"x")
    files = OpenFiles(lambda file: system_io.FileIO(file, "r"), limit=2)
    held = [files.acquire(str(tmp_path / str(i))) for i in range(4)]
    assert len(files) == 4
    assert [os.fstat(one.fd).st_size for one in held] == [1, 1, 1, 1]
    assert files.acquire(str(tmp_path / "0")) is held[0]
    files.release(held[0])
    for one in held[1:]:
        files.release(one)
    last = files.acquire(str(tmp_path / "4"))  # closes 1, 2 and 3, of which none is in use; 0 is
    assert len(files) == 2
    assert [one.raw.closed for one in held] == [False, True, True, True]
    files.release(last)
    files.close()
    assert last.raw.closed
    assert not held[0].raw.closed
    files.release(held[0])
    assert held[0].raw.closed
    with pytest.raises(ValueError, match="closed"):
        files.acquire(str(tmp_path / "0"))


def test_the_least_recently_used_is_closed_first(files):
    import io as system_io

    cache = OpenFiles(lambda file: system_io.FileIO(file, "r"), limit=3)
    a, b, c, d = list(files)[:4]
    for file in (a, b, c, a):
        cache.release(cache.acquire(file))
    cache.release(cache.acquire(d))
    assert list(cache._files) == [c, a, d]
    cache.close()


def test_advice_changes_nothing_and_never_fails(mode, files, monkeypatch, tmp_path):
    file, content = next(iter(files.items()))
    with FileReader() as reader:
        reader.advise(file, 0, 10**6)
        reader.advise(str(tmp_path / "none"), 0, 10)
        monkeypatch.delattr(os, "posix_fadvise", raising=False)
        reader.advise(file, 0, 10)
        buffer = bytearray(9)
        reader.read_into(file, 1, buffer)
        assert buffer == content[1:10]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="no posix_fadvise here")
def test_advice_is_cut_into_windows_that_the_kernel_takes(files, monkeypatch):
    told = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _fd, offset, length, _advice: told.append((offset, length)))
    with FileReader() as reader:
        reader.advise(next(iter(files)), 100, 300_000)
    assert told == [(100, 131072), (131172, 131072), (262244, 37856)]


def test_a_file_is_made_at_full_length_without_its_blocks(mode, tmp_path):
    file = tmp_path / "out"
    with FileWriter() as writer:
        writer.create(str(file), 10**9)
        assert file.stat().st_size == 10**9
        if sys.platform == "linux":
            assert file.stat().st_blocks * 512 < 10**6
        writer.write_at(str(file), 10**9 - 3, b"end")
        writer.create(str(file), 10**9)  # as when a merge goes on
        writer.sync(str(file))
        with FileReader() as reader:
            buffer = bytearray(4)
            reader.read_into(str(file), 10**9 - 4, buffer)
            assert buffer == b"\0end"


def test_many_threads_write_their_own_ranges(mode, tmp_path):
    file = str(tmp_path / "out")
    content = np.random.default_rng(1).integers(0, 256, 64 * 1000, np.uint8)
    with FileWriter() as writer:
        writer.create(file, len(content))
        start = threading.Barrier(8)

        def write(worker):
            start.wait()
            for i in range(worker, 64, 8):
                writer.write_at(file, i * 1000, content[i * 1000 : (i + 1) * 1000])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
    assert np.array_equal(np.fromfile(file, np.uint8), content)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_says_how_much_is_free_and_needed(mode):
    with (
        FileWriter() as writer,
        pytest.raises(OutputError, match=r"no space left .* 1234 bytes to be written, \d+ free"),
    ):
        writer.write_at("/dev/full", 0, bytes(1234))


def test_short_writes_are_continued(tmp_path, monkeypatch):
    file = tmp_path / "out"
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:3], offset))
    with FileWriter() as writer:
        writer.create(str(file), 10)
        writer.write_at(str(file), 0, b"0123456789")
    assert file.read_bytes() == b"0123456789"


def test_output_that_cannot_be_written(mode, tmp_path):
    with FileWriter() as writer:
        with pytest.raises(OutputError, match="cannot be written"):
            writer.create(str(tmp_path / "none" / "out"), 10)
        with pytest.raises(OutputError, match="cannot be written: No such file"):
            writer.write_at(str(tmp_path / "none"), 0, b"x")
        with pytest.raises(OutputError, match="cannot be written"):
            writer.sync(str(tmp_path / "none"))


def test_spans_of_a_tensor_are_read_one_after_the_other(mode, files):
    """As it lies in the file, and turned."""
    file, content = next(iter(files.items()))
    values = np.frombuffer(content[100:2500], np.uint16).reshape(30, 40)
    spans = [(5, 60), (60, 61), (1100, 1200), (0, 3)]
    with FileReader() as reader:
        for tensor, flat in (
            (StoredTensor("x", "BF16", (30, 40), file, 100), values.reshape(-1)),
            (StoredTensor("x", "BF16", (40, 30), file, 100, strides=(1, 40)), values.T.reshape(-1)),
        ):
            out = np.empty(2 * 159, np.uint8)
            reader.read_spans(tensor, spans, out)
            assert out.tobytes() == b"".join(flat[start:stop].tobytes() for start, stop in spans)
