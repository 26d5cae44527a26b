"""TLS 1.3 over memory: contexts for an identity, and one connection as bytes in, bytes out.

The only module that knows pyOpenSSL, and only its public interface. It uses the OpenSSL inside the
`cryptography` wheel, whose vector AES is 2.4 times as fast as Debian 12's. It never touches a
socket, and it never gives out a byte of a peer that was not verified: chain, validity and extended
key usage by OpenSSL, the SPIFFE id here, in the same callback, so a wrong peer gets an alert.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from control.kit.errors import ConfigError, PeerError
from control.kit.tls_records import HelloTooLarge
from control.model.identity import SpiffeId
from control.wire.x509 import spiffe_ids
from ztunnel.hbone.frames import FRAME_HEADER_BYTES
from ztunnel.refusals import Reason
from ztunnel.transport.opening import Opening
from ztunnel.transport.openssl import wire_of

CIPHER_SUITES: Final = b"TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256"
ALPN_H2: Final = b"h2"

# So many records in one read may be smaller than a frame's header.
TINY_RECORDS: Final = 4
# More than any read brings.
ALL_RECORDS: Final = 1 << 30
_RECORD_HEAD_BYTES: Final = 5
# SSL_MODE_ENABLE_PARTIAL_WRITE, which pyOpenSSL sets and has no name for. Cleared: one call then
# encrypts everything it is given instead of one record.
_MODE_PARTIAL_WRITE: Final = 0x1
_APPLICATION_DATA: Final = 23

_record_length = Struct(">BHH").unpack_from


class TlsError(PeerError):
    """The peer is not one we talk to, or it broke TLS; the connection is over."""

    reason = "tls"

    def __init__(self, refusal: Reason, detail: str) -> None:
        super().__init__(detail)
        self.refusal = refusal


class TlsClosed(PeerError):
    """The peer said goodbye in order (close_notify)."""

    reason = "tls_closed"


@dataclass(frozen=True, slots=True)
class Material:
    """Key, chain and roots of one identity. Keys live in memory only and are never printed."""

    key_pem: bytes
    chain_pem: tuple[bytes, ...]
    roots_pem: bytes

    def __repr__(self) -> str:
        return f"Material({len(self.chain_pem)} certificates)"


# Takes the ids of a verified certificate; gives the one its holder goes by here, or a refusal.
Judge = Callable[[tuple[SpiffeId, ...]], SpiffeId | Reason]


def expect_one_of(expected: Sequence[SpiffeId]) -> Judge:
    """The client's rule: at least one of the peer's ids is one that was asked for."""

    def judge(found: tuple[SpiffeId, ...]) -> SpiffeId | Reason:
        if not found:
            return Reason.PEER_WITHOUT_SPIFFE_ID
        return next((e for e in found if e in expected), Reason.PEER_IDENTITY)

    return judge


def expect_trust_domain(trust_domain: str) -> Judge:
    """The server's rule: the caller is the first id, and it is of our own trust domain.

    Stricter than Istio, where any id of the domain opens the door for the first one.
    """

    def judge(found: tuple[SpiffeId, ...]) -> SpiffeId | Reason:
        if not found:
            return Reason.PEER_WITHOUT_SPIFFE_ID
        return found[0] if found[0].trust_domain == trust_domain else Reason.PEER_TRUST_DOMAIN

    return judge


class PeerCheck:
    """The verdict on the peer of one connection.

    OpenSSL's callback finds it by the connection. It is apart from `TlsConnection` so that these
    two do not hold each other: a connection that is over gives its key back at once, not when the
    garbage collector comes.
    """

    __slots__ = ("judge", "not_after_s", "peer", "refusal")

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.peer: SpiffeId | None = None
        self.not_after_s = 0.0  # the end of its certificate, by the wall clock
        self.refusal: Reason | None = None


def _verify(
    connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
) -> bool:
    """Called by OpenSSL for every certificate of the chain; the leaf comes last."""
    check = connection.get_app_data()
    if not isinstance(check, PeerCheck):
        return False
    if not ok:
        check.refusal = Reason.PEER_CERTIFICATE
        return False
    if depth > 0:
        return True
    leaf = certificate.to_cryptography()
    try:
        found = spiffe_ids(leaf)
    except ValueError:
        found = ()
    verdict = check.judge(found)
    if isinstance(verdict, Reason):
        check.refusal = verdict
        return False
    check.peer = verdict
    check.not_after_s = leaf.not_valid_after_utc.timestamp()
    return True


def _choose_alpn(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    """A client that has not offered h2 gets no protocol, and is refused after the handshake."""
    return ALPN_H2 if ALPN_H2 in offered else SSL.NO_OVERLAPPING_PROTOCOLS


class TlsContext:
    """Certificate, key and roots that all connections of one identity share. A renewed certificate
    makes a new one."""

    __slots__ = ("not_after_s", "ssl")

    def __init__(self, material: Material) -> None:
        """ConfigError if the key, the chain or the roots cannot be used."""
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_max_proto_version(SSL.TLS1_3_VERSION)
        context.set_tls13_ciphersuites(CIPHER_SUITES)
        # No resumption: every connection verifies its peer. A ticket that a client brings from
        # elsewhere is looked up in a cache that is off, and a full handshake follows.
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_session_id(b"tulle")
        context.clear_mode(_MODE_PARTIAL_WRITE)
        # Most tunnels are idle: each gives 34 KiB back between records.
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _verify)
        context.set_alpn_protos([ALPN_H2])
        context.set_alpn_select_callback(_choose_alpn)
        try:
            leaf = _load(context, material)
        except (ValueError, TypeError, SSL.Error, crypto.Error) as exc:
            raise ConfigError(f"unusable certificate: {exc}") from exc
        self.ssl = context
        self.not_after_s: float = leaf.not_valid_after_utc.timestamp()


def _load(context: SSL.Context, material: Material) -> x509.Certificate:
    chain = [each for pem in material.chain_pem for each in x509.load_pem_x509_certificates(pem)]
    if not chain:
        raise ValueError("no certificate")
    context.use_certificate(chain[0])
    for each in chain[1:]:
        context.add_extra_chain_cert(each)
    key = load_pem_private_key(material.key_pem, None)
    if not isinstance(key, EllipticCurvePrivateKey | RSAPrivateKey | Ed25519PrivateKey):
        raise ValueError("TLS 1.3 has no signature for this kind of key")
    context.use_privatekey(key)
    context.check_privatekey()
    store = context.get_cert_store()
    if store is None:
        raise ValueError("no certificate store")
    # A root we were given is an anchor, even if another CA has signed it.
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    for root in x509.load_pem_x509_certificates(material.roots_pem):
        store.add_cert(crypto.X509.from_cryptography(root))
    return chain[0]


class TlsConnection:
    """One end of one connection: `feed` it received bytes, then `handshake` or `read_into`."""

    __slots__ = (
        "_check",
        "_connection",
        "_head",
        "_opening",
        "_record_left",
        "_records",
        "_wire",
        "silent",
    )

    def __init__(self, context: TlsContext, server: bool, judge: Judge) -> None:
        self._check = PeerCheck(judge)
        self._connection = SSL.Connection(context.ssl, None)
        self._wire = wire_of(self._connection)
        self._connection.set_app_data(self._check)
        if server:
            self._connection.set_accept_state()
        else:
            self._connection.set_connect_state()
        self._opening: Opening | None = Opening()  # until the handshake is done
        self._head = b""
        self._record_left = 0
        self._records = 0
        self.silent = 0  # records with next to no data since `take_silent`

    @property
    def peer(self) -> SpiffeId | None:
        """The peer's identity, once its certificate is verified."""
        return self._check.peer

    @property
    def peer_not_after_s(self) -> float:
        """The end of the peer's certificate, once it is verified; by the wall clock."""
        return self._check.not_after_s

    def feed(self, data: memoryview) -> None:
        """Bytes from the socket. TlsError if a handshake cannot need so many."""
        if self._opening is not None:
            try:
                self._opening.look(data)
            except HelloTooLarge as exc:
                raise TlsError(Reason.HELLO_TOO_LARGE, str(exc)) from None
        self._wire.feed(data)
        self._count_records(data)

    def handshake(self) -> SpiffeId | None:
        """Continue the handshake. Returns the peer's identity once it is done, None before.
        TlsError if it failed."""
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._records = 0
            return None
        except SSL.Error as exc:
            raise self._failure(exc) from None
        if self._connection.get_alpn_proto_negotiated() != ALPN_H2:
            raise TlsError(Reason.PEER_ALPN, "the peer does not speak HTTP/2")
        if self.peer is None:
            raise TlsError(Reason.PEER_RESUMED, "the peer was not verified")
        self._opening = None
        return self.peer

    def _failure(self, exc: SSL.Error) -> TlsError:
        refusal = self._check.refusal
        if refusal is not None:
            return TlsError(refusal, f"the peer's certificate is refused: {refusal.word}")
        return TlsError(Reason.TLS_HANDSHAKE, f"TLS handshake failed: {_explain(exc)}")

    def read_into(self, into: memoryview, records_max: int = ALL_RECORDS) -> int:
        """Decrypt whole records fed so far, the first of them, and return the number of bytes.

        `into` must have room for all of them. TlsClosed at the peer's close_notify, once all that
        came before it has been returned; TlsError if the peer broke TLS.
        """
        read = self._wire.read
        have, before = 0, self._records
        try:
            # One call per record. Counting them saves the call that would fail, an exception of
            # some 2 µs; a record without data (a ticket) only makes the last call fail.
            while self._records > 0 and records_max > 0:
                records_max -= 1
                self._records -= 1
                have += read(into[have:])
        except SSL.WantReadError:
            # This call, and those that are missing, went into records that had none.
            self.silent += self._records + 1
            self._records = before = 0
        except SSL.ZeroReturnError:
            if not have:
                raise TlsClosed("the peer closed the connection") from None
            self._records = 1  # raise at the next call
        except SSL.Error as exc:
            raise TlsError(Reason.TLS_BROKEN, f"TLS failed: {_explain(exc)}") from None
        if before - self._records > TINY_RECORDS:
            self._count_tiny(before - self._records, have)
        return have

    def _count_tiny(self, records: int, have: int) -> None:
        """Records that bring less than a frame's header each are as good as silent."""
        missing = records - have // FRAME_HEADER_BYTES
        if missing > TINY_RECORDS:
            self.silent += missing

    def take_silent(self) -> int:
        silent, self.silent = self.silent, 0
        return silent

    @property
    def waiting(self) -> bool:
        """True while there are whole records that `read_into` has not decrypted."""
        return self._records > 0

    def write(self, data: bytes | bytearray | memoryview) -> bytes:
        """Encrypt all of `data`, and return the bytes for the socket. TlsError if TLS is broken."""
        try:
            self._wire.write(data)
        except SSL.Error as exc:
            raise TlsError(Reason.TLS_BROKEN, f"TLS failed: {_explain(exc)}") from None
        return self._wire.take()

    def take(self) -> bytes:
        """TLS's own output for the socket: handshake messages and alerts."""
        return self._wire.take()

    def close(self) -> bytes:
        """The bytes of close_notify; none if the connection is past saying it."""
        try:
            self._connection.shutdown()
        except SSL.Error:
            return b""
        return self.take()

    def _count_records(self, data: memoryview) -> None:
        """Follow the record boundaries in the encrypted bytes."""
        position = self._record_left
        size = len(data)
        if self._head and not position:
            missing = _RECORD_HEAD_BYTES - len(self._head)
            self._head += bytes(data[:missing])
            if len(self._head) < _RECORD_HEAD_BYTES:
                return
            position = missing + int.from_bytes(self._head[3:5])
            self._head = b""
            if position <= size:
                self._records += 1
        elif 0 < position <= size:
            self._records += 1
        while position + _RECORD_HEAD_BYTES <= size:
            _, _, length = _record_length(data, position)
            position += _RECORD_HEAD_BYTES + length
            if position <= size:
                self._records += 1
        if position < size:
            self._head = bytes(data[position:])
            position = size
        self._record_left = position - size


def _explain(exc: SSL.Error) -> str:
    """OpenSSL's own words, without the numbers that change between versions."""
    if isinstance(exc, SSL.SysCallError):
        return "the connection was cut"
    errors = exc.args[0] if exc.args and isinstance(exc.args[0], list) else []
    return ", ".join(str(each[-1]) for each in errors) or exc.__class__.__name__
