"""The journal's tables (SQLite). Nothing is ever deleted; only counts, resolutions and the clock's row are updated."""

from __future__ import annotations

from typing import Final

SCHEMA: Final = """
CREATE TABLE journal (id TEXT NOT NULL, format INTEGER NOT NULL);
CREATE TABLE batches (                    -- with how far everything had come, so that a start reads one row
    number INTEGER PRIMARY KEY, head BLOB NOT NULL, at INTEGER NOT NULL, signed INTEGER NOT NULL
);
CREATE TABLE log (
    number INTEGER PRIMARY KEY, at INTEGER NOT NULL, what TEXT NOT NULL, body BLOB NOT NULL, head TEXT NOT NULL
);
CREATE TABLE bundles (
    version INTEGER PRIMARY KEY, digest TEXT NOT NULL, signed BLOB NOT NULL, at INTEGER NOT NULL
);
CREATE TABLE freezes (
    officer TEXT NOT NULL, scope TEXT NOT NULL, bundle_version INTEGER NOT NULL,
    document BLOB NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (bundle_version, officer, scope)
) WITHOUT ROWID;
CREATE TABLE waiting (                    -- bundles of the quorum before they act; the last one counts
    number INTEGER PRIMARY KEY, version INTEGER NOT NULL, digest TEXT NOT NULL, signed BLOB NOT NULL,
    since INTEGER NOT NULL
);
CREATE TABLE vetoes (
    number INTEGER PRIMARY KEY, bundle TEXT NOT NULL, officer TEXT NOT NULL,
    bundle_version INTEGER NOT NULL,      -- in force when it came
    document BLOB NOT NULL, at INTEGER NOT NULL, UNIQUE (bundle, officer)
);
CREATE TABLE lowerings (
    number INTEGER PRIMARY KEY, officer TEXT NOT NULL, bundle_version INTEGER NOT NULL,
    document BLOB NOT NULL, at INTEGER NOT NULL
);
CREATE INDEX lowerings_by_version ON lowerings (bundle_version, number);
CREATE TABLE clock (only INTEGER PRIMARY KEY CHECK (only = 1), note BLOB NOT NULL, at INTEGER NOT NULL);
CREATE TABLE clock_confirmations (digest TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE transactions (
    chain TEXT NOT NULL, content TEXT NOT NULL, keyset TEXT NOT NULL, fee TEXT NOT NULL, fee_group TEXT NOT NULL,
    at INTEGER NOT NULL,
    outcome TEXT CHECK (outcome IN ('confirmed', 'dead')), resolved_at INTEGER,
    PRIMARY KEY (chain, content)
) WITHOUT ROWID;
CREATE INDEX transactions_open ON transactions (chain, content, keyset, at, outcome)
    WHERE outcome IS NULL;               -- whole, so that counting what waits reads nothing else
CREATE INDEX transactions_by_fee_group ON transactions (fee_group);
CREATE TABLE intents (id TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE transaction_intents (
    intent TEXT NOT NULL REFERENCES intents, chain TEXT NOT NULL, content TEXT NOT NULL,
    PRIMARY KEY (intent, chain, content), FOREIGN KEY (chain, content) REFERENCES transactions
) WITHOUT ROWID;
CREATE INDEX transaction_intents_by_content ON transaction_intents (chain, content);
CREATE TABLE transaction_resources (
    chain TEXT NOT NULL, content TEXT NOT NULL, resource TEXT NOT NULL,
    PRIMARY KEY (chain, content, resource), FOREIGN KEY (chain, content) REFERENCES transactions
) WITHOUT ROWID;
CREATE TABLE signatures (                 -- of keys that would not make the same one again
    chain TEXT NOT NULL, content TEXT NOT NULL, signature TEXT NOT NULL,
    PRIMARY KEY (chain, content), FOREIGN KEY (chain, content) REFERENCES transactions
) WITHOUT ROWID;
-- Largest units of each key, and since when it counts down. It has row ids for its index to grow at a few ends: without
-- them each new key would change other pages of it.
CREATE TABLE exposures (
    key TEXT NOT NULL, kind TEXT NOT NULL, scope TEXT NOT NULL, units TEXT NOT NULL,
    signed_at INTEGER NOT NULL,           -- latest version
    since INTEGER,                        -- null: open
    PRIMARY KEY (key, kind, scope)
);
CREATE INDEX exposures_that_count ON exposures (kind, scope, since);
CREATE TABLE high_marks (                 -- highest change index or nonce signed, and index paid to of `>TARGET`; text,
                                          -- for nonces are 64 bits wide
    keyset TEXT PRIMARY KEY, highest TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE resolved (                   -- when a verifier's word about a wallet's transactions was last taken
    keyset TEXT NOT NULL, chain TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (keyset, chain)
) WITHOUT ROWID;
CREATE TABLE attestations (
    keyset TEXT NOT NULL, branch INTEGER NOT NULL, number INTEGER NOT NULL,
    customer TEXT, asset TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (keyset, branch, number)
) WITHOUT ROWID;
CREATE TABLE ledger_heads (               -- heads of the ledger that were signed
    number INTEGER PRIMARY KEY, digest TEXT NOT NULL, day TEXT UNIQUE, at INTEGER NOT NULL
);
CREATE TABLE orders_seen (
    digest TEXT PRIMARY KEY, caller TEXT NOT NULL, expires_at INTEGER NOT NULL, at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX orders_seen_by_end ON orders_seen (expires_at, caller);
CREATE TABLE destinations_seen (
    chain TEXT NOT NULL, destination TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (chain, destination)
) WITHOUT ROWID;
"""
