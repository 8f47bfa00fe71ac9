"""Figures 4 to 6: what is not stored yet.

Called by run; calls servers, trees, report.
"""
import os
import statistics

import trees
from machine import Failure
from report import Row, median_of

UPLINK_BYTES_PER_S = 20_000_000
CROWD = 50


def first_byte(bench):
    """How much later the first byte of a missing file's body comes than from the upstream itself."""
    small = [p for p in trees.paths(bench.tree, {"info", "mod"})][: bench.scaled(400, 40)]
    modules = [(f"example.com/first{i}", trees.BIG_46_MB[1]) for i in range(bench.scaled(5, 2))]
    rows = []
    for name, tree, paths in (
        ("small files", bench.tree, small),
        ("46 MB zips", bench.trees.zips(*modules), [trees.zip_path(m) for m in modules]),
    ):
        with bench.tools.upstream(tree, "-latency", "20ms") as upstream:
            with bench.tools.larder(bench.trees.empty("cache-miss"), upstream.url) as larder:
                direct = _body_ms(bench, upstream.url, paths)
                through = _body_ms(bench, larder.url, paths)
        # Every file against itself; the upstream's own jitter is in both, so single values may come out below zero.
        added = sorted(through[p] - direct[p] for p in paths)
        median, late = statistics.median(added), added[min(int(0.95 * len(added)), len(added) - 1)]
        note = f"95th percentile of {len(added)}; median {median:.2f} ms, worst {added[-1]:.2f} ms; upstream 20 ms away"
        rows.append(Row(4, f"miss, {name}: first byte after the upstream's", late, 5, " ms", note=note))
    return rows


def _body_ms(bench, url, paths):
    return {a["path"]: a["body_ms"] for a in bench.tools.load(url, paths, 1, each=True)["each"]}


def cold_files(bench):
    """CPU per file when everything of the fixture tree is asked for the first time, eight at a time."""
    paths = trees.paths(bench.tree)
    costs, seconds = [], []
    for number in range(bench.scaled(3, 1)):
        with bench.tools.upstream(bench.tree) as upstream:
            cache = bench.trees.empty("cache-cold")
            with bench.tools.larder(cache, upstream.url) as larder:
                larder.settle()
                before = larder.cpu()
                figures = bench.tools.load(larder.url, paths, 8)
                larder.settle(bench.adopt_s)  # what it does after the last answer is part of the price
                costs.append((larder.cpu() - before) * 1e3 / len(paths))
                seconds.append(figures["seconds"])
            trees.discard(cache)
        bench.say(f"round {number + 1}: {costs[-1]:.3f} ms")
    cost, spread = median_of(costs)
    megabytes = figures["bytes"] / 1e6
    note = f"{len(paths)} files, {megabytes:.1f} MB, in {statistics.median(seconds):.1f} s; {spread}; {bench.disk}"
    return [Row(5, "the tree's files cold, 8 at a time: CPU per file, fsync included", cost, 1.0, " ms", note=note)]


def crowd(bench):
    """Fifty clients on one cold zip over a slow uplink: what the upstream sends, how long it takes, memory."""
    rows, idle, peaks = [], None, []
    for name, module in ("46 MB", trees.BIG_46_MB), ("500 MB", trees.BIG_500_MB):
        if bench.quick and name == "500 MB":
            continue
        tree = bench.trees.zips(module)
        size, path = trees.zip_bytes(tree, module), trees.zip_path(module)
        with bench.tools.upstream(tree, "-bandwidth", str(UPLINK_BYTES_PER_S)) as upstream:
            alone = bench.tools.load(upstream.url, [path], 1)["seconds"]
            upstream.reset()
            cache = bench.trees.empty("cache-crowd")
            with bench.tools.larder(cache, upstream.url) as larder:
                larder.settle()
                idle = idle or larder.rss_mb()
                figures = bench.tools.load(larder.url, [path], CROWD, requests=CROWD)
                peak, sent = larder.peak_rss_mb(), upstream.stats()
                peaks.append(peak)
                larder.settle(bench.adopt_s)
                after = larder.rss_mb()
            trees.discard(cache)
        if figures["bytes"] != CROWD * size:
            raise Failure(f"{figures['bytes']} bytes reached the clients, not {CROWD} × {size}")
        asked = sent["by_kind"]["zip"]
        ratio = figures["seconds"] / alone
        rows += [
            Row(6, f"{CROWD} clients, one cold {name} zip: downloads from the upstream (bytes ÷ size)",
                asked["bytes"] / size, 1.01, " ×", note=f"{asked['requests']} requests, {asked['bytes']} of {size} bytes"),
            Row(6, f"{CROWD} clients, one cold {name} zip: all done, × one download without Larder", ratio, 1.1, " ×",
                note=f"{figures['seconds']:.2f} s, alone {alone:.2f} s, the line itself {size / UPLINK_BYTES_PER_S:.2f} s"),
            Row(6, f"{CROWD} clients, one cold {name} zip: most resident memory", peak, 60, " MB", 1,
                note=f"idle afterwards {after:.1f} MB"),
        ]
        bench.say(f"{name}: {ratio:.3f} × the time, {peak:.1f} MB")
    if len(peaks) == 2:
        rows.append(Row(6, "most resident memory, 500 MB ÷ 46 MB", peaks[1] / peaks[0], 1.1, " ×"))
    rows.append(Row(6, "idle: resident memory", idle, 25, " MB", 1, note="started on an empty cache, nothing asked yet"))
    return rows
