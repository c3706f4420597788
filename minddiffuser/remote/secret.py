"""The token of a pool, and the certificates by which it is known."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

from minddiffuser.errors import AppError

SHORTEST = 16
"""Characters of a token."""


def read_token(path: Path | None) -> str | None:
    """Read a token from a file that only its owner may read; None where none is named.

    Raises
    ------
    AppError
        The file cannot be read, others can read it, or it holds no token.
    """
    if path is None:
        return None
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AppError(
            f"token_file {path}: {getattr(error, 'strerror', None) or 'no token: not plain ASCII'}"
        ) from None
    if mode & 0o077:
        raise AppError(f"token_file {path} is readable by others (mode {mode:o}); run `chmod 600 {path}`")
    if len(text) < SHORTEST or not text.isprintable() or " " in text:
        raise AppError(
            f"token_file {path}: wanted one word of {SHORTEST} characters or more; `openssl rand -hex 32` makes one"
        )
    return text


def client_context(address: str, ca_file: Path | None) -> ssl.SSLContext | None:
    """Return how a room checks the pool's certificate; None for http.

    Raises
    ------
    AppError
        `ca_file` holds no certificate.
    """
    if not address.startswith("https:"):
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise AppError(f"engine.ca_file {ca_file}: {error.strerror or error}") from None


def server_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return how a pool proves who it is; None without a certificate.

    Raises
    ------
    AppError
        The files hold no certificate and key that go together.
    """
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise AppError(f"pool.certificate {certificate} with pool.key {key}: {error.strerror or error}") from None
    return context
