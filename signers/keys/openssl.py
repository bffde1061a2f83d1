"""ECDSA on secp256k1 verified by the OpenSSL that Python itself is linked to, without Python's lock.

`cryptography` brings another OpenSSL, but keeps the lock while it verifies, which takes longer than everything else
that is done for a request: then eight requests in flight use one processor. Here it is called through ctypes, which
gives the lock up for the one call that takes long. Where Python has OpenSSL within itself (some builds for other
systems), `cryptography` verifies.

Sources: EVP_PKEY_fromdata(3), EVP_PKEY-EC(7), EVP_PKEY_verify(3), OSSL_PARAM(3).
"""

from __future__ import annotations

import _hashlib
import ctypes
import functools
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_void_p
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

_CURVE_NAME: Final = ctypes.create_string_buffer(b"secp256k1")
_UTF8_STRING: Final = 4
_OCTET_STRING: Final = 5
"""OSSL_PARAM_UTF8_STRING, OSSL_PARAM_OCTET_STRING."""
_PUBLIC_KEY: Final = 0x86
"""EVP_PKEY_PUBLIC_KEY: OSSL_KEYMGMT_SELECT_PUBLIC_KEY and all parameters."""
_DIGEST: Final = ec.ECDSA(utils.Prehashed(SHA256()))
_CURVE: Final = ec.SECP256K1()


class _Param(ctypes.Structure):
    """OSSL_PARAM."""

    _fields_ = (
        ("key", c_char_p),
        ("data_type", c_uint),
        ("data", c_void_p),
        ("data_size", c_size_t),
        ("return_size", c_size_t),
    )


_FUNCTIONS: Final[dict[str, tuple[Any, list[Any]]]] = {
    "EVP_PKEY_CTX_new_from_name": (c_void_p, [c_void_p, c_char_p, c_char_p]),
    "EVP_PKEY_fromdata_init": (c_int, [c_void_p]),
    "EVP_PKEY_fromdata": (c_int, [c_void_p, POINTER(c_void_p), c_int, POINTER(_Param)]),
    "EVP_PKEY_CTX_new": (c_void_p, [c_void_p, c_void_p]),
    "EVP_PKEY_verify_init": (c_int, [c_void_p]),
    "EVP_PKEY_verify": (c_int, [c_void_p, c_char_p, c_size_t, c_char_p, c_size_t]),
    "EVP_PKEY_CTX_free": (None, [c_void_p]),
    "EVP_PKEY_free": (None, [c_void_p]),
    "ERR_clear_error": (None, []),
}
_LONG: Final = "EVP_PKEY_verify"


@functools.cache
def _library() -> Any:
    """libcrypto 3, with the types of what is called; None where there is none to be found."""
    try:
        # What a module is linked to is found through it, so this is the library that the process has loaded already.
        # What is quick keeps Python's lock: to win it back takes longer than the call.
        library = ctypes.PyDLL(_hashlib.__file__)
        setattr(library, _LONG, getattr(ctypes.CDLL(_hashlib.__file__), _LONG))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError):
        return None
    return library


def openssl_verifies(pubkey: bytes, digest: bytes, der: bytes) -> bool:
    """Whether OpenSSL takes a DER signature of 32 bytes as that of a key (33 bytes)."""
    if len(pubkey) != 33 or len(digest) != 32:
        return False
    library = _library()
    if library is None:
        return _cryptography_verifies(pubkey, digest, der)
    key = _public_key(library, pubkey)
    try:
        return key.value is not None and _holds(library, key, digest, der)
    finally:
        library.EVP_PKEY_free(key)
        library.ERR_clear_error()


def _holds(library: Any, key: c_void_p, digest: bytes, der: bytes) -> bool:
    context = library.EVP_PKEY_CTX_new(key, None)
    try:
        return (
            context is not None
            and library.EVP_PKEY_verify_init(context) == 1
            and library.EVP_PKEY_verify(context, der, len(der), digest, len(digest)) == 1
        )
    finally:
        library.EVP_PKEY_CTX_free(context)


def _public_key(library: Any, pubkey: bytes) -> c_void_p:
    """The EVP_PKEY of a compressed point, which the caller frees; null if it is none of the curve."""
    point = ctypes.create_string_buffer(pubkey, len(pubkey))
    params = (_Param * 3)(
        _Param(b"group", _UTF8_STRING, ctypes.addressof(_CURVE_NAME), len(_CURVE_NAME) - 1),
        _Param(b"pub", _OCTET_STRING, ctypes.addressof(point), len(pubkey)),
        _Param(),
    )
    key = c_void_p()
    context = library.EVP_PKEY_CTX_new_from_name(None, b"EC", None)
    try:
        if context is not None and library.EVP_PKEY_fromdata_init(context) == 1:
            library.EVP_PKEY_fromdata(context, ctypes.byref(key), _PUBLIC_KEY, params)
        return key
    finally:
        library.EVP_PKEY_CTX_free(context)


def _cryptography_verifies(pubkey: bytes, digest: bytes, der: bytes) -> bool:
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, pubkey).verify(der, digest, _DIGEST)
    except (InvalidSignature, ValueError):
        return False
    return True
