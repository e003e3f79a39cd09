from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenadapt.errors import RequestError, TokenAdaptError
from tokenadapt.spaces import cache as cache_module
from tokenadapt.spaces.cache import VectorCache, cache_entries, cache_folder, clear_cache, content_key
from tokenadapt.spaces.segments import HEADER, read_segment, write_segment
from tokenadapt.spaces.stored import StoredVectors, make_batches


def keys_of(numbers):
    return [content_key(b"%d" % number) for number in numbers]


def vectors_of(numbers, width=4):
    return np.array([[number, 1, -number, 0.5][:width] for number in numbers], dtype=np.float32)


def test_vectors_come_back_in_the_order_asked(cache_dir):
    first = VectorCache("enc", {"content": "1"})
    first.require_writable()
    first.add(keys_of([1, 2, 3]), vectors_of([1, 2, 3]))
    first.add(keys_of([4]), vectors_of([4]))
    again = VectorCache("enc", {"content": "1"})
    assert len(again) == 4
    np.testing.assert_array_equal(again.rows(keys_of([4, 1, 3, 1])), vectors_of([4, 1, 3, 1]))
    assert content_key(b"5") not in again
    with pytest.raises(KeyError):
        again.rows(keys_of([5]))


def test_what_changes_a_vector_changes_the_address_and_a_title_does_not(cache_dir):
    base = {"content": "1", "pooling": "mean", "prefix": ""}
    one = VectorCache("hf:a/enc", base)
    one.require_writable()
    one.add(keys_of([1]), vectors_of([1]))
    for change in ({"content": "2"}, {"pooling": "cls"}, {"prefix": "query: "}):
        assert len(VectorCache("hf:a/enc", {**base, **change})) == 0
    assert len(VectorCache("hf:/another/path/enc", base)) == 1


def test_a_damaged_segment_is_reported_and_left_aside(cache_dir, caplog):
    made = VectorCache("enc", {})
    made.add(keys_of([1]), vectors_of([1]))
    made.add(keys_of([2]), vectors_of([2]))
    paths = sorted(made.folder.glob("*.vectors"))
    for spoil in (
        lambda raw: raw[:-1],
        lambda raw: raw[:10],
        lambda raw: b"",
        lambda raw: raw[:-3] + b"\x77" + raw[-2:],
    ):
        whole = paths[0].read_bytes()
        paths[0].write_bytes(spoil(whole))
        caplog.clear()
        assert len(VectorCache("enc", {})) == 1
        assert paths[0].name in caplog.text
        paths[0].write_bytes(whole)
    assert len(VectorCache("enc", {})) == 2


def test_a_segment_of_another_width_is_left_aside(cache_dir):
    made = VectorCache("enc", {})
    made.add(keys_of([1]), vectors_of([1]))
    write_segment(made.folder, keys_of([2]), np.ones((1, 3), dtype=np.float16))
    assert len(VectorCache("enc", {})) == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 200), st.integers(0, 255))
def test_no_changed_byte_goes_unseen(tmp_path_factory, place, value):
    folder = tmp_path_factory.getbasetemp() / "bytes"
    path = write_segment(folder, keys_of([1, 2]), vectors_of([1, 2]).astype(np.float16))
    raw = bytearray(path.read_bytes())
    place %= len(raw)
    same = raw[place] == value or 36 <= place < HEADER  # the head's own padding carries nothing
    raw[place] = value
    path.write_bytes(bytes(raw))
    if same:
        assert read_segment(path).vectors.tolist() == vectors_of([1, 2]).tolist()
    else:
        with pytest.raises(ValueError, match=r"segment|size|digest"):
            read_segment(path)


def test_vectors_that_are_not_finite_are_refused(cache_dir):
    with pytest.raises(TokenAdaptError, match="not finite"):
        VectorCache("hf:enc", {}).add(keys_of([1]), np.array([[np.nan, 1]], dtype=np.float32))
    assert not list(cache_dir.rglob("*.vectors"))


def test_a_folder_that_cannot_be_written_is_refused_before_any_encoding(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TOKENADAPT_CACHE", str(tmp_path / "file"))
    called = []
    stored = StoredVectors(VectorCache("enc", {}), lambda batch: called.append(batch), 100, name="enc")
    with pytest.raises(RequestError, match="cannot be written") as caught:
        stored.prefetch([b"text"])
    assert "TOKENADAPT_CACHE" in caught.value.hint
    assert not called


def test_a_read_only_cache_that_holds_everything_is_enough(cache_dir, monkeypatch):
    VectorCache("enc", {}).add([content_key(b"text")], vectors_of([1]))

    def refuse(self):
        raise AssertionError("nothing is to be written")

    monkeypatch.setattr(VectorCache, "require_writable", refuse)
    stored = StoredVectors(VectorCache("enc", {}), lambda batch: None, 100, name="enc")
    stored.prefetch([b"text"])
    assert stored.rows([b"text"]).shape == (1, 4)


def test_a_full_disk_leaves_no_half_segment(cache_dir, monkeypatch):
    made = VectorCache("enc", {})
    made.require_writable()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TokenAdaptError, match="No space left"):
        made.add(keys_of([1]), vectors_of([1]))
    assert [path.name for path in made.folder.iterdir()] == ["about.json"]


