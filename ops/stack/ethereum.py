"""The part of the ceremony that happens on an EVM chain: contracts are deployed, and believed only as read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from chains.eth.address import checksummed, keccak256
from chains.eth.contracts import artifact
from chains.eth.forwarder import agreed_forwarder, salt_of
from ops.devnet.anvil import Anvil
from ops.devnet.errors import DevnetError
from ops.devnet.files import write_private
from ops.stack.contracts import OUTSIDE, ask, deploy
from ops.stack.listing import ETH_WEI, Listing, evm
from ops.stack.names import COLD_THRESHOLD, WARM_THRESHOLD
from ops.stack.networks import TrialNetwork
from ops.stack.safes import check_safe, deploy_contracts, deploy_safe
from policies.bundle import EvmKeyset, EvmNetwork, EvmVault, GasPayer, Owner
from signers.keys.keyset import EvmKeysetRecord, GasPayerRecord

GAS_PAYER_WEI: Final = 3 * ETH_WEI // 2
"""The most that a trial's gas payer holds."""
_ZERO: Final = "0x" + "00" * 20


def admin_address(officers: Path) -> str:
    """Address of the admin of factories without a cold Safe, whose key is made here if there is none (hex, 0600).

    The only one who may propose another treasury, 48 hours ahead. Nothing of Strongroom needs the key: in a real
    installation it is offline, with the officers.
    """
    import coincurve

    path = officers / "factory-admin.key"
    if not path.exists():
        write_private(path, coincurve.PrivateKey().to_hex())
    public = coincurve.PrivateKey.from_hex(path.read_text()).public_key.format(compressed=False)
    return checksummed(keccak256(public[1:])[12:])


@dataclass(frozen=True, slots=True)
class Safes:
    """What a network has beside its hot key-set."""

    warm: EvmVault
    cold: EvmVault
    """The factory's admin."""
    gas_payer: GasPayer


def make_safes(
    node: Anvil,
    trial: TrialNetwork,
    warm: Sequence[Owner],
    cold: Sequence[Owner],
    gas_payer: GasPayerRecord,
) -> Safes | None:
    """Deploys the Safes of a network that has tiers, from the official contracts, and reads them back.

    Args:
        node: of the chain; its first account pays for the deployment.
        trial: the network.
        warm: who own the warm Safe.
        cold: who own the cold one.
        gas_payer: the public half of its key.

    Raises:
        DevnetError: what was read back from the chain is not what was meant.
    """
    if trial.tiers is None:
        return None
    deployer = node.accounts()[0]
    contracts = deploy_contracts(node, deployer)

    def made(name: str, tier: Literal["warm", "cold"], owners: Sequence[Owner], threshold: int) -> EvmVault:
        addresses = [owner.address for owner in owners]
        address = deploy_safe(node, deployer, contracts, addresses, threshold)
        return EvmVault(
            id=name,
            chain=trial.chain,
            tier=tier,
            threshold=threshold,
            address=address,
            owners=tuple(owners),
        )

    return Safes(
        warm=made(trial.tiers.warm, "warm", warm, WARM_THRESHOLD),
        cold=made(trial.tiers.cold, "cold", cold, COLD_THRESHOLD),
        gas_payer=GasPayer(
            id=gas_payer.id,
            chain=trial.chain,
            address=gas_payer.address,
            attestation_key=gas_payer.attestation_key,
            holding_cap=str(GAS_PAYER_WEI),
        ),
    )


