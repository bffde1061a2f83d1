"""Money that left a wallet, proven on the own node: out of vaults, whose holders have no log, and between wallets.

A row says where to look; the node says what is there. On Bitcoin that is a transaction of the best chain which spends
outputs of this wallet only, by the scripts that the bundle's keys derive, and pays this amount to this script. A
Safe's transaction is computed again from what should have been paid, with the nonce: exactly that must have used the
nonce. One output and one nonce pay one thing only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from chains.btc.hd import AccountKey
from chains.btc.multisig import parse_multisig
from chains.btc.network import NETWORKS
from chains.errors import InvalidValue, NodeUnavailable, PermanentError, Reorganised
from chains.eth.address import raw_address
from chains.eth.erc20 import transfer_calldata
from chains.eth.safe import SafeMessage, SafeTx, parse_safe_resource, safe_resource
from chains.types import BlockRef
from policies.bundle import (
    BitcoinKeyset,
    BitcoinNetwork,
    BitcoinVault,
    EvmKeyset,
    EvmNetwork,
    EvmVault,
    GasPayer,
    WalletEntry,
)
from signers.verifier.bundles import Bundles
from signers.verifier.chains import Spending, script_of
from signers.verifier.follow import Follower, Use
from signers.verifier.model import Claim, FindingKind, Unknown
from signers.verifier.state import State

PlaceOf = Callable[[str, bytes], tuple[int, int] | None]
"""Where a wallet is said to have a script: branch and index."""


@dataclass(frozen=True, slots=True)
class Payout:
    """What should have left a wallet."""

    owner: str
    """Reference of its bookings: an output or a nonce is one owner's."""
    customer: str
    """Whose ledger it is in; empty for the house's."""
    chain: str
    wallet: str
    asset: str
    units: int
    destination: str
    """Address; empty: all of `target`'s together."""
    target: str = ""
    """The wallet of ours that must have got it; empty: it is paid to others."""


@dataclass(frozen=True, slots=True)
class Unproven:
    """It did not leave that wallet, or not for this."""

    kind: FindingKind
    detail: str


@dataclass(frozen=True, slots=True)
class _Found:
    """What may have paid something, by the own node: any one of these outputs or nonces, in a block of this height."""

    resources: Sequence[str]
    height: int


