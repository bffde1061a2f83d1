"""Opens what the configuration names: tokens, and for each key-set a wallet whose keys have passed their self-check.

In production the keys come from a ceremony whose backup was proven, their backend has passed `strongroom key test`,
and none is in a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signers.ceremony.proven import require_proven
from signers.config import Environment, SignerConfig, pin_reader
from signers.errors import BadConfiguration, NotTested
from signers.hsm.pkcs11 import Token
from signers.keys.evm_keys import TokenKeys, key_path, read_key_file, signing_key_name
from signers.keys.keyref import KeyRef, Pkcs11Ref, SoftwareRef
from signers.keys.keyset import BitcoinCosignerRecord
from signers.keys.sealed import SealedCosigner, SealedKeys, read_sealed, seed_path
from signers.keys.software import SoftwareBitcoinKeys, SoftwareEvmKeys, open_software_keys
from signers.keytest.selfcheck import check_bitcoin_keys, check_evm_keys
from signers.keytest.tested import require_tested
from signers.wallets import BitcoinVaultWallet, BitcoinWallet, Keys, Wallet, evm_wallet


@dataclass(frozen=True, slots=True)
class Opened:
    """What is open until `close`."""

    wallets: Mapping[str, Wallet[Any]]
    """By key-set."""
    tokens: Mapping[str, Token]
    """By the name of their section."""
    refs: Mapping[str, KeyRef]
    """By key-set."""

    def token_of(self, keyset: str) -> Token | None:
        """The token of a key-set's keys, None for keys in a file."""
        ref = self.refs[keyset]
        return None if isinstance(ref, SoftwareRef) else self.tokens[ref.token]

    def close(self) -> None:
        """Close the sessions of all tokens."""
        for token in self.tokens.values():
            token.close()


def open_keys(config: SignerConfig, warn: Callable[[str], None]) -> Opened:
    """Log in to the tokens and open every key-set, after its self-check, if its keys may serve.

    Args:
        config: checked by `read_config`.
        warn: hears what is allowed in a trial only.

    Raises:
        NotProven, NotTested: in production, keys whose backup or whose backend was not tested.
        BadConfiguration: keys that this environment does not use.
        SealBroken: a file is missing, or keys and file don't belong together.
        SelfCheckFailed: keys that do not do what they should.
        TokenRefused: a wrong PIN, no such token, no such key.
        TokenLost: a token does not answer.
    """
    opened = open_untested(config, warn)
    try:
        for keyset, wallet in opened.wallets.items():
            _require_ready(config, wallet.keys, opened.token_of(keyset), warn)
    except BaseException:
        opened.close()
        raise
    return opened


def open_untested(config: SignerConfig, warn: Callable[[str], None]) -> Opened:
    """The same for the test itself: keys that are not to serve before it. Takes and raises the same, but for that."""
    tokens: dict[str, Token] = {}
    refs = {keyset: section.ref for keyset, section in config.keys.items()}
    try:
        for name, section in config.tokens.items():
            tokens[name] = Token(Path(section.module), section.label, pin_reader(section))
        wallets = {
            keyset: _wallet(keyset, ref, tokens, Path(config.directory), config.environment, warn)
            for keyset, ref in refs.items()
        }
    except BaseException:
        Opened({}, tokens, {}).close()
        raise
    return Opened(wallets, tokens, refs)


def _require_ready(
    config: SignerConfig, keys: Keys, token: Token | None, warn: Callable[[str], None]
) -> None:
    directory = Path(config.directory)
    if config.environment == "production":
        require_proven(directory, keys.record)
        require_tested(directory, keys, token)
        return
    try:
        require_tested(directory, keys, token)
    except NotTested as error:
        warn(f"{error} (a production signer would not start)")


def _wallet(
    keyset: str,
    ref: KeyRef,
    tokens: Mapping[str, Token],
    directory: Path,
    environment: Environment,
    warn: Callable[[str], None],
) -> Wallet[Any]:
    if isinstance(ref, SoftwareRef):
        if environment != "trial":
            raise BadConfiguration(f"key-set {keyset}: a key in a file is not used in {environment}")
        warn(f"key-set {keyset}: its keys are in the file {ref.file}, which is for trials only")
        software = open_software_keys(ref.file, keyset)
        return _evm(software) if isinstance(software, SoftwareEvmKeys) else _bitcoin(software)
    token = tokens[ref.token]
    if isinstance(ref, Pkcs11Ref):
        label = ref.object or signing_key_name(keyset)
        return _evm(TokenKeys(token, read_key_file(key_path(directory, keyset)), label))
    file = read_sealed(seed_path(directory, keyset))
    if isinstance(file.record, BitcoinCosignerRecord):
        cosigner = SealedCosigner(token, file)
        check_bitcoin_keys(cosigner)
        return BitcoinVaultWallet(cosigner)
    return _bitcoin(SealedKeys(token, file))


def _evm(keys: TokenKeys | SoftwareEvmKeys) -> Wallet[Any]:
    check_evm_keys(keys)
    return evm_wallet(keys)


def _bitcoin(keys: SealedKeys | SoftwareBitcoinKeys) -> Wallet[Any]:
    check_bitcoin_keys(keys)
    return BitcoinWallet(keys)