def prepare(
    node: Anvil, trial: TrialNetwork, record: EvmKeysetRecord, *, admin: str, safes: Safes | None = None
) -> Listing:
    """Deploys factory, payout contract and tokens, checks them, and returns what the bundle says of the network.

    Args:
        node: of the chain; its first account pays for the deployment.
        trial: the network.
        record: the public half of its hot key.
        admin: of the factory, where there is no cold Safe.
        safes: its other tiers.

    Raises:
        DevnetError: what was read back from the chain is not what was meant.
    """
    deployer = node.accounts()[0]
    admin = admin if safes is None else safes.cold.address
    ruler = None if safes is None else safes.cold.id
    factory = deploy(node, deployer, "ForwarderFactory", (record.address, admin))
    payout = deploy(node, deployer, "BatchPayout")
    tokens = {
        token.asset: deploy(
            node, deployer, "Token", (token.name, token.asset, token.decimals), directory=OUTSIDE
        )
        for token in trial.tokens
    }
    keyset = EvmKeyset(
        id=record.id,
        chain=trial.chain,
        tier="hot",
        attestation_key=record.attestation_key,
        address=record.address,
        factory=factory,
        forwarder=bytes(ask(node, factory, "initcodeHash()", "bytes32")).hex(),
        payout=payout,
        admin=ruler,
    )
    node.finalize()
    check(node, keyset, admin=admin)
    return evm(
        trial,
        node.block_hash(0)[2:],
        keyset,
        tokens,
        vaults=() if safes is None else (safes.warm, safes.cold),
        gas_payers=() if safes is None else (safes.gas_payer,),
    )


def check(node: Anvil, keyset: EvmKeyset, *, admin: str) -> None:
    """Reads a key-set's contracts back from the chain: their code, treasury, admin, and no change under way.

    Raises:
        DevnetError: something is not as it must be; says what was found.
    """
    _check_code(node, "ForwarderFactory", keyset.factory)
    logic = ask(node, keyset.factory, "logic()", "address")
    _check_code(node, "ForwarderLogic", logic)
    if keyset.payout is not None:
        _check_code(node, "BatchPayout", keyset.payout)
    salt = salt_of(7)
    expected = {
        ("treasury()", "address"): keyset.address.lower(),
        ("admin()", "address"): admin.lower(),
        ("initcodeHash()", "bytes32"): bytes.fromhex(keyset.forwarder),
        ("proposedTreasury()", "address"): _ZERO,
        ("proposedAdmin()", "address"): _ZERO,
        ("forwarderOf(bytes32)", "address"): agreed_forwarder(keyset.factory, keyset.forwarder, 7).lower(),
    }
    for (signature, returns), due in expected.items():
        arguments = (salt,) if "bytes32)" in signature else ()
        found = ask(node, keyset.factory, signature, returns, *arguments)
        if found != due:
            raise DevnetError(
                f"{keyset.id}: {signature} of its factory {keyset.factory} is {found!r}, not {due!r}"
            )
    if ask(node, logic, "factory()", "address") != keyset.factory.lower():
        raise DevnetError(f"{keyset.id}: {logic} serves another factory than {keyset.factory}")


def check_still_there(
    node: Anvil, keyset: EvmKeyset, network: EvmNetwork, *, admin: str, safes: Sequence[EvmVault] = ()
) -> None:
    """The same when a stack starts again, with the chain's Safes: an anvil that was killed may have lost the chain that
    the bundle names.

    Raises:
        DevnetError: it has.
    """
    # Two chains that began in the same second have the same first block: only one of them has the factory.
    if node.block_hash(0)[2:] != network.genesis or not _code(node, keyset.factory):
        raise DevnetError(
            f"{network.chain}: anvil has lost the chain that this installation began with (it was killed before it "
            "could save it): begin anew in another directory"
        )
    check(node, keyset, admin=admin)
    for safe in safes:
        check_safe(node, safe.address, [owner.address for owner in safe.owners], safe.threshold)


def _check_code(node: Anvil, name: str, address: str) -> None:
    """Compares the code at an address with the committed one, but for what the constructor fills in."""
    if not artifact(name).is_code(_code(node, address)):
        raise DevnetError(f"the code at {address} is not that of {name}")


def _code(node: Anvil, address: str) -> bytes:
    return bytes.fromhex(node.rpc("eth_getCode", address, "latest")[2:])
