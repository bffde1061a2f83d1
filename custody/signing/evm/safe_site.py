"""A vault of the EVM family: a Safe. Its owners sign its transactions; a gas payer sends them (`execute`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid5

from chains.errors import InvalidValue
from chains.eth.address import raw_address
from chains.eth.safe import SafeMessage, SafeTx, safe_resource
from custody.signing.evm.catching_up import BEHIND, catch_up
from custody.signing.evm.safe_finish import check_owner, finish
from custody.signing.evm.site import AccountSite, SafeNode
from custody.signing.model import Version
from custody.signing.requests import house_intent, make_request, read_request
from custody.signing.site import Pace
from policies.bundle import Bundle, EvmNetwork, EvmVault
from policies.intent import Kind
from signers.ports import Refused, Signer, SignRequest, SignResponse

_NAMESPACE: Final = UUID("2b1f9a54-6c0e-5d3a-9e57-3f1c8a7be2d1")


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

    def catch_up(self, signer: Signer, refusal: Refused) -> bool:
        """See `Site`."""
        if not {reason.code for reason in refusal.reasons} <= BEHIND:
            return False
        return catch_up(signer, self.node.safes.nonce(self.sender, self.node.tip()), self._nothing)

    def _nothing(self, nonce: int) -> SignRequest:
        """A cancellation of a nonce that is used. Its id is always the same, so that again is the same request."""
        id_ = str(uuid5(_NAMESPACE, f"{self.account}:{nonce}:{self.bundle.version}"))
        intent = house_intent(self, Kind.CANCELLATION, id_, self.address)
        nothing = SafeTx(to=self.sender, value_wei=0, data=b"", nonce=nonce)
        raw = SafeMessage(self.network.chain_id, self.sender, nothing).encode()
        return read_request(make_request(self, (intent,), (), raw))

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
