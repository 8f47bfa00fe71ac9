"""Figures 9 to 13: what verification costs.

Called by run; calls servers, trees, machine, report. The recorded public database stands behind the stand-in upstream, so
its real records, tiles and signed heads are checked; where zips are made up, the test database has their records.
"""
import json
import os
import statistics
import subprocess
import time

import trees
from machine import Failure, evict
from report import Row, median_of

UPLINK_BYTES_PER_S = 20_000_000
DATABASE = "/sumdb/sum.golang.org"
# The zips of the comparisons, as far as the tree has them: 20 MB of 3,504 files, and 7 MB of 487 (also in the fixture tree).
ZIPS = (("github.com/aws/aws-sdk-go", "v1.38.0"), ("golang.org/x/text", "v0.42.0"))
# What an h1 under way may hold.
H1_BYTES_MAX, H1_ENTRY_BYTES_MAX = 1_000_000, 160
CROWD = 8


def _zips(bench):
    found = [z for z in ZIPS if os.path.exists(_file(bench.tree, z))]
    if not found:
        raise Failure(f"none of {', '.join('@'.join(z) for z in ZIPS)} is in {bench.tree}")
    return found


def _file(tree, module):
    return os.path.join(tree, module[0], "@v", f"{module[1]}.zip")


def _path(module):
    return f"/{module[0]}/@v/{module[1]}.zip"


def _named(module, size):
    return f"{module[0].rsplit('/', 1)[1]}, {size / 1e6:.1f} MB"


def _gosumdb(bench, upstream):
    with open(os.path.join(bench.fixtures, "sumdb-key.txt")) as f:
        return ("-gosumdb", f"{f.read().strip()} {upstream.url}{DATABASE}")


def verified_miss(bench):
    """Wall time of a zip that is not stored, verified against not verified, each time into an empty cache."""
    rows = []
    slow = ("-bandwidth", str(UPLINK_BYTES_PER_S))
    for speed, options, more, target in (
        ("at 20 MB/s", slow, (), 1.05),
        # A zip can be hashed as far as it is there without a gap, and each of several connections leaves one until it ends.
        ("at 20 MB/s, -download-connections 1", slow, ("-download-connections", "1"), 1.05),
        ("unthrottled", (), (), 1.3),
    ):
        for module in _zips(bench):
            size = os.path.getsize(_file(bench.tree, module))
            with bench.tools.upstream(bench.tree, *options) as upstream:
                ways = {"off": (*more, "-gosumdb", "off"), "on": (*more, *_gosumdb(bench, upstream))}
                _missed(bench, upstream, module, ways["on"])  # once, so that the upstream has the file in memory
                rounds = []
                for number in range(max(bench.rounds, bench.scaled(7, 3))):
                    took = {}
                    for way in ("off", "on") if number % 2 == 0 else ("on", "off"):
                        took[way] = _missed(bench, upstream, module, ways[way])
                    rounds.append((took["off"], took["on"]))
                    bench.say(f"round {number + 1}: off {took['off'][0]:.3f} s, on {took['on'][0]:.3f} s")
            ratio, spread = median_of([on[0] / off[0] for off, on in rounds])
            off_s, on_s = (statistics.median(r[i][0] for r in rounds) for i in (0, 1))
            h1_s = statistics.median(on[1] - off[1] for off, on in rounds)
            note = (
                f"off {off_s:.3f} s, on {on_s:.3f} s; verification took {h1_s:.3f} s of CPU, which one core at most does: "
                f"no ratio below {max(1.0, h1_s / off_s):.2f} × is possible; {spread}"
            )
            rows.append(Row(9, f"a miss, {_named(module, size)}, {speed}: wall time, × -gosumdb off", ratio, target, " ×", note=note))
    return rows


def _missed(bench, upstream, module, way):
    """Returns (wall seconds of the client, CPU seconds of Larder) of one miss in an empty cache."""
    cache = bench.trees.empty("cache-verified")
    with bench.tools.larder(cache, upstream.url, way, cores=None) as larder:
        larder.settle()
        before = larder.cpu()
        took = bench.tools.load(larder.url, [_path(module)], 1)["seconds"]
        larder.settle(bench.adopt_s)
        cpu = larder.cpu() - before
    trees.discard(cache)
    return took, cpu


