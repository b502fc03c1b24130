"""Completion in real shells: bash, zsh and fish on a terminal complete commands, options, choices, files and the names of VMs; the manual is clean"""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import time

import pytest

from api_lab import Api, answer_vm, vm_row
from harness import BUILD
from test_cli import environment, home, vms  # noqa: F401  (home is a fixture)

IRON = str(BUILD / "src/prog/iron")


@pytest.fixture(scope="module")
def api():
    with Api() as a:
        a.control.on["VM_LIST"] = vms(vm_row(name="demo"), vm_row(name="delta"), vm_row(name="zebra"))
        a.control.on["VM_GET"] = answer_vm()
        a.control.on["IMAGE_LIST"] = lambda c, r: (c.row(r, "row_image", id=2, name="base-image"), c.done(r))
        yield a


def completion(shell):
    return subprocess.run([IRON, "completion", shell], capture_output=True, check=True, env={"PATH": "/usr/bin:/bin"}).stdout.decode()


class Shell:
    """A shell on a terminal of its own, which is typed at as a person would."""

    def __init__(self, argv, env, directory, prepare):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(directory)
            os.execve(argv[0], argv, env)
        self.out = b""
        for line in prepare:
            self.type(line + "\n")
        self.type("echo rea''dy\n")
        self.until(rb"ready\r?\n", 30)

    def type(self, text):
        os.write(self.fd, text.encode())

    def until(self, pattern, seconds=20):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.out):
            if not select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f"no {pattern} in {self.out!r}")
            self.out += os.read(self.fd, 65536)
        seen, self.out = self.out, b""
        return seen.decode(errors="replace")

    def close(self):
        os.close(self.fd)
        try:
            os.kill(self.pid, 9)
        except ProcessLookupError:
            pass
        os.waitpid(self.pid, 0)


@pytest.fixture
def place(home, tmp_path):  # noqa: F811
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/iron").symlink_to(IRON)
    (tmp_path / "work").mkdir()
    (tmp_path / "work/notes.txt").write_text("x")
    (tmp_path / "work/dir").mkdir()
    for shell, name in (("bash", "iron.bash"), ("zsh", "_iron"), ("fish", "iron.fish")):
        (tmp_path / name).write_text(completion(shell))
    return tmp_path


def shell_environment(place):
    return environment(place, PATH=f"{place}/bin:/usr/bin:/bin", PS1="$ ", TERM="xterm", COLUMNS="200")


# what is typed, and what one must then be able to see
WHOLE = [
    ("iron sh", "iron show "),
    ("iron egress rem", "iron egress remove "),
    ("iron show zeb", "iron show zebra"),
    ("iron create x --ima", "iron create x --image"),
    ("iron create x --image ba", "iron create x --image base-image"),
    ("iron egress mode enf", "iron egress mode enforce"),
    ("iron audit egress --verdict blo", "iron audit egress --verdict blocked"),
    ("iron exec -u root zeb", "iron exec -u root zebra"),
    ("iron destroy demo zeb", "iron destroy demo zebra"),
    ("iron create x --key notes", "iron create x --key notes.txt"),
    ("iron cp notes", "iron cp notes.txt"),
    ("iron cp notes.txt zeb", "iron cp notes.txt zebra:"),
    ("iron completion zs", "iron completion zsh"),
]


def complete_in(shell, cases):
    for typed, wanted in cases:
        shell.type(typed + "\t")
        # what the shell echoes may be redrawn, and coloured, as it pleases: what it holds is shown by running it as a comment
        shell.type("\x01echo ': \x05 :'\n")
        seen = shell.until(rb"\n: iron [^\n]* :\r?\n")
        got = re.search(r"\n: (iron [^\n]*?) *:\r?\n", seen).group(1)
        assert got == wanted.rstrip(), (typed, got, seen)


def test_bash(api, place):
    shell = Shell(["/bin/bash", "--norc", "--noprofile", "-i"], shell_environment(place), place / "work",
                  ["bind 'set enable-bracketed-paste off'", f". {place}/iron.bash"])
    try:
        complete_in(shell, WHOLE)
        shell.type("iron show d\t\t\t")
        seen = shell.until(rb"(?s)demo.*delta|delta.*demo")
        assert "zebra" not in seen
    finally:
        shell.close()


