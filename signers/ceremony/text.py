"""The record for people: to be printed, compared by eye, and kept on paper. Holds no secret. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from policies.bundle import TrustRoot
from policies.bundle.root import root_lines
from signers.ceremony.facts import Facts
from signers.ceremony.plan import CeremonyPlan
from signers.ceremony.record import (
    CeremonyRecord,
    FirstAddress,
    ProvenCeremony,
    SignedCeremony,
    TokenDescription,
)
from signers.keys.keyset import EvmRecord, KeysetRecord


def text_path(directory: Path, keyset: str) -> Path:
    """Where the record's text is kept."""
    return directory / f"{keyset}.ceremony.txt"


def plan_text(plan: CeremonyPlan, ceremony: str, token: TokenDescription, quorum: TrustRoot | None) -> str:
    """What both operators agree to at the beginning.

    Args:
        plan: what is to be made.
        ceremony: its id.
        token: where.
        quorum: who signs bundles, if the plan names them.
    """
    keyset = plan.keyset
    where = f"chain id {keyset.chain_id}" if hasattr(keyset, "chain_id") else f"bitcoin {keyset.network}"
    return "\n".join(
        [
            f"ceremony       {ceremony} ({plan.environment})",
            f"makes          {keyset.__struct_config__.tag} {keyset.id!r} on {where}",
            f"in token       {token.label!r}, serial {token.serial}, {token.model}",
            f"operators      {', '.join(operator.name for operator in plan.operators)}",
            f"holders        {', '.join(holder.name for holder in plan.holders)}; any {plan.threshold} restore",
            f"signer's files {plan.directory}",
            f"backup's files {plan.backup_directory}",
            *([] if quorum is None else root_lines(quorum)),
        ]
    )


def facts_text(keyset: KeysetRecord, facts: Facts) -> str:
    """The keys' public facts."""
    lines = [
        f"key-set        {keyset.id} ({keyset.__struct_config__.tag})",
        f"public key     {facts.public_key}",
    ]
    lines += [f"  {name:<16}{value}" for name, value in sorted(facts.fingerprints.items())]
    if facts.descriptor is not None:
        lines.append(f"descriptor     {facts.descriptor}")
    lines += _addresses(facts.addresses)
    return "\n".join(lines)


def record_text(record: CeremonyRecord, signed: SignedCeremony | None) -> str:
    """A record as a page of text.

    Args:
        record: what it says.
        signed: with its signatures, once there are some.
    """
    backup, facts = record.backup, facts_of_record(record)
    lines = [
        f"STRONGROOM KEY CEREMONY {record.ceremony}",
        "",
        f"environment    {record.environment}",
        "tool           " + record.tool.replace("; ", f";\n{'':15}"),
        f"began, made    {_time(record.began_at)}, {_time(record.made_at)}",
        *(f"operator       {operator.name}, key {operator.key}" for operator in record.operators),
        f"token          {record.token.label!r}, serial {record.token.serial}",
        f"               {record.token.model}, {record.token.firmware}; {record.token.library}",
        f"entropy        {record.entropy.host_bytes} bytes of the host, {record.entropy.token_bytes} of the token,",
        f"               {record.entropy.typed_characters} typed characters;",
        f"               the token's generator took ours too: {'yes' if record.entropy.token_seeded else 'no'}",
        "",
        facts_text(record.keyset, facts),
        f"attestation    {record.keyset.attestation_key}",
    ]
    if record.organisation is not None:
        lines.append(f"member         {record.member} of organisation {record.organisation}")
    lines += [
        "",
        f"backup         SLIP-39 identifier {backup.identifier}, any {backup.threshold} of {len(backup.shares)} shares",
        *(f"  share {held.index:<7}{held.holder}, fingerprint {held.fingerprint}" for held in backup.shares),
    ]
    if backup.wrapped is not None:
        lines.append(f"wrapped key    SHA-256 {backup.wrapped}")
    if record.quorum is not None:
        lines += [
            "",
            f"quorum         {record.quorum}",
            "               is the fingerprint of those who sign bundles; holders of offline keys type it when they",
            "               register the first one (strongroom-airgap register)",
        ]
    lines += ["", *_way_back(record)]
    if signed is not None:
        lines += ["", f"hash           {record.digest_hex()}"]
        lines += [f"signed         {one.operator}: {one.signature}" for one in signed.signatures]
        lines += [f"               attestation key: {signed.attestation}"]
        lines += ["", *("____________________  " + one.operator for one in signed.signatures)]
    return "\n".join(lines) + "\n"


def proof_text(proven: ProvenCeremony) -> str:
    """What a proof says, to be printed under its record."""
    proof = proven.proof
    return "\n".join(
        [
            f"PROVEN         {_time(proof.proven_at)}: restored from the shares of {', '.join(proof.holders)}",
            f"               to token {proof.token.label!r}, serial {proof.token.serial}, and destroyed there",
            f"compared       {', '.join(proof.compared)}",
            f"shares read    {', '.join(proof.checked)}",
            f"hash           {proof.digest_hex()}",
            *(f"signed         {one.operator}: {one.signature}" for one in proven.signatures),
            f"               attestation key: {proven.attestation}",
            "",
        ]
    )


def facts_of_record(record: CeremonyRecord) -> Facts:
    """The facts that a record states."""
    return Facts(record.public_key, record.fingerprints, record.descriptor, record.addresses)


def _way_back(record: CeremonyRecord) -> list[str]:
    """How the keys come back with standard tools alone."""
    lines = [
        "WITHOUT STRONGROOM",
        f"{record.backup.threshold} of the shares into `shamir recover` (pip install shamir-mnemonic[cli]), or into",
        "any other implementation of SLIP-39, without passphrase, give 32 bytes as hex.",
    ]
    if isinstance(record.keyset, EvmRecord):
        return [
            *lines,
            "They are the AES-256 key (SECRET) under which KEYSET.wrapped.json holds the key: its hex, made binary,",
            "is AES-KWP (RFC 5649) of PKCS#8 in DER. On an offline machine (-K shows in its list of processes):",
            "  openssl enc -d -id-aes256-wrap-pad -K SECRET -iv A65959A6 -in wrapped.bin -out key.der",
            "  openssl ec -inform DER -in key.der -text -noout",
            "prints the private key, which any wallet takes as hex.",
        ]
    return [
        *lines,
        "They are the entropy of a BIP39 wallet: its 24 words (no passphrase) go into any wallet that knows the",
        f"path m/{record.keyset.path}; the descriptor above says what the addresses are made of.",
    ]


def _addresses(addresses: tuple[FirstAddress, ...]) -> list[str]:
    return [f"address {f'{one.branch}/{one.index}':<7}{one.address}" for one in addresses]


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
