"""The systemd unit is one that systemd accepts, and leaves VMs alone when it is stopped"""

import configparser
import re
import subprocess

from harness import BUILD

UNIT = BUILD / "systemd" / "iron.service"


def test_systemd_accepts_the_unit(tmp_path):
    """Verified with the programs of this build: those it names are not installed here."""
    text = re.sub(r"(?m)^(Exec\w+=)\S*/irond ", rf"\g<1>{BUILD}/src/prog/irond ", UNIT.read_text())
    assert text.count(str(BUILD)) == 3
    (tmp_path / "iron.service").write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", tmp_path / "iron.service"], capture_output=True, text=True)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "iron.service" in line]
    assert done.returncode == 0 and not said, done.stdout + done.stderr
    # and it would say so of one that is wrong
    (tmp_path / "iron.service").write_text(text.replace("KillMode=process", "KillMode=most"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", tmp_path / "iron.service"], capture_output=True, text=True)
    assert "Failed to parse kill mode" in done.stdout + done.stderr


def test_what_runs_outlives_the_unit():
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read_string(UNIT.read_text())
    service = unit["Service"]
    assert service["KillMode"] == "process" and service["Delegate"] == "yes"
    assert service["ExecStop"].endswith("/irond stop")
