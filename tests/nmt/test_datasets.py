"""Corpora made and downloaded, from a server on this machine that fails in several ways."""

import dataclasses
import gzip
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from nmt import datasets, grammar
from nmt.corpus import read_pairs
from nmt.datasets import main
from nmt.download import ATTEMPTS, Download, checksum, fetch
from tfkfac.errors import InputError

CONTENT = bytes(range(256)) * 1024


class Server(ThreadingHTTPServer):
    """Serves `files` by name; the settings say how badly."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"file.bin": CONTENT}
        self.cuts: list[int] = []  # bytes after which the next answers break off
        self.ranges = True
        self.etag: str | None = '"one"'
        self.requests: list[str | None] = []  # their Range headers

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append(wanted)
        name = self.path.removeprefix("/")
        if name not in self.server.files:
            return self.send_error(404)
        content = self.server.files[name]
        start = 0
        same = self.headers.get("If-Range") == self.server.etag
        if wanted and self.server.ranges and same:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206)
        else:
            self.send_response(200)
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(content)
        self.wfile.write(content[start : start + cut])


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def the_file(server, function="sha256", content=CONTENT, **options):
    digest = hashlib.new(function, content).hexdigest()
    return Download(f"{server.url}/file.bin", f"{function}:{digest}", **options)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


# ------------------------------------------------------------------------------- downloads


@pytest.mark.parametrize("function", ["sha256", "md5"])
def test_a_file_is_fetched_once(server, tmp_path, function):
    seen: list[tuple[int, int | None]] = []
    download = the_file(server, function)
    path = fetch(download, tmp_path / "new" / "folder", progress=lambda *now: seen.append(now))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen)
    assert names(path.parent) == ["file.bin"]
    assert fetch(download, path.parent) == path
    assert server.requests == [None]
    assert checksum(path, "md5") == hashlib.md5(CONTENT).hexdigest()


def test_a_broken_connection_is_continued_at_once(server, tmp_path):
    server.cuts = [100_000, 50_000]
    path = fetch(the_file(server), tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-", "bytes=150000-"]


def test_an_interrupted_download_is_continued_by_the_next_call(server, tmp_path):
    server.cuts = [50_000] * ATTEMPTS
    with pytest.raises(InputError, match=r"interrupted after 150,000 bytes .*; run again to cont"):
        fetch(the_file(server), tmp_path)
    assert names(tmp_path) == [".file.bin.part", ".file.bin.part.json"]
    assert fetch(the_file(server), tmp_path).read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=150000-"
    assert names(tmp_path) == ["file.bin"]


def test_ctrl_c_keeps_what_was_received(server, tmp_path):
    def interrupt(received, total):
        if received > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(the_file(server), tmp_path, progress=interrupt)
    received = (tmp_path / ".file.bin.part").stat().st_size
    assert 100_000 < received < len(CONTENT)
    assert fetch(the_file(server), tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, f"bytes={received}-"]


@pytest.mark.parametrize("change", ["content", "no ranges", "no version", "weak version"])
def test_what_cannot_be_continued_starts_again(server, tmp_path, change):
    if change == "no version":
        server.etag = None
    elif change == "weak version":
        server.etag = 'W/"one"'
    server.cuts = [50_000] * ATTEMPTS
    with pytest.raises(InputError):
        fetch(the_file(server), tmp_path)
    if change == "content":
        server.files["file.bin"], server.etag = CONTENT[::-1], '"two"'
    server.ranges = change != "no ranges"
    download = the_file(server, content=server.files["file.bin"])
    assert fetch(download, tmp_path).read_bytes() == server.files["file.bin"]
    assert names(tmp_path) == ["file.bin"]


def test_a_part_that_is_complete_or_too_long_starts_again(server, tmp_path):
    (tmp_path / ".file.bin.part").write_bytes(CONTENT + b"more")
    (tmp_path / ".file.bin.part.json").write_text('"\\"one\\""')
    assert fetch(the_file(server), tmp_path).read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_wrong_checksum_is_refused_and_nothing_kept(server, tmp_path):
    download = the_file(server)
    server.files["file.bin"] = CONTENT[:-1] + b"\0"
    with pytest.raises(InputError, match=r"file.bin: sha256 checksum is \w+, not \w+; run again"):
        fetch(download, tmp_path)
    assert names(tmp_path) == []
    assert fetch(download, tmp_path, verify=False).read_bytes() == server.files["file.bin"]
    with pytest.raises(InputError, match=r"checksum is .*; remove .*file.bin and run again"):
        fetch(download, tmp_path)


def test_a_checksum_of_the_content_whatever_the_compression(server, tmp_path):
    download = the_file(server, content=b"text", of_content=True)
    for level, mtime in ((9, 0), (1, 1)):
        server.files["file.bin"] = gzip.compress(b"text", level, mtime=mtime)
        fetch(download, tmp_path).unlink()
    for content in (gzip.compress(b"test"), b"text", gzip.compress(b"text")[:-9]):
        server.files["file.bin"] = content
        with pytest.raises(InputError, match="sha256 checksum is"):
            fetch(download, tmp_path)


def test_without_a_network(tmp_path, server):
    server.shutdown()
    server.server_close()
    path = tmp_path / "file.bin"
    with pytest.raises(
        InputError, match=rf"cannot be reached \(.*refused.*\); .* put it at {path} and run again"
    ):
        fetch(the_file(server), tmp_path)
    path.write_bytes(CONTENT)
    assert fetch(the_file(server), tmp_path) == path


def test_a_name_that_does_not_resolve(tmp_path):
    with pytest.raises(InputError, match=r"^http://host.invalid/f: cannot be reached \("):
        fetch(Download("http://host.invalid/f"), tmp_path)


def test_a_file_that_the_server_does_not_have(server, tmp_path):
    with pytest.raises(InputError, match=f"^{server.url}/other: 404 Not Found$"):
        fetch(Download(f"{server.url}/other"), tmp_path)


# --------------------------------------------------------------------------------- corpora


def corpus_in(directory):
    return {
        part: list(read_pairs(directory / f"{part}.de", directory / f"{part}.en"))
        for part in ("train", "valid", "test")
    }


def test_the_grammars_corpus(tmp_path, capsys):
    sizes = {"train": 60, "valid": 7, "test": 5}
    options = [f"--{name}={size}" for name, size in sizes.items()]
    assert main(["grammar", "--out", str(tmp_path), *options]) == 0
    assert corpus_in(tmp_path) == grammar.corpus(**sizes)
    assert names(tmp_path) == sorted(
        ["README.txt", *(f"{part}.{language}" for part in sizes for language in ("de", "en"))]
    )
    readme = (tmp_path / "README.txt").read_text()
    assert "Synthetic" in readme and "--train 60 --valid 7 --test 5 --seed 1" in readme
    assert capsys.readouterr().out.splitlines()[0].endswith("train.{de,en}: 60 sentence pairs")
    before = corpus_in(tmp_path)
    assert main(["grammar", "--out", str(tmp_path), "--seed=2"]) == 2
    assert "train.de exists; --overwrite replaces it" in capsys.readouterr().err
    assert corpus_in(tmp_path) == before
    assert main(["grammar", "--out", str(tmp_path), "--seed=2", "--overwrite", *options]) == 0
    assert corpus_in(tmp_path) == grammar.corpus(**sizes, seed=2)


@pytest.fixture
def multi30k(server, monkeypatch):
    """The server has a small Multi30k, and the command knows its checksums."""
    texts = {
        "train.de": "Ein  Mann.\nZwei Männer.\n",
        "train.en": "A man.\nTwo men.\n",
        "val.de": "Drei\n",
        "val.en": "Three\n",
        "test_2016_flickr.de": "Vier\u2028fünf\n",
        "test_2016_flickr.en": "Four five\n",
    }
    source = datasets.SOURCES["multi30k"]
    assert [download.name for download in source.downloads] == [f"{name}.gz" for name in texts]
    downloads = []
    for download, text in zip(source.downloads, texts.values(), strict=True):
        assert download.of_content and download.url.startswith("https://")
        server.files[download.name] = gzip.compress(text.encode())
        digest = hashlib.sha256(text.encode()).hexdigest()
        downloads.append(dataclasses.replace(download, checksum=f"sha256:{digest}"))
    source = dataclasses.replace(source, downloads=tuple(downloads))
    monkeypatch.setitem(datasets.SOURCES, "multi30k", source)
    return texts


def test_multi30k_as_published(server, multi30k, tmp_path, capsys):
    assert main(["multi30k", "--out", str(tmp_path), "--mirror", f"{server.url}/"]) == 0
    for name, text in multi30k.items():
        part = name.replace("val", "valid").replace("test_2016_flickr", "test")
        assert (tmp_path / part).read_text(encoding="utf-8") == text
    readme = (tmp_path / "README.txt").read_text()
    assert "non-commercial" in readme
    for name in multi30k:
        digest = hashlib.sha256(server.files[f"{name}.gz"]).hexdigest()
        assert f"{server.url}/{name}.gz\n  sha256 {digest}" in readme
    captured = capsys.readouterr()
    assert "train.{de,en}: 2 sentence pairs" in captured.out and captured.err == ""


def test_a_download_that_fails_leaves_no_corpus_and_can_go_on(server, multi30k, tmp_path, capsys):
    whole = server.files.pop("val.en.gz")
    arguments = ["multi30k", "--out", str(tmp_path), "--mirror", server.url]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err == f"error: {server.url}/val.en.gz: 404 Not Found\n" and not captured.out
    assert names(tmp_path) == ["download"]
    server.files["val.en.gz"] = gzip.compress(b"other\n")
    assert main(arguments) == 2
    assert "val.en.gz: sha256 checksum is" in capsys.readouterr().err
    assert names(tmp_path) == ["download"]
    assert main([*arguments, "--ignore-checksum"]) == 0
    assert (tmp_path / "valid.en").read_text() == "other\n"
    server.files["val.en.gz"] = whole
    (tmp_path / "download" / "val.en.gz").unlink()
    asked = len(server.requests)
    assert main([*arguments, "--overwrite"]) == 0
    assert (tmp_path / "valid.en").read_text() == "Three\n"
    assert len(server.requests) == asked + 1


def test_tatoeba_is_split_by_sentence(server, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "TATOEBA_HELD_OUT", 20)
    pairs = [(f"Satz {i % 150}.", f"Sentence {i % 130}.") for i in range(400)]
    pairs += [("", "nothing"), ("blank", " "), ("Tab\tund\x0bmehr", "Tab  and more"), pairs[0]]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for side, language in enumerate(("de", "en")):
            text = "\n".join(pair[side] for pair in pairs) + "\n"
            file.writestr(f"Tatoeba.de-en.{language}", text)
    server.files["de-en.txt.zip"] = archive.getvalue()
    assert main(["tatoeba", "--out", str(tmp_path), "--mirror", server.url]) == 0
    parts = corpus_in(tmp_path)
    assert len(parts["valid"]) == len(parts["test"]) == 20
    everything = set(pairs[:400]) | {("Tab und mehr", "Tab and more")}
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not {de for de, _ in parts[one]} & {de for de, _ in parts[other]}
    held_out = {en for part in ("valid", "test") for _, en in parts[part]}
    assert not {en for _, en in parts["train"]} & held_out
    drawn = [pair for part in parts.values() for pair in part]
    assert len(set(drawn)) == len(drawn) and set(drawn) <= everything
    # Nothing else is lost: what is left out has a sentence that is held out.
    held_out |= {de for part in ("valid", "test") for de, _ in parts[part]}
    for pair in everything - set(drawn):
        assert set(pair) & held_out


def test_iwslt14_as_in_the_papers(server, tmp_path, monkeypatch):
    lines = {"de": [], "en": []}  # type: dict[str, list[str]]
    for language, word in (("de", "Satz"), ("en", "sentence")):
        lines[language] = [
            "<url>http://www.ted.com/talks/1</url>",
            "<keywords>talks, x</keywords>",
            "<talkid>1</talkid>",
            f"<title>Title: {word} 1</title>",
            f"<description>A &amp; B {word} 2</description>",
            *(f" {word} {number} " for number in range(3, 60)),
            "<reviewer>someone</reviewer>",
        ]
    lines["de"][10] = "  "
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as file:

        def add(name, text):
            member = tarfile.TarInfo(f"de-en/{name}")
            member.size = len(text.encode())
            file.addfile(member, io.BytesIO(text.encode()))

        for language in ("de", "en"):
            add(f"train.tags.de-en.{language}", "\n".join(lines[language]) + "\n")
            for number, name in enumerate(datasets.IWSLT14_TESTS):
                segments = (
                    f'<doc>\n<seg id="1"> {language} {number} &lt;a </seg>\n<seg id="2">b</seg>\n'
                )
                add(f"IWSLT14.{name}.de-en.{language}.xml", segments + "</doc>\n")
    server.files["de-en.tgz"] = archive.getvalue()
    arguments = ["iwslt14", "--out", str(tmp_path), "--mirror", server.url]
    assert main(arguments) == 2  # not the checksum that is known
    assert main([*arguments, "--ignore-checksum"]) == 0
    parts = corpus_in(tmp_path)
    usable = [(f"Satz {n}", f"sentence {n}") for n in range(3, 60) if n != 8]
    usable = [
        ("Title: Satz 1", "Title: sentence 1"),
        ("A & B Satz 2", "A & B sentence 2"),
        *usable,
    ]
    assert parts["valid"] == [usable[22], usable[45]]
    assert parts["train"] == [pair for pair in usable if pair not in parts["valid"]]
    assert parts["test"] == [
        pair for n in range(5) for pair in ((f"de {n} <a", f"en {n} <a"), ("b", "b"))
    ]


@pytest.mark.parametrize(
    ("corpus", "name", "content"),
    [
        ("iwslt14", "de-en.tgz", b"no archive"),
        ("iwslt14", "de-en.tgz", gzip.compress(b"no archive", mtime=0)),
        ("tatoeba", "de-en.txt.zip", b"no archive"),
    ],
    ids=["no gzip", "gzip of something else", "no zip"],
)
def test_archives_that_are_something_else(server, tmp_path, capsys, corpus, name, content):
    server.files[name] = content
    arguments = [corpus, "--out", str(tmp_path), "--mirror", server.url, "--ignore-checksum"]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert f"{name}: not the archive that was expected (" in message and message.count("\n") == 1
    assert names(tmp_path) == ["download"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "CORPUS: expected one of grammar, multi30k, tatoeba, iwslt14"),
        ("multi", "CORPUS: unknown corpus multi (did you mean multi30k?)"),
        ("grammar extra", "nmt-data: unexpected argument extra"),
        ("grammar --mirror http://x", "--mirror does not go with grammar"),
        ("tatoeba --seed 0", "--seed does not go with tatoeba"),
        ("grammar --train 0", "--train: expected a whole number, 1 or more, not 0"),
        ("grammar --seed -1", "--seed: expected a whole number, 0 or more, not -1"),
        ("grammar --train many", "--train: invalid int value: 'many'"),
        ("grammar --overwrit", "unknown option --overwrit (did you mean --overwrite?)"),
        ("grammar --out file/x", "file"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("error: ") and message in captured.err
    assert names(tmp_path) == ["file"]


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "fetch", interrupt)
    assert main(["tatoeba", "--out", str(tmp_path)]) == 130
    assert "run again to continue" in capsys.readouterr().err


def test_a_failure_while_writing_leaves_what_was_there(tmp_path, monkeypatch, capsys):
    options = ["grammar", "--out", str(tmp_path), "--train=5", "--valid=5", "--test=5"]
    assert main(options) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    corpus = {"train": [("a", "b")], "valid": [("c", "d")], "test": [("e", 5)]}
    monkeypatch.setattr(grammar, "corpus", lambda **sizes: corpus)
    with pytest.raises(TypeError):
        main([*options, "--overwrite"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