def test_stale_temporary_files_go_and_fresh_ones_stay(cache_dir):
    made = VectorCache("enc", {})
    made.require_writable()
    for name, age in (("old", 7200), ("new", 5)):
        path = made.folder / f".{name}.tmp"
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    VectorCache("enc", {})
    assert {path.name for path in made.folder.iterdir()} == {"about.json", ".new.tmp"}


WRITER = """
import sys, time, numpy as np
from tokenadapt.spaces import stored
from tokenadapt.spaces.cache import VectorCache
stored.FLUSH_ROWS = 20
first, last, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
def encode(batch):
    time.sleep(pause)
    print("batch", flush=True)
    return np.array([[float(bytes(text)), 1] for text in batch], dtype=np.float32)
made = stored.StoredVectors(VectorCache("enc", {}), encode, 40, name="enc")
made.prefetch([b"%04d" % number for number in range(first, last)])
"""


def writer(first, last, pause):
    arguments = [sys.executable, "-c", WRITER, str(first), str(last), str(pause)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def stored_numbers():
    made = VectorCache("enc", {})
    present = [number for number in range(2000) if content_key(b"%04d" % number) in made]
    rows = made.rows([content_key(b"%04d" % number) for number in present])
    expected = np.array([[number, 1] for number in present], dtype=np.float32).reshape(-1, 2)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    if present:
        np.testing.assert_allclose(rows, expected, atol=1e-3)
    return present


def test_kill_9_costs_no_finished_segment_and_the_next_run_goes_on(cache_dir):
    process = writer(0, 1000, 0.01)
    for _ in range(23):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = stored_numbers()
    assert 200 <= len(before) < 1000
    encoded = []

    def encode(batch):
        encoded.extend(int(bytes(text)) for text in batch)
        return np.array([[float(bytes(text)), 1] for text in batch], dtype=np.float32)

    StoredVectors(VectorCache("enc", {}), encode, 40, name="enc").prefetch([b"%04d" % n for n in range(1000)])
    assert sorted(encoded) == sorted(set(range(1000)) - set(before))
    assert stored_numbers() == list(range(1000))


def test_two_writers_share_one_cache(cache_dir):
    processes = [writer(0, 600, 0), writer(300, 900, 0)]
    assert [process.wait() for process in processes if process.communicate()] == [0, 0]
    assert stored_numbers() == list(range(900))


def test_a_reader_beside_a_writer_never_sees_half(cache_dir):
    seen, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            seen.append(len(stored_numbers()))

    reader = threading.Thread(target=read)
    reader.start()
    writer(0, 500, 0).communicate()
    stop.set()
    reader.join()
    assert seen == sorted(seen)
    assert len(stored_numbers()) == 500


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=60), st.integers(1, 100))
def test_batches_hold_every_input_once_within_the_budget(lengths, budget):
    batches = make_batches(lengths, budget)
    assert sorted(at for batch in batches for at in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[at] for at in batch) <= budget
    flat = [lengths[at] for batch in batches for at in batch]
    assert flat == sorted(flat, reverse=True)


def test_each_input_is_encoded_once(cache_dir):
    calls = []

    def encode(batch):
        calls.extend(batch)
        return np.ones((len(batch), 2), dtype=np.float32)

    stored = StoredVectors(VectorCache("enc", {}), encode, 10, name="enc")
    stored.prefetch([(1, 2), (3,), (1, 2)])
    assert stored.rows([(3,), (1, 2), (4,), (4,)]).shape == (4, 2)
    assert sorted(calls) == [(1, 2), (3,), (4,)]


def test_listing_and_clearing(cache_dir, monkeypatch):
    assert cache_entries() == []
    assert cache_folder() == Path(cache_dir) / "vectors"
    for name in ("one", "two"):
        made = VectorCache(name, {"content": name, "pooling": "mean", "prefix": ""})
        made.require_writable()
        made.add(keys_of([1, 2]), vectors_of([1, 2]))
    entries = cache_entries()
    assert [(entry.title, entry.vectors, entry.details) for entry in entries] == [
        ("one", 2, "pooling mean"),
        ("two", 2, "pooling mean"),
    ]
    assert entries[0].size == HEADER + 2 * 16 + 2 * 4 * 2
    with pytest.raises(RequestError, match="three"):
        clear_cache(["three"])
    assert [entry.title for entry in clear_cache([entries[0].folder.name])] == ["one"]
    assert [entry.title for entry in cache_entries()] == ["two"]
    clear_cache()
    assert cache_entries() == []
    monkeypatch.delenv("TOKENADAPT_CACHE")
    assert cache_module.cache_folder().name == "vectors"
