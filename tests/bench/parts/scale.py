"""Figures 7 and 8: a slow device, and a million files.

Called by run; calls servers, trees, report.
"""
import contextlib
import os
import statistics

import trees
from machine import Failure, SlowDevice, evict
from report import Row, median_of

DEVICE_BYTES_PER_S = 20_000_000


def slow_device(bench):
    """The 99th percentile of a stored .info while 16 zips are read from a slow device."""
    seconds = bench.scaled(15, 5)
    # So much that the device cannot be done with it before the time is over.
    modules = [(f"example.com/slow{i:02d}", seconds * 1.5) for i in range(16)]
    cache = bench.trees.with_zips("cache-slow", bench.tree, *modules)
    os.sync()
    small = trees.paths(cache, {"info"})
    rate = 200
    measured = {}
    for name, start in ("Larder", bench.subject), ("nginx", bench.tools.nginx):
        with start(cache) as server:
            bench.tools.load(server.url, small, 8)
            server.settle(bench.adopt_s)
            for module in modules:
                evict(cache + trees.zip_path(module))
            with SlowDevice(cache, DEVICE_BYTES_PER_S) as device:
                device.add(server)
                zip_paths = [trees.zip_path(m) for m in modules]
                zips = bench.tools.load(server.url, zip_paths, 16, background=True, requests=16, for_=f"{seconds + 2}s")
                figures = bench.tools.load(server.url, small, 16, rate=rate, for_=f"{seconds}s")
                measured[name] = figures, zips.result()
    figures, zips = measured["Larder"]
    note = (
        f"median {figures['total_ms']['p50']:.2f} ms, worst {figures['total_ms']['max']:.1f} ms of "
        f"{figures['requests'] + figures['unanswered']} at {rate} a second; the zips came at {zips['bytes'] / zips['seconds'] / 1e6:.1f} MB/s; "
        f"nginx, one worker, beside it: {measured['nginx'][0]['total_ms']['p99']:.0f} ms"
    )
    speed = zips["bytes"] / zips["seconds"] / DEVICE_BYTES_PER_S
    if speed > 1.5:
        raise Failure(f"the zips came {speed:.1f} times as fast as the device may be: they were in the page cache")
    row = Row(7, "a stored .info while 16 zips come from a device of 20 MB/s: 99th percentile",
              figures["total_ms"]["p99"], 20, " ms", note=note)
    return [row]


def million(bench):
    """Start, memory and the cost of a hit with a million files, against a thousand."""
    sample = 1_000
    requests = bench.scaled(40_000, 2_000)
    small_tree, small_paths = bench.trees.many(sample, sample)
    big_tree, big_paths = bench.trees.many(bench.scaled(1_000_000, 50_000), sample)
    files = len(trees.paths(big_tree))
    small, big = _without_index(bench, small_tree), _without_index(bench, big_tree)
    with contextlib.ExitStack() as stack:
        few = stack.enter_context(bench.tools.larder(small_tree))
        many = stack.enter_context(bench.tools.larder(big_tree))
        rss = {}
        for server, names in (few, small_paths), (many, big_paths):
            server.settle(bench.adopt_s)
            bench.tools.load(server.url, names, 32)
            server.settle()
            rss[server] = server.rss_mb()
        # nginx on the same two trees shows what the kernel's path lookup alone has to do with it.
        few_nginx = stack.enter_context(bench.tools.nginx(small_tree))
        many_nginx = stack.enter_context(bench.tools.nginx(big_tree))
        turns = [(few, small_paths), (many, big_paths), (few_nginx, small_paths), (many_nginx, big_paths)]
        costs = {server: [] for server, _ in turns}
        for number in range(bench.rounds):
            for server, names in turns if number % 2 == 0 else reversed(turns):
                before = server.cpu()
                bench.tools.load(server.url, names, 32, requests=requests)
                costs[server].append((server.cpu() - before) / requests)
        starts = many.listening_s, few.listening_s
    ratio, spread = median_of([m / f for m, f in zip(costs[many], costs[few])])
    nginx_ratio = statistics.median(m / f for m, f in zip(costs[many_nginx], costs[few_nginx]))
    micros = {server: statistics.median(c) * 1e6 for server, c in costs.items()}
    stored = f"{files} stored files"
    return [
        Row(8, f"{stored}, first start (no index): until it listens", big[0], 2, " s",
            note=f"a tree of {sample}: {small[0]:.3f} s; adopted after {big[1]:.0f} s of CPU"),
        Row(8, f"{stored}, later start, index not in the page cache: until it listens", starts[0], 2, " s",
            note=f"a tree of {sample}: {starts[1]:.3f} s"),
        Row(8, f"{stored}: resident memory, × a tree of {sample}", rss[many] / rss[few], 1.1, " ×",
            note=f"{rss[many]:.1f} MB, {rss[few]:.1f} MB; most while adopting {big[2]:.1f} MB"),
        Row(8, f"{stored}: CPU per hit, × a tree of {sample}", ratio, 1.1, " ×",
            note=f"{micros[many]:.2f} µs, {micros[few]:.2f} µs; {spread}; nginx on the same trees: {nginx_ratio:.2f} ×"),
    ]


def _without_index(bench, tree):
    """Starts on a tree without an index and lets it be adopted; returns (seconds to listen, CPU seconds, peak MB).

    Leaves the index it made outside the page cache, as after the power was off.
    """
    trees.discard(os.path.join(tree, ".larder"))
    with bench.tools.larder(tree) as larder:
        listening = larder.listening_s
        larder.settle(bench.adopt_s, quiet_s=1.0)
        figures = listening, larder.cpu(), larder.peak_rss_mb()
    for folder, _, files in os.walk(os.path.join(tree, ".larder")):
        for name in files:
            if os.path.isfile(os.path.join(folder, name)):
                evict(os.path.join(folder, name))
    return figures
