"""A machine that has nothing but Debian 12's base: a root made by mmdebstrap, entered through a mount and a pid namespace of
its own, so that whatever runs there ends with it. The host's network and apt configuration hold inside."""

import os
import pathlib
import shutil
import subprocess

from harness import wait_for

APT = ["/etc/apt/sources.list", "/etc/apt/sources.list.d", "/etc/apt/apt.conf.d", "/etc/apt/auth.conf.d", "/etc/apt/trusted.gpg.d",
       "/etc/hosts", "/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt", "/usr/share/keyrings"]

SETUP = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /sys "$1/sys"
mount --rbind /dev "$1/dev"
mount -t tmpfs -o mode=755 run "$1/run"
cd "$1"
mkdir -p .old
# not chroot: a process that is in one may not make a user namespace
pivot_root . .old
umount -l .old
exec sleep infinity
"""


class Fresh:
    def __init__(self, root):
        self.root = pathlib.Path(root)

    def __enter__(self):
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.parent.mkdir(parents=True, exist_ok=True)
        sources = [p for p in ["/etc/apt/sources.list", *map(str, pathlib.Path("/etc/apt/sources.list.d").glob("*.sources"))]
                   if os.path.exists(p) and os.path.getsize(p)]
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", str(self.root), *sources], check=True, timeout=300)
        for path in APT:
            self.bring(path)
        self.holder = subprocess.Popen(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", SETUP, "sh", str(self.root)])
        children = pathlib.Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children")
        self.pid = wait_for("the namespace", lambda: children.read_text().split())[0]
        wait_for("its mounts", lambda: pathlib.Path(f"/proc/{self.pid}/comm").read_text().strip() == "sleep")
        return self

    def bring(self, path):
        source, target = pathlib.Path(path), self.root / path.lstrip("/")
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, symlinks=False, ignore_dangling_symlinks=True)
        elif source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def run(self, *argv, timeout=600, **env):
        """As root inside; standard output and error together."""
        full = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", **env}
        return subprocess.run(["nsenter", "-t", self.pid, "-m", "-p", "--", *argv], env=full,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", timeout=timeout)

    def ok(self, *argv, **kw):
        done = self.run(*argv, **kw)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.returncode}\n{done.stdout[-4000:]}"
        return done.stdout

    def __exit__(self, *exc):
        self.holder.kill()  # and with it, by --kill-child, everything inside
        self.holder.wait()
        wait_for("everything inside to end", self.has_ended)
        shutil.rmtree(self.root, ignore_errors=True)

    def has_ended(self):
        """Gone, or a zombie that the first process of our own namespace does not reap."""
        try:
            return "State:\tZ" in pathlib.Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return True
