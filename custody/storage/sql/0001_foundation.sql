-- The foundation: customers, addresses, chain facts, deposits, ledger, withdrawals, transactions, and the
-- roles that may touch them. Invariants that money depends on are enforced here, whatever the code does.

-- Functions name their search_path with pg_temp last: otherwise a role's own temporary table would be taken for
-- the real one (`CREATE TEMP TABLE lifecycle_edges`), and the check would check nothing.

------------------------------------------------------------------------------------------------ lifecycles
-- Which state may follow which. Filled by the migration from the tables in the code; a test compares both.
CREATE TABLE lifecycle_edges (
    lifecycle  text NOT NULL,
    from_state text NOT NULL,
    to_state   text NOT NULL,
    PRIMARY KEY (lifecycle, from_state, to_state)
);

CREATE FUNCTION guard_lifecycle() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.state <> OLD.state AND NOT EXISTS (
        SELECT 1 FROM lifecycle_edges
        WHERE lifecycle = TG_ARGV[0] AND from_state = OLD.state AND to_state = NEW.state
    ) THEN
        RAISE EXCEPTION '% %: % cannot become %', TG_ARGV[0], OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

-- Rows of history are written once. Owners of tables too must not edit them by accident.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;

------------------------------------------------------------------------------------------------- customers
CREATE TABLE customers (
    id         text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$' AND id <> 'house'),   -- that is us
    state      text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'frozen')),
    reason     text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE addresses (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chain       text NOT NULL,
    keyset      text NOT NULL,
    asset       text NOT NULL,
    customer_id text REFERENCES customers (id),          -- null: the house (change)
    purpose     text NOT NULL CHECK (purpose IN ('deposit', 'change')),
    branch      integer NOT NULL CHECK (branch >= 0),
    index       integer NOT NULL CHECK (index >= 0),     -- stored for ever, never used for another customer
    address     text NOT NULL,
    script      bytea NOT NULL,
    attestation text,                                    -- JSON {attestation, signature}; deposits always have one
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (chain, address),
    UNIQUE (chain, script),
    UNIQUE (keyset, branch, index),
    CHECK ((purpose = 'deposit') = (customer_id IS NOT NULL)),
    CHECK ((purpose = 'deposit') = (attestation IS NOT NULL))
);
CREATE INDEX ON addresses (customer_id, asset, id);

CREATE TABLE address_indexes (                            -- next free index of each branch
    keyset text NOT NULL,
    branch integer NOT NULL,
    next   integer NOT NULL DEFAULT 0 CHECK (next >= 0),
    PRIMARY KEY (keyset, branch)
);

----------------------------------------------------------------------------------------------- chain facts
-- What the monitor has committed of each best chain. One row a height: a reorg replaces rows in one commit.
CREATE TABLE blocks (
    chain       text NOT NULL,
    height      integer NOT NULL CHECK (height >= 0),
    hash        text NOT NULL CHECK (hash ~ '^[0-9a-f]{64}$'),
    previous    text NOT NULL CHECK (previous ~ '^[0-9a-f]{64}$'),
    observed_at timestamptz NOT NULL DEFAULT now(),
    native_mode text CHECK (native_mode IN ('trace', 'balance')), -- EVM: how native receipts were found, and so are named
    PRIMARY KEY (chain, height),
    UNIQUE (chain, hash)
);

CREATE TABLE cursors (
    chain      text PRIMARY KEY,
    height     integer NOT NULL,
    hash       text NOT NULL,
    anchor     integer NOT NULL,                          -- height from which confirmations count: BTC: the tip, EVM: finalised
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK (anchor <= height)
);