def h1_throughput(bench):
    """CPU time of a zip's h1 in `larder verify` against Go's dirhash, on the same file, each with one core."""
    rows = []
    with bench.tools.oracle() as ask:
        for module in _zips(bench):
            file = _file(bench.tree, module)
            cache = bench.trees.empty("cache-h1")
            _copy_version(bench.tree, module, cache, module[1])
            nothing = bench.trees.empty("cache-none")
            _verify(bench, cache)  # what adopts the file and notes its sums
            rounds = []
            for _ in range(max(bench.rounds, bench.scaled(7, 3))):
                base = _verify(bench, nothing)["cpu"]
                larder_s = _verify(bench, cache)["cpu"] - base
                rounds.append((ask(op="dirhash", file=file)["cpu_s"], larder_s))
                bench.say(f"dirhash {rounds[-1][0]:.3f} s, larder verify {rounds[-1][1]:.3f} s")
            ratio, spread = median_of([go / larder for go, larder in rounds])
            size = os.path.getsize(file)
            go_mb, larder_mb = (size / 1e6 / statistics.median(r[i] for r in rounds) for i in (0, 1))
            note = f"MB of zip a second of CPU: dirhash {go_mb:.0f}, Larder {larder_mb:.0f}, its CRC and zip rules included; {spread}"
            rows.append(Row(10, f"h1 of a zip ({_named(module, size)}): throughput, × Go's dirhash", ratio, 1, " ×", note=note, least=True))
    return rows


