"""A vault of the EVM family: a Safe. Its owners sign its transactions; a gas payer sends them (`execute`)."""

from __future__ import annotations

from dataclasses import dataclass

from chains.errors import InvalidValue
from chains.eth.address import raw_address
from chains.eth.safe import safe_resource
from custody.signing.evm.safe_finish import check_owner, finish
from custody.signing.evm.site import AccountSite, SafeNode
from custody.signing.model import Version
from custody.signing.site import Pace
from policies.bundle import Bundle, EvmNetwork, EvmVault
from signers.ports import SignResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class SafeSite(AccountSite):
    """Everything the steps need to know of one Safe. What is signed there is no transaction of the chain itself."""

    wallet: EvmVault
    node: SafeNode

    @property
    def account(self) -> str:
        """See `AccountSite`: a Safe counts its own nonces."""
        return safe_resource(self.sender, 0).rpartition(":")[0]

    @property
    def sends(self) -> bool:
        """See `Site`."""
        return False

    def finish(self, version: Version, response: SignResponse) -> tuple[bytes, str]:
        """The calldata that carries the transaction out, and the hash that owners have signed; see `Site`."""
        return finish(self.wallet, version, response)

    def check_member(self, version: Version, member: str, response: SignResponse) -> None:
        """See `Site`."""
        check_owner(self.wallet, version, member, response)


def safe_site(bundle: Bundle, wallet: EvmVault, node: SafeNode, *, pace: Pace | None = None) -> SafeSite:
    """A Safe of the bundle.

    Raises:
        InvalidValue: the bundle lacks its chain or asset, or they are of another family.
    """
    network = bundle.network(wallet.chain)
    if not isinstance(network, EvmNetwork):
        raise InvalidValue(f"{wallet.chain} is no chain of the EVM family")
    return SafeSite(
        bundle=bundle,
        network=network,
        asset=bundle.asset(network.native_asset),
        wallet=wallet,
        sender=raw_address(wallet.address),
        node=node,
        pace=pace or Pace(),
    )
