"""What a ceremony asks of a token beyond daily work: randomness, keys that are wrapped once, and their return.

An EVM key is made in the token as a session object that may be extracted, wrapped under the recovery key, and
destroyed; what stays in the token is the same key unwrapped as sensitive and never extractable. So no storage ever
holds a key that can leave, a crash leaves nothing, and every key in use is one that has been restored before.

SoftHSM lets only its security officer mark a key as trusted, so CKA_WRAP_WITH_TRUSTED (which asks for such a key) is
not used; the key to be wrapped is visible to this process only. It wraps no Ed25519 keys either: attestation keys are
derived from the recovery secret and imported.

Sources: PKCS#11 v3.0 (C_WrapKey, C_UnwrapKey, C_SeedRandom), RFC 5649 (AES-KWP), RFC 5958 (PKCS#8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import coincurve
import PyKCS11

from signers.ceremony.record import TokenDescription
from signers.errors import SealBroken, SelfCheckFailed, TokenRefused, WrongSignature
from signers.hsm.pkcs11 import Token, private_template, public_template
from signers.keys.ecdsa import SECP256K1_OID, normalised, sign_digest

KEK_BYTES: Final = 32
_CHECK_DIGEST: Final = bytes(range(32))
_OCTET_STRING: Final = 0x04
_ED25519_NAME: Final = b"\x13\x0cedwards25519"
"""CKA_EC_PARAMS as a PrintableString (PKCS#11 v3.0), which SoftHSM takes."""
_WRONG_WRAPPED: Final = frozenset(
    {
        PyKCS11.CKR_WRAPPED_KEY_INVALID,
        PyKCS11.CKR_WRAPPED_KEY_LEN_RANGE,
        PyKCS11.CKR_ENCRYPTED_DATA_INVALID,
        # What SoftHSM says of a wrong key or a damaged blob.
        PyKCS11.CKR_GENERAL_ERROR,
    }
)
_CLASSES: Final = (PyKCS11.CKO_SECRET_KEY, PyKCS11.CKO_PRIVATE_KEY, PyKCS11.CKO_PUBLIC_KEY)


def described(token: Token) -> TokenDescription:
    """What a record says of a token. Raises TokenLost."""
    told = token.identity()
    return TokenDescription(
        label=token.label, serial=told.serial, model=told.model, firmware=told.firmware, library=told.library
    )


def token_random(token: Token, count: int) -> bytes:
    """`count` bytes of the token's generator (C_GenerateRandom). Raises TokenRefused, TokenLost."""
    return token.call(lambda session: bytes(session.generateRandom(count)))


def seed_token(token: Token, entropy: bytes) -> bool:
    """Mix entropy into the token's own generator (C_SeedRandom); False where the token has no use for it."""
    try:
        token.call(lambda session: session.seedRandom(entropy))
    except TokenRefused:
        return False
    return True


def key_names(token: Token) -> tuple[str, ...]:
    """The labels of all keys in the token, sorted. Raises TokenLost."""

    def read(session: Any) -> tuple[str, ...]:
        found = [handle for kind in _CLASSES for handle in session.findObjects([(PyKCS11.CKA_CLASS, kind)])]
        labels = [session.getAttributeValue(handle, [PyKCS11.CKA_LABEL])[0] for handle in found]
        return tuple(sorted({str(label) for label in labels}))

    return token.call(read)


def remove_keys(token: Token, names: Sequence[str]) -> None:
    """Destroy all keys of these names. Again changes nothing. Raises TokenRefused, TokenLost."""

    def remove(session: Any) -> None:
        for kind in _CLASSES:
            for name in names:
                for handle in session.findObjects([(PyKCS11.CKA_CLASS, kind), (PyKCS11.CKA_LABEL, name)]):
                    session.destroyObject(handle)

    token.call(remove)


def import_attestation_key(token: Token, name: str, secret: bytes) -> bytes:
    """Bring an Ed25519 key into the token, from where it never comes out again; returns its public key (32 bytes).

    Args:
        token: logged in.
        name: of both halves.
        secret: 32 bytes (RFC 8032).

    Raises:
        TokenRefused: a key of that name exists.
        SelfCheckFailed: the token signs with another key than the one that it was given.
        TokenLost: the token does not answer.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    token.must_be_free(PyKCS11.CKO_PRIVATE_KEY, name)
    verifier = Ed25519PrivateKey.from_private_bytes(secret).public_key()
    public = verifier.public_bytes_raw()
    private = [(PyKCS11.CKA_EC_PARAMS, _ED25519_NAME), (PyKCS11.CKA_VALUE, secret)]
    template = _private(name, PyKCS11.CKK_EC_EDWARDS) + private
    token.call(lambda session: session.createObject(template))
    _create_public(token, name, PyKCS11.CKK_EC_EDWARDS, _ED25519_NAME, public)
    try:
        verifier.verify(token.sign(name, _CHECK_DIGEST), _CHECK_DIGEST)
    except InvalidSignature:
        raise SelfCheckFailed(f"token {token.label!r} signs with another key than {name!r}") from None
    return public


def make_wrapped_key(token: Token, kek: bytes) -> tuple[bytes, bytes]:
    """Make a secp256k1 key in the token, of which only the wrapped form is left.

    Args:
        token: logged in.
        kek: AES-256 recovery key, 32 bytes.

    Returns:
        The public key (33 bytes), and the key's PKCS#8 under AES-KWP.

    Raises:
        TokenRefused: the token can't wrap keys.
        TokenLost: the token does not answer.
    """
    public = [
        (PyKCS11.CKA_KEY_TYPE, PyKCS11.CKK_EC),
        (PyKCS11.CKA_EC_PARAMS, SECP256K1_OID),
        (PyKCS11.CKA_TOKEN, False),
        (PyKCS11.CKA_VERIFY, True),
    ]
    private = [
        (PyKCS11.CKA_KEY_TYPE, PyKCS11.CKK_EC),
        (PyKCS11.CKA_TOKEN, False),
        (PyKCS11.CKA_PRIVATE, True),
        (PyKCS11.CKA_SENSITIVE, True),
        (PyKCS11.CKA_EXTRACTABLE, True),
        (PyKCS11.CKA_SIGN, True),
        (PyKCS11.CKA_DERIVE, False),
    ]

    def make(session: Any) -> tuple[bytes, bytes]:
        mechanism = PyKCS11.Mechanism(PyKCS11.CKM_EC_KEY_PAIR_GEN, None)
        pair = session.generateKeyPair(public, private, mechanism)
        try:
            with _wrapping(session, kek) as (key, wrap):
                wrapped = bytes(session.wrapKey(key, pair[1], wrap))
            point = bytes(session.getAttributeValue(pair[0], [PyKCS11.CKA_EC_POINT])[0])[-65:]
        finally:
            for handle in pair:
                session.destroyObject(handle)
        return coincurve.PublicKey(point).format(), wrapped

    return token.call(make)


def check_wrapping(token: Token, random: Callable[[int], bytes]) -> None:
    """Check with a key that is thrown away that standard tools can open what the token wraps.

    Raises:
        SelfCheckFailed: what it wraps is not AES-KWP of PKCS#8 of the key.
        TokenRefused: the token can't wrap keys.
        TokenLost: the token does not answer.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap_with_padding
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    kek = random(KEK_BYTES)
    public, wrapped = make_wrapped_key(token, kek)
    try:
        key = load_der_private_key(aes_key_unwrap_with_padding(kek, wrapped), None)
    except (InvalidUnwrap, ValueError):
        key = None
    if isinstance(key, EllipticCurvePrivateKey):
        secret = key.private_numbers().private_value.to_bytes(32, "big")
        if coincurve.PrivateKey(secret).public_key.format() == public:
            return
    raise SelfCheckFailed(f"token {token.label!r} wraps keys in a form that standard tools can't open")


def restore_key(token: Token, name: str, kek: bytes, wrapped: bytes, public: bytes) -> None:
    """Bring a wrapped secp256k1 key back, sensitive and not extractable any more.

    Args:
        token: logged in.
        name: of both halves.
        kek: the recovery key, 32 bytes.
        wrapped: what `make_wrapped_key` returned.
        public: the public key, 33 bytes.

    Raises:
        SealBroken: another recovery key, a damaged wrapped key, or one of another public key; nothing stays then.
        TokenRefused: a key of that name exists.
        TokenLost: the token does not answer.
    """
    token.must_be_free(PyKCS11.CKO_PRIVATE_KEY, name)
    template = _private(name, PyKCS11.CKK_EC)

    def unwrap(session: Any) -> bool:
        with _wrapping(session, kek) as (key, mechanism):
            try:
                session.unwrapKey(key, wrapped, template, mechanism)
            except PyKCS11.PyKCS11Error as error:
                if error.value in _WRONG_WRAPPED:
                    return False
                raise
        return True

    if not token.call(unwrap):
        raise SealBroken("the wrapped key does not open under the recovery key of these shares")
    point = coincurve.PublicKey(public).format(compressed=False)
    _create_public(token, name, PyKCS11.CKK_EC, SECP256K1_OID, point)
    try:
        normalised(sign_digest(token, name, _CHECK_DIGEST), public, _CHECK_DIGEST)
    except WrongSignature:
        remove_keys(token, [name])
        raise SealBroken("the wrapped key is not the one of the recorded public key") from None


@contextmanager
def _wrapping(session: Any, kek: bytes) -> Iterator[tuple[Any, Any]]:
    """The recovery key as a session object, gone afterwards, and the mechanism for AES-KWP that the token has."""
    known = session.pykcs11.getMechanismList(session.getSessionInfo().slotID)
    standard = "CKM_AES_KEY_WRAP_KWP" in known
    mechanism = PyKCS11.CKM_AES_KEY_WRAP_KWP if standard else PyKCS11.CKM_AES_KEY_WRAP_PAD
    template = [
        (PyKCS11.CKA_CLASS, PyKCS11.CKO_SECRET_KEY),
        (PyKCS11.CKA_KEY_TYPE, PyKCS11.CKK_AES),
        (PyKCS11.CKA_VALUE, kek),
        (PyKCS11.CKA_TOKEN, False),
        (PyKCS11.CKA_PRIVATE, True),
        (PyKCS11.CKA_SENSITIVE, True),
        (PyKCS11.CKA_EXTRACTABLE, False),
        (PyKCS11.CKA_WRAP, True),
        (PyKCS11.CKA_UNWRAP, True),
        (PyKCS11.CKA_ENCRYPT, False),
        (PyKCS11.CKA_DECRYPT, False),
    ]
    key = session.createObject(template)
    try:
        yield key, PyKCS11.Mechanism(mechanism, None)
    finally:
        session.destroyObject(key)


def _private(name: str, key_type: int) -> list[tuple[int, Any]]:
    """The attributes of a private key that comes in from outside."""
    return [(PyKCS11.CKA_CLASS, PyKCS11.CKO_PRIVATE_KEY), *private_template(name, key_type)]


def _create_public(token: Token, name: str, key_type: int, curve: bytes, point: bytes) -> None:
    """The public half beside a private key that came in without one."""
    template = [
        (PyKCS11.CKA_CLASS, PyKCS11.CKO_PUBLIC_KEY),
        *public_template(name, key_type, curve),
        (PyKCS11.CKA_EC_POINT, bytes([_OCTET_STRING, len(point)]) + point),
    ]
    token.call(lambda session: session.createObject(template))
