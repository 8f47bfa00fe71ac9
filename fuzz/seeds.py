#!/usr/bin/env python3
"""Write the cases the fuzzers begin with into fuzz/corpus: cases made by hand, and what tests/fixtures has.

    fuzz/seeds.py

The same fixtures give the same files. What fuzzing has added stays beside them; its names are hashes.
How a target reads its bytes is drawn in tests/fuzzing.
"""
import base64
import hashlib
import io
import json
import pathlib
import struct
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TREE = ROOT / "tests/fixtures/tree"
VECTORS = json.loads((ROOT / "tests/fixtures/vectors.json").read_text())
PREFIX = "example.com/m@v1.0.0/"
WHEN = (2020, 1, 1, 0, 0, 0)


def keep(target, name, data):
    folder = ROOT / "fuzz/corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


class Pipe(io.RawIOBase):
    """A file that cannot seek: zipfile then writes data descriptors."""

    def __init__(self):
        self.bytes = bytearray()

    def writable(self):
        return True

    def write(self, data):
        self.bytes += data
        return len(data)


def archive(entries, method=zipfile.ZIP_DEFLATED, descriptor=False, zip64=False, comment=b""):
    out = Pipe() if descriptor else io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z:
        for name, content in entries:
            info = zipfile.ZipInfo(PREFIX + name, date_time=WHEN)
            info.compress_type = zipfile.ZIP_STORED if name.endswith("/") else method
            with z.open(info, "w", force_zip64=zip64) as entry:
                entry.write(content)
        z.comment = comment
    return bytes(out.bytes) if descriptor else out.getvalue()


def with_end64(data):
    """Put the zip64 end record and its locator before the end record, which then refers to them."""
    end = data.rindex(b"PK\5\6")
    entries, size, offset = struct.unpack_from("<HII", data, end + 10)
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    last = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:end] + end64 + locator + last


def zips():
    files = [("go.mod", b"module example.com/m\n"), ("a.go", b"package m\n"), ("b/c.go", b"package c\n" * 9)]
    cases = {
        "stored": archive(files, zipfile.ZIP_STORED),
        "deflated": archive(files),
        "descriptor": archive(files, descriptor=True),
        "descriptor-stored": archive(files, zipfile.ZIP_STORED, descriptor=True),
        "descriptor-zip64": archive(files, descriptor=True, zip64=True),
        "zip64": archive(files, zip64=True),
        "end64": with_end64(archive(files)),
        "comment": archive(files, comment=b"of the archive"),
        "comment-end": archive(files, comment=b"PK\5\6" + bytes(18)),
        "folder": archive([("d/", b""), ("d/a", b"a")]),
        "empty": archive([]),
        "empty-content": archive([("a", b""), ("b", b"")]),
        "unsorted": archive(reversed(files)),
        "case": archive([("a", b"1"), ("A", b"2")]),
        "file-and-folder": archive([("a", b"1"), ("a/b", b"2")]),
        "go-mod-below": archive([("x/go.mod", b"module x\n")]),
        "newline": archive([("a\nb", b"1")]),
        "traversal": archive([("../a", b"1")]),
        "compressible": archive([("zeros", bytes(1 << 20))]),
        "bytes-before": b"#!/bin/sh\n" + archive(files),
        "bytes-after": archive(files) + b"more",
        "two-archives": archive(files[:1]) + archive(files[1:]),
        "cut": archive(files)[:-30],
        "many": archive([(f"{n:03d}", b"x") for n in range(40)], zipfile.ZIP_STORED),
    }
    twice = bytearray(archive([("a", b"1"), ("b", b"2")]))
    cases["twice"] = bytes(twice).replace(f"{PREFIX}b".encode(), f"{PREFIX}a".encode())
    cases["symlink"] = cases["stored"].replace(b"\0\0\x80\1", b"\0\0\xff\xa1")
    cases["wrong-crc"] = cases["stored"].replace(b"package m", b"package n")
    for number, case in enumerate(VECTORS["zip_check"]):
        data = base64.b64decode(case.get("zip_base64", ""))
        if 0 < len(data) <= 4096 and case["path"] == "example.com/m" and case["version"] == "v1.0.0":
            cases[f"go-{number:02d}"] = data
    for name, data in cases.items():
        # In one piece, and in many.
        keep("zip", name, bytes([0 if len(name) % 2 else len(name)]) + data)
    keep("zip", "quote", b"\0" + (TREE / "rsc.io/quote/@v/v1.5.2.zip").read_bytes())
    keep("zip", "quote-in-pieces", b"\7" + (TREE / "rsc.io/quote/v3/@v/v3.1.0.zip").read_bytes())


