"""Makes the trees the figures need, and lists what can be asked of them.

Called by the figures; calls tests/tools/mkmodule.py and the load program's `tree`.
"""
import os
import re
import shutil
import subprocess
import sys
import urllib.parse

from machine import Failure

# Made-up modules: name, and MiB so that the zip has the size the name says in MB.
ONE_MB = ("example.com/one", 0.95)
BIG_46_MB = ("example.com/big46", 43.87)
BIG_500_MB = ("example.com/big500", 476.8)

CANONICAL = re.compile(r"/@v/v\d+\.\d+\.\d+[^/]*\.(info|mod|zip)$")


class Trees:
    def __init__(self, tools, fixture, mkmodule):
        self.tools = tools
        self.fixture = fixture
        self.mkmodule = mkmodule
        self.folder = os.path.join(tools.work, "trees")
        os.makedirs(self.folder, exist_ok=True)
        if not os.path.isdir(fixture):
            raise Failure(f"no fixture tree at {fixture}: give -tree")

    def copy(self, tree, name):
        """Copies a tree into a new directory: a cache that has it all."""
        to = self.tools.scratch(name)
        subprocess.run(["cp", "-r", "--reflink=auto", tree, to], check=True)
        return to

    def empty(self, name):
        to = self.tools.scratch(name)
        os.makedirs(to)
        return to

    def zips(self, *modules):
        """Returns a tree of made-up modules, made once and kept with the work directory; every module is (path, MiB)."""
        made = os.path.join(self.folder, "zips")
        for path, mib in modules:
            if not os.path.exists(os.path.join(made, path, "@v", "list")):
                argv = [sys.executable, self.mkmodule, "--tree", made, "--path", path, "--version", "v1.0.0"]
                subprocess.run([*argv, "--mib", str(mib), "--files", "20"], check=True, stdout=subprocess.DEVNULL)
        return made

    def with_zips(self, name, tree, *modules):
        """Copies `tree` (None: nothing) into a new cache and adds made-up modules."""
        to = self.copy(tree, name) if tree else self.empty(name)
        made = self.zips(*modules)
        for path, _ in modules:
            shutil.copytree(os.path.join(made, path), os.path.join(to, path), dirs_exist_ok=True)
        return to

    def many(self, files, sample):
        """Returns (tree, paths): a tree of `files` small files, made once, and a sample of what it can be asked."""
        to = os.path.join(self.folder, f"files-{files}-{sample}")
        names = to + ".paths"
        if not os.path.exists(names):
            discard(to)
            argv = [self.tools.load_bin, "tree", "-dir", to, "-files", str(files), "-sample", str(sample)]
            made = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
            os.sync()
            with open(names, "w") as f:
                f.write(made)
        with open(names) as f:
            return to, f.read().split()


def zip_path(module):
    return f"/{module[0]}/@v/v1.0.0.zip"


def zip_bytes(tree, module):
    return os.path.getsize(tree + zip_path(module))


def request_path(relative):
    """Percent-encodes as the go command does: an exclamation mark too."""
    return "/" + urllib.parse.quote(relative, safe="/@+:$&=;,~")


def paths(tree, kinds=None):
    """Returns the request paths of a tree: of all its files, or of the canonical versions' files of `kinds`."""
    found = []
    for folder, folders, files in os.walk(tree):
        folders[:] = [f for f in folders if f != ".larder"]
        for name in files:
            relative = os.path.relpath(os.path.join(folder, name), tree)
            match = CANONICAL.search("/" + relative)
            if kinds is None or (match and match[1] in kinds):
                found.append(request_path(relative))
    if not found:
        raise Failure(f"nothing to ask for in {tree}")
    return sorted(found)


def discard(folder):
    """Removes a directory of the benchmark, read-only module caches among them."""
    subprocess.run(["chmod", "-R", "u+w", folder], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(folder, ignore_errors=True)
