"""A TLS client by the system's libssl, for what no Python library lets a client do: key updates."""

from __future__ import annotations

import ctypes
import ctypes.util
import tempfile

from ztunnel.transport.tls import Material

LIBRARY = ctypes.util.find_library("ssl") or ""
_POINTER = ctypes.c_void_p
_UPDATE_REQUESTED = 1
_H2 = b"\x02h2"


def _library() -> ctypes.CDLL:
    lib = ctypes.CDLL(LIBRARY)
    for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
        getattr(lib, name).restype = _POINTER
    lib.SSL_CTX_new.argtypes = [_POINTER]
    for name in ("SSL_new", "SSL_free", "SSL_CTX_free", "SSL_connect", "SSL_do_handshake"):
        getattr(lib, name).argtypes = [_POINTER]
    for name in ("SSL_set_fd", "SSL_key_update"):
        getattr(lib, name).argtypes = [_POINTER, ctypes.c_int]
    lib.SSL_CTX_use_certificate_chain_file.argtypes = [_POINTER, ctypes.c_char_p]
    lib.SSL_CTX_use_PrivateKey_file.argtypes = [_POINTER, ctypes.c_char_p, ctypes.c_int]
    lib.SSL_set_alpn_protos.argtypes = [_POINTER, ctypes.c_char_p, ctypes.c_uint]
    lib.SSL_write.argtypes = [_POINTER, ctypes.c_char_p, ctypes.c_int]
    return lib


class OpensslClient:
    """One connection over the descriptor of a connected socket, which stays the caller's."""

    def __init__(self, descriptor: int, material: Material) -> None:
        self._lib = lib = _library()
        self._context = lib.SSL_CTX_new(lib.TLS_client_method())
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"".join(material.chain_pem) + material.key_pem)
            file.flush()
            name = file.name.encode()
            assert lib.SSL_CTX_use_certificate_chain_file(self._context, name) == 1
            assert lib.SSL_CTX_use_PrivateKey_file(self._context, name, 1) == 1
        self._ssl = lib.SSL_new(self._context)
        lib.SSL_set_alpn_protos(self._ssl, _H2, len(_H2))
        lib.SSL_set_fd(self._ssl, descriptor)

    def shake_hands(self) -> bool:
        """True when the handshake is done; False if it needs more of the other end."""
        return bool(self._lib.SSL_connect(self._ssl) == 1)

    def write(self, data: bytes) -> None:
        assert self._lib.SSL_write(self._ssl, data, len(data)) == len(data)

    def update_key(self) -> bool:
        """Change our key and ask the other end for the same; False if that cannot be sent."""
        lib = self._lib
        asked = lib.SSL_key_update(self._ssl, _UPDATE_REQUESTED) == 1
        return asked and bool(lib.SSL_do_handshake(self._ssl) == 1)

    def close(self) -> None:
        self._lib.SSL_free(self._ssl)
        self._lib.SSL_CTX_free(self._context)
