"""The bundle: one canonical, versioned document of trust, signed by the policy quorum (DESIGN section 1).

It is loaded by the online side and by signers alike and never taken from database tables. Versions only
rise, a bundle expires, and the quorum's keys (`TrustRoot`) are pinned outside of it at the key ceremony.
"""

from policies.bundle.checks import (
    check_consistent,
)
from policies.bundle.common import (
    Count,
    EvmAddress,
    Origin,
    Tier,
)
from policies.bundle.document import (
    Bundle,
    BundleSignature,
    Overlay,
    SignedBundle,
    TrustRoot,
)
from policies.bundle.limits import (
    Breaker,
    PriceBound,
    TierCap,
)
from policies.bundle.networks import (
    AssetEntry,
    BitcoinNetwork,
    Confirmations,
    EvmNetwork,
    GasCaps,
    NetworkEntry,
    Trait,
)
from policies.bundle.people import (
    Approver,
    Attestor,
    Caller,
    Officer,
    Operator,
    OperatorRole,
    Passkey,
    ScopeName,
)
from policies.bundle.reading import (
    MAX_CLOCK_AHEAD_SECONDS,
    ReadBundle,
    UntrustedBundle,
    read_bundle,
    read_signed,
)
from policies.bundle.wallets import (
    BitcoinKeyset,
    BitcoinVault,
    Cosigner,
    EvmKeyset,
    EvmVault,
    GasPayer,
    KeysetEntry,
    KeyState,
    Owner,
    ScriptType,
    Vault,
    WalletEntry,
)

__all__ = [
    "MAX_CLOCK_AHEAD_SECONDS",
    "Approver",
    "AssetEntry",
    "Attestor",
    "BitcoinKeyset",
    "BitcoinNetwork",
    "BitcoinVault",
    "Breaker",
    "Bundle",
    "BundleSignature",
    "Caller",
    "Confirmations",
    "Cosigner",
    "Count",
    "EvmAddress",
    "EvmKeyset",
    "EvmNetwork",
    "EvmVault",
    "GasCaps",
    "GasPayer",
    "KeyState",
    "KeysetEntry",
    "NetworkEntry",
    "Officer",
    "Operator",
    "OperatorRole",
    "Origin",
    "Overlay",
    "Owner",
    "Passkey",
    "PriceBound",
    "ReadBundle",
    "ScopeName",
    "ScriptType",
    "SignedBundle",
    "Tier",
    "TierCap",
    "Trait",
    "TrustRoot",
    "UntrustedBundle",
    "Vault",
    "WalletEntry",
    "check_consistent",
    "read_bundle",
    "read_signed",
]
