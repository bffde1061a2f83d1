"""Known-answer tests that a signer passes at every start, before it takes work."""

from __future__ import annotations

import hashlib
from typing import Final

import coincurve
from cryptography.hazmat.primitives.asymmetric import utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from embit.util.key import verify_schnorr

from chains.btc.hd import AccountKey, agreed_address
from chains.btc.multisig import agreed_multisig_address, parse_multisig
from chains.btc.network import NETWORKS
from chains.btc.psbt import require_native_curve
from chains.btc.script import taproot_output_key
from chains.btc.tx import TaprootDigests, Transaction, TxOut, sighash_p2wpkh
from chains.errors import StrongroomError
from chains.eth.address import checksummed, keccak256
from chains.eth.forwarder import forwarder_address
from chains.eth.safe import SafeMessage, SafeTx
from chains.eth.tx import SignedTx, address_text_of_key
from signers.errors import SelfCheckFailed, TokenLost, WrongSignature
from signers.keys.account import AccountSecret
from signers.keys.ecdsa import normalised
from signers.keys.keyset import KEY_PLACE
from signers.wallets import BitcoinKeys, CosignerKeys, EvmKeys, Keys, verifies, verifies_taproot

# BIP143, native P2WPKH: the unsigned transaction, its second input, and the digest.
_BIP143_TX: Final = bytes.fromhex(
    "0100000002fff7f7881a8099afa6940d42d1e7f6362bec38171ea3edf433541db4e4ad969f0000000000eeffffff"
    "ef51e1b804cc89d182d279655c3aa89e815b1b309fe287d9b2b55d57b90ec68a0100000000ffffffff02202cb206"
    "000000001976a9148280b37df378db99f66f85c95a783a76ac7a6d5988ac9093510d000000001976a9143bde42db"
    "ee7e4dbe6a21b2d50ce2f0167faa815988ac11000000"
)
_BIP143_PUBKEY: Final = bytes.fromhex("025476c2e83188368da1ff3e292e7acafcdb3566bb0ad253f62fc70f07aeee6357")
_BIP143_DIGEST: Final = "c37af31116d1b27caf68aae9e3ac82f1477929014d5b917657d0eb49478cb670"
# RFC 6979 on secp256k1: key 1, SHA-256 of "Satoshi Nakamoto" (the vector that all libraries share).
_RFC6979_DIGEST: Final = bytes.fromhex("a0dc65ffca799873cbea0ac274015b9526505daaaed385155425f7337704883e")
_RFC6979_RS: Final = (
    "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8"
    "2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5"
)
# BIP39, BIP32, BIP84: the first address of 32 zero bytes of entropy ("abandon ... art"), as other wallets show it.
_ZERO_ENTROPY_FIRST: Final = "bc1qzmtrqsfuaf6l6kkcsseumq26ukaphfj9skkug6"
# BIP86: the same for taproot; and the account and first address of BIP86's own vectors.
_BIP86_ACCOUNT: Final = (
    "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcL"
    "teoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ"
)
_BIP86_FIRST: Final = "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"
_ZERO_ENTROPY_FIRST_TAPROOT: Final = "bc1p68a8a3vuv2cxzs7e2gjc5v3qy3zdnfaxwftyqe9k9nquvm6r4w2ssldtzp"
# BIP340: secret key, x-only public key and signature of its first vector (message and auxiliary randomness are zeros).
_BIP340_SECRET: Final = (3).to_bytes(32, "big")
_BIP340_PUBKEY: Final = "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9"
_BIP340_SIGNATURE: Final = (
    "e907831f80848d1069a5371b402410364bdf1c5f8307b0084c55f1ce2dca8215"
    "25f66a4a85ea8b71e482a74f382d2ce5ebeee8fdb2172f477df4900d310536c0"
)
# BIP341, wallet test vectors: an unsigned transaction, what it spends, the digest of the input that has the default
# sighash type; and a key without scripts with its output key.
_BIP341_TX: Final = bytes.fromhex(
    "02000000097de20cbff686da83a54981d2b9bab3586f4ca7e48f57f5b55963115f3b334e9c010000000000000000"
    "d7b7cab57b1393ace2d064f4d4a2cb8af6def61273e127517d44759b6dafdd990000000000ffffffff"
    "f8e1f583384333689228c5d28eac13366be082dc57441760d957275419a418420000000000ffffffff"
    "f0689180aa63b30cb162a73c6d2a38b7eeda2a83ece74310fda0843ad604853b0100000000feffffff"
    "aa5202bdf6d8ccd2ee0f0202afbbb7461d9264a25e5bfd3c5a52ee1239e0ba6c0000000000feffffff"
    "956149bdc66faa968eb2be2d2faa29718acbfe3941215893a2a3446d32acd0500000000000"
    "00000000e664b9773b88c09c32cb70a2a3e4da0ced63b7ba3b22f848531bbb1d5d5f4c940100000000"
    "00000000e9aa6b8e6c9de67619e6a3924ae25696bb7b694bb677a632a74ef7eadfd4eabf0000000000ffffffff"
    "a778eb6a263dc090464cd125c466b5a99667720b1c110468831d058aa1b82af10100000000ffffffff"
    "0200ca9a3b000000001976a91406afd46bcdfd22ef94ac122aa11f241244a37ecc88ac"
    "807840cb0000000020ac9a87f5594be208f8532db38cff670c450ed2fea8fcdefcc9a663f78bab962b0065cd1d"
)
_BIP341_SPENT: Final = (
    (420_000_000, "512053a1f6e454df1aa2776a2814a721372d6258050de330b3c6d10ee8f4e0dda343"),
    (462_000_000, "5120147c9c57132f6e7ecddba9800bb0c4449251c92a1e60371ee77557b6620f3ea3"),
    (294_000_000, "76a914751e76e8199196d454941c45d1b3a323f1433bd688ac"),
    (504_000_000, "5120e4d810fd50586274face62b8a807eb9719cef49c04177cc6b76a9a4251d5450e"),
    (630_000_000, "512091b64d5324723a985170e4dc5a0f84c041804f2cd12660fa5dec09fc21783605"),
    (378_000_000, "00147dd65592d0ab2fe0d0257d571abf032cd9db93dc"),
    (672_000_000, "512075169f4001aa68f15bbed28b218df1d0a62cbbcf1188c6665110c293c907b831"),
    (546_000_000, "5120712447206d7a5238acc7ff53fbe94a3b64539ad291c7cdbc490b7577e4b17df5"),
    (588_000_000, "512077e30a5522dd9f894c3f8b8bd4c4b2cf82ca7da8a3ea6a239655c39c050ab220"),
)
_BIP341_DIGEST: Final = "4f900a0bae3f1446fd48490c2958b5a023228f01661cda3496a11da502a7f7ef"
_BIP341_INTERNAL: Final = bytes.fromhex("02d6889cb081036e0faefa3a35157ad71086b123b2b144b649798b494c300a961d")
_BIP341_OUTPUT: Final = "53a1f6e454df1aa2776a2814a721372d6258050de330b3c6d10ee8f4e0dda343"
# BIP48, BIP67, BIP380: accounts 0, 1 and 2 of 32 zero bytes of entropy as cosigners, as embit has it too.
_COSIGNERS: Final = ("48'/0'/0'/2'", "48'/0'/1'/2'", "48'/0'/2'/2'")
_MULTISIG_FIRST: Final = "bc1qmten44sam9tnup6jmsyd6u0xwn0f5qml6jktnpn036pvf6mq32pqjxahrq"
_MULTISIG_CHECKSUM: Final = "502jyfut"
# EIP-1559: a transaction of Ethereum's main network as its nodes have it, its id and its sender.
_EIP1559_TX: Final = bytes.fromhex(
    "02f8b00142843b9aca008504a817c80082ad62946069a6c32cf691f5982febae4faf8a6f3ab2f0f680b844a22cb465"
    "0000000000000000000000005eee75727d804a2b13038928d36f8b188945a57a"
    "0000000000000000000000000000000000000000000000000000000000000000"
    "c080a0840cfc572845f5786e702984c2a582528cad4b49b2a10b9db1be7fca90058565"
    "a025e7109ceb98168d95b09b18bbf6b685130e0562f233877d492b94eee0c5b6d1"
)
_EIP1559_TXID: Final = "0ec0b6a2df4d87424e5f6ad2a654e27aaeb7dac20ae9e8385cc09087ad532ee0"
_EIP1559_SENDER: Final = "0xDD6B8b3dC6B7AD97db52F08a275FF4483e024CEa"
# EIP-1014: creator, salt, init code, address (the fifth example of the text).
_EIP1014_FACTORY: Final = bytes.fromhex("00000000000000000000000000000000deadbeef")
_EIP1014_SALT: Final = bytes.fromhex("00000000000000000000000000000000000000000000000000000000cafebabe")
_EIP1014_INIT_CODE: Final = bytes.fromhex("deadbeef")
_EIP1014_ADDRESS: Final = "0x60f3f640a8508fC6a86d45DF051962668E1e8AC7"
# EIP-712 hash of a Safe's transaction (version 1.4.1), as safe-eth-py makes it.
_SAFE_MESSAGE: Final = SafeMessage(1, b"\x5a" * 20, SafeTx(b"\x11" * 20, 10**18, b"\x01\x02\x03", 7))
_SAFE_HASH: Final = "f664adb8dca87657dfcfb708fb00f3c6f119dc7b4a3035c091aecd0a243c1586"
_SAMPLES: Final = 8


