"""Create TLS contexts for the receiver and the destinations."""

from __future__ import annotations

import ssl

from deepmtdr.errors import ServiceError
from deepmtdr.service.settings import TlsSettings


def server_tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """Create a context for the receiver: TLS 1.2 or later. With a `ca`, it must have signed the caller's certificate.

    Raises:
        ServiceError: if a file is missing or cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return _load_certificates(context, tls, ssl.CERT_REQUIRED if tls.ca else ssl.CERT_NONE)


def client_tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """Create a context for a destination: TLS 1.2 or later; name and certificate of the server are checked.

    Raises:
        ServiceError: if a file is missing or cannot be used.
    """
    context = ssl.create_default_context() if tls.ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _load_certificates(context, tls, ssl.CERT_REQUIRED)


def _load_certificates(context: ssl.SSLContext, tls: TlsSettings, verify: ssl.VerifyMode) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key, password="")  # never ask for one on the terminal
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
    except (OSError, ValueError) as error:
        raise ServiceError(
            f"tls: cannot use certificate {tls.certificate}, key {tls.key} and ca {tls.ca} ({error});"
            " expected PEM files that this user can read, the key without a password"
        ) from error
    context.verify_mode = verify
    return context
