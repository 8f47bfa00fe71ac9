"""Figures 1 to 3: what is stored, beside nginx and beside Go's own file access.

Called by run; calls servers, trees, report. The two servers of a comparison serve the same directory, run at the same
time on the same core, and are asked in turn, so that whatever else the machine does meets both.
"""
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time

import trees
from machine import Failure, clean_env
from report import Row, median_of

# Enough connections to keep a server busy without a pause, and few enough for one client on the other core.
SMALL_CONNECTIONS = 32
ZIP_CONNECTIONS = 8


def small_files(bench):
    """CPU per request of stored .info and .mod files."""
    cache = bench.trees.copy(bench.tree, "cache-small")
    paths = trees.paths(cache, {"info", "mod"})
    requests = bench.scaled(40_000, 2_000)
    rounds = beside_nginx(bench, cache, paths, SMALL_CONNECTIONS, requests, lambda r: r["requests"])
    ratio, spread = median_of([r[0] for r in rounds])
    note = f"µs a request: {_each(rounds, 1e6)}; {len(paths)} files, {requests} requests a round, {spread}"
    return [Row(1, "stored .info and .mod: CPU per request, × nginx", ratio, 1.5, " ×", note=note)]


def zips(bench):
    """CPU per byte of stored zips of 1 MB and 46 MB."""
    rows = []
    cache = bench.trees.with_zips("cache-zips", None, trees.ONE_MB, trees.BIG_46_MB)
    for name, module in ("1 MB", trees.ONE_MB), ("46 MB", trees.BIG_46_MB):
        size = trees.zip_bytes(cache, module)
        # Many short rounds: what a transfer costs depends on how the two ends happen to wait for each other.
        requests = max(400_000_000 // size, ZIP_CONNECTIONS)
        rounds = beside_nginx(
            bench, cache, [trees.zip_path(module)], ZIP_CONNECTIONS, requests, lambda r: r["bytes"], 4 * bench.rounds
        )
        ratio, spread = median_of([r[0] for r in rounds])
        note = f"ms for 46 MB: {_each(rounds, 46e9)}; {requests} requests a round, {spread}"
        rows.append(Row(2, f"stored zip of {name}: CPU per byte, × nginx", ratio, 1.1, " ×", note=note))
    return rows


def beside_nginx(bench, cache, paths, connections, requests, units, count=None):
    """Returns per round (ratio, nginx's CPU seconds per unit, Larder's)."""
    with bench.tools.nginx(cache) as nginx, bench.subject(cache) as larder:
        servers = [nginx, larder]
        for server in servers:
            # Once through, so that neither has anything to read, adopt or allocate any more.
            bench.tools.load(server.url, paths, connections, requests=max(len(paths), requests // 10))
        larder.settle(bench.adopt_s)
        rounds = []
        for number in range(count or bench.rounds):
            cost = {}
            for server in servers if number % 2 == 0 else reversed(servers):
                before = server.cpu()
                figures = bench.tools.load(server.url, paths, connections, requests=requests)
                cost[server] = (server.cpu() - before) / units(figures)
            rounds.append((cost[larder] / cost[nginx], cost[nginx], cost[larder]))
            bench.say(f"round {number + 1}: {rounds[-1][0]:.3f}")
        return rounds


def _each(rounds, scale):
    nginx, larder = (statistics.median(r[i] for r in rounds) * scale for i in (1, 2))
    return f"nginx {nginx:.2f}, Larder {larder:.2f}"


def download(bench):
    """Wall time of `go mod download` from a warm Larder, against file:// on the very same cache directory."""
    for name in ("go.mod", "go.sum"):
        if not os.path.exists(os.path.join(bench.app, name)):
            raise Failure(f"no {name} in {bench.app}: give -app")
    with bench.tools.upstream(bench.app_tree) as upstream:
        cache = bench.trees.empty("cache-download")
        with bench.tools.larder(cache, upstream.url, cores=None) as larder:
            zips = go_mod_download(bench, larder.url)[1]  # fills the cache
            larder.settle(bench.adopt_s)
            took = {"http": [], "file": []}
            for number in range(bench.scaled(11, 3)):
                turns = [("file", f"file://{cache}"), ("http", larder.url)]
                for key, proxy in turns if number % 2 == 0 else reversed(turns):
                    took[key].append(go_mod_download(bench, proxy)[0])
                bench.say(f"round {number + 1}: file:// {took['file'][-1]:.3f} s, Larder {took['http'][-1]:.3f} s")
    ratio, spread = median_of([h / f for h, f in zip(took["http"], took["file"])])
    file_s, http_s = statistics.median(took["file"]), statistics.median(took["http"])
    name = os.path.basename(os.path.normpath(bench.app))
    note = f"{name}, {zips} zips; file:// {file_s:.3f} s, Larder {http_s:.3f} s; {spread}"
    return [Row(3, "go mod download from a warm Larder: wall time, × GOPROXY=file://", ratio, 1.1, " ×", note=note)]


def go_mod_download(bench, proxy):
    """Downloads the application's modules into an empty module cache; returns (seconds, number of zips)."""
    # In memory where possible: unpacking 150 MB into a file system costs seconds that vary more than what is measured.
    in_memory = os.access("/dev/shm", os.W_OK)
    folder = tempfile.mkdtemp(prefix="larder-bench-", dir="/dev/shm") if in_memory else bench.tools.scratch("go")
    os.makedirs(f"{folder}/app")
    for name in ("go.mod", "go.sum"):
        shutil.copy(os.path.join(bench.app, name), f"{folder}/app/{name}")
    try:
        # With all hashes in go.sum no checksum database is asked, so that both ways do the same work.
        env = clean_env(
            GOPROXY=proxy, GOSUMDB="off", GOFLAGS="-mod=mod -modcacherw", GOTOOLCHAIN="local", GOWORK="off",
            GOMODCACHE=f"{folder}/modules", GOPATH=f"{folder}/gopath", GOCACHE=os.path.join(bench.tools.work, "gocache"),
        )
        os.sync()  # what the round before left to be written must not be paid for by this one
        started = time.monotonic()
        done = subprocess.run(
            ["go", "mod", "download", "-json"], cwd=f"{folder}/app", env=env, capture_output=True, text=True, timeout=300
        )
        seconds = time.monotonic() - started
        if done.returncode != 0:
            raise Failure(f"go mod download from {proxy}:\n{done.stderr}{done.stdout[-2000:]}")
    finally:
        trees.discard(folder)
    modules = json.JSONDecoder()
    count, text = 0, done.stdout.strip()
    while text:
        module, end = modules.raw_decode(text)
        count += "Zip" in module
        text = text[end:].lstrip()
    return seconds, count