def check_libraries() -> None:
    """Check digests, signatures and derivation against published answers.

    Raises:
        SelfCheckFailed: names the one that came out differently.
    """
    try:
        require_native_curve()
        tx = Transaction.parse(_BIP143_TX)
        _same("BIP143 digest", sighash_p2wpkh(tx, 1, _BIP143_PUBKEY, 600_000_000).hex(), _BIP143_DIGEST)
        one = coincurve.PrivateKey((1).to_bytes(32, "big"))
        _same(
            "RFC 6979 signature", one.sign_recoverable(_RFC6979_DIGEST, hasher=None)[:64].hex(), _RFC6979_RS
        )
        secret, _ = AccountSecret.from_entropy(bytes(32), NETWORKS["main"], "84'/0'/0'")
        _same("BIP84 address", agreed_address(secret.public, 0, 0), _ZERO_ENTROPY_FIRST)
        _check_taproot()
        _check_multisig()
        signed = SignedTx.decode(_EIP1559_TX)
        _same("EIP-1559 transaction id", signed.txid.hex, _EIP1559_TXID)
        _same("EIP-1559 sender", checksummed(signed.sender()), _EIP1559_SENDER)
        forwarder = forwarder_address(_EIP1014_FACTORY, keccak256(_EIP1014_INIT_CODE), _EIP1014_SALT)
        _same("EIP-1014 address", checksummed(forwarder), _EIP1014_ADDRESS)
        _same("EIP-712 hash", _SAFE_MESSAGE.content, _SAFE_HASH)
    except StrongroomError as error:
        raise SelfCheckFailed(f"self-check: {error}") from error


