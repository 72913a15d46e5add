"""TLS of the metrics API: our serving certificate, the front proxy's authority, and both renewed while serving."""

from __future__ import annotations

import ssl
from pathlib import Path

from inflight_operator import tls

from .identity import FrontProxy


class Certificates:
    """The TLS context to listen with. A client certificate is asked for; one that does not verify ends the handshake.

    Contexts can't unlearn an authority, so a change makes a new one, which new connections get.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made_of: tuple[bytes, bytes, str] | None = None
        self._current: ssl.SSLContext
        self.refresh(None)
        self.listening = self._current
        self.listening.sni_callback = self._switch

    def refresh(self, proxy: FrontProxy | None) -> bool:
        """Use the files as they are now and `proxy`'s authority; True when something changed.

        OSError or ssl.SSLError: the files can't be used, and what was in use stays in use.
        """
        where = tls.directory(self._directory)
        certificate, key = where / "tls.crt", where / "tls.key"
        made_of = (certificate.read_bytes(), key.read_bytes(), proxy.ca if proxy else "")
        if made_of == self._made_of:
            return False
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        if proxy:
            context.load_verify_locations(cadata=proxy.ca)
        # Optional, not required: who comes without a certificate is told 401 in words.
        context.verify_mode = ssl.CERT_OPTIONAL
        # No resumed sessions: they would keep a certificate good that is not any more.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        self._made_of, self._current = made_of, context
        return True

    def _switch(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current
