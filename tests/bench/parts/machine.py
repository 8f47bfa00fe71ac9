"""Cores, processes and their CPU time and memory, the page cache, and the throttled device.

Called by every other part; calls nothing of the benchmark. Every process the benchmark starts is started here, ends
with the benchmark and is ended by its process id only.
"""
import ctypes
import os
import resource
import signal
import subprocess
import time

_running = []


class Failure(Exception):
    """The benchmark itself could not do what it had to: no figure can be given."""


def cores():
    """Returns (server core, load core): two different ones of those this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise Failure("two cores are needed: one for the server, one for the load")
    return {allowed[0]}, {allowed[1]}


class Others:
    """How much of the machine everything but this benchmark used since this was made."""

    def __init__(self):
        self.started = time.monotonic()
        self.busy = self._busy_s()
        self.own = self._own_s()

    @staticmethod
    def _busy_s():
        with open("/proc/stat") as f:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, f.readline().split()[1:9])
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")

    @staticmethod
    def _own_s():
        return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

    def share(self):
        """Returns their share of all cores, 0 to 1. Every process of the benchmark must have ended."""
        used = (self._busy_s() - self.busy) - (self._own_s() - self.own)
        return max(0.0, used / ((time.monotonic() - self.started) * os.cpu_count()))


class Process:
    """A child process on given cores (None: any), its output in a file."""

    def __init__(self, argv, log, cores=None, env=None, cwd=None):
        def in_child():
            # The child must not outlive a benchmark that is killed: PR_SET_PDEATHSIG is 1.
            ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
            if cores:
                os.sched_setaffinity(0, cores)

        self.argv = [str(a) for a in argv]
        self.log = log
        with open(log, "ab") as out:
            self.popen = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, cwd=cwd, preexec_fn=in_child
            )
        self.pid = self.popen.pid
        _running.append(self)

    def tail(self):
        with open(self.log, errors="replace") as f:
            return "".join(f.readlines()[-15:])

    def check_alive(self):
        if self.popen.poll() is not None:
            raise Failure(f"{self.argv[0]} ended with status {self.popen.returncode}:\n{self.tail()}")

    def wait_for(self, condition, seconds=60, pause=0.001):
        """Waits until `condition()` is true, and returns its value."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            self.check_alive()
            if time.monotonic() > deadline:
                raise Failure(f"{self.argv[0]} was not ready within {seconds} s:\n{self.tail()}")
            time.sleep(pause)
        return value

    def cpu(self):
        """Returns the CPU seconds all its threads have used, ended ones among them, in nanosecond steps."""
        # The clock id of another process's CPU clock, as clock_getcpuclockid(3) makes it.
        return time.clock_gettime((~self.pid << 3) | 2)

    def status_kib(self, key):
        with open(f"/proc/{self.pid}/status") as f:
            for line in f:
                if line.startswith(key + ":"):
                    return int(line.split()[1])
        raise Failure(f"/proc/{self.pid}/status has no {key}")

    def rss_mb(self):
        return self.status_kib("VmRSS") * 1024 / 1e6

    def peak_rss_mb(self):
        return self.status_kib("VmHWM") * 1024 / 1e6

    def settle(self, seconds_max=60, quiet_s=0.3):
        """Waits until it does nothing any more: under 1 % of a core for `quiet_s`."""
        deadline = time.monotonic() + seconds_max
        while time.monotonic() < deadline:
            before = self.cpu()
            time.sleep(quiet_s)
            if self.cpu() - before < 0.01 * quiet_s:
                return
        raise Failure(f"{self.argv[0]} was still busy after {seconds_max} s")

    def stop(self, seconds=20):
        if self in _running:
            _running.remove(self)
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def stop_all():
    for process in list(reversed(_running)):
        process.stop(seconds=10)


def clean_env(**more):
    """Returns the environment without what would steer Go, Larder or an HTTP client."""
    steering = ("GO", "LARDER", "UPSTREAM", "PORT", "CACHE_DIR", "DOWNLOAD_", "MAX_", "CLEANUP_", "DNS_SERVER")
    proxies = ("http_proxy", "https_proxy", "socks5_proxy", "all_proxy", "no_proxy")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(steering) and k.lower() not in proxies}
    return kept | {k: str(v) for k, v in more.items()}


def evict(path):
    """Drops a file's pages from the page cache; they must be on the device first, since dirty pages stay."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


class SlowDevice:
    """Limits how fast one process may read from the block device that holds `path`, through its own cgroup."""

    def __init__(self, path, bytes_per_second):
        device = os.stat(path).st_dev
        sysfs = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
        if not os.path.exists(sysfs):
            raise Failure(f"{path} is not on a block device (tmpfs, overlay, btrfs): give another -work directory")
        # Limits are set on whole disks, not on partitions.
        if os.path.exists(f"{sysfs}/partition"):
            sysfs = os.path.join(os.path.realpath(sysfs), "..")
        with open(f"{sysfs}/dev") as f:
            self.device = f.read().strip()
        name = f"larder-bench-{os.getpid()}"
        if os.path.exists("/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device"):
            self.parent = "/sys/fs/cgroup/blkio"
            setting = ("blkio.throttle.read_bps_device", f"{self.device} {bytes_per_second}")
        elif self._enable_io("/sys/fs/cgroup"):
            self.parent = "/sys/fs/cgroup"
            setting = ("io.max", f"{self.device} rbps={bytes_per_second}")
        else:
            raise Failure("no cgroup with an io or blkio controller to throttle a device with (is this root?)")
        self.folder = f"{self.parent}/{name}"
        os.mkdir(self.folder)
        self._write(f"{self.folder}/{setting[0]}", setting[1])
        self.members = []

    @staticmethod
    def _write(path, text):
        with open(path, "w") as f:
            f.write(text)

    @classmethod
    def _enable_io(cls, root):
        try:
            with open(f"{root}/cgroup.controllers") as f:
                if "io" not in f.read().split():
                    return False
            cls._write(f"{root}/cgroup.subtree_control", "+io")
            return True
        except OSError:
            return False

    def add(self, process):
        self._write(f"{self.folder}/cgroup.procs", str(process.pid))
        self.members.append(process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.members:
            if process.popen.poll() is None:
                self._write(f"{self.parent}/cgroup.procs", str(process.pid))
        os.rmdir(self.folder)
