from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.http1.origin import line, opened, origin, refusal, sent, until

if TYPE_CHECKING:
    from pathlib import Path

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "batchord's tests")])


def certificate(folder: Path) -> Path:
    """Make a certificate of its own authority for `localhost` and 127.0.0.1; key and certificate are in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder(NAME, NAME, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    text = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "localhost.pem"
    path.write_bytes(text + made.public_bytes(encoding))
    return path


@pytest.fixture(scope="module")
def localhost(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(localhost: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    monkeypatch.setenv("SSL_CERT_FILE", str(localhost))
    return server_context(localhost)


def server_context(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def test_a_server_with_a_trusted_certificate_is_spoken_to_in_http_1_1(tls: ssl.SSLContext) -> None:
    names: list[str | None] = []
    tls.sni_callback = lambda _socket, name, _context: names.append(name)
    async with origin(tls=tls) as server, opened(f"https://localhost:{server.port}/v1") as client:
        await sent(client, "one")
        await sent(client, "two")
        spoken = server.writers[0].get_extra_info("ssl_object").selected_alpn_protocol()
    assert (names, spoken, server.connections) == (["localhost"], "http/1.1", [0, 0])


async def test_a_server_may_be_an_address(tls: ssl.SSLContext) -> None:
    async with origin(tls=tls) as server, opened(server.url) as client:
        await asyncio.gather(*(sent(client, str(n)) for n in range(20)))


async def test_a_certificate_for_another_name_is_refused_before_anything_is_sent(tls: ssl.SSLContext) -> None:
    async with origin(tls=tls, host="127.0.0.2") as server, opened(server.url) as client:
        error = await refusal(client, line())
    assert (error.code, "certificate" in error.message) == ("connection_error", True)
    assert server.calls == []


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    localhost: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate(tmp_path)))
    async with origin(tls=server_context(localhost)) as server, opened(server.url) as client:
        error = await refusal(client, line())
    assert (error.code, "certificate verify failed" in error.message) == ("connection_error", True)


@pytest.mark.usefixtures("tls")
async def test_a_server_that_knows_no_tls_is_a_connection_error() -> None:
    async with origin() as server, opened(server.url.replace("http:", "https:")) as client:
        sending = asyncio.create_task(refusal(client, line()))
        await until(lambda: bool(server.writers))
        server.writers[0].write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        error = await sending
    assert (error.code, "SSL" in error.message) == ("connection_error", True)


@pytest.mark.usefixtures("tls")
async def test_a_handshake_that_never_ends_is_a_connection_error_in_time() -> None:
    async with origin() as server, opened(server.url.replace("http:", "https:"), connect_timeout_s=0.2) as client:
        error = await refusal(client, line())
        await until(lambda: server.ended[0] == 1)
    assert (error.code, "no connection within 0.2 s" in error.message) == ("connection_error", True)


@pytest.mark.usefixtures("tls")
async def test_a_request_cancelled_in_the_handshake_leaves_no_connection() -> None:
    async with origin() as server, opened(server.url.replace("http:", "https:")) as client:
        sending = asyncio.create_task(client.send(line()))
        await until(lambda: bool(server.writers))
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await until(lambda: server.ended[0] == 1)


async def test_large_bodies_and_answers_go_through(tls: ssl.SSLContext) -> None:
    text = b"x" * 5_000_000
    async with origin(tls=tls) as server, opened(server.url) as client:
        await client.send(line(body=b'{"input":"%b"}' % text))
        assert server.calls[0].body == b'{"input":"%b"}' % text
        await sent(client)
    assert server.connections == [0, 0]