class Payouts:
    """Proves payouts, and remembers which outputs and nonces have paid what.

    Args:
        state: where it is remembered.
        bundles: says what the wallets are, and were.
        followers: the own nodes, by chain.
    """

    def __init__(self, state: State, bundles: Bundles, followers: Mapping[str, Follower]) -> None:
        self._state, self._bundles, self._followers = state, bundles, followers

    def prove(self, payout: Payout, claim: Claim | None, place_of: PlaceOf) -> Unproven | Unknown | None:
        """None: it is in the best chain, deep enough, and has paid nothing else; it is this owner's from now on.

        Args:
            payout: out of a wallet of the Bitcoin family, or of a Safe.
            claim: where it is said to be.
            place_of: hints; each is checked by derivation.
        """
        found = self._located(payout, claim, place_of)
        if not isinstance(found, _Found):
            return found
        if not self._take(payout, found.resources):
            told = f"{' '.join(found.resources)} is what has paid something else, too"
            return Unproven("payment-repeated", told)
        return self._deep(payout, found.height)

    def paid_as_said(self, payout: Payout, claim: Claim, place_of: PlaceOf) -> str | Unknown | None:
        """What has made a payment, and is nobody else's, by the own node; None if nothing where it is said to be."""
        found = self._located(payout, claim, place_of)
        if isinstance(found, _Found):
            taken = self._taken(payout.chain, found.resources)
            return next((each for each in found.resources if each not in taken), None)
        return found if isinstance(found, Unknown) else None

    def _located(self, payout: Payout, claim: Claim | None, place_of: PlaceOf) -> _Found | Unproven | Unknown:
        follower = self._followers.get(payout.chain)
        if follower is None:
            return Unknown("node", payout.chain, "there is no own node of this chain")
        if claim is None or claim.wallet != payout.wallet:
            return _missing("no transaction of this wallet is said to have paid it")
        try:
            if payout.target and payout.destination and not self._arrives(payout, place_of):
                return _missing(f"{payout.destination} is no address of {payout.target}")
            if isinstance(self._bundles.present().network(payout.chain), BitcoinNetwork):
                return self._on_bitcoin(follower, payout, claim, place_of)
            return self._out_of_safe(follower, payout, _nonces(claim.resources))
        except (NodeUnavailable, Reorganised) as error:
            return Unknown("node", payout.owner, str(error))
        except (PermanentError, TypeError) as error:
            return _missing(str(error))

    def paid_all_the_same(self, payout: Payout, wallets: Iterable[EvmVault]) -> str | None:
        """The nonce of a Safe of these that has made a payment and is nobody else's, whatever any row says."""
        follower = self._followers.get(payout.chain)
        for wallet in wallets if follower is not None else ():
            assert follower is not None
            safe = raw_address(wallet.address)
            free = self._state.rows(
                "SELECT u.resource FROM uses u LEFT JOIN paid p ON p.chain = u.chain AND p.resource = u.resource"
                " WHERE u.chain = ? AND u.resource LIKE ? AND u.succeeded = 1"
                " AND (p.owner IS NULL OR p.owner = ?)",
                payout.chain,
                safe_resource(safe, 0)[:-1] + "%",
                payout.owner,
            )
            for (resource,) in free:
                use = follower.use_of(resource)
                if use is not None and use.content == self._message(payout, wallet, resource).content:
                    return str(resource)
        return None

    def release(self, customer: str, standing: Collection[str]) -> None:
        """Forget what has paid for owners of a customer that stand no longer."""
        owners = self._state.rows("SELECT DISTINCT owner FROM paid WHERE customer = ?", customer)
        self._state.write_many(
            "DELETE FROM paid WHERE customer = ? AND owner = ?",
            [(customer, owner) for (owner,) in owners if owner not in standing],
        )

    def release_strangers(self, customers: Collection[str]) -> None:
        """Forget what has paid for customers who are not there any more."""
        for (customer,) in self._state.rows("SELECT DISTINCT customer FROM paid WHERE customer <> ''"):
            if customer not in customers:
                self.release(customer, ())

    # --------------------------------------------------------------------------------------------------- Bitcoin

    def _on_bitcoin(
        self, follower: Follower, payout: Payout, claim: Claim, place_of: PlaceOf
    ) -> _Found | Unproven:
        if claim.txid is None or claim.height is None or claim.block is None:
            return _missing("its transaction is said to be in no block")
        found = follower.spending(claim.txid, BlockRef(claim.height, claim.block))
        if isinstance(found, str):
            return _missing(f"{claim.txid}: {found}")
        strangers = [each for each in found.spent if not self._is_of(payout.wallet, each, payout, place_of)]
        if strangers:
            return _missing(f"{claim.txid} spends {strangers[0]}, which is no script of {payout.wallet}")
        return _Found(self._outputs(payout, claim.txid, found, place_of), claim.height)

    def _outputs(self, payout: Payout, txid: str, found: Spending, place_of: PlaceOf) -> list[str]:
        """Outputs any of which is what was paid. Raises InvalidValue if there is none."""
        if not payout.destination:
            ours = [self._is_of(payout.target, script, payout, place_of) for script, _ in found.paid]
            got = sum(int(units) for (_, units), own in zip(found.paid, ours, strict=True) if own)
            if got != payout.units:
                raise InvalidValue(f"{txid} brought {got} to {payout.target}, and not {payout.units}")
            return [f"{txid}:{ours.index(True)}"]
        script = script_of(self._bundles.present(), payout.chain, payout.destination).hex()
        wanted = (script, str(payout.units))
        outputs = [f"{txid}:{number}" for number, each in enumerate(found.paid) if each == wanted]
        if not outputs:
            raise InvalidValue(f"{txid} has no output of {payout.units} to {payout.destination}")
        return outputs

    def _arrives(self, payout: Payout, place_of: PlaceOf) -> bool:
        """Whether the destination is an address of the target."""
        script = script_of(self._bundles.present(), payout.chain, payout.destination)
        if isinstance(self._bundles.present().network(payout.chain), BitcoinNetwork):
            return self._is_of(payout.target, script.hex(), payout, place_of)
        return any(
            raw_address(each.address) == script
            for each in self._bundles.wallets(payout.target)
            if isinstance(each, EvmKeyset | EvmVault | GasPayer) and each.chain == payout.chain
        )

    def _is_of(self, wallet: str, script: str, payout: Payout, place_of: PlaceOf) -> bool:
        raw = bytes.fromhex(script)
        place = place_of(wallet, raw)
        if place is None:
            return False
        network = self._bundles.present().network(payout.chain)
        assert isinstance(network, BitcoinNetwork), "asked for this family only"
        return any(
            _script_at(each, network.network, *place) == raw
            for each in self._bundles.wallets(wallet)
            if each.chain == payout.chain
        )

    # ----------------------------------------------------------------------------------------------------- Safes

    def _out_of_safe(
        self, follower: Follower, payout: Payout, nonces: Sequence[str]
    ) -> _Found | Unproven | Unknown:
        wrong: Unproven | Unknown = _missing("no nonce of this Safe is said to have paid it")
        for wallet in self._bundles.wallets(payout.wallet):
            if not isinstance(wallet, EvmVault) or wallet.chain != payout.chain:
                continue
            own = safe_resource(raw_address(wallet.address), 0)[:-1]
            for resource in (each for each in nonces if each.startswith(own)):
                message = self._message(payout, wallet, resource)
                use = self._use(follower, resource)
                if isinstance(use, Use) and use.succeeded and use.content == message.content:
                    return _Found([resource], use.block.height)
                if isinstance(use, Unknown):
                    wrong = use
                else:
                    became = "unused" if use is None else f"used for {use.content}"
                    wrong = _missing(f"{resource} should be used for {message.content}, and is {became}")
        return wrong

    def _use(self, follower: Follower, resource: str) -> Use | Unknown | None:
        """What used a nonce; None if the node says that nothing has. Raises NodeUnavailable."""
        found = follower.use_of(resource)
        if found is not None or follower.chain.unused(resource):
            return found
        follower.watch([resource], lambda _: None)
        return Unknown("node", resource, "it is used, and where is being sought")

    def _message(self, payout: Payout, wallet: EvmVault, resource: str) -> SafeMessage:
        """What the owners must have signed. Raises InvalidValue: no such asset or address."""
        bundle = self._bundles.present()
        entry, network = bundle.asset(payout.asset), bundle.network(payout.chain)
        assert isinstance(network, EvmNetwork), "a Safe is on an EVM chain"
        safe, nonce = parse_safe_resource(resource)
        to = script_of(bundle, payout.chain, payout.destination)
        if entry.contract is None:
            tx = SafeTx(to=to, value_wei=payout.units, data=b"", nonce=nonce)
        else:
            data = transfer_calldata(to, payout.units)
            tx = SafeTx(to=raw_address(entry.contract), value_wei=0, data=data, nonce=nonce)
        return SafeMessage(network.chain_id, safe, tx)

    # --------------------------------------------------------------------------------------------- what was found

    def _take(self, payout: Payout, resources: Sequence[str]) -> bool:
        """Make one of these this owner's, and no other; whether there was one."""
        with self._state.change():
            taken = self._taken(payout.chain, resources)
            own = [each for each in resources if taken.get(each, payout.owner) == payout.owner]
            own.sort(key=lambda each: each not in taken)
            self._state.write("DELETE FROM paid WHERE chain = ? AND owner = ?", payout.chain, payout.owner)
            if own:
                self._state.write(
                    "INSERT INTO paid VALUES (?, ?, ?, ?)",
                    payout.chain,
                    own[0],
                    payout.owner,
                    payout.customer,
                )
            return bool(own)

    def _taken(self, chain: str, resources: Sequence[str]) -> dict[str, str]:
        """Owners by resource, of those of these that have one."""
        places = ",".join("?" * len(resources))
        rows = self._state.rows(
            f"SELECT resource, owner FROM paid WHERE chain = ? AND resource IN ({places})", chain, *resources
        )
        return dict(rows)

    def _deep(self, payout: Payout, height: int) -> Unknown | None:
        position = self._followers[payout.chain].position()
        depth = 0 if position is None else position.depth(height)
        needed = self._bundles.present().network(payout.chain).settle_blocks
        if depth >= needed:
            return None
        return Unknown("depth", payout.owner, f"{depth} of {needed} confirmations on the own node")


def _missing(detail: str) -> Unproven:
    return Unproven("payment-not-on-chain", detail)


def _nonces(resources: Iterable[str]) -> list[str]:
    """Those of Safes. The form is checked where they are read."""
    return [each for each in resources if each.startswith("safe:")]


@lru_cache(maxsize=4096)
def _script_at(wallet: WalletEntry, network: str, branch: int, index: int) -> bytes | None:
    """The script of a wallet's keys at a place; None if it is not of the Bitcoin family. Raises InvalidValue."""
    if isinstance(wallet, BitcoinKeyset):
        return AccountKey.parse(wallet.account, NETWORKS[network], wallet.script).script(branch, index)
    if not isinstance(wallet, BitcoinVault):
        return None
    members = [(each.origin, each.account) for each in wallet.cosigners]
    vault = parse_multisig(wallet.threshold, members, NETWORKS[network])
    if vault.descriptor != wallet.descriptor:
        raise InvalidValue(f"vault {wallet.id}: its cosigners have another descriptor together")
    return vault.script(branch, index)
