"""The walls of each role and job: what it must not do kills it or is refused

role_probe enters the very walls that the role enters (its *_sandbox.c is linked in) and tries one thing. For each thing there
is a positive control: without walls, as root, it works here and now, so a refusal is the walls' doing."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import pytest

from harness import BUILD, wait_for

PROBE = BUILD / "tests" / "role_probe"
ROLES = {"iron-api": 3900001, "iron-control": 3900002, "iron-vm": 3900003, "iron-egress": 3900004, "iron-audit": 3900005,
         "iron-recipe": 3900006, "iron-worker flatten": 3900007}
UNIX, INET, INET6, NETLINK, VSOCK, ALG = 1, 2, 10, 16, 40, 38
FAMILIES = {"iron-api": set(), "iron-control": set(), "iron-vm": {UNIX}, "iron-egress": {INET, INET6}, "iron-audit": set(),
            "iron-recipe": {INET, INET6}, "iron-worker flatten": set()}
PAIRS = {"iron-vm", "iron-recipe"}
THREADS = {"iron-audit"}
OTHER_UID = 3900100


def probe(role, action, argument="", state="/nonexistent", uid=None):
    done = subprocess.run([PROBE, role, str(ROLES.get(role, 0) if uid is None else uid), state, action, argument],
                          capture_output=True, text=True, timeout=20)
    if done.returncode == -signal.SIGSYS:
        return "killed"
    if done.returncode == 10:
        return done.stdout.strip()
    assert done.returncode == 0, (role, action, done.returncode, done.stderr)
    return "worked"


class Place:
    """A state directory with the files of every role, and a process of somebody else's."""

    def __init__(self):
        self.state = pathlib.Path(tempfile.mkdtemp(prefix="iron-test-walls-", dir="/tmp"))
        self.state.chmod(0o755)
        self.file("db/iron.db", ROLES["iron-control"])
        self.file("audit/00000000000000000001.seg", ROLES["iron-audit"])
        self.file("vms/vm_other/overlay.qcow2", OTHER_UID)
        self.file("tls/key.pem", 0)
        # what file permissions alone would let everybody read and write: the walls must say no
        self.file("open/to_all", 0)
        (self.state / "open").chmod(0o777)
        (self.state / "open/to_all").chmod(0o666)
        (self.state / "mount").mkdir()
        self.listener = subprocess.Popen(["/usr/bin/python3", "-c",
            "import socket, sys, time, os\n"
            f"s = socket.socket(socket.AF_UNIX); s.bind('{self.state}/open/sock'); s.listen(64)\n"
            f"os.chmod('{self.state}/open/sock', 0o777)\n"
            "time.sleep(1000)"])
        self.victim = subprocess.Popen(["setpriv", "--reuid", str(OTHER_UID), "--regid", str(OTHER_UID), "--clear-groups",
                                        "sh", "-c", "trap '' USR1; while :; do sleep 1; done"])
        wait_for("the socket", lambda: (self.state / "open/sock").exists() and os.access(self.state / "open/sock", os.W_OK))
        wait_for("the victim to ignore the signal",
                 lambda: int(next(l for l in open(f"/proc/{self.victim.pid}/status") if l.startswith("SigIgn")).split()[1], 16)
                 & 1 << signal.SIGUSR1 - 1)

    def file(self, name, uid):
        path = self.state / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text("secret\n")
        path.chmod(0o600)
        os.chown(path.parent, uid, uid)
        os.chown(path, uid, uid)

    def memory(self):
        line = open(f"/proc/{self.victim.pid}/maps").readline()
        return f"{self.victim.pid}:{line.split('-')[0]}"

    def close(self):
        for process in (self.listener, self.victim):
            process.kill()
            process.wait()
        subprocess.run(["umount", self.state / "mount"], capture_output=True)
        shutil.rmtree(self.state)


@pytest.fixture(scope="module")
def place():
    it = Place()
    yield it
    it.close()


# action → its argument
FORBIDDEN = {
    "exec": lambda p: "",
    "fork": lambda p: "",
    "setns": lambda p: "x",
    "unshare": lambda p: "",
    "packet": lambda p: "",
    "kill": lambda p: str(p.victim.pid),
    "tgkill": lambda p: str(p.victim.pid),
    "ptrace": lambda p: str(p.victim.pid),
    "vm_read": lambda p: p.memory(),
    "mount": lambda p: str(p.state / "mount"),
    "bpf": lambda p: "",
    "setuid": lambda p: "",
    "chroot": lambda p: "",
    "keyctl": lambda p: "",
    "io_uring": lambda p: "",
    "exec_memory": lambda p: "",
    "exec_memory_later": lambda p: "",
    "connect_unix": lambda p: f"{p.state}/open/sock",
    "bind": lambda p: "",
}