def _check_taproot() -> None:
    """The same for BIP86, BIP340 and BIP341. Raises SelfCheckFailed."""
    account = AccountKey.parse(_BIP86_ACCOUNT, NETWORKS["main"], "p2tr")
    _same("BIP86 address", agreed_address(account, 0, 0), _BIP86_FIRST)
    secret, _ = AccountSecret.from_entropy(bytes(32), NETWORKS["main"], "86'/0'/0'")
    _same("BIP86 address of a seed", agreed_address(secret.public, 0, 0), _ZERO_ENTROPY_FIRST_TAPROOT)
    key = coincurve.PrivateKey(_BIP340_SECRET)
    _same("BIP340 signature", key.sign_schnorr(bytes(32), bytes(32)).hex(), _BIP340_SIGNATURE)
    if not verify_schnorr(bytes.fromhex(_BIP340_PUBKEY), bytes.fromhex(_BIP340_SIGNATURE), bytes(32)):
        raise SelfCheckFailed("self-check: the signature of BIP340 does not verify")
    spent = [TxOut(units, bytes.fromhex(script)) for units, script in _BIP341_SPENT]
    digests = TaprootDigests(Transaction.parse(_BIP341_TX), spent)
    _same("BIP341 digest", digests.key_path(4).hex(), _BIP341_DIGEST)
    _same("BIP341 output key", taproot_output_key(_BIP341_INTERNAL).hex(), _BIP341_OUTPUT)