def test_zsh(api, place):
    assert shutil.which("zsh"), "apt-get install zsh (tools/packages)"
    shell = Shell(["/usr/bin/zsh", "-f", "-i"], shell_environment(place), place / "work",
                  ["unsetopt prompt_cr prompt_sp zle_bracketed_paste; unset zle_bracketed_paste; bindkey -e", "PROMPT='$ '",
                   f"fpath=({place} $fpath); autoload -U compinit; compinit -u -d {place}/dump"])
    try:
        complete_in(shell, WHOLE)
    finally:
        shell.close()


def test_fish(api, place):
    assert shutil.which("fish"), "apt-get install fish (tools/packages)"

    def asked(line):
        done = subprocess.run(["/usr/bin/fish", "--no-config", "-c", f"source {place}/iron.fish; complete -C '{line}'"], capture_output=True,
                              text=True, cwd=place / "work", env=shell_environment(place), timeout=60)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return [one.split("\t")[0] for one in done.stdout.splitlines()]
    for typed, wanted in WHOLE:
        assert wanted.split()[-1] in asked(typed), typed
    assert set(asked("iron show d")) == {"demo", "delta"}
    assert "list" in asked("iron egress ") and "show" not in asked("iron egress ")
    assert asked("iron exec demo -- sh") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_option_is_there(shell):
    text = completion(shell)
    help_text = subprocess.run([IRON, "help"], capture_output=True, check=True).stdout.decode()
    commands = re.findall(r"^  ([a-z]+(?: [a-z]+)?) {2,}", help_text, re.M)
    assert len(commands) > 30 and "egress explain" in commands
    for command in commands:
        for word in command.split():
            assert re.search(rf"\b{word}\b", text), command
        own = subprocess.run([IRON, *command.split(), "--help"], capture_output=True, check=True).stdout.decode()
        for option in re.findall(r"^ +(?:-\w, )?--([a-z-]+)", own, re.M):
            assert re.search(rf"(--|-l ){option}\b", text), (command, option)


def test_a_server_that_does_not_answer_is_not_waited_for(place):
    """Names are asked for at most two seconds, and nothing of the failure reaches the line that is being typed."""
    import socket
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = shell_environment(place) | {"IRON_API_URL": f"https://127.0.0.1:{silent.getsockname()[1]}"}
        begun = time.monotonic()
        done = subprocess.run(["/usr/bin/fish", "--no-config", "-c", f"source {place}/iron.fish; complete -C 'iron show '"], capture_output=True,
                              text=True, env=env, timeout=30)
        assert time.monotonic() - begun < 8 and done.stdout == "" and done.stderr == ""


def test_the_manual_is_clean_and_whole():
    page = BUILD / "src/cli/iron.1"
    lint = subprocess.run(["mandoc", "-Tlint", "-Wstyle", page], capture_output=True, text=True).stdout
    assert [line for line in lint.splitlines() if "referenced manual not found" not in line] == []
    text = re.sub(r".\x08", "", subprocess.run(["mandoc", "-Tutf8", page], capture_output=True, text=True, check=True).stdout)
    for word in ("egress explain", "--since T", "IRON_API_TIMEOUT", "124", "tls_sha256", "iron cp report.pdf demo:"):
        assert word in text, word


def test_they_are_installed_where_the_shells_look(tmp_path):
    prefix = subprocess.run(["meson", "introspect", "--buildoptions", str(BUILD)], capture_output=True, text=True, check=True).stdout
    prefix = next(o["value"] for o in json.loads(prefix) if o["name"] == "prefix")
    subprocess.run(["meson", "install", "-C", str(BUILD), "--no-rebuild", "--quiet"], env=os.environ | {"DESTDIR": str(tmp_path)}, check=True,
                   stdout=subprocess.DEVNULL)
    share = tmp_path / prefix.lstrip("/") / "share"
    for path, begins in (("bash-completion/completions/iron", "# bash"), ("zsh/site-functions/_iron", "#compdef iron"),
                         ("fish/vendor_completions.d/iron.fish", "# fish"), ("man/man1/iron.1", ".Dd")):
        assert (share / path).read_text().startswith(begins), path