@pytest.mark.parametrize("action", FORBIDDEN)
def test_without_walls_it_works(place, action):
    assert probe("none", action, FORBIDDEN[action](place)) == "worked"
    subprocess.run(["umount", place.state / "mount"], capture_output=True)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("action", FORBIDDEN)
def test_forbidden_to_every_role(place, role, action):
    got = probe(role, action, FORBIDDEN[action](place), place.state)
    if action == "bind" and INET in FAMILIES[role]:
        assert got in ("killed", "refused: EACCES")
    else:
        # the kernel kills; an answer with an errno would leave a taken process free to try the next thing
        assert got == "killed"


@pytest.mark.parametrize("role", ROLES)
def test_its_own_work_goes_on(place, role):
    assert probe(role, "work", "", place.state) == "worked"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("family", [UNIX, INET, INET6, NETLINK, VSOCK, ALG])
def test_socket_families(place, role, family):
    got = probe(role, "socket", str(family), place.state)
    assert got == ("worked" if family in FAMILIES[role] else "killed")


@pytest.mark.parametrize("role", ROLES)
def test_pairs_and_threads(place, role):
    """A pair connects to nobody, so it may be had without the family's sockets; a thread is no process."""
    assert probe(role, "pair", "", place.state) == ("worked" if role in PAIRS else "killed")
    assert probe(role, "thread", "", place.state) == ("worked" if role in THREADS else "killed")
    assert (probe("none", "pair"), probe("none", "thread")) == ("worked", "worked")


@pytest.mark.parametrize("family", [UNIX, INET, INET6, NETLINK])
def test_socket_families_without_walls(family):
    assert probe("none", "socket", str(family)) == "worked"


FILES = {
    "db/iron.db": "iron-control",
    "audit/00000000000000000001.seg": "iron-audit",
    "vms/vm_other/overlay.qcow2": None,
    "tls/key.pem": None,
    "open/to_all": None,
    "/etc/passwd": None,
    "/etc/shadow": None,
    "/proc/self/mem": None,
    "/dev/kvm": None,
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("how", ["open", "write"])
def test_files(place, role, file, how):
    """The database is iron-control's, the journal iron-audit's; all else nobody's, also what permissions leave open."""
    path = str(place.state / file) if not file.startswith("/") else file
    got = probe(role, how, path, place.state)
    if FILES[file] == role:
        assert got == "worked"
    else:
        assert got == "killed" or got in ("refused: EPERM", "refused: EACCES"), got


@pytest.mark.parametrize("file", [f for f in FILES if not f.startswith("/dev")])
def test_files_without_walls(place, file):
    path = str(place.state / file) if not file.startswith("/") else file
    assert probe("none", "open", path) == "worked"


def test_landlock_holds_by_itself(place):
    """The second wall alone: iron-control's filter lets it open files, its uid owns this one, and still it may not."""
    path = place.state / "mine"
    path.write_text("x")
    os.chown(path, ROLES["iron-control"], ROLES["iron-control"])
    assert probe("none", "open", str(path), uid=0) == "worked"
    assert probe("iron-control", "open", str(path), place.state) == "refused: EACCES"
    assert probe("iron-control", "unlink", str(path), place.state) == "refused: EACCES"


def test_the_uid_holds_by_itself(place):
    """The database's directory is in iron-control's rules; another uid behind the same filter and rules is refused."""
    path = str(place.state / "db/iron.db")
    assert probe("iron-control", "open", path, place.state) == "worked"
    assert probe("iron-control", "open", path, place.state, uid=OTHER_UID) == "refused: EACCES"


def test_new_files_in_its_own_directory(place):
    assert probe("iron-control", "write", str(place.state / "db/new.db"), place.state) == "worked"
    assert probe("iron-control", "unlink", str(place.state / "db/new.db"), place.state) == "worked"
    assert probe("iron-audit", "write", str(place.state / "audit/2.seg"), place.state) == "worked"
    # the journal is append-only for its own writer too, as far as a directory can be: no file of it is removed
    assert probe("iron-audit", "unlink", str(place.state / "audit/2.seg"), place.state) == "killed"
