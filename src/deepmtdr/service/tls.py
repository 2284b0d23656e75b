"""Who is at the other end of a connection, and nobody between."""

from __future__ import annotations

import ssl

from deepmtdr.errors import ClinicError
from deepmtdr.service.settings import TlsSettings


def server_tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """TLS 1.2 or later; with a `ca` the caller must show a certificate that it signed.

    Raises:
        ClinicError: if a file is missing or no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return _certified(context, tls, ssl.CERT_REQUIRED if tls.ca else ssl.CERT_NONE)


def client_tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """TLS 1.2 or later; the server's name and certificate are checked.

    Raises:
        ClinicError: if a file is missing or no certificate.
    """
    context = ssl.create_default_context() if tls.ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _certified(context, tls, ssl.CERT_REQUIRED)


def _certified(context: ssl.SSLContext, tls: TlsSettings, verify: ssl.VerifyMode) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key, password="")  # never asks on a terminal
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
    except (OSError, ValueError) as error:
        raise ClinicError(f"tls: {tls.certificate}, {tls.key}, {tls.ca}: cannot be used ({error})") from error
    context.verify_mode = verify
    return context