def _verify(bench, cache, *more):
    """Runs `larder verify` on one core to its end; returns seconds, cpu (seconds), peak_mb (VmHWM) and what it said."""
    argv = ["verify", "--cache", cache, *(more or ("--gosumdb", "off", "--upstream", "off"))]
    started = time.monotonic()
    process = bench.tools.command(argv)
    peak_kib, ended = 0, None
    while ended is None:
        try:
            peak_kib = process.status_kib("VmHWM")
        except Failure:  # it has ended and has no memory any more
            pass
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        ended = status if pid else None
        if ended is None:
            time.sleep(0.002)
    seconds = time.monotonic() - started
    process.popen.returncode = os.waitstatus_to_exitcode(ended)
    if process.popen.returncode != 0:
        raise Failure(f"larder verify failed:\n{process.tail()}")
    return {"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime, "peak_mb": peak_kib * 1024 / 1e6, "said": process.tail()}


def h1_memory(bench):
    """The most memory with one and with eight zips coming in, verified against not verified."""
    module = _zips(bench)[0]
    tree = _copies(bench, f"copies-{CROWD}", [module], CROWD)
    entries = _entries(_file(bench.tree, module))
    paths = trees.paths(tree, {"zip"})
    size = os.path.getsize(_file(bench.tree, module))
    peaks = {}
    with bench.tools.testsumdb(tree) as database:
        ways = {"off": ("-gosumdb", "off"), "on": ("-gosumdb", database.gosumdb)}
        for number in range(bench.scaled(5, 1)):
            for count in 1, CROWD:
                for way in ("off", "on") if number % 2 == 0 else ("on", "off"):
                    with bench.tools.upstream(tree, "-bandwidth", str(2 * UPLINK_BYTES_PER_S)) as upstream:
                        cache = bench.trees.empty("cache-memory")
                        more = (*ways[way], "-max-concurrent-downloads", str(CROWD))
                        with bench.tools.larder(cache, upstream.url, more) as larder:
                            larder.settle()
                            bench.tools.load(larder.url, paths[:count], count)
                            peaks.setdefault((way, count), []).append(larder.peak_rss_mb())
                        trees.discard(cache)
            bench.say(", ".join(f"{way} {count}: {p[-1]:.1f} MB" for (way, count), p in peaks.items()))
    mb = {key: statistics.median(values) for key, values in peaks.items()}
    allowed = round((H1_BYTES_MAX + H1_ENTRY_BYTES_MAX * entries) / 1e6, 2)
    one, each = mb["on", 1] - mb["off", 1], (mb["on", CROWD] - mb["off", CROWD]) / CROWD
    more = f"zips of {size / 1e6:.0f} MB with {entries} files each; median of {len(peaks['on', 1])}"
    return [
        Row(11, f"memory of one h1 under way, of {CROWD}: most resident, less that with -gosumdb off, ÷ {CROWD}", each, allowed, " MB",
            note=f"off {mb['off', CROWD]:.1f}, on {mb['on', CROWD]:.1f} MB; {more}"),
        Row(11, "the same of one alone, the verifying client itself included", one, allowed, " MB",
            note=f"off {mb['off', 1]:.1f}, on {mb['on', 1]:.1f} MB"),
    ]


def warm_requests(bench):
    """What the database is asked when a zip's record is known already, from its .mod, and by `larder verify`."""
    versions = [p[:-4] for p in trees.paths(bench.tree, {"zip"})]
    versions = versions[: bench.scaled(len(versions), 5)]
    with bench.tools.upstream(bench.tree) as upstream:
        cache = bench.trees.empty("cache-warm")
        way = _gosumdb(bench, upstream)
        with bench.tools.larder(cache, upstream.url, way) as larder:
            bench.tools.load(larder.url, [f"{v}.mod" for v in versions], 8)
            larder.settle(bench.adopt_s)
            cold = _database_requests(upstream)
            upstream.reset()
            bench.tools.load(larder.url, [f"{v}.zip" for v in versions], 8)
            larder.settle(bench.adopt_s)
            warm = _database_requests(upstream)
        upstream.reset()
        said = _verify(bench, cache, "--gosumdb", way[1], "--upstream", upstream.url)["said"]
        if ", 0 unverified, " not in said:
            raise Failure(f"not all was verified: {said}")
        again = _database_requests(upstream)
        bench.say(f"cold {cold}, warm {warm}, larder verify {again}")
        trees.discard(cache)
    note = f"{len(versions)} zips; before that {cold} for their .mod, into an empty cache"
    return [
        Row(12, "a verification whose record is known: requests to the database", warm, 0, "", 0, note=note),
        Row(12, "larder verify of the same, against the log: requests to the database", again, 0, "", 0, note="a new process"),
    ]


def _database_requests(upstream):
    kinds = upstream.stats()["by_kind"]
    return sum(kinds.get(kind, {}).get("requests", 0) for kind in ("supported", "sumlatest", "lookup", "tile"))


def reading(bench):
    """How fast `larder verify` reads, against cat, and its memory on a small and on a ten times larger tree."""
    rows, peaks = [], []
    for name, total in ("50 MB", 50e6), ("500 MB", 500e6):
        if bench.quick and name == "500 MB":
            continue
        zips = _zips(bench)
        each = sum(os.path.getsize(_file(bench.tree, z)) for z in zips)
        cache = bench.trees.copy(_copies(bench, f"copies-{name.replace(' ', '')}", zips, round(total / each) or 1), "cache-read")
        files = [os.path.join(f, n) for f, _, names in os.walk(cache) for n in names]
        size = sum(map(os.path.getsize, files))
        _verify(bench, cache)
        rounds = []
        for _ in range(bench.scaled(3, 1)):
            cat_s = _cat(files)
            rounds.append((_verify(bench, cache), cat_s))
            bench.say(f"{name}: verify {rounds[-1][0]['seconds']:.2f} s, cat {cat_s:.3f} s, {rounds[-1][0]['peak_mb']:.1f} MB")
        for file in files:
            evict(file)
        cold_s = _cat(files)
        trees.discard(cache)
        took, cat_s = (statistics.median(v) for v in ([r[0]["seconds"] for r in rounds], [r[1] for r in rounds]))
        peaks.append(max(r[0]["peak_mb"] for r in rounds))
        share = statistics.median(r[0]["cpu"] / r[0]["seconds"] for r in rounds)
        speed, cat = size / 1e6 / took, size / 1e6 / cat_s
        note = (
            f"{speed:.0f} MB/s with one core, {share:.0%} of it busy inflating and hashing; cat {cat:.0f} MB/s from the page cache, "
            f"{size / 1e6 / cold_s:.0f} MB/s from {bench.disk}; {size / 1e6:.0f} MB, peak {peaks[-1]:.1f} MB"
        )
        rows.append(Row(13, f"larder verify, {name} of zips: speed, × cat of the same files from the page cache", cat_s / took, 1, " ×", 3, note, True))
    if len(peaks) == 2:
        note = f"{peaks[0]:.1f} and {peaks[1]:.1f} MB"
        rows.append(Row(13, "larder verify: most resident memory, 500 MB ÷ 50 MB", peaks[1] / peaks[0], 1.1, " ×", note=note))
    return rows


def _cat(files):
    started = time.monotonic()
    subprocess.run(["xargs", "-0", "cat"], input="\0".join(files).encode(), stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - started


def _entries(file):
    # The number in the end record, which no zip of these has a comment behind.
    with open(file, "rb") as f:
        f.seek(-12, os.SEEK_END)
        return int.from_bytes(f.read(2), "little")


def _copies(bench, name, modules, count):
    """Returns a tree with `count` made-up versions of each module: real content, and names as long as the real ones."""
    to = os.path.join(bench.trees.folder, name)
    if not os.path.exists(f"{to}.made"):
        trees.discard(to)
        for module in modules:
            for number in range(count):
                _copy_version(bench.tree, module, to, f"{module[1][:3]}{10 + number}{module[1][5:]}")
        with open(f"{to}.made", "w"):
            pass
    return to


def _copy_version(tree, module, to, version):
    """Writes a version into a tree with the content of another one; zips name it before every file, twice."""
    source, folder = _file(tree, module), os.path.join(to, module[0], "@v")
    os.makedirs(folder, exist_ok=True)
    with open(source, "rb") as f:
        content = f.read()
    old, new = (f"{module[0]}@{v}/".encode() for v in (module[1], version))
    if len(old) != len(new) or content.count(old) != 2 * _entries(source):
        raise Failure(f"{source} cannot be made into {version}")
    stem = os.path.join(folder, version)
    with open(f"{stem}.zip", "wb") as f:
        f.write(content.replace(old, new))
    with open(source[:-4] + ".mod", "rb") as f, open(f"{stem}.mod", "wb") as mod:
        mod.write(f.read())
    with open(f"{stem}.info", "w") as f:
        json.dump({"Version": version, "Time": "2020-01-01T00:00:00Z"}, f, separators=(",", ":"))
    with open(os.path.join(folder, "list"), "a") as f:
        f.write(f"{version}\n")
