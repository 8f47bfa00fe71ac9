"""Starts what is measured and what it is measured against: Larder, nginx, the stand-in upstream, the load.

Called by the figures; calls machine. All listen on loopback, on ports the kernel picks.
"""
import contextlib
import glob
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request

from machine import Failure, Process, clean_env


class Tools:
    """The programs, built or found once, and the cores they run on."""

    def __init__(self, bench_dir, work, larder, upstream_dir, server_cores, load_cores):
        self.work = work
        self.server_cores = server_cores
        self.load_cores = load_cores
        self.larder_bin = larder
        self.bin = os.path.join(work, "bin")
        os.makedirs(self.bin, exist_ok=True)
        # What a killed run left in a kept work directory must not be taken for this run's.
        shutil.rmtree(os.path.join(work, "run"), ignore_errors=True)
        self.load_bin = self._go_build(os.path.join(bench_dir, "load"), "load")
        self.upstream_bin = self._go_build(upstream_dir, "upstream")
        self.tools_dir = os.path.dirname(os.path.abspath(upstream_dir))
        self._nginx_bin = None
        self._serial = 0

    def _go_build(self, source, name, **more):
        out = os.path.join(self.bin, name)
        # Load and upstream need nothing but Go's standard library, so no module is ever looked for.
        env = clean_env(**{"GOFLAGS": "", "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOWORK": "off"} | more)
        subprocess.run(["go", "build", "-o", out, "."], cwd=source, env=env, check=True)
        return out

    def scratch(self, name):
        """Returns a new path in the work directory."""
        self._serial += 1
        folder = os.path.join(self.work, "run")
        os.makedirs(folder, exist_ok=True)
        return os.path.join(folder, f"{self._serial:03d}-{name}")

    def nginx_bin(self):
        """Finds nginx, or takes the file out of Debian's package: installing it would start a service on port 80."""
        if self._nginx_bin:
            return self._nginx_bin
        unpacked = os.path.join(self.work, "nginx")
        found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if not found and not os.path.exists(f"{unpacked}/usr/sbin/nginx"):
            os.makedirs(unpacked, exist_ok=True)
            fetch = ["apt-get", "-q", "download", "nginx"]
            if subprocess.run(fetch, cwd=unpacked, capture_output=True).returncode != 0 and os.getuid() == 0:
                subprocess.run(["apt-get", "-q", "update"], capture_output=True, check=False)
                subprocess.run(fetch, cwd=unpacked, capture_output=True, check=False)
            debs = glob.glob(f"{unpacked}/nginx_*.deb")
            if not debs:
                raise Failure("no nginx, and `apt-get download nginx` brought none")
            subprocess.run(["dpkg-deb", "-x", debs[0], unpacked], check=True)
        self._nginx_bin = found or f"{unpacked}/usr/sbin/nginx"
        return self._nginx_bin

    # What is measured runs on the server core, everything else on the load core.

    def larder(self, cache, upstream="off", extra=(), cores="server"):
        return Larder(self, cache, upstream, extra, self.server_cores if cores == "server" else cores)

    def nginx(self, root):
        return Nginx(self, root)

    def upstream(self, tree, *options):
        return Upstream(self, tree, options)

    def command(self, argv):
        """Starts a command of Larder on the server core and returns it running."""
        return Process([self.larder_bin, *argv], self.scratch("command.log"), self.server_cores, clean_env())

    def testsumdb(self, tree):
        return TestDatabase(self, tree, self._go_tool("testsumdb"))

    @contextlib.contextmanager
    def oracle(self):
        """Runs Go's own libraries on the server core; what it gives asks them and returns the answer."""
        with subprocess.Popen(
            ["taskset", "-c", str(min(self.server_cores)), self._go_tool("oracle")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_env(GOMAXPROCS=1),
        ) as process:
            def ask(**question):
                process.stdin.write(json.dumps(question) + "\n")
                process.stdin.flush()
                answer = json.loads(process.stdout.readline() or '{"error": "it ended"}')
                if "ok" not in answer:
                    raise Failure(f"oracle: {answer['error']}")
                return answer["ok"]

            yield ask

    def _go_tool(self, name):
        # These need golang.org/x/mod, which the ordinary go client finds.
        proxy = {"GOPROXY": os.environ["GOPROXY"]} if "GOPROXY" in os.environ else {"GOPROXY": ""}
        return self._go_build(os.path.join(self.tools_dir, name), name, **proxy)

    def load(self, url, paths, connections, background=False, **options):
        """Runs the load to its end and returns its figures; with background, returns it running."""
        run = Load(self, url, paths, connections, options)
        return run if background else run.result()


class Larder(Process):
    """A Larder serving `cache`; `listening_s` is how long it took from its start until it could be asked."""

    def __init__(self, tools, cache, upstream, extra, cores):
        ready = tools.scratch("larder.ready")
        argv = [tools.larder_bin, "-listen", "127.0.0.1", "-port", "0", "-cache", cache, "-upstream", upstream]
        if "-gosumdb" not in extra:
            argv += ["-gosumdb", "off"]
        started = time.monotonic()
        super().__init__([*argv, "-ready-file", ready, *extra], ready[:-6] + ".log", cores, clean_env())
        self.wait_for(lambda: os.path.exists(ready) and os.path.getsize(ready) > 0)
        self.listening_s = time.monotonic() - started
        with open(ready) as f:
            self.url = f.read().strip()


class Nginx(Process):
    """One worker as Debian builds it: sendfile, no open_file_cache (the default), no access log."""

    CONFIG = """daemon off; master_process off; worker_processes 1;
pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    types {{ application/json info; text/plain mod; application/zip zip; }}
    access_log off; sendfile on; keepalive_requests 1000000000; keepalive_timeout 600s;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; }}
}}
"""

    def __init__(self, tools, root):
        folder = tools.scratch("nginx")
        os.makedirs(folder)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        config = os.path.join(folder, "nginx.conf")
        with open(config, "w") as f:
            # As root it would otherwise work as another user, who need not be able to read the tree.
            f.write("user root;\n" if os.getuid() == 0 else "")
            f.write(self.CONFIG.format(folder=folder, port=port, root=root))
        super().__init__([tools.nginx_bin(), "-c", config, "-p", folder], f"{folder}/log", tools.server_cores)
        self.url = f"http://127.0.0.1:{port}"
        self.wait_for(lambda: _connects(port))


class Upstream(Process):
    """The stand-in for the public mirror; it ends by itself should the benchmark be lost."""

    def __init__(self, tools, tree, options):
        ready = tools.scratch("upstream.ready")
        argv = [tools.upstream_bin, "-tree", tree, "-http", "127.0.0.1:0", "-ready", ready, "-for", "30m", *options]
        super().__init__(argv, ready[:-6] + ".log", tools.load_cores, clean_env())
        self.wait_for(lambda: os.path.exists(ready) and os.path.getsize(ready) > 0)
        with open(ready) as f:
            self.url = json.load(f)["http"]

    def stats(self):
        with urllib.request.urlopen(self.url + "/_/stats", timeout=10) as answer:
            return json.load(answer)

    def reset(self):
        urllib.request.urlopen(urllib.request.Request(self.url + "/_/reset", method="POST"), timeout=10).close()


class TestDatabase(Process):
    """A checksum database with the records of a tree."""

    def __init__(self, tools, tree, binary):
        ready = tools.scratch("testsumdb.ready")
        argv = [binary, "-tree", tree, "-ready", ready, "-for", "30m"]
        super().__init__(argv, ready[:-6] + ".log", tools.load_cores, clean_env())
        self.wait_for(lambda: os.path.exists(ready) and os.path.getsize(ready) > 0)
        with open(ready) as f:
            self.gosumdb = json.load(f)["gosumdb"]


class Load(Process):
    """The client program; every run of it has an end."""

    def __init__(self, tools, url, paths, connections, options):
        out = tools.scratch("load.json")
        file = out[:-5] + ".paths"
        with open(file, "w") as f:
            f.writelines(p + "\n" for p in paths)
        argv = [tools.load_bin, "-url", url, "-paths", file, "-connections", connections]
        for name, value in options.items():
            argv += [f"-{name.strip('_')}" if value is True else f"-{name.strip('_')}={value}"]
        super().__init__(argv, out, tools.load_cores, clean_env())

    def result(self):
        status = self.popen.wait()
        self.stop()
        if status != 0:
            raise Failure(f"the load failed: {self.tail()}")
        with open(self.log) as f:
            figures = json.load(f)
        if figures["failed"]:
            raise Failure(f"{figures['failed']} requests failed, the first: {figures.get('first_error')}")
        return figures


def _connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False
