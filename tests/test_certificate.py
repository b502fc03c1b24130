"""A renewed certificate reaches new connections without a restart; a broken one is refused and the old one served on."""

import socket
import ssl
import subprocess

import pytest

from harness import Iron, wait_for


def make(directory, name):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                    "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-keyout", directory / "key.pem.new", "-out", directory / "cert.pem.new"], check=True, capture_output=True)
    for file in ("key.pem", "cert.pem"):
        (directory / f"{file}.new").rename(directory / file)


def connect(iron):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", iron.port), timeout=20))


def ask(connection):
    connection.sendall(b"GET /v1/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection.recv(4096).startswith(b"HTTP/1.1 200")


def served(iron):
    with connect(iron) as connection:
        return connection.getpeercert(binary_form=True)


def in_file(iron):
    return ssl.PEM_cert_to_DER_cert((iron.dir / "tls/cert.pem").read_text())


def pid(iron):
    return next(r for r in iron.call("GET", "/host")["roles"] if r["name"] == "iron-api")["pid"]


@pytest.fixture(scope="module")
def iron():
    with Iron("cert") as running:
        yield running


def test_renewed(iron):
    before, process = in_file(iron), pid(iron)
    with connect(iron) as old:
        assert ask(old)
        make(iron.dir / "tls", "renewed")
        iron.irond("reload")
        wait_for("the new certificate to be served", lambda: served(iron) == in_file(iron), 10)
        assert in_file(iron) != before
        # who was there goes on, and nobody was restarted
        assert old.getpeercert(binary_form=True) == before and ask(old)
    assert pid(iron) == process


def test_a_reload_without_a_change_says_nothing(iron):
    lines = (iron.dir / "irond.log").read_text().count("renewed certificate")
    iron.irond("reload")
    assert ask(connect(iron))
    assert (iron.dir / "irond.log").read_text().count("renewed certificate") == lines


@pytest.mark.parametrize("file,text,reason", [
    ("cert.pem", "no certificate\n", "holds no certificate in PEM"),
    ("key.pem", "no key\n", "holds no private key in PEM"),
    ("key.pem", None, "is not the key of tls.cert_file")])
def test_a_broken_one_is_refused(iron, file, text, reason):
    before, kept = served(iron), (iron.dir / "tls" / file).read_text()
    if text is None:
        text = subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], check=True,
                              capture_output=True, text=True).stdout
    (iron.dir / "tls" / file).write_text(text)
    iron.irond("reload")
    wait_for("the refusal in the log", lambda: reason in (iron.dir / "irond.log").read_text(), 10)
    assert served(iron) == before
    with connect(iron) as connection:
        assert ask(connection)
    (iron.dir / "tls" / file).write_text(kept)
    iron.irond("reload")
    # and the next good one is taken
    make(iron.dir / "tls", "good again")
    iron.irond("reload")
    wait_for("the new certificate to be served", lambda: served(iron) == in_file(iron), 10)


def test_found_without_being_told(iron):
    """Whoever renews it need not know of irond: it looks each minute."""
    make(iron.dir / "tls", "found")
    assert served(iron) != in_file(iron)
    wait_for("the new certificate to be served", lambda: served(iron) == in_file(iron), 75)