def requests():
    escape = VECTORS["escape"]
    lines = [f"/{row['escaped']}/@v/list" for row in escape["bad_escaped_paths"]]
    lines += [f"/{row['escaped']}/@latest" for row in escape["paths"]]
    lines += [
        "/rsc.io/quote/@v/list", "/rsc.io/quote/@latest", "/rsc.io/quote/@v/v1.5.2.info", "/rsc.io/quote/@v/v1.5.2.mod",
        "/rsc.io/quote/@v/v1.5.2.zip", "/rsc.io/quote/v3/@v/v3.1.0.zip", "/rsc.io/quote/@v/master.info",
        "/rsc.io/quote/@v/feature%2fx.info", "/github.com/%21burnt%21sushi/toml/@v/v1.6.0.mod",
        "/github.com/!burnt!sushi/toml/@v/v0.0.0-20191010083416-a7dc8b61c822.zip",
        "/x.io/m/@v/v2.0.0+incompatible.mod", "/gopkg.in/yaml.v3/@v/v3.0.1.zip", "/x.io/m/@v/v1.0.0-!r!c.1.zip",
        "/sumdb/sum.golang.org/supported", "/sumdb/sum.golang.org/latest", "/sumdb/a.example/b/c/latest",
        "/sumdb/sum.golang.org/lookup/github.com/!burnt!sushi/toml@v1.6.0", "/sumdb/sum.golang.org/lookup/a.io/b@c@d",
        "/sumdb/sum.golang.org/tile/8/0/x188/625", "/sumdb/sum.golang.org/tile/8/1/x001/095.p/31",
        "/sumdb/sum.golang.org/tile/8/data/000.p/9", "/sumdb/latest", "/sumdb/../latest", "/a.io/../b/@v/list",
        "/a.io/%2e%2e/b/@v/list", "/a.io/b/@v/%00.info", "/a.io/b/@v/..info", "/", "", "/@v/list", "/a.io/b/@v/%e2%80%ae.info",
    ]
    for line in lines:
        for spelling in (line, line.removeprefix("/")):
            keep("request", hashlib.sha1(spelling.encode()).hexdigest()[:12], spelling)


def tiles():
    size = struct.pack("<Q", VECTORS["sumdb"]["latest"]["size"])
    paths = [row["path"] for row in VECTORS["tile_paths"]["good"] + VECTORS["tile_paths"]["bad"]]
    paths += [row["path"] for row in VECTORS["sumdb"]["tiles"]] + ["tile/8/data/x009/x223/x372/x036/x854/x775/807"]
    for path in paths:
        keep("tile", hashlib.sha1(path.encode()).hexdigest()[:12], path.encode() + b"\0" + size + bytes(64))


def node(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def small_log():
    """A log of three records, its tile, and the text of its head."""
    texts = [f"example.com/{name} v1.0.0 h1:{base64.b64encode(bytes([n] * 32)).decode()}\n" for n, name in enumerate("abc")]
    leaves = [hashlib.sha256(b"\0" + text.encode()).digest() for text in texts]
    root = node(node(leaves[0], leaves[1]), leaves[2])
    return texts, b"".join(leaves), f"go.sum database tree\n3\n{base64.b64encode(root).decode()}\n"


def database():
    sumdb = VECTORS["sumdb"]
    keep("note", "latest", sumdb["latest"]["note"])
    keep("note", "signed-text", sumdb["latest"]["signed_text"])
    for number, bad in enumerate(sumdb["bad_notes"]):
        keep("note", f"bad-{number}", bad["note"])
    heads = [row["old_note"].split("\n\n")[0] + "\n" for row in sumdb["consistency"]]
    keep("note", "two-heads", heads[0] + "\0" + sumdb["latest"]["signed_text"] + "\0" + "\n".join(sumdb["consistency"][0]["proof"]))
    texts, tile, head = small_log()
    other = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    root = head.split("\n")[2]
    keep("note", "fork", head.replace(root, other) + "\0" + head + "\0" + root)
    keep("note", "no-records", f"go.sum database tree\n0\n{base64.b64encode(hashlib.sha256().digest()).decode()}\n")
    keep("note", "blank-lines", "a\n\nb\n\n")
    leaves = [tile[at:at + 32] for at in range(0, 96, 32)]
    one = f"go.sum database tree\n1\n{other}\n"
    proof = [leaves[0], leaves[1], leaves[2]]
    keep("note", "fork-of-one", one + "\0" + head + "\0" + "\n".join(base64.b64encode(h).decode() for h in proof))
    for number, text in enumerate(texts):
        name = text.split(" ")[0] + "@v1.0.0\n"
        keep("lookup", f"proved-{number}", f"{name}{number}\n{text}\n{head}".encode() + b"\0" + tile)
    keep("lookup", "another", f"example.com/c@v1.0.0\n0\n{texts[0]}\n{head}".encode() + b"\0" + tile)
    keep("lookup", "beyond", f"example.com/a@v1.0.0\n3\n{texts[0]}\n{head}".encode() + b"\0" + tile)
    keep("lookup", "data-tile", "".join(text + "\n" for text in texts))
    folder = TREE / "sumdb/sum.golang.org/lookup"
    for module in ("gopkg.in/yaml.v2@v2.4.0", "golang.org/x/mod@v0.42.0", "github.com/gorilla/websocket@v1.5.3"):
        answer = (folder / module).read_bytes()
        keep("lookup", module.rsplit("/", 1)[1], f"{module}\n".encode() + answer)
        keep("lookup", "unsigned-" + module.rsplit("/", 1)[1], f"{module}\n".encode() + answer.rsplit(b"\n\n", 1)[0] + b"\n")


if __name__ == "__main__":
    zips()
    requests()
    tiles()
    database()
