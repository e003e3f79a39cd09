"""The corpus reader: every kind of file, every kind of damage, weights, samples and limits."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from tokenadapt.corpus import CorpusCounts, CorpusError, CorpusOptions, Document, read_corpus, read_in_turn
from tokenadapt.errors import RequestError

TEXT = "First line.\nZweite Zeile, ß.\n\n第三行 🙂\r\nlast, no end"


def texts(specs, **options) -> list[str]:
    return [document.text for document in read_corpus([str(spec) for spec in specs], CorpusOptions(**options))]


def write(path: Path, data: bytes) -> Path:
    packed = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed.get(path.suffix, bytes)(data))
    return path


def rows(path: Path, records: list[dict]) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
        return path
    return write(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode())


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".txt.zst"])
def test_a_text_file_is_one_document_byte_for_byte(tmp_path, suffix):
    path = write(tmp_path / f"de{suffix}", TEXT.encode())
    assert list(read_corpus([str(path)])) == [Document(TEXT, "de", str(path), 1)]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_rows_give_text_label_and_line(tmp_path, suffix):
    path = rows(tmp_path / f"mix{suffix}", [{"body": TEXT, "lang": "de"}, {"body": "two", "lang": "en"}])
    found = list(read_corpus([str(path)], CorpusOptions(column="body", label_column="lang")))
    assert found == [Document(TEXT, "de", str(path), 1), Document("two", "en", str(path), 2)]


@pytest.mark.parametrize("block", [7, 16, 64, 1000])
def test_blocks_join_to_the_file_whatever_their_size(tmp_path, block):
    text = "Überlange 第 zeile 🙂 ohne Ende " * 30 + "\n" + TEXT * 20
    path = write(tmp_path / "a.txt", text.encode())
    found = list(read_corpus([str(path)], CorpusOptions(block_bytes=block)))
    assert "".join(document.text for document in found) == text
    assert all(len(document.text.encode()) <= block for document in found)
    at = 0
    for document in found:
        assert document.line == text.count("\n", 0, at) + 1
        at += len(document.text)


def test_lines_and_paragraphs(tmp_path):
    path = write(tmp_path / "a.txt", b"a b\nc\x0bd\n\n\nlast\n")
    lines = list(read_corpus([str(path)], CorpusOptions(documents="line")))
    assert [(line.text, line.line) for line in lines] == [("a b", 1), ("c\x0bd", 2), ("last", 5)]
    assert texts([path], documents="paragraph") == ["a b\nc\x0bd\n\n\n", "last\n"]


def test_folders_globs_and_labels(tmp_path):
    write(tmp_path / "c/english.txt", b"one")
    write(tmp_path / "c/german/a.txt.gz", b"zwei")
    write(tmp_path / "c/german/notes.md", b"no")
    found = {document.text: document.label for document in read_corpus([str(tmp_path / "c")])}
    assert found == {"one": "english", "zwei": "german"}
    assert sorted(texts([tmp_path / "c" / "**" / "*.*"])) == ["no", "one", "zwei"]


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(TEXT.encode())))
    assert list(read_corpus(["-"])) == [Document(TEXT, "stdin", "standard input", 1)]


DAMAGE = {
    "empty": (".txt", b"", "empty", "is empty"),
    "binary": (".txt", b"ab\x00c", "binary", "NUL"),
    "utf16": (".txt", "hello".encode("utf-16"), "binary", "UTF-16"),
    "late NUL": (".txt", b"good\n" * 2000 + b"a\0b\n", "binary", "line 2001: holds a NUL"),
    "latin1": (".txt", b"good\nna\xefve\nmore\n", "encoding", "line 2: is not utf-8 at byte 2"),
    "json": (".jsonl", b'{"text": "a"}\n{"text": "b', "json", "line 2: no JSON"),
    "not a row": (".jsonl", b'["a"]\n', "no text", "line 1: a row is list"),
    "no column": (".jsonl", b'{"body": "a"}\n', "no text", "columns: body"),
    "not text": (".jsonl", b'{"text": 3}\n', "no text", "line 1: has no text in column 'text'"),
    "surrogate": (".jsonl", b'{"text": "\\ud83d"}\n', "encoding", "line 1: holds half"),
    "no parquet": (".parquet", b"PAR1 not at all", "truncated", "row 1: no readable parquet"),
    "empty parquet": (".parquet", b"", "empty", "is empty"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_fails_by_name_and_line_or_is_skipped_and_counted(tmp_path, name):
    suffix, data, reason, message = DAMAGE[name]
    path = write(tmp_path / f"bad{suffix}", data)
    with pytest.raises(CorpusError) as error:
        texts([path])
    assert str(path) in error.value.message
    assert message in error.value.message
    assert "--on-error skip" in error.value.hint
    counts = CorpusCounts()
    list(read_corpus([str(path)], CorpusOptions(on_error="skip"), counts=counts))
    assert counts.skipped == {reason: 1}
    assert str(path) in counts.examples[0]


def test_skipping_leaves_out_only_the_bad_lines(tmp_path):
    path = write(tmp_path / "a.txt", b"good\nna\xefve\nmore\nend\0\nlast")
    assert "".join(texts([path], on_error="skip")) == ""  # a NUL at the start of a file: no text file at all
    path = write(tmp_path / "b.txt", b"x" * 5000 + b"\nna\xefve\nmore\nend\0\nlast")
    counts = CorpusCounts()
    found = list(read_corpus([str(path)], CorpusOptions(on_error="skip"), counts=counts))
    assert [(d.text, d.line) for d in found] == [("x" * 5000 + "\n", 1), ("more\n", 3), ("last", 5)]
    assert counts.skipped == {"encoding": 1, "binary": 1}
    path = write(tmp_path / "c.jsonl", b'{"text": "a"}\nnonsense\n{"text": "b"}\n')
    assert texts([path], on_error="skip") == ["a", "b"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_truncated_compression_is_noticed_and_what_was_read_is_kept(tmp_path, suffix):
    text = "".join(f"line {number * number % 1000003}\n" for number in range(60_000))
    path = write(tmp_path / f"a.txt{suffix}", text.encode())
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CorpusError, match=r"line \d+: the file is truncated"):
        texts([path], block_bytes=1000)
    counts = CorpusCounts()
    found = "".join(d.text for d in read_corpus([str(path)], CorpusOptions(on_error="skip"), counts=counts))
    assert text.startswith(found)
    assert len(found) > 10_000
    assert counts.skipped["truncated"] == 1


def test_unreadable_files_are_named(tmp_path):
    path = tmp_path / "loop.txt"
    path.symlink_to(write(tmp_path / "real.txt", b"a"))
    sources = read_corpus([str(path)])
    (tmp_path / "real.txt").unlink()
    with pytest.raises((CorpusError, OSError), match=r"loop\.txt"):
        list(sources)


@pytest.mark.parametrize("spec", ["nowhere.txt", "nowhere/*.txt", "hf file.jsonl", "a.txt=0"])
def test_a_spec_that_names_nothing_is_refused_at_once(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError):
        read_corpus([spec])


def test_an_empty_folder_and_wrong_options_are_refused(tmp_path):
    with pytest.raises(RequestError, match="holds no"):
        read_corpus([str(tmp_path)])
    for wrong in ({"on_error": "ignore"}, {"documents": "word"}, {"sample_bytes": 0}, {"encoding": "utf-99"}):
        with pytest.raises(RequestError):
            CorpusOptions(**wrong)


def test_weights_repeat_and_thin_out_by_the_seed(tmp_path):
    path = rows(tmp_path / "a.jsonl", [{"text": f"{number:04}"} for number in range(1000)])
    assert texts([f"{path}=2"]) == [text for text in texts([path]) for _ in range(2)]
    kept = texts([f"{path}=0.3"], seed=5)
    assert 250 < len(kept) < 350
    assert kept == texts([f"{path}=0.3"], seed=5) != texts([f"{path}=0.3"], seed=6)


def test_a_sample_has_the_size_asked_for_in_shares_of_the_weights(tmp_path):
    one = rows(tmp_path / "one.jsonl", [{"text": "a" * (number % 90)} for number in range(3000)])
    two = rows(tmp_path / "two.jsonl", [{"text": "b" * (number % 90)} for number in range(9000)])
    for seed in range(3):
        joined = "".join(texts([f"{one}=3", two], sample_bytes=20_000, seed=seed))
        assert abs(joined.count("a") - 15_000) < 200
        assert abs(joined.count("b") - 5_000) < 200


def test_a_sample_of_one_large_text_is_spread_over_it(tmp_path):
    path = write(tmp_path / "a.txt", "".join(f"{number:06}\n" for number in range(100_000)).encode())
    found = texts([path], sample_bytes=70_000)
    assert 50_000 < sum(map(len, found)) < 90_000
    assert min(int(text[:6]) for text in found) < 30_000 < 70_000 < max(int(text[:6]) for text in found)


def test_limits_keep_the_first_bytes_of_each_label_and_whole_characters(tmp_path):
    write(tmp_path / "c/a.txt", "ßßßß".encode())
    write(tmp_path / "c/b.txt", b"0123456789")
    counts = CorpusCounts()
    found = [d.text for d in read_corpus([str(tmp_path / "c")], CorpusOptions(limit_bytes=5), counts=counts)]
    assert found == ["ßß", "01234"]
    assert counts.label_bytes == {"a": 4, "b": 5}


def test_a_dataset_is_streamed_by_name(tmp_path):
    folder = tmp_path / "mini"
    folder.mkdir()
    rows(folder / "train.parquet", [{"text": "one"}, {"text": "two"}])
    found = list(read_corpus([f"hf:{folder}"]))
    assert [(d.text, d.label, d.line) for d in found] == [("one", "mini", 1), ("two", "mini", 2)]


def test_an_unreachable_dataset_says_what_to_check(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def refuse(*args, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(RequestError, match="no network"):
        list(read_corpus(["someone/something"]))


def test_progress_counts_bytes_on_disk(tmp_path):
    class Recorder:
        total = done = 0.0

        def stage(self, name, total=None, unit=""):
            from contextlib import contextmanager

            self.total = total

            @contextmanager
            def opened():
                def advance(amount):
                    self.done += amount

                yield advance

            return opened()

        def note(self, message): ...

    path = write(tmp_path / "a.txt.gz", TEXT.encode() * 1000)
    progress = Recorder()
    list(read_corpus([str(path)], progress=progress))
    assert progress.done == progress.total == path.stat().st_size


def test_files_in_turn_show_something_of_each_early_and_all_in_the_end(tmp_path, monkeypatch):
    for name in "abc":
        write(tmp_path / "many" / f"{name}.txt.gz", "".join(f"{name}{line}\n" for line in range(9)).encode())
    more = rows(tmp_path / "d.jsonl", [{"text": f"d{row}"} for row in range(2)])
    specs, options = [str(tmp_path / "many"), f"{more}=2"], CorpusOptions()
    monkeypatch.setattr("tokenadapt.corpus.TURN", 7)
    found = [document.text for document in read_in_turn(specs, options)]
    assert found[:9] == ["a0\na1\n", "b0\nb1\n", "c0\nc1\n", "d0", "a2\na3\n", "b2\nb3\n", "c2\nc3\n", "d0", "a4\na5\n"]
    monkeypatch.setattr("tokenadapt.corpus.OPEN", 2)
    few = [document.text for document in read_in_turn(specs, options)]
    assert few[:4] == ["a0\na1\n", "b0\nb1\n", "a2\na3\n", "b2\nb3\n"]
    straight = "".join(document.text for document in read_corpus(specs, options))
    assert sorted(few) == sorted(found)
    assert sorted("".join(found)) == sorted(straight)
    with pytest.raises(RequestError):
        list(read_in_turn([str(tmp_path / "nowhere.txt")], options))
