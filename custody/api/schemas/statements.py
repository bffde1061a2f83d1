"""What single officers sign: freezes, lower numbers, vetoes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from custody.web.schemas import In, Out


class NewStatement(In):
    """A statement with its officer's signature. Who hands it in does not matter. Signers are told separately."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "kind": "freeze",
                    "statement": {
                        "v": 1,
                        "officer": "olga",
                        "scope": "customer:alice",
                        "bundle_version": 3,
                        "reason": "court order",
                        "issued_at": 1893456000,
                    },
                    "signature": "A" * 86 + "==",
                }
            ]
        }
    )

    kind: Literal["freeze", "lowering", "veto"]
    statement: dict[str, Any] = Field(description="The signed document (RFC 8785; its domain is its kind).")
    signature: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{86}==$")] = Field(
        description="Ed25519 over the statement's digest, base64."
    )


class StatementOut(Out):
    """A statement that was taken: it acts here within a second."""

    kind: str = Field(examples=["freeze"])
    digest: str = Field(description="Of the statement; the same again gives the same.")
    frozen: list[str] = Field(description="Scopes that officers have frozen, this one included.")