-- Value that arrived at our scripts in the best chain (BTC: one row an output; EVM: a log, a trace or a difference of
-- balances). Deleted when its block is undone.
CREATE TABLE receipts (
    chain      text NOT NULL,
    resource   text NOT NULL,                             -- see chains.ports.Receipt
    txid       text NOT NULL,
    address_id bigint NOT NULL REFERENCES addresses (id),
    asset      text NOT NULL,
    units      numeric(78, 0) NOT NULL CHECK (units >= 0),
    coinbase   boolean NOT NULL DEFAULT false,
    height     integer NOT NULL,
    block_hash text NOT NULL,
    PRIMARY KEY (chain, resource),
    FOREIGN KEY (chain, height) REFERENCES blocks (chain, height) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX ON receipts (chain, height);
CREATE INDEX ON receipts (address_id);

-- Our single-use resources that a mined transaction has used. Deleted when its block is undone.
CREATE TABLE consumptions (
    chain      text NOT NULL,
    resource   text NOT NULL,
    txid       text NOT NULL,
    content    text NOT NULL,                             -- hash without signatures: by it we know our own
    succeeded  boolean NOT NULL,
    fee_units  numeric(78, 0) CHECK (fee_units >= 0),     -- EVM: what it really paid; null where the version says it
    height     integer NOT NULL,
    block_hash text NOT NULL,
    PRIMARY KEY (chain, resource),
    FOREIGN KEY (chain, height) REFERENCES blocks (chain, height) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX ON consumptions (chain, height);
CREATE INDEX ON consumptions (chain, txid);
CREATE INDEX ON consumptions (chain, content);
CREATE INDEX ON consumptions (chain) WHERE NOT succeeded;   -- few: whoever plans a batch asks for the recent ones

-------------------------------------------------------------------------------------------------- deposits
CREATE TABLE deposits (
    id            uuid PRIMARY KEY,
    chain         text NOT NULL,
    resource      text NOT NULL,                          -- the deposit's one identity: credited at most once
    txid          text NOT NULL,
    address_id    bigint NOT NULL REFERENCES addresses (id),
    customer_id   text REFERENCES customers (id),         -- null: paid to a change address, booked to suspense
    asset         text NOT NULL,
    units         numeric(78, 0) NOT NULL CHECK (units > 0),
    state         text NOT NULL CHECK (state IN ('seen', 'confirming', 'credited', 'held', 'quarantined',
                      'below_minimum', 'swept', 'orphaned', 'clawed_back')),
    height        integer,                                -- of the block that has it; null while in none
    block_hash    text,
    confirmations integer NOT NULL CHECK (confirmations >= 1),   -- needed, fixed at first sight
    credits       integer NOT NULL DEFAULT 0,             -- times credited: names the ledger transfer
    source        text,                                   -- where it came from, for screening; null: nobody knows
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (chain, resource),
    CHECK ((height IS NULL) = (block_hash IS NULL)),
    CHECK (state NOT IN ('confirming', 'credited', 'swept', 'held', 'below_minimum') OR height IS NOT NULL)
);
CREATE INDEX ON deposits (chain, state);
CREATE INDEX ON deposits (customer_id, id);
CREATE INDEX ON deposits (address_id);
CREATE TRIGGER deposits_lifecycle BEFORE UPDATE OF state ON deposits
    FOR EACH ROW EXECUTE FUNCTION guard_lifecycle('deposit');

CREATE TABLE deposit_events (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deposit_id uuid NOT NULL REFERENCES deposits (id),
    event      text NOT NULL,
    from_state text NOT NULL,
    to_state   text NOT NULL,
    detail     jsonb NOT NULL DEFAULT '{}',
    at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON deposit_events (deposit_id);

---------------------------------------------------------------------------------------------------- ledger
-- Balances are credits minus debits: what we owe is positive, what we own (chain_assets) is negative, and per
-- asset the sum over all accounts is always zero. Balances change through lines only.
CREATE TABLE ledger_accounts (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id text REFERENCES customers (id),
    kind        text NOT NULL CHECK (kind IN ('available', 'frozen', 'trading',
                    'chain_assets', 'in_transit', 'fees_earned', 'network_fees', 'suspense')),
    asset       text NOT NULL,
    wallet      text NOT NULL DEFAULT '',                 -- key-set, for chain_assets and in_transit
    balance     numeric(78, 0) NOT NULL DEFAULT 0,
    last_seq    bigint NOT NULL DEFAULT 0,
    last_line   bigint NOT NULL DEFAULT 0,
    hash        bytea NOT NULL DEFAULT '' CHECK (length(hash) = 32),   -- of its last line; ledger_genesis before the first
    UNIQUE NULLS NOT DISTINCT (customer_id, kind, asset, wallet),
    CHECK ((customer_id IS NOT NULL) = (kind IN ('available', 'frozen', 'trading'))),
    CHECK (kind NOT IN ('available', 'frozen', 'trading', 'fees_earned') OR balance >= 0)
);

CREATE TABLE ledger_transfers (
    id           uuid PRIMARY KEY,                        -- chosen by the client
    kind         text NOT NULL CHECK (kind IN ('immediate', 'hold', 'post', 'void', 'reverse')),
    content_hash bytea NOT NULL CHECK (length(content_hash) = 32),
    parent_id    uuid REFERENCES ledger_transfers (id),   -- the hold of a post or void; what a reverse undoes
    reference    text NOT NULL DEFAULT '' CHECK (length(reference) <= 200),   -- e.g. withdrawal:ID, deposit:ID
    legs         integer NOT NULL CHECK (legs >= 2),      -- so many lines it has
    xid          xid8 NOT NULL DEFAULT pg_current_xact_id(),   -- its lines must come in the same transaction
    CHECK ((kind IN ('post', 'void', 'reverse')) = (parent_id IS NOT NULL))
);
CREATE INDEX ON ledger_transfers (reference);
CREATE UNIQUE INDEX ledger_transfers_reversed_once ON ledger_transfers (parent_id) WHERE kind = 'reverse';
CREATE UNIQUE INDEX ledger_transfers_voided_once ON ledger_transfers (parent_id) WHERE kind = 'void';

-- A hold is posted or voided at most once unless the post is reversed: the hold row below carries the truth.
CREATE TABLE ledger_holds (
    id          uuid PRIMARY KEY REFERENCES ledger_transfers (id),
    customer_id text NOT NULL REFERENCES customers (id),
    asset       text NOT NULL,
    units       numeric(78, 0) NOT NULL CHECK (units > 0),
    state       text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'posted', 'voided')),
    expires_at  timestamptz,
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER ledger_holds_lifecycle BEFORE UPDATE OF state ON ledger_holds
    FOR EACH ROW EXECUTE FUNCTION guard_lifecycle('hold');
CREATE INDEX ON ledger_holds (customer_id, asset) WHERE state = 'pending';

-- A line's id is (number of its batch) * 2^24 + its place there: drawn once the accounts are locked, so that an account's
-- lines have rising ids, and known before the line is written, as its hash covers it.
CREATE SEQUENCE ledger_batches;

-- ledger_apply checks that transfer and account exist, for all lines of a statement at once; a foreign key would do
-- so row by row, at half the speed. Neither can be deleted.
CREATE TABLE ledger_lines (
    id             bigint PRIMARY KEY,
    transfer_id    uuid NOT NULL,
    leg            integer NOT NULL CHECK (leg > 0),      -- 1, 2, 3 ... within the transfer
    account_id     bigint NOT NULL,
    seq            bigint NOT NULL CHECK (seq > 0),       -- 1, 2, 3 ... within the account, no gaps
    type           text NOT NULL CHECK (type IN ('deposit', 'withdrawal', 'trade_buy', 'trade_sell', 'fee',
                       'transfer', 'freeze', 'unfreeze', 'claw_back', 'network_fee', 'adjustment')),
    amount         numeric(78, 0) NOT NULL CHECK (amount <> 0),
    balance_before numeric(78, 0) NOT NULL,
    balance_after  numeric(78, 0) NOT NULL,
    -- Not now(): a transaction that waited for the account began before the line that precedes its own.
    at             timestamptz NOT NULL,
    hash           bytea NOT NULL,                        -- ledger_line_hash: over this line, its transfer, and the line before
    UNIQUE (transfer_id, leg),
    UNIQUE (account_id, seq),
    CHECK (balance_after = balance_before + amount)
);
-- What was paid to customers: how fast that goes says when a tier runs dry.
CREATE INDEX ON ledger_lines (at) WHERE type = 'withdrawal' AND amount > 0;
CREATE TRIGGER ledger_lines_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_lines
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_transfers_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_transfers
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Locks accounts in id order (so that batches never deadlock) without giving anyone UPDATE on balances.
CREATE FUNCTION ledger_lock(ids bigint[]) RETURNS SETOF ledger_accounts
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT * FROM ledger_accounts WHERE id = ANY (ids) ORDER BY id FOR UPDATE
$$;

-- The chain of an account's lines begins with whose account it is: 32 bytes, SHA-256.
CREATE FUNCTION ledger_genesis(a ledger_accounts) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT sha256(convert_to(concat_ws(E'\t', 'strongroom:ledger-account:v1', a.id, coalesce(a.customer_id, ''), a.kind,
        a.asset, a.wallet), 'UTF8'))
$$;
-- Then each line's hash covers the one before it, the line, and its transfer. custody/ledger/chain.py computes the same.
-- Fields are parted by tabs: only the last of them, a text of the caller's, may have one itself.
CREATE FUNCTION ledger_line_hash(previous bytea, l ledger_lines, t ledger_transfers) RETURNS bytea
LANGUAGE sql STABLE AS $$
    SELECT sha256(previous || convert_to(concat_ws(E'\t', l.id, l.account_id, l.seq, l.transfer_id, l.leg, l.type, l.amount,
        l.balance_before, l.balance_after, (extract(epoch FROM l.at) * 1000000)::bigint, t.kind,
        coalesce(t.parent_id::text, ''), encode(t.content_hash, 'hex'), t.legs, t.reference), 'UTF8'))
$$;

-- Applies a statement's lines to the balances, and refuses lines that do not add up. All lines of a transfer come in
-- one statement, in the transaction that made the transfer: later it takes no more.
-- A session keeps the plans, whatever number of rows they were first made for. So each query is written to go from the
-- new lines to single rows by index: a plan made for one line on an empty ledger stays good for thousands on a full one.
CREATE FUNCTION ledger_apply() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
DECLARE
    bad record;
    change record;
BEGIN
    -- Numbers and times are the database's own.
    SELECT min(id) >> 24 AS first, max(id) >> 24 AS last, min(at) AS earliest, max(at) AS latest INTO bad FROM fresh;
    IF bad.first <> currval('ledger_batches') OR bad.last <> bad.first
        OR bad.earliest < now() OR bad.latest > clock_timestamp() THEN
        RAISE EXCEPTION 'lines have numbers of no batch of this session, or another time' USING ERRCODE = 'check_violation';
    END IF;
    -- Legs of one transfer are distinct: as many as the highest of them are 1, 2, 3 ... without gaps.
    SELECT n.transfer_id, t.xid IS DISTINCT FROM pg_current_xact_id() AS foreign_to_it INTO bad
    FROM (SELECT transfer_id, count(*) AS lines, max(leg) AS last FROM fresh GROUP BY transfer_id) n
    LEFT JOIN LATERAL (SELECT x.xid, x.legs FROM ledger_transfers x WHERE x.id = n.transfer_id OFFSET 0) t ON true
    WHERE t.xid IS DISTINCT FROM pg_current_xact_id() OR t.legs <> n.lines OR n.last <> n.lines LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transfer % %', bad.transfer_id, CASE WHEN bad.foreign_to_it
            THEN 'was not made in this transaction' ELSE 'has another number of lines' END
            USING ERRCODE = 'check_violation';
    END IF;
    SELECT n.transfer_id, a.asset, sum(n.amount) AS total INTO bad
    FROM fresh n
    LEFT JOIN LATERAL (SELECT x.asset FROM ledger_accounts x WHERE x.id = n.account_id OFFSET 0) a ON true
    GROUP BY n.transfer_id, a.asset HAVING a.asset IS NULL OR sum(n.amount) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transfer % is out of balance by % %', bad.transfer_id, bad.total,
            coalesce(bad.asset, 'of an account that does not exist') USING ERRCODE = 'check_violation';
    END IF;
    -- By hand only what operators have recorded, between a customer and suspense.
    IF EXISTS (SELECT 1 FROM fresh WHERE type = 'adjustment') THEN
        SELECT n.transfer_id INTO bad FROM fresh n
        LEFT JOIN LATERAL (SELECT * FROM ledger_accounts x WHERE x.id = n.account_id OFFSET 0) a ON true
        LEFT JOIN LATERAL (SELECT * FROM adjustments x WHERE x.id = n.transfer_id OFFSET 0) j ON true
        GROUP BY n.transfer_id, j.id, j.xid, j.customer_id, j.asset, j.units
        HAVING bool_or(n.type = 'adjustment') AND (
            j.xid IS DISTINCT FROM pg_current_xact_id() OR count(*) <> 2
            OR NOT bool_and(n.type = 'adjustment' AND a.asset = j.asset AND (
                a.kind = 'available' AND a.customer_id = j.customer_id AND n.amount = j.units
                OR a.kind = 'suspense' AND n.amount = -j.units))) LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'adjustment % is not what operators have recorded', bad.transfer_id
                USING ERRCODE = 'insufficient_privilege';
        END IF;
    END IF;
    FOR change IN
        SELECT account_id, sum(amount) AS total, count(*) AS lines, min(seq) AS first_seq, max(seq) AS last_seq,
               min(id) AS first_line, max(id) AS last_line, min(balance_after) AS lowest,
               (array_agg(balance_before ORDER BY seq))[1] AS start, (array_agg(hash ORDER BY seq DESC))[1] AS hash,
               bool_and(continues) AS continues
        FROM (SELECT f.id, f.account_id, f.seq, f.amount, f.balance_before, f.balance_after, f.hash,
                     f.balance_before = lag(f.balance_after, 1, f.balance_before) OVER w
                         AND f.id > lag(f.id, 1, 0::bigint) OVER w
                         AND f.hash = ledger_line_hash(coalesce(lag(f.hash) OVER w,
                             (SELECT x.hash FROM ledger_accounts x WHERE x.id = f.account_id)), f, t) AS continues
              FROM fresh f
              CROSS JOIN LATERAL (SELECT * FROM ledger_transfers x WHERE x.id = f.transfer_id OFFSET 0) t
              WINDOW w AS (PARTITION BY f.account_id ORDER BY f.seq)) n
        GROUP BY account_id ORDER BY account_id
    LOOP
        -- Distinct numbers from the next one to the next plus their count have no gap.
        UPDATE ledger_accounts a SET balance = a.balance + change.total, last_seq = change.last_seq,
            last_line = change.last_line, hash = change.hash
        WHERE a.id = change.account_id AND change.continues AND a.balance = change.start
          AND change.first_seq = a.last_seq + 1 AND change.last_seq = a.last_seq + change.lines
          AND change.first_line > a.last_line
          AND (change.lowest >= 0 OR a.kind NOT IN ('available', 'frozen', 'trading', 'fees_earned'));
        IF NOT FOUND THEN
            RAISE EXCEPTION 'lines of account % do not continue its history, or take it below zero',
                change.account_id USING ERRCODE = 'check_violation';
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_lines_apply AFTER INSERT ON ledger_lines
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION ledger_apply();

-- Balances follow from lines, for owners of the table too: only ledger_apply, itself a trigger, may write them.
CREATE FUNCTION ledger_balances_follow() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF pg_trigger_depth() < 2 THEN
        RAISE EXCEPTION 'balances change through lines only' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_accounts_follow BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_accounts
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_balances_follow();

-- An account starts empty.
CREATE FUNCTION ledger_account_starts_empty() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.balance <> 0 OR NEW.last_seq <> 0 OR NEW.last_line <> 0 THEN
        RAISE EXCEPTION 'an account starts empty' USING ERRCODE = 'check_violation';
    END IF;
    NEW.hash := ledger_genesis(NEW);
    RETURN NEW;
END $$;
CREATE TRIGGER ledger_accounts_start_empty BEFORE INSERT ON ledger_accounts
    FOR EACH ROW EXECUTE FUNCTION ledger_account_starts_empty();

--------------------------------------------------------------------------------------- trading settlements
-- What the trading core has asked for: its requests verbatim, with the tokens that it signed over them. The ledger's trades
-- and moves between funding and trading rest on them, and the verifier reads them again.
CREATE TABLE trading_settlements (
    core          uuid NOT NULL,                          -- one journal of one trading core
    number        bigint NOT NULL CHECK (number > 0),     -- 1, 2, 3 ... of the core, no gaps
    first         bigint NOT NULL CHECK (first > 0),      -- sequences of the engine, both inclusive
    last          bigint NOT NULL CHECK (last >= first),
    complete      boolean NOT NULL,                       -- false: fills of sequence `last` go on in the next batch
    fill_sequence bigint NOT NULL CHECK (fill_sequence BETWEEN 0 AND last),   -- of the last fill so far; 0: none yet
    fill_index    integer NOT NULL CHECK (fill_index >= 0),
    fills         integer NOT NULL CHECK (fills >= 0),
    content_hash  bytea NOT NULL CHECK (length(content_hash) = 32),
    caller        text NOT NULL,
    document      text NOT NULL,                          -- body of the request
    token         text NOT NULL,                          -- canonical JSON, over the body's hash
    signature     text NOT NULL,                          -- of the token, base64
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid           xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (core, number),
    UNIQUE (core, content_hash)
);
CREATE INDEX ON trading_settlements (core, last);
CREATE INDEX ON trading_settlements (xid);

CREATE FUNCTION trading_settlement_continues() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    head trading_settlements;
BEGIN
    SELECT * INTO head FROM trading_settlements WHERE core = NEW.core ORDER BY number DESC LIMIT 1;
    IF NEW.number <> coalesce(head.number, 0) + 1
       OR NEW.first <> (CASE WHEN coalesce(head.complete, true) THEN coalesce(head.last, 0) + 1 ELSE head.last END)
       OR (NEW.fill_sequence, NEW.fill_index) < (coalesce(head.fill_sequence, 0), coalesce(head.fill_index, 0)) THEN
        RAISE EXCEPTION 'settlement % of core % does not follow the one before it', NEW.number, NEW.core
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER trading_settlements_continue BEFORE INSERT ON trading_settlements
    FOR EACH ROW EXECUTE FUNCTION trading_settlement_continues();

CREATE TABLE trading_transfers (
    id           uuid PRIMARY KEY,                        -- of the ledger transfer, too
    customer_id  text NOT NULL REFERENCES customers (id),
    asset        text NOT NULL,
    units        numeric(78, 0) NOT NULL CHECK (units > 0),
    target       text NOT NULL CHECK (target IN ('trading', 'funding')),
    caller       text NOT NULL,
    document     text NOT NULL,                           -- as above
    token        text NOT NULL,
    signature    text NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid          xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX ON trading_transfers (customer_id, id);
CREATE TRIGGER trading_settlements_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON trading_settlements
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER trading_transfers_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON trading_transfers
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The API asks; it never credits. What it may book is a customer's money going on hold, or back; and what the trading core
-- has asked for, in the transaction that records that: a customer's money going to his own trading account, or back, and
-- trades between trading accounts, in which the house takes fees and gives nothing.
CREATE FUNCTION ledger_lines_of_the_api() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
DECLARE
    bad record;
    settling boolean;
BEGIN
    IF session_user <> 'strongroom_api' THEN
        RETURN NULL;
    END IF;
    settling := EXISTS (SELECT 1 FROM trading_settlements WHERE xid = pg_current_xact_id());
    SELECT p.transfer_id INTO bad FROM (
        SELECT n.transfer_id, a.customer_id, a.asset, sum(n.amount) AS total,
               bool_and(a.kind IN ('available', 'frozen')) AS funding,
               bool_and(a.kind IN ('available', 'trading') AND n.type = 'transfer') AS own,
               sum(n.amount) FILTER (WHERE a.kind = 'trading') AS moved,
               bool_and(a.kind IN ('trading', 'fees_earned') AND n.type IN ('trade_buy', 'trade_sell', 'fee')) AS trading
        FROM fresh n
        CROSS JOIN LATERAL (SELECT * FROM ledger_accounts x WHERE x.id = n.account_id OFFSET 0) a
        GROUP BY n.transfer_id, a.customer_id, a.asset
    ) p
    LEFT JOIN LATERAL (SELECT * FROM trading_transfers m
                       WHERE m.id = p.transfer_id AND m.xid = pg_current_xact_id() OFFSET 0) m ON true
    GROUP BY p.transfer_id
    HAVING NOT coalesce(bool_and(p.funding AND p.total = 0), false)
       AND NOT coalesce(bool_and(p.own AND p.total = 0 AND p.customer_id = m.customer_id AND p.asset = m.asset
                                 AND p.moved = CASE m.target WHEN 'trading' THEN m.units ELSE -m.units END), false)
       AND NOT (settling AND coalesce(bool_and(p.trading AND (p.customer_id IS NOT NULL OR p.total > 0)), false))
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'strongroom_api may only freeze and unfreeze, and book what the trading core has asked for: transfer %',
            bad.transfer_id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_lines_api AFTER INSERT ON ledger_lines
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION ledger_lines_of_the_api();

-- Where the chains of all accounts ended at one moment: each head continues the one before, and a signer signs it, which
-- signs no other one of its number. It is recorded here first: signed is what is recorded.
CREATE TABLE ledger_heads (
    number    bigint PRIMARY KEY CHECK (number > 0),      -- 1, 2, 3 ... no gaps
    at        timestamptz NOT NULL,
    day       date UNIQUE,                                -- that it closes; null: a head in between
    lines     bigint NOT NULL,                            -- in all, up to here
    document  text NOT NULL,                              -- what is signed, canonical JSON (signers.ports.LedgerHead)
    digest    text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
    keyset    text,                                       -- whose attestation key has signed
    signature text,
    CHECK ((keyset IS NULL) = (signature IS NULL))
);
CREATE TABLE ledger_head_accounts (                       -- the accounts that have lines since the head before
    head       bigint NOT NULL REFERENCES ledger_heads (number),
    account_id bigint NOT NULL,
    seq        bigint NOT NULL,                           -- of its last line
    hash       bytea NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (account_id, seq)
);
CREATE INDEX ON ledger_head_accounts (head);
CREATE FUNCTION ledger_heads_stay() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF OLD.signature IS NOT NULL
        OR (NEW.number, NEW.at, NEW.day, NEW.lines, NEW.document, NEW.digest)
            IS DISTINCT FROM (OLD.number, OLD.at, OLD.day, OLD.lines, OLD.document, OLD.digest) THEN
        RAISE EXCEPTION 'a head stays as it was recorded, and is signed once' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER ledger_heads_stay BEFORE UPDATE ON ledger_heads FOR EACH ROW EXECUTE FUNCTION ledger_heads_stay();
CREATE TRIGGER ledger_heads_append_only BEFORE DELETE OR TRUNCATE ON ledger_heads
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_head_accounts_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_head_accounts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

----------------------------------------------------------------------------------------------- withdrawals
CREATE TABLE transactions (                               -- one on-chain effect of ours, in all its versions
    id         uuid PRIMARY KEY,
    chain      text NOT NULL,
    keyset     text NOT NULL,
    kind       text NOT NULL,                             -- as Intent.kind
    state      text NOT NULL CHECK (state IN ('built', 'broadcast', 'contested', 'confirming', 'final', 'refused',
                                      'dead')),
    confirmed_txid text,                                  -- the version in the best chain
    height     integer,
    block_hash text,
    change_index integer CHECK (change_index >= 0),       -- of its change address, if it has one
    finalisations integer NOT NULL DEFAULT 0,             -- times final: names the ledger transfer of its fee
    last_error text NOT NULL DEFAULT '',
    rebroadcast_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((height IS NULL) = (block_hash IS NULL))
);
CREATE INDEX ON transactions (chain, state);
-- A change address serves one transaction; that of a refused one, which was never signed, is used again.
CREATE UNIQUE INDEX ON transactions (keyset, change_index) WHERE state <> 'refused';
CREATE TRIGGER transactions_lifecycle BEFORE UPDATE OF state ON transactions
    FOR EACH ROW EXECUTE FUNCTION guard_lifecycle('transaction');

CREATE TABLE transaction_versions (                       -- v1, and replacements that conflict with every earlier one
    transaction_id uuid NOT NULL REFERENCES transactions (id),
    version        integer NOT NULL CHECK (version >= 1),
    request        text NOT NULL,                         -- the signing request, verbatim: a retry sends the same
    unsigned       bytea NOT NULL,
    content        text NOT NULL,                         -- hash of it without signatures; BTC: the txid
    resources      text[] NOT NULL CHECK (cardinality(resources) > 0),   -- what it uses: outpoints, or sender:nonce
    signed         bytea,
    txid           text UNIQUE,
    fee_units      numeric(78, 0) NOT NULL CHECK (fee_units >= 0),       -- EVM: at most; the block says what it was
    feerate        bigint NOT NULL CHECK (feerate >= 0),  -- BTC: sat/kvB; EVM: wei per gas at most
    size           bigint NOT NULL CHECK (size > 0),      -- BTC: vB; EVM: gas limit
    state          text NOT NULL DEFAULT 'built' CHECK (state IN ('built', 'signed', 'refused')),
    created_at     timestamptz NOT NULL DEFAULT now(),
    signed_at      timestamptz,
    PRIMARY KEY (transaction_id, version),
    CHECK ((state = 'signed') = (signed IS NOT NULL)),
    CHECK ((signed IS NULL) = (txid IS NULL))
);
-- What a signer refused was never signed, and may be built again just the same.
CREATE UNIQUE INDEX ON transaction_versions (content) WHERE state <> 'refused';
CREATE INDEX ON transaction_versions (content);
CREATE INDEX ON transaction_versions (created_at) WHERE state = 'refused';
CREATE INDEX ON transaction_versions USING gin (resources);      -- who else uses this coin or nonce?
-- Signed bytes are never changed: what was recorded is what is sent.
CREATE FUNCTION signed_bytes_stay() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF OLD.signed IS NOT NULL AND (NEW.signed IS DISTINCT FROM OLD.signed OR NEW.txid IS DISTINCT FROM OLD.txid)
       OR NEW.unsigned <> OLD.unsigned OR NEW.request <> OLD.request OR NEW.content <> OLD.content
       OR NEW.resources <> OLD.resources THEN
        RAISE EXCEPTION 'a version''s bytes never change' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER transaction_versions_stay BEFORE UPDATE ON transaction_versions
    FOR EACH ROW EXECUTE FUNCTION signed_bytes_stay();

-- Signatures of a vault's members over one version: their daemons give them, or holders bring them as files.
CREATE TABLE signing_sessions (
    id             uuid PRIMARY KEY,
    transaction_id uuid NOT NULL,
    version        integer NOT NULL,
    wallet         text NOT NULL,                         -- the vault
    threshold      integer NOT NULL CHECK (threshold >= 2),
    members        integer NOT NULL CHECK (members >= threshold),
    state          text NOT NULL CHECK (state IN ('open', 'collecting', 'complete', 'expired', 'refused')),
    expires_at     timestamptz NOT NULL,                  -- no member signs afterwards
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (transaction_id, version),
    FOREIGN KEY (transaction_id, version) REFERENCES transaction_versions (transaction_id, version)
);
CREATE INDEX ON signing_sessions (wallet, state);
CREATE TRIGGER signing_sessions_lifecycle BEFORE UPDATE OF state ON signing_sessions
    FOR EACH ROW EXECUTE FUNCTION guard_lifecycle('signing');

CREATE TABLE session_members (                            -- written before a member is asked: it may have signed since
    session_id  uuid NOT NULL REFERENCES signing_sessions (id),
    member      text NOT NULL,                            -- cosigner or owner of the vault
    source      text NOT NULL CHECK (source IN ('daemon', 'file')),
    asked_at    timestamptz NOT NULL DEFAULT now(),
    response    text,                                     -- its signatures, verified (JSON SignResponse)
    answered_at timestamptz,
    refused     text NOT NULL DEFAULT '',                 -- its own word that it has not signed, and why
    PRIMARY KEY (session_id, member),
    CHECK (response IS NULL OR refused = ''),
    CHECK ((response IS NULL) = (answered_at IS NULL))
);
-- What a member has signed stays signed.
CREATE FUNCTION member_signatures_stay() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF OLD.response IS NOT NULL AND NEW.response IS DISTINCT FROM OLD.response THEN
        RAISE EXCEPTION 'a member''s signatures never change' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER session_members_stay BEFORE UPDATE ON session_members
    FOR EACH ROW EXECUTE FUNCTION member_signatures_stay();

-- That a cold vault was tried out before real money went to it: `strongroom cold prove`. Of another form of the vault (other
-- keys, threshold or address) nothing is proven.
CREATE TABLE vault_proofs (
    wallet         text NOT NULL,
    digest         text NOT NULL,                         -- of what the bundle says of its keys, threshold and address
    transaction_id uuid NOT NULL REFERENCES transactions (id),   -- a payment out that its holders signed offline
    told           jsonb NOT NULL,                        -- each step, and what was found
    proven_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (wallet, digest)
);
CREATE TRIGGER vault_proofs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON vault_proofs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE reservations (                               -- one resource, one transaction: the database refuses a second
    chain          text NOT NULL,
    resource       text NOT NULL,
    transaction_id uuid NOT NULL REFERENCES transactions (id),
    PRIMARY KEY (chain, resource)
);
CREATE INDEX ON reservations (transaction_id);

-- EVM: one row a sender. The counter is ours; a node's word on it may be stale (LESSONS). The row is the lock under which
-- a nonce is taken: the lowest one that is neither reserved nor used.
CREATE TABLE nonces (
    chain  text NOT NULL,
    sender text NOT NULL,                                 -- lower case, as in resources
    first  bigint NOT NULL CHECK (first >= 0),            -- what the chain said when we began
    PRIMARY KEY (chain, sender)
);

-- EVM: which transaction of a gas payer carries out which transaction of a Safe. One at a time: the next attempt is made
-- when the one before is dead, or was refused.
CREATE TABLE executions (
    transaction_id uuid PRIMARY KEY REFERENCES transactions (id),
    serves         uuid NOT NULL REFERENCES transactions (id),
    attempt        integer NOT NULL CHECK (attempt >= 1),
    UNIQUE (serves, attempt)
);

-- Money of ours that moves between our own addresses: forwarders to the treasury, many coins into one, and what a key-set
-- that is no longer active holds to the one that follows it.
CREATE TABLE sweeps (
    id             uuid PRIMARY KEY,                      -- of its intent, too
    chain          text NOT NULL,
    keyset         text NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('sweep', 'consolidation', 'rotation')),
    state          text NOT NULL CHECK (state IN ('planned', 'signing', 'broadcast', 'confirmed', 'abandoned')),
    reason         text NOT NULL DEFAULT '',
    decision       jsonb,                                 -- of the policy: facts and outcome for each asset
    transaction_id uuid REFERENCES transactions (id),
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON sweeps (chain, state);
CREATE INDEX ON sweeps (transaction_id);
CREATE TRIGGER sweeps_lifecycle BEFORE UPDATE OF state ON sweeps
    FOR EACH ROW EXECUTE FUNCTION guard_lifecycle('sweep');
CREATE TABLE sweep_items (                                -- what it empties: an address, of which assets
    sweep_id   uuid NOT NULL REFERENCES sweeps (id),
    address_id bigint NOT NULL REFERENCES addresses (id),
    asset      text NOT NULL,
    units      numeric(78, 0) NOT NULL CHECK (units >= 0), -- expected; what is there when it is mined is swept
    open       boolean NOT NULL DEFAULT true,             -- until its sweep has ended, and we have looked at what it left;
                                                          -- never where coins are reserved one by one (BTC)
    left_behind boolean NOT NULL DEFAULT false,           -- EVM: mined and successful, and yet nothing of it moved
    PRIMARY KEY (sweep_id, address_id, asset)
);
CREATE UNIQUE INDEX ON sweep_items (address_id, asset) WHERE open;   -- one sweep at a time for one address and asset
CREATE INDEX ON sweep_items (address_id);
CREATE TABLE sweep_events (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sweep_id   uuid NOT NULL REFERENCES sweeps (id),
    event      text NOT NULL,
    from_state text NOT NULL,
    to_state   text NOT NULL,
    detail     jsonb NOT NULL DEFAULT '{}',
    at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON sweep_events (sweep_id);

-- What each version of a rotation moves from one wallet into another: a replacement pays its higher fee out of it.
CREATE TABLE rotations (
    transaction_id uuid NOT NULL,
    version        integer NOT NULL,
    target         text NOT NULL,                         -- key-set that gets it
    asset          text NOT NULL,
    units          numeric(78, 0) NOT NULL CHECK (units > 0),
    PRIMARY KEY (transaction_id, version),
    FOREIGN KEY (transaction_id, version) REFERENCES transaction_versions (transaction_id, version)
);

-- EVM: what the node has at a finalised block beyond (+) or below (-) what our facts explain, once it is booked: money
-- that came by no way we watch, fees that a token took in transfers, what a stranger moved with our key.
CREATE TABLE variances (
    id         uuid PRIMARY KEY,                          -- of its number in the wallet; of its ledger transfer, too
    chain      text NOT NULL,
    keyset     text NOT NULL,
    asset      text NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('surplus', 'token_fee', 'loss', 'flushed')),
    units      numeric(78, 0) NOT NULL CHECK (units <> 0),
    height     integer NOT NULL,                          -- of the finalised block at which it was found
    block_hash text NOT NULL,
    state      text NOT NULL DEFAULT 'booked' CHECK (state IN ('booked', 'undone')),   -- undone: that block is gone
    at         timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK (kind = 'flushed' OR (kind = 'surplus') = (units > 0))
);
CREATE INDEX ON variances (chain, keyset, asset);

CREATE TABLE losses (                                     -- coins of ours that a stranger's final transaction has used
    chain      text NOT NULL,
    resource   text NOT NULL,
    keyset     text NOT NULL,
    asset      text NOT NULL,
    units      numeric(78, 0) NOT NULL CHECK (units > 0),
    txid       text NOT NULL,                             -- the foreign transaction
    height     integer NOT NULL,
    state      text NOT NULL DEFAULT 'booked' CHECK (state IN ('booked', 'undone')),
    bookings   integer NOT NULL DEFAULT 1 CHECK (bookings >= 1),   -- times booked: names the ledger transfer
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chain, resource)
);

CREATE TABLE withdrawals (
    id              uuid PRIMARY KEY,                     -- the order's id
    caller          text NOT NULL,
    customer_id     text NOT NULL REFERENCES customers (id),
    chain           text NOT NULL,
    asset           text NOT NULL,
    destination     text NOT NULL,
    units           numeric(78, 0) NOT NULL CHECK (units > 0),
    fee_units       numeric(78, 0) NOT NULL CHECK (fee_units >= 0),   -- what the customer pays
    order_json      text NOT NULL,                        -- the signed order, verbatim
    order_signature text NOT NULL,
    order_hash      text NOT NULL UNIQUE,
    state           text NOT NULL CHECK (state IN ('requested', 'screening', 'awaiting_approval', 'cooling',
                        'queued', 'building', 'signing', 'broadcast', 'confirming', 'settled',
                        'rejected', 'cancelled', 'expired', 'failed')),
    reason          text NOT NULL DEFAULT '',             -- why it waits, or why it ended
    tier            text,
    decision        jsonb,                                -- facts and outcome of the policy, as decided
    policy_version  bigint,                               -- of the bundle under which it was decided; 0: to be decided again
    unheard         boolean NOT NULL DEFAULT false,       -- something was said in `approvals` that nobody has counted
    approved_until  timestamptz,                          -- then its approvals are too few; null: nobody is asked
    settlement      text CHECK (settlement IN ('chain', 'internal')),
    transaction_id  uuid REFERENCES transactions (id),    -- the one transaction that serves it
    settlements     integer NOT NULL DEFAULT 0,           -- times settled: names the ledger transfer
    screened_at     timestamptz,                          -- when screening last had nothing against its destination
    not_before      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON withdrawals (state, not_before);
CREATE INDEX ON withdrawals (policy_version) WHERE state IN ('awaiting_approval', 'cooling', 'queued');
CREATE INDEX ON withdrawals (approved_until) WHERE state IN ('cooling', 'queued') AND approved_until IS NOT NULL;
CREATE INDEX ON withdrawals (created_at, id) WHERE unheard;
CREATE INDEX ON withdrawals (customer_id, id);
CREATE INDEX ON withdrawals (transaction_id);
CREATE INDEX ON withdrawals (customer_id, chain, destination)
    WHERE state IN ('awaiting_approval', 'cooling', 'queued', 'building', 'signing');
CREATE INDEX ON withdrawals (chain, expires_at)          -- what signers may be shown early
    WHERE state IN ('awaiting_approval', 'cooling', 'queued', 'rejected');
CREATE TRIGGER withdrawals_lifecycle BEFORE UPDATE OF state ON withdrawals
    FOR EACH ROW EXECUTE FUNCTION guard_lifecycle('withdrawal');

-- The API asks and cancels; it neither routes nor decides. So a stolen API cannot walk a withdrawal past the policy.
CREATE FUNCTION withdrawals_of_the_api() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    -- current_user: what happens to a withdrawal because a whitelist's entry was removed is the owner's doing.
    IF current_user = 'strongroom_api'
       AND NEW.state <> (CASE TG_OP WHEN 'INSERT' THEN 'requested' ELSE 'cancelled' END) THEN
        RAISE EXCEPTION 'strongroom_api may request and cancel withdrawals only, not make them %', NEW.state
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER withdrawals_api BEFORE INSERT OR UPDATE ON withdrawals
    FOR EACH ROW EXECUTE FUNCTION withdrawals_of_the_api();

-- Nor does it ask for a payment whose money is not held, or let go of money that may be paid out: without this, a
-- stolen API and a customer would be paid on the chain and keep the balance.
CREATE FUNCTION held_for(withdrawal withdrawals) RETURNS numeric   -- of the holds whose money really was frozen
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT coalesce(sum(l.amount), 0)
    FROM ledger_transfers t JOIN ledger_holds h ON h.id = t.id AND h.state = 'pending'
    JOIN ledger_lines l ON l.transfer_id = t.id
    JOIN ledger_accounts a ON a.id = l.account_id AND a.kind = 'frozen'
    WHERE t.reference = 'withdrawal:' || withdrawal.id AND t.kind = 'hold'
      AND h.customer_id = withdrawal.customer_id AND h.asset = withdrawal.asset
      AND a.customer_id = withdrawal.customer_id AND a.asset = withdrawal.asset AND l.amount = h.units
$$;
CREATE FUNCTION withdrawal_is_held() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF session_user = 'strongroom_api' AND NOT EXISTS (
        SELECT 1 FROM withdrawals w
        WHERE w.id = NEW.id AND (w.state = 'cancelled' OR held_for(w) >= w.units + w.fee_units)
    ) THEN
        RAISE EXCEPTION 'withdrawal %: the money for it is not held', NEW.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER withdrawals_held AFTER INSERT ON withdrawals DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION withdrawal_is_held();

CREATE FUNCTION api_gives_back() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE bad record;
BEGIN
    IF session_user <> 'strongroom_api' THEN
        RETURN NULL;
    END IF;
    SELECT b.transfer_id INTO bad FROM (
        SELECT n.transfer_id, a.customer_id, a.asset, sum(n.amount) AS amount
        FROM fresh n JOIN ledger_accounts a ON a.id = n.account_id AND a.kind = 'available'
        WHERE n.amount > 0 GROUP BY n.transfer_id, a.customer_id, a.asset
    ) b
    WHERE NOT EXISTS (
        SELECT 1 FROM ledger_transfers t JOIN ledger_transfers h ON h.id = t.parent_id
        JOIN withdrawals w ON h.reference = 'withdrawal:' || w.id
        WHERE t.id = b.transfer_id AND t.kind = 'void' AND w.state = 'cancelled'
          AND w.customer_id = b.customer_id AND w.asset = b.asset AND held_for(w) >= b.amount
    ) AND NOT EXISTS (                                    -- the customer's own, out of his trading account
        SELECT 1 FROM trading_transfers m
        WHERE m.id = b.transfer_id AND m.xid = pg_current_xact_id() AND m.target = 'funding'
          AND m.customer_id = b.customer_id AND m.asset = b.asset AND m.units = b.amount
    ) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'strongroom_api may give back only what a cancelled withdrawal held: transfer %', bad.transfer_id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_lines_gives_back AFTER INSERT ON ledger_lines
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION api_gives_back();

CREATE FUNCTION holds_of_the_api() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF session_user = 'strongroom_api' AND NOT (NEW.state = 'voided' AND EXISTS (
        SELECT 1 FROM ledger_transfers v JOIN ledger_transfers t ON t.id = v.parent_id
        JOIN withdrawals w ON t.reference = 'withdrawal:' || w.id
        WHERE v.parent_id = NEW.id AND v.kind = 'void' AND v.xid = pg_current_xact_id() AND w.state = 'cancelled'
    )) THEN
        RAISE EXCEPTION 'strongroom_api may void only the hold of a cancelled withdrawal, not make % %', NEW.id, NEW.state
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER ledger_holds_api BEFORE UPDATE ON ledger_holds
    FOR EACH ROW EXECUTE FUNCTION holds_of_the_api();

-- Money that moves between our wallets: need up, excess down (custody/treasury). What people approve is fixed from the
-- first: amount, wallets and address.
CREATE TABLE refills (
    id             uuid PRIMARY KEY,                      -- of its intent, too
    chain          text NOT NULL,
    asset          text NOT NULL,
    source         text NOT NULL,                         -- wallet of the bundle that signs
    tier           text NOT NULL,                         -- of the source
    target         text NOT NULL CHECK (target <> source),
    destination    text NOT NULL,                         -- address of the target
    place          integer CHECK (place >= 0),            -- BTC: its index on branch 1
    units          numeric(78, 0) NOT NULL CHECK (units > 0),   -- what arrives
    why            text NOT NULL CHECK (why IN ('need', 'low', 'excess', 'gas', 'asked')),
    about          text NOT NULL,                         -- why, for people
    proposed_by    text NOT NULL,                         -- `house`, or an operator
    state          text NOT NULL CHECK (state IN ('proposed', 'approved', 'signing', 'broadcast', 'confirmed',
                                          'declined')),
    reason         text NOT NULL DEFAULT '',              -- why it waits, or why it ended
    decision       jsonb NOT NULL,                        -- facts and outcome of the policy
    policy_version bigint NOT NULL,                       -- of the bundle under which it was decided
    unheard        boolean NOT NULL DEFAULT false,        -- something was said in `approvals` that nobody has counted
    approved_until timestamptz,                           -- then its approvals are too few; null: nobody is asked
    not_before     timestamptz NOT NULL DEFAULT now(),
    transaction_id uuid REFERENCES transactions (id),
    previous       uuid REFERENCES refills (id),          -- newest of the same way that its proposer knew of
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    -- Of two workers that want the same at once, one proposes it.
    UNIQUE NULLS NOT DISTINCT (source, target, asset, previous)
);
CREATE INDEX ON refills (state);
CREATE INDEX ON refills (transaction_id);
CREATE INDEX ON refills (target, place) WHERE place IS NOT NULL;
CREATE TRIGGER refills_lifecycle BEFORE UPDATE OF state ON refills
    FOR EACH ROW EXECUTE FUNCTION guard_lifecycle('refill');
CREATE FUNCTION refill_stays() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF (OLD.id, OLD.chain, OLD.asset, OLD.source, OLD.tier, OLD.target, OLD.destination, OLD.place, OLD.units,
        OLD.policy_version, OLD.previous) IS DISTINCT FROM
       (NEW.id, NEW.chain, NEW.asset, NEW.source, NEW.tier, NEW.target, NEW.destination, NEW.place, NEW.units,
        NEW.policy_version, NEW.previous) THEN
        RAISE EXCEPTION 'refill %: what people are asked about stays', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refills_stay BEFORE UPDATE ON refills FOR EACH ROW EXECUTE FUNCTION refill_stays();
CREATE TABLE refill_events (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    refill_id  uuid NOT NULL REFERENCES refills (id),
    event      text NOT NULL,
    from_state text NOT NULL,
    to_state   text NOT NULL,
    detail     jsonb NOT NULL DEFAULT '{}',
    at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON refill_events (refill_id);

-- What each wallet held at the end of each day, or holds today: for people who look back.
CREATE TABLE tier_levels (
    wallet text NOT NULL,
    asset  text NOT NULL,
    day    date NOT NULL,                                 -- UTC
    units  numeric(78, 0) NOT NULL,
    PRIMARY KEY (wallet, asset, day)
);

-- What each operation that was let through (withdrawal, sweep, refill) adds to which rolling window of the policy: while
-- it is unpaid, and for the window's length after it was settled.
CREATE TABLE policy_counts (
    operation_id  uuid NOT NULL,
    rule          text NOT NULL,
    bucket        text NOT NULL,
    amount        numeric(78, 0) NOT NULL CHECK (amount >= 0),
    settled_at    timestamptz,
    PRIMARY KEY (operation_id, rule, bucket)
);
CREATE INDEX ON policy_counts (rule, bucket, settled_at);
CREATE FUNCTION operation_counts() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.state IN ('rejected', 'cancelled', 'expired', 'failed', 'requested', 'screening', 'abandoned', 'declined') THEN
        DELETE FROM policy_counts WHERE operation_id = NEW.id;
    ELSIF NEW.state IN ('settled', 'confirmed') OR OLD.state IN ('settled', 'confirmed') THEN
        UPDATE policy_counts SET settled_at = CASE WHEN NEW.state IN ('settled', 'confirmed') THEN now() END
        WHERE operation_id = NEW.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER withdrawals_counts AFTER UPDATE OF state ON withdrawals
    FOR EACH ROW WHEN (NEW.state IS DISTINCT FROM OLD.state) EXECUTE FUNCTION operation_counts();
CREATE TRIGGER sweeps_counts AFTER UPDATE OF state ON sweeps
    FOR EACH ROW WHEN (NEW.state IS DISTINCT FROM OLD.state) EXECUTE FUNCTION operation_counts();
CREATE TRIGGER refills_counts AFTER UPDATE OF state ON refills
    FOR EACH ROW WHEN (NEW.state IS DISTINCT FROM OLD.state) EXECUTE FUNCTION operation_counts();
-- By which rules the rows are counted: another policy counts them anew before it decides.
CREATE TABLE policy_counting (
    single         boolean PRIMARY KEY DEFAULT true CHECK (single),
    rules          text NOT NULL CHECK (rules ~ '^[0-9a-f]{64}$'),
    bundle_version bigint NOT NULL,
    since          timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE withdrawal_events (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    withdrawal_id uuid NOT NULL REFERENCES withdrawals (id),
    event         text NOT NULL,
    from_state    text NOT NULL,
    to_state      text NOT NULL,
    detail        jsonb NOT NULL DEFAULT '{}',
    at            timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON withdrawal_events (withdrawal_id);

-- What people have signed about withdrawals and refills (custody/approvals). Whoever reads a row checks its signature.
CREATE TABLE approvals (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest        text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),      -- of the document
    withdrawal_id uuid REFERENCES withdrawals (id),
    refill_id     uuid REFERENCES refills (id),
    intent_hash   text NOT NULL CHECK (intent_hash ~ '^[0-9a-f]{64}$'),
    document      text NOT NULL CHECK (length(document) <= 1500),       -- the approval, verbatim
    signature     text NOT NULL CHECK (length(signature) <= 2500),      -- JSON of its signature or assertion
    content       bytea NOT NULL UNIQUE,                                -- hash of all of the above: once for ever
    at            timestamptz NOT NULL DEFAULT now(),
    CHECK (num_nonnulls(withdrawal_id, refill_id) = 1)
);
CREATE INDEX ON approvals (digest);
CREATE INDEX ON approvals (withdrawal_id);
CREATE INDEX ON approvals (refill_id);
CREATE INDEX ON approvals (intent_hash, id);
-- An answer is there already if all of it is: who stores its document with another signature, or for another withdrawal,
-- must not keep the true one out.
CREATE FUNCTION approval_content() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    NEW.content := sha256(convert_to(
        jsonb_build_array(NEW.digest, NEW.withdrawal_id, NEW.refill_id, NEW.intent_hash, NEW.document,
                          NEW.signature)::text, 'UTF8'));
    RETURN NEW;
END $$;
CREATE TRIGGER approvals_content BEFORE INSERT ON approvals
    FOR EACH ROW EXECUTE FUNCTION approval_content();
-- Whoever adds one may not change withdrawals; so the database itself notes that somebody has to count it.
CREATE FUNCTION approval_is_unheard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE withdrawals SET unheard = true WHERE id = NEW.withdrawal_id;
    UPDATE refills SET unheard = true WHERE id = NEW.refill_id;
    RETURN NULL;
END $$;
CREATE TRIGGER approvals_unheard AFTER INSERT ON approvals
    FOR EACH ROW EXECUTE FUNCTION approval_is_unheard();
CREATE TRIGGER approvals_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON approvals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

--------------------------------------------------------------------------------------------- screening: cases
-- What screening found about a deposit or a withdrawal, until a person has decided about it (custody/screening/cases.py).
CREATE TABLE cases (
    id          uuid PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('deposit', 'withdrawal')),
    subject     uuid NOT NULL,                            -- the deposit's or withdrawal's id
    chain       text NOT NULL,
    address     text NOT NULL,                            -- the destination, or our address that was paid
    findings    jsonb NOT NULL CHECK (jsonb_array_length(findings) > 0),
    state       text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'released', 'refused')),
    resolution  text NOT NULL DEFAULT '',                 -- why it was decided so
    resolved_by text NOT NULL DEFAULT '',
    opened_at   timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    CHECK (state = 'open' OR (resolved_at IS NOT NULL AND resolution <> '' AND resolved_by <> ''))
);
CREATE UNIQUE INDEX ON cases (kind, subject) WHERE state = 'open';   -- one open case for one subject
CREATE INDEX ON cases (kind, subject);
CREATE INDEX ON cases (state, id);
CREATE TRIGGER cases_lifecycle BEFORE UPDATE OF state ON cases
    FOR EACH ROW EXECUTE FUNCTION guard_lifecycle('case');
-- What was found, and what was decided, is written once.
CREATE FUNCTION case_stays() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF OLD.state <> 'open' AND NEW IS DISTINCT FROM OLD
       OR (OLD.id, OLD.kind, OLD.subject, OLD.chain, OLD.address, OLD.findings, OLD.opened_at)
            IS DISTINCT FROM (NEW.id, NEW.kind, NEW.subject, NEW.chain, NEW.address, NEW.findings, NEW.opened_at) THEN
        RAISE EXCEPTION 'a case is decided once, and nothing else of it changes' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER cases_stay BEFORE UPDATE ON cases FOR EACH ROW EXECUTE FUNCTION case_stays();
CREATE TRIGGER cases_kept BEFORE DELETE OR TRUNCATE ON cases
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What providers said about a withdrawal or a deposit, by which version of their lists, whenever it was not what they had
-- said before (custody/screening/verdicts.py).
CREATE TABLE screenings (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind     text NOT NULL CHECK (kind IN ('deposit', 'withdrawal')),
    subject  uuid NOT NULL,                               -- the deposit's or withdrawal's id
    verdicts jsonb NOT NULL,                              -- of each provider, with its version
    at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON screenings (subject, id);
CREATE TRIGGER screenings_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON screenings
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- No transaction pays a withdrawal while a case about it is open, or that nobody has screened.
CREATE FUNCTION withdrawal_is_screened() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.screened_at IS NULL OR EXISTS (
        SELECT 1 FROM cases WHERE kind = 'withdrawal' AND subject = NEW.id AND state = 'open'
    ) THEN
        RAISE EXCEPTION 'withdrawal %: it is not screened, or its case is open', NEW.id
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER withdrawals_screened BEFORE UPDATE OF state ON withdrawals
    FOR EACH ROW WHEN (NEW.state = 'building') EXECUTE FUNCTION withdrawal_is_screened();

-------------------------------------------------------------------------------------------------- travel rule
-- Originator and beneficiary of withdrawals, personal data sealed by custody/storage/sealing.py, and its way to the VASP
-- on the other side.
CREATE TABLE travel_rule (
    withdrawal_id   uuid PRIMARY KEY REFERENCES withdrawals (id),
    data            bytea NOT NULL,                       -- IVMS101, sealed
    data_key        text GENERATED ALWAYS AS
                        (encode(substring(data FROM 3 FOR get_byte(data, 1)), 'escape')) STORED,
    fingerprint     bytea NOT NULL CHECK (length(fingerprint) = 32),   -- keyed: the same data again is known by it
    fingerprint_key text NOT NULL,
    attached_by     text NOT NULL,                        -- caller
    attached_at     timestamptz NOT NULL DEFAULT now(),
    state           text NOT NULL CHECK (state IN ('kept', 'pending', 'delivered', 'refused')),   -- kept: nobody to tell
    attempts        integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    last_error      text NOT NULL DEFAULT '',
    reference       text NOT NULL DEFAULT '',             -- the other side's word for what it was told
    delivered_at    timestamptz,
    CHECK ((state = 'delivered') = (delivered_at IS NOT NULL))
);
CREATE INDEX ON travel_rule (next_attempt_at) WHERE state = 'pending';
CREATE INDEX ON travel_rule (data_key);
-- What a caller attached stays his word: only its sealing is renewed. What was delivered was delivered.
CREATE FUNCTION travel_rule_stays() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF (OLD.withdrawal_id, OLD.fingerprint, OLD.fingerprint_key, OLD.attached_by, OLD.attached_at) IS DISTINCT FROM
           (NEW.withdrawal_id, NEW.fingerprint, NEW.fingerprint_key, NEW.attached_by, NEW.attached_at)
       OR NEW.state <> OLD.state AND OLD.state <> 'pending' THEN
        RAISE EXCEPTION 'travel rule data of %: it is attached once and delivered once', OLD.withdrawal_id
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER travel_rule_stay BEFORE UPDATE ON travel_rule FOR EACH ROW EXECUTE FUNCTION travel_rule_stays();
CREATE TRIGGER travel_rule_kept BEFORE DELETE OR TRUNCATE ON travel_rule
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

------------------------------------------------------------------------------------------------- whitelists
-- Destinations that customers, or the house, have listed (custody/whitelist). Callers ask, sign and remove, with the API's
-- role. A worker verifies what was signed: only from then on an entry cools. That it may be used is in no column: it
-- follows from listed_at, the policy, and the time at which somebody decides.
CREATE TABLE whitelist (
    id           uuid PRIMARY KEY,                        -- chosen by the caller
    owner        text NOT NULL CHECK (owner ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),   -- a customer, or 'house'
    chain        text NOT NULL,
    address      text NOT NULL,                           -- canonical
    label        bytea,                                   -- sealed: it may name a person
    label_key    text GENERATED ALWAYS AS
                     (encode(substring(label FROM 3 FOR get_byte(label, 1)), 'escape')) STORED,
    provenance   text NOT NULL CHECK (length(provenance) BETWEEN 1 AND 300),   -- how the caller came by the address
    requested_by text NOT NULL,                           -- caller
    state        text NOT NULL DEFAULT 'requested' CHECK (state IN ('requested', 'confirmed', 'listed', 'removed')),
    document     text,                                    -- the signed entry, verbatim
    signature    text,
    listed_at    timestamptz,                             -- from then on it cools
    removed_by   text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CHECK ((document IS NULL) = (signature IS NULL)),
    CHECK (state NOT IN ('confirmed', 'listed') OR document IS NOT NULL),
    CHECK (state <> 'listed' OR listed_at IS NOT NULL),
    CHECK (state <> 'removed' OR removed_by IS NOT NULL)
);
CREATE UNIQUE INDEX ON whitelist (owner, chain, address) WHERE state <> 'removed';
CREATE INDEX ON whitelist (owner, id);
CREATE INDEX ON whitelist (chain, listed_at) WHERE state = 'listed';
CREATE INDEX ON whitelist (id) WHERE state = 'confirmed';
CREATE INDEX ON whitelist (label_key);
CREATE TRIGGER whitelist_lifecycle BEFORE UPDATE OF state ON whitelist
    FOR EACH ROW EXECUTE FUNCTION guard_lifecycle('whitelist');
-- Adding is never immediate: what was asked for and signed stays, nobody lists an entry twice, and the API lists none.
CREATE FUNCTION whitelist_stays() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF (OLD.id, OLD.owner, OLD.chain, OLD.address, OLD.provenance, OLD.requested_by, OLD.created_at) IS DISTINCT FROM
           (NEW.id, NEW.owner, NEW.chain, NEW.address, NEW.provenance, NEW.requested_by, NEW.created_at)
       OR OLD.document IS NOT NULL
           AND (OLD.document, OLD.signature) IS DISTINCT FROM (NEW.document, NEW.signature)
       OR OLD.listed_at IS NOT NULL AND NEW.listed_at IS DISTINCT FROM OLD.listed_at
       OR OLD.state = 'removed' AND (OLD.document, OLD.listed_at, OLD.removed_by)
           IS DISTINCT FROM (NEW.document, NEW.listed_at, NEW.removed_by)
       OR (OLD.label IS NULL) <> (NEW.label IS NULL) THEN
        RAISE EXCEPTION 'entry % of a whitelist: what was said stays', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER whitelist_stay BEFORE UPDATE ON whitelist FOR EACH ROW EXECUTE FUNCTION whitelist_stays();
CREATE FUNCTION whitelist_of_the_api() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF session_user = 'strongroom_api' AND NOT (
        NEW.state = 'requested' AND TG_OP = 'INSERT' OR NEW.state IN ('confirmed', 'removed') AND TG_OP = 'UPDATE'
    ) THEN
        RAISE EXCEPTION 'strongroom_api may ask for entries, confirm and remove them, not make them %', NEW.state
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER whitelist_api BEFORE INSERT OR UPDATE ON whitelist
    FOR EACH ROW EXECUTE FUNCTION whitelist_of_the_api();
CREATE TRIGGER whitelist_kept BEFORE DELETE OR TRUNCATE ON whitelist
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- Removing is immediate: in the same commit what was let through to that destination, and is in no transaction that a
-- signer may have signed, must be decided again.
CREATE FUNCTION whitelist_removed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE withdrawals SET policy_version = 0
    WHERE customer_id = NEW.owner AND chain = NEW.chain AND destination = NEW.address AND policy_version IS NOT NULL
      AND state IN ('awaiting_approval', 'cooling', 'queued', 'building', 'signing');
    RETURN NULL;
END $$;
CREATE TRIGGER whitelist_removal AFTER UPDATE OF state ON whitelist
    FOR EACH ROW WHEN (NEW.state = 'removed' AND OLD.state = 'listed') EXECUTE FUNCTION whitelist_removed();

-- Since when a destination is known: by the first genuine order to it, or entry of it, that a worker saw. Rows stay, so
-- that what happens to orders and entries later makes no destination older or younger.
CREATE TABLE destinations (
    owner   text NOT NULL,
    chain   text NOT NULL,
    address text NOT NULL,
    since   timestamptz NOT NULL,
    PRIMARY KEY (owner, chain, address)
);
CREATE TRIGGER destinations_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON destinations
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What signers were shown early, so that their own clocks run: withdrawals' orders, and entries of whitelists.
CREATE TABLE announcements (
    wallet  text NOT NULL,
    subject uuid NOT NULL,
    at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (wallet, subject)
);

-- What the key of a destination is to sign, and what it has signed. Whoever reads a row verifies it.
CREATE TABLE ownership_proofs (
    id         uuid PRIMARY KEY,
    owner      text NOT NULL,
    chain      text NOT NULL,
    address    text NOT NULL,
    text       text NOT NULL CHECK (length(text) <= 1000),
    expires_at timestamptz NOT NULL,
    signature  text CHECK (length(signature) BETWEEN 1 AND 1000),
    proved_at  timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((signature IS NULL) = (proved_at IS NULL))
);
CREATE INDEX ON ownership_proofs (owner, chain, address);
CREATE FUNCTION ownership_proof_stays() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF OLD.signature IS NOT NULL OR (OLD.id, OLD.owner, OLD.chain, OLD.address, OLD.text, OLD.expires_at, OLD.created_at)
        IS DISTINCT FROM (NEW.id, NEW.owner, NEW.chain, NEW.address, NEW.text, NEW.expires_at, NEW.created_at) THEN
        RAISE EXCEPTION 'proof %: a challenge is answered once', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER ownership_proofs_stay BEFORE UPDATE ON ownership_proofs
    FOR EACH ROW EXECUTE FUNCTION ownership_proof_stays();
CREATE TRIGGER ownership_proofs_kept BEFORE DELETE OR TRUNCATE ON ownership_proofs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

------------------------------------------------------------------------------------ feed, alerts, API records
-- The ordered feed. Readers see only rows of transactions older than every running one, so none is ever missed.
CREATE TABLE events (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid     xid8 NOT NULL DEFAULT pg_current_xact_id(),
    type    text NOT NULL,                                -- e.g. deposit.credited, withdrawal.settled
    subject text NOT NULL,                                -- id of what changed
    data    jsonb NOT NULL,
    at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON events (xid, id);

CREATE TABLE alerts (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    severity text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    type     text NOT NULL,
    subject  text NOT NULL,
    message  text NOT NULL,
    data     jsonb NOT NULL DEFAULT '{}',
    at       timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz
);
CREATE UNIQUE INDEX ON alerts (type, subject) WHERE resolved_at IS NULL;   -- one open alert for one trouble

-- Paying stops while a row is here (reconciliation found a difference, an operator pulled the brake).
CREATE TABLE halts (
    scope  text PRIMARY KEY,                              -- 'all', a chain id, or 'asset:' and an asset's id
    reason text NOT NULL,
    at     timestamptz NOT NULL DEFAULT now()
);

-- Scopes that officers have frozen are in no table that a role could write: each process verifies the officers' statements
-- itself (custody.officers), and tells its own transactions which scopes they name.
CREATE FUNCTION frozen(VARIADIC scopes text[]) RETURNS boolean LANGUAGE sql STABLE AS
$$ SELECT coalesce(string_to_array(current_setting('strongroom.frozen', true), ' ') && scopes, false) $$;

-- Bundles that the quorum has signed, as they came, and since when each is in force here. Whoever reads them verifies the
-- signatures again: what anybody else wrote here is passed over.
-- A document may be in here twice: who writes one with false columns must not keep the true row out.
CREATE TABLE bundles (
    number   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id       bytea GENERATED ALWAYS AS (sha256(document)) STORED,
    version  bigint NOT NULL CHECK (version > 0),
    digest   text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
    document bytea NOT NULL CHECK (length(document) <= 4194304),      -- JSON with its signatures
    seen_at  timestamptz NOT NULL                                     -- from then on it waits for vetoes
);
CREATE INDEX ON bundles (version);
CREATE INDEX ON bundles (id);
-- Nor has the API, or a monitor, seen a bundle long before now: clocks differ, but by no veto's time.
CREATE FUNCTION seen_just_now() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF session_user IN ('strongroom_api', 'strongroom_monitor') THEN
        NEW.seen_at := greatest(NEW.seen_at, now() - interval '10 minutes');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER bundles_seen BEFORE INSERT ON bundles FOR EACH ROW EXECUTE FUNCTION seen_just_now();
CREATE TABLE bundle_adoptions (
    bundle     bytea PRIMARY KEY,                         -- its id
    adopted_at timestamptz NOT NULL
);

-- What single officers have signed: freezes, lower numbers, vetoes. Verified at each use, like bundles.
CREATE TABLE statements (
    number         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id             bytea GENERATED ALWAYS AS (sha256(document)) STORED,
    kind           text NOT NULL CHECK (kind IN ('freeze', 'lowering', 'veto')),
    bundle_version bigint,                                -- until a higher one; null: a veto, for good
    document       bytea NOT NULL CHECK (length(document) <= 16384),  -- JSON with its signature
    received_at    timestamptz NOT NULL DEFAULT now(),
    CHECK ((bundle_version IS NULL) = (kind = 'veto'))
);
CREATE INDEX ON statements (kind, bundle_version);
CREATE INDEX ON statements (id);
CREATE TRIGGER bundles_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bundles
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER bundle_adoptions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bundle_adoptions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER statements_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON statements
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Which processes are at work, each by its own last word. Nothing is decided by it: it is for people who look.
CREATE TABLE heartbeats (
    process  text NOT NULL CHECK (process IN ('monitor', 'worker', 'beat')),
    instance text NOT NULL CHECK (length(instance) BETWEEN 1 AND 200),   -- monitor: the chain; worker: host and pid
    detail   jsonb NOT NULL DEFAULT '{}',
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (process, instance)
);
-- Nobody speaks for another: a monitor that died must not seem alive because a worker says so.
CREATE FUNCTION own_heartbeat() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF session_user IN ('strongroom_monitor', 'strongroom_worker')
       AND (session_user = 'strongroom_monitor') <> (NEW.process = 'monitor') THEN
        RAISE EXCEPTION '% does not speak for %', session_user, NEW.process USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER heartbeats_own BEFORE INSERT OR UPDATE ON heartbeats
    FOR EACH ROW EXECUTE FUNCTION own_heartbeat();

-- What the network asks for now, as a worker saw it: for callers that must choose a fee ceiling. Nothing is decided by it.
CREATE TABLE fee_observations (
    chain   text PRIMARY KEY,
    feerate bigint NOT NULL CHECK (feerate >= 0),         -- BTC: sat/kvB; EVM: wei per gas, base fee and tip
    at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE idempotency_keys (
    caller       text NOT NULL,
    key          text NOT NULL CHECK (length(key) BETWEEN 1 AND 128),
    request_hash bytea NOT NULL CHECK (length(request_hash) = 32),
    status       integer NOT NULL,
    body         text NOT NULL,
    at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, key)
);

CREATE TABLE token_nonces (
    caller     text NOT NULL,
    nonce      text NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (caller, nonce)
);
CREATE INDEX ON token_nonces (expires_at);

-- What every write of the API begins with, in one round trip: spend the token's nonce (no row if it was used before),
-- wait for whoever works on the same key, and look up what was answered under it. Each of these is a statement of its
-- own: the last one sees what the one that was waited for has committed.
CREATE FUNCTION begin_request(caller_id text, token_nonce text, until bigint, lock_space integer, answer_key text)
RETURNS TABLE (request_hash bytea, status integer, body text)
LANGUAGE plpgsql VOLATILE SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO token_nonces (caller, nonce, expires_at)
    VALUES (caller_id, token_nonce, to_timestamp(until)) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(lock_space, hashtext(caller_id || E'\n' || answer_key));
    RETURN QUERY SELECT k.request_hash, k.status, k.body FROM (SELECT) one
        LEFT JOIN idempotency_keys k ON k.caller = caller_id AND k.key = answer_key;
END $$;

-- An operator asks for a replacement with a higher fee; a worker builds it, or says in `outcome` why not.
CREATE TABLE bump_requests (
    id             uuid PRIMARY KEY,
    transaction_id uuid NOT NULL REFERENCES transactions (id),
    feerate        bigint CHECK (feerate > 0),            -- BTC: sat/kvB, EVM: wei per gas; null: what the estimate asks for now
    requested_by   text NOT NULL,                         -- caller
    at             timestamptz NOT NULL DEFAULT now(),
    done_at        timestamptz,
    outcome        text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX ON bump_requests (transaction_id) WHERE done_at IS NULL;   -- one open request at a time

CREATE TRIGGER deposit_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON deposit_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER sweep_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON sweep_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER refill_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON refill_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER withdrawal_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON withdrawal_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

------------------------------------------------------------------------------------------ what operators did
-- One row for each thing that an operator did, was refused, or could not do, in the transaction of its effect (custody/audit).
-- Each holds what the operator has signed, and the hash of the row before it: `strongroom audit verify` finds what was
-- changed, left out or said in somebody else's name.
CREATE TABLE operator_actions (
    number         bigint PRIMARY KEY CHECK (number > 0), -- 1, 2, 3 ... no gaps
    at             timestamptz NOT NULL,
    writer         text NOT NULL,                         -- database role
    operator       text NOT NULL,                         -- who says so; the signature proves it
    key            text NOT NULL CHECK (key ~ '^([0-9a-f]{64})?$'),     -- of the signature; empty: nobody known
    via            text NOT NULL CHECK (via IN ('host', 'api')),
    origin         text NOT NULL CHECK (length(origin) <= 200),         -- user and host, or the address of the connection
    action         text NOT NULL CHECK (length(action) <= 64),
    parameters     text NOT NULL CHECK (length(parameters) <= 8192),    -- JSON, as the rest
    outcome        text NOT NULL CHECK (outcome IN ('done', 'asked', 'refused', 'failed')),
    reason         text NOT NULL CHECK (length(reason) <= 1000),        -- why not, or what it waits for
    decision       text CHECK (length(decision) <= 65536),              -- of the policy; null: it was not asked
    bundle_version bigint,                                -- in force; null: none could be believed
    asked_in       bigint REFERENCES operator_actions (number),         -- the row that asked for it, or that is approved
    document       text NOT NULL CHECK (length(document) <= 16384),     -- what was signed, verbatim
    signature      text NOT NULL CHECK (length(signature) <= 100),
    previous       text NOT NULL CHECK (previous ~ '^[0-9a-f]{64}$'),
    hash           text NOT NULL UNIQUE CHECK (hash ~ '^[0-9a-f]{64}$'),
    xid            xid8 NOT NULL,                         -- of the transaction that did it
    CHECK (outcome <> 'asked' OR asked_in IS NULL)
);
CREATE INDEX ON operator_actions (xid);
CREATE UNIQUE INDEX operator_actions_used_once ON operator_actions (asked_in, via)
    WHERE outcome = 'done' AND action <> 'approve';       -- what was approved is done once, where it was asked for
CREATE UNIQUE INDEX operator_actions_signed_once ON operator_actions (signature) WHERE signature <> '';
CREATE INDEX ON operator_actions (operator, number);
CREATE INDEX ON operator_actions (asked_in);

-- SHA-256 over all columns, each with its length before it: no two rows have the same bytes.
CREATE FUNCTION operator_action_hash(a operator_actions) RETURNS text
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT encode(sha256(convert_to(string_agg(
        CASE WHEN v IS NULL THEN '-' ELSE octet_length(v) || ':' || v END, ',' ORDER BY i), 'UTF8')), 'hex')
    FROM unnest(ARRAY['strongroom:operator-action:v1', a.number::text,
        (extract(epoch FROM a.at) * 1000000)::bigint::text, a.writer, a.operator, a.key, a.via, a.origin, a.action,
        a.parameters, a.outcome, a.reason, a.decision, a.bundle_version::text, a.asked_in::text, a.document, a.signature,
        a.previous]) WITH ORDINALITY f(v, i)
$$;
-- Number, time, writer and chain are the database's own. The API speaks of what came through it, nobody else does.
CREATE FUNCTION operator_action_joins() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    head operator_actions;
BEGIN
    IF (session_user = 'strongroom_api') <> (NEW.via = 'api') THEN
        RAISE EXCEPTION '% does not speak for what came by %', session_user, NEW.via
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('operator_actions'));
    SELECT * INTO head FROM operator_actions ORDER BY number DESC LIMIT 1;
    NEW.number := coalesce(head.number, 0) + 1;
    NEW.previous := coalesce(head.hash, repeat('0', 64));
    NEW.at := clock_timestamp();
    NEW.writer := session_user;
    NEW.xid := pg_current_xact_id();
    NEW.hash := operator_action_hash(NEW);
    RETURN NEW;
END $$;
CREATE TRIGGER operator_actions_join BEFORE INSERT ON operator_actions
    FOR EACH ROW EXECUTE FUNCTION operator_action_joins();
-- With our roles no brake is lifted, no customer unfrozen, and no case decided but in a transaction that has such a row.
CREATE FUNCTION done_by_an_operator() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF session_user IN ('strongroom_api', 'strongroom_monitor', 'strongroom_worker') AND NOT EXISTS (
        SELECT 1 FROM operator_actions
        WHERE xid = pg_current_xact_id() AND action = TG_ARGV[0] AND outcome = 'done'
    ) THEN
        RAISE EXCEPTION '% without a record of who did it', TG_ARGV[0] USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER halts_lifted AFTER DELETE ON halts DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION done_by_an_operator('lift');
CREATE CONSTRAINT TRIGGER customers_unfrozen AFTER UPDATE ON customers DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.state = 'frozen' AND NEW.state <> 'frozen')
    EXECUTE FUNCTION done_by_an_operator('unfreeze-customer');
CREATE CONSTRAINT TRIGGER cases_released AFTER UPDATE ON cases DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.state <> 'released' AND NEW.state = 'released')
    EXECUTE FUNCTION done_by_an_operator('release-case');
CREATE CONSTRAINT TRIGGER vaults_proven AFTER INSERT ON vault_proofs DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION done_by_an_operator('cold-prove');
-- What operators have corrected in customers' balances. A line of type `adjustment` is of one of these, which says the same
-- and was made in its transaction; and with that commits who asked for it and what two others have approved.
CREATE TABLE adjustments (
    id          uuid PRIMARY KEY,                         -- of the ledger transfer, too
    customer_id text NOT NULL REFERENCES customers (id),
    asset       text NOT NULL,
    units       numeric(78, 0) NOT NULL CHECK (units <> 0),
    reason      text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    operator    text NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    xid         xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX ON adjustments (customer_id, id);
CREATE TRIGGER adjustments_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON adjustments
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE FUNCTION adjustment_is_approved() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM operator_actions d JOIN operator_actions q ON q.number = d.asked_in
        WHERE d.xid = pg_current_xact_id() AND d.action = 'adjust' AND d.outcome = 'done'
          AND d.parameters::jsonb ->> 'id' = NEW.id::text AND q.parameters = d.parameters AND q.outcome = 'asked'
          AND (SELECT count(DISTINCT a.key) FROM operator_actions a
               WHERE a.asked_in = q.number AND a.action = 'approve' AND a.outcome = 'done' AND a.key <> q.key) >= 2
    ) THEN
        RAISE EXCEPTION 'adjustment % has not been approved by two others', NEW.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NOT EXISTS (SELECT 1 FROM ledger_transfers WHERE id = NEW.id AND xid = NEW.xid) THEN
        RAISE EXCEPTION 'adjustment % is not in the ledger', NEW.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER adjustments_approved AFTER INSERT ON adjustments DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION adjustment_is_approved();
CREATE TRIGGER operator_actions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON operator_actions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-------------------------------------------------------------------------------------------------- privileges
-- Roles are made by the code that runs this file (CREATE ROLE has no IF NOT EXISTS); here is what each may do.
GRANT USAGE ON SCHEMA public TO strongroom_api, strongroom_monitor, strongroom_worker, strongroom_read;
GRANT SELECT ON ALL TABLES IN SCHEMA public
    TO strongroom_api, strongroom_monitor, strongroom_worker, strongroom_read;
REVOKE SELECT ON idempotency_keys, token_nonces FROM strongroom_monitor, strongroom_worker, strongroom_read;
-- Times, sequence numbers and transaction ids are the database's own: nobody may choose them.
GRANT INSERT (type, subject, data) ON events TO strongroom_api, strongroom_monitor, strongroom_worker;
GRANT INSERT (version, digest, document, seen_at) ON bundles TO strongroom_api, strongroom_monitor, strongroom_worker;
GRANT INSERT (operator, key, via, origin, action, parameters, outcome, reason, decision, bundle_version, asked_in,
    document, signature) ON operator_actions TO strongroom_api, strongroom_worker;
-- What came into force, only workers write down: whoever takes the API must not spare a bundle its time, or its veto.
GRANT INSERT ON bundle_adoptions TO strongroom_worker;
GRANT INSERT (kind, bundle_version, document) ON statements TO strongroom_api, strongroom_worker;
GRANT INSERT (severity, type, subject, message, data) ON alerts
    TO strongroom_api, strongroom_monitor, strongroom_worker;
GRANT UPDATE (resolved_at) ON alerts TO strongroom_api, strongroom_monitor, strongroom_worker;
GRANT INSERT (process, instance, detail), UPDATE (detail, at), DELETE ON heartbeats
    TO strongroom_monitor, strongroom_worker;
GRANT INSERT (customer_id, kind, asset, wallet) ON ledger_accounts
    TO strongroom_api, strongroom_monitor, strongroom_worker;
GRANT INSERT (id, kind, content_hash, parent_id, reference, legs) ON ledger_transfers
    TO strongroom_api, strongroom_monitor, strongroom_worker;
GRANT INSERT ON ledger_lines
    TO strongroom_api, strongroom_monitor, strongroom_worker;
GRANT INSERT (id, customer_id, asset, units, expires_at) ON ledger_holds
    TO strongroom_api, strongroom_monitor, strongroom_worker;
GRANT UPDATE (state, updated_at) ON ledger_holds TO strongroom_api, strongroom_monitor, strongroom_worker;
REVOKE EXECUTE ON FUNCTION ledger_lock(bigint[]), ledger_apply() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger_lock(bigint[]) TO strongroom_api, strongroom_monitor, strongroom_worker;
GRANT INSERT (id, customer_id, asset, units, reason, operator) ON adjustments TO strongroom_worker;
GRANT INSERT ON ledger_heads, ledger_head_accounts TO strongroom_worker;
GRANT UPDATE (keyset, signature) ON ledger_heads TO strongroom_worker;
GRANT USAGE ON SEQUENCE ledger_batches TO strongroom_api, strongroom_monitor, strongroom_worker;

-- What the policy and the workers decide (tier, decision, settlement, transaction) is not the API's to write.
GRANT INSERT (id, caller, customer_id, chain, asset, destination, units, fee_units, order_json, order_signature,
    order_hash, state, expires_at) ON withdrawals TO strongroom_api;
GRANT INSERT ON customers, addresses, address_indexes, idempotency_keys, token_nonces,
    withdrawal_events TO strongroom_api;
GRANT UPDATE (next) ON address_indexes TO strongroom_api;
GRANT UPDATE (state, reason, updated_at) ON withdrawals TO strongroom_api;
GRANT DELETE ON token_nonces TO strongroom_api;
GRANT INSERT ON bump_requests TO strongroom_api;
GRANT INSERT (id, owner, chain, address, label, provenance, requested_by),
    UPDATE (state, document, signature, removed_by, updated_at) ON whitelist TO strongroom_api;
GRANT INSERT (id, owner, chain, address, text, expires_at), UPDATE (signature, proved_at) ON ownership_proofs
    TO strongroom_api;
GRANT INSERT (digest, withdrawal_id, refill_id, intent_hash, document, signature) ON approvals TO strongroom_api;
GRANT INSERT (core, number, first, last, complete, fill_sequence, fill_index, fills, content_hash, caller, document,
    token, signature) ON trading_settlements TO strongroom_api;
GRANT INSERT (id, customer_id, asset, units, target, caller, document, token, signature) ON trading_transfers
    TO strongroom_api;

GRANT INSERT, UPDATE, DELETE ON blocks, cursors, receipts, consumptions TO strongroom_monitor;
GRANT INSERT, UPDATE ON deposits TO strongroom_monitor;
GRANT INSERT ON deposit_events TO strongroom_monitor;
GRANT UPDATE (state, reason) ON customers TO strongroom_monitor;
-- A key's own address, of the house: a row with a customer has an attestation, and neither is the monitor's to write.
GRANT INSERT (chain, keyset, asset, purpose, branch, index, address, script) ON addresses TO strongroom_monitor;
-- At the first sight of a foreign use of our keys paying halts in the commit that records it. Lifting is another's.
GRANT INSERT ON halts TO strongroom_monitor;

GRANT UPDATE (state, reason, tier, decision, settlement, transaction_id, settlements, screened_at, not_before,
    updated_at) ON withdrawals TO strongroom_worker;
-- Whoever finds something opens a case; only operators at the host, with the workers' role, decide it.
GRANT INSERT (id, kind, subject, chain, address, findings) ON cases TO strongroom_monitor, strongroom_worker;
GRANT INSERT (kind, subject, verdicts) ON screenings TO strongroom_monitor, strongroom_worker;
GRANT UPDATE (state, resolution, resolved_by, resolved_at) ON cases TO strongroom_worker;
-- The API seals and stores, and cannot read back: who takes it gets nothing that was there before.
REVOKE SELECT ON travel_rule FROM strongroom_api, strongroom_monitor, strongroom_read;
GRANT SELECT (withdrawal_id, fingerprint, fingerprint_key, attached_by, attached_at, state, attempts, last_error,
    delivered_at) ON travel_rule TO strongroom_api;
GRANT INSERT (withdrawal_id, data, fingerprint, fingerprint_key, attached_by, state) ON travel_rule TO strongroom_api;
GRANT UPDATE (data, state, attempts, next_attempt_at, last_error, reference, delivered_at) ON travel_rule
    TO strongroom_worker;
GRANT INSERT, UPDATE ON transactions, transaction_versions TO strongroom_worker;
GRANT INSERT ON signing_sessions, session_members, vault_proofs TO strongroom_worker;
GRANT UPDATE (state, expires_at, updated_at) ON signing_sessions TO strongroom_worker;
GRANT UPDATE (asked_at, response, answered_at, refused) ON session_members TO strongroom_worker;
GRANT UPDATE (state, updated_at) ON deposits TO strongroom_worker;
GRANT INSERT ON withdrawal_events, deposit_events, halts, policy_counts TO strongroom_worker;
GRANT UPDATE (policy_version, unheard, approved_until) ON withdrawals TO strongroom_worker;
GRANT DELETE ON policy_counts TO strongroom_worker;
GRANT INSERT, UPDATE ON policy_counting TO strongroom_worker;
-- Operators at the host lift a halt or a freeze with the workers' role; the API, which strangers reach, cannot.
GRANT DELETE ON halts TO strongroom_worker;
GRANT UPDATE (state, reason) ON customers TO strongroom_worker;
GRANT INSERT, DELETE ON reservations TO strongroom_worker;
GRANT INSERT ON destinations TO strongroom_worker;
GRANT INSERT (wallet, subject) ON announcements TO strongroom_worker;
GRANT UPDATE (state, listed_at, label, removed_by, updated_at) ON whitelist TO strongroom_worker;
GRANT INSERT, UPDATE ON losses, fee_observations TO strongroom_worker;
GRANT INSERT ON nonces, executions, sweeps, sweep_items, sweep_events, rotations, variances TO strongroom_worker;
GRANT UPDATE (state, reason, decision, transaction_id, updated_at) ON sweeps TO strongroom_worker;
GRANT UPDATE (open, left_behind) ON sweep_items TO strongroom_worker;
GRANT INSERT ON refills, refill_events TO strongroom_worker;
GRANT INSERT, UPDATE (units) ON tier_levels TO strongroom_worker;
GRANT UPDATE (state, reason, unheard, approved_until, not_before, transaction_id, updated_at) ON refills
    TO strongroom_worker;
GRANT UPDATE (first) ON nonces TO strongroom_worker;
GRANT UPDATE (state, updated_at) ON variances TO strongroom_worker;
GRANT UPDATE (done_at, outcome) ON bump_requests TO strongroom_worker;
GRANT INSERT ON addresses, address_indexes TO strongroom_worker;
GRANT UPDATE (next) ON address_indexes TO strongroom_worker;