def _check_multisig() -> None:
    """The same for a vault of two of three. Raises SelfCheckFailed."""
    network = NETWORKS["main"]
    accounts = [AccountSecret.of_cosigner(bytes(32), network, path) for path in _COSIGNERS]
    wallet = parse_multisig(2, [(origin, secret.public.xpub) for secret, origin in accounts], network)
    _same("address of a multisig", agreed_multisig_address(wallet, 0, 0), _MULTISIG_FIRST)
    _same("checksum of a descriptor", wallet.descriptor[-8:], _MULTISIG_CHECKSUM)


def check_bitcoin_keys(keys: BitcoinKeys | CosignerKeys) -> None:
    """Check that keys sign, deterministically and without repeating nonces, and that they attest.

    Raises:
        SelfCheckFailed: says what is wrong with which key-set.
        TokenLost: the token does not answer.
    """
    what = f"key-set {keys.record.id}"
    account, nonces = keys.account, set()
    taproot = isinstance(account, AccountKey) and account.kind == "p2tr"
    verified = verifies_taproot if taproot else verifies
    for number in range(4):
        digest = hashlib.sha256(f"strongroom self-check {number}".encode()).digest()
        pubkey, signature = keys.sign(1, number, digest)
        if pubkey != account.pubkey(1, number) or not verified(pubkey, digest, signature):
            raise SelfCheckFailed(f"self-check: {what} returned a signature that does not verify")
        _same(f"second signature of {what}", keys.sign(1, number, digest)[1].hex(), signature.hex())
        nonces.add(signature[:32] if taproot else signature[4 : 4 + signature[3]])
    if len(nonces) != 4:
        raise SelfCheckFailed(f"self-check: {what} used a nonce twice")
    _check_attestation(keys)


def check_evm_keys(keys: EvmKeys) -> None:
    """Check that a key signs for its address, without repeating nonces, and that it attests.

    Raises:
        SelfCheckFailed: says what is wrong with which key-set.
        TokenLost: the token does not answer.
    """
    what = f"key-set {keys.record.id}"
    _same(f"address of {what}", address_text_of_key(keys.pubkey), keys.record.address)
    nonces = set()
    for number in range(_SAMPLES):
        digest = hashlib.sha256(f"strongroom self-check {number}".encode()).digest()
        try:
            signature = normalised(keys.sign(*KEY_PLACE, digest)[1], keys.pubkey, digest)
        except WrongSignature as error:
            raise SelfCheckFailed(f"self-check: {what}: {error}") from error
        r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:64]))
        if not verifies(keys.pubkey, digest, utils.encode_dss_signature(r, s)):
            raise SelfCheckFailed(f"self-check: {what} returned a signature that does not verify")
        nonces.add(r)
    if len(nonces) != _SAMPLES:
        raise SelfCheckFailed(f"self-check: {what} used a nonce twice")
    _check_attestation(keys)


def _check_attestation(keys: Keys) -> None:
    digest = b"strongroom self-check".ljust(32, b".")
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(keys.record.attestation_key))
        public.verify(keys.attest(digest), digest)
    except TokenLost:
        raise
    except Exception as error:
        raise SelfCheckFailed(
            f"self-check: the attestation key of key-set {keys.record.id} does not work: {error}"
        ) from error


def _same(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise SelfCheckFailed(f"self-check: {what} is {found}, expected {expected}")
