"""Opens what the configuration names: tokens, and for each key-set a wallet whose keys have passed their self-check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signers.config import Environment, SignerConfig, pin_reader
from signers.errors import BadConfiguration
from signers.evm_keys import TokenKeys, key_path, read_key_file, signing_key_name
from signers.keyref import KeyRef, Pkcs11Ref, SoftwareRef
from signers.keyset import BitcoinCosignerRecord
from signers.pkcs11 import Token
from signers.sealed import SealedCosigner, SealedKeys, read_sealed, seed_path
from signers.selfcheck import check_bitcoin_keys, check_evm_keys
from signers.software import SoftwareBitcoinKeys, SoftwareEvmKeys, open_software_keys
from signers.wallets import BitcoinVaultWallet, BitcoinWallet, Wallet, evm_wallet


@dataclass(frozen=True, slots=True)
class Opened:
    """What is open until `close`."""

    wallets: Mapping[str, Wallet[Any]]
    """By key-set."""
    tokens: Mapping[str, Token]
    """By the name of their section."""

    def close(self) -> None:
        """Close the sessions of all tokens."""
        for token in self.tokens.values():
            token.close()


def open_keys(config: SignerConfig, warn: Callable[[str], None]) -> Opened:
    """Log in to the tokens and open every key-set, after its self-check.

    Args:
        config: checked by `read_config`.
        warn: hears what is allowed in a trial only.

    Raises:
        BadConfiguration: keys that this environment does not use.
        SealBroken: a file is missing, or keys and file don't belong together.
        SelfCheckFailed: keys that do not do what they should.
        TokenRefused: a wrong PIN, no such token, no such key.
        TokenLost: a token does not answer.
    """
    tokens: dict[str, Token] = {}
    try:
        for name, section in config.tokens.items():
            tokens[name] = Token(Path(section.module), section.label, pin_reader(section))
        wallets = {
            keyset: _wallet(keyset, section.ref, tokens, Path(config.directory), config.environment, warn)
            for keyset, section in config.keys.items()
        }
    except BaseException:
        Opened({}, tokens).close()
        raise
    return Opened(wallets, tokens)


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
