-- The store's identity and its counter, in one row: whoever writes locks it first, so revisions are given in the order
-- of the commits and nobody who sees one misses an earlier one. `horizon`: history below is gone. `drops`: how
-- many dropped ranges have not been swept.
CREATE TABLE clock (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    id      text    NOT NULL,
    epoch   bigint  NOT NULL,
    head    bigint  NOT NULL,
    horizon bigint  NOT NULL,
    drops   integer NOT NULL
) WITH (fillfactor = 10);

INSERT INTO clock (id, epoch, head, horizon, drops)
VALUES (replace(gen_random_uuid()::text, '-', ''), 1, 1, 1, 0);

-- Every write is one row of the log and stays until it is neither current nor history. `previous` is the revision of
-- the key's row before, so that a key's past is a chain; it is negative where that row no longer counted as a
-- value (a deletion, or something dropped), and 0 where there is none. A value of NULL is a deletion, or, where
-- the key ends in a slash, a drop of all that is under it.
CREATE TABLE log (
    revision bigint PRIMARY KEY,
    previous bigint NOT NULL,
    key      text   COLLATE "C" NOT NULL,
    value    bytea
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.2);

-- Where each key's newest row is. Deleted keys stay (NOT live) while history may be asked for them.
CREATE TABLE state (
    key        text    COLLATE "C" PRIMARY KEY,
    revision   bigint  NOT NULL,
    live       boolean NOT NULL,
    expires_at bigint
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX state_expires_at ON state (expires_at) WHERE expires_at IS NOT NULL;

-- Drops whose rows have not been swept yet.
CREATE TABLE drops (
    prefix   text   COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (prefix, revision)
);

-- How far compaction has come.
CREATE TABLE compaction (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    swept bigint  NOT NULL
) WITH (fillfactor = 10);

INSERT INTO compaction (swept) VALUES (1);

-- What became of each writer's newest batch, for when its reply is lost. A base of NULL: it did not happen, and never will.
CREATE TABLE writers (
    writer   text        PRIMARY KEY,
    batch    bigint      NOT NULL,
    base     bigint,
    refusals integer[],
    at       timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 10);

-- The revision, not above `upto`, at which a range that the key lies in was last dropped, and is not swept; 0 for never.
CREATE FUNCTION dropped_at(of_key text, upto bigint DEFAULT 9223372036854775807) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(max(d.revision), 0) FROM drops d
    WHERE d.revision <= upto AND d.prefix = ANY (ARRAY(
        SELECT left(of_key, n) FROM generate_series(0, length(of_key)) n
        WHERE n = 0 OR substr(of_key, n, 1) = '/'
    ))
$$;

-- A batch of transactions, each of which happens or is refused as a whole. Op i belongs to transaction op_txs[i].
-- `base`: the revision before the batch; the ops that happened have the revisions after it, in their order.
-- `refusals`: rows of (transaction, why, which), why 1 KeyExists, 2 RevisionConflict, 3 GuardFailed.
-- `was`: of each op's key the row before, as in log.previous.
CREATE FUNCTION put_batch(
    by_writer text, number bigint,
    op_txs integer[], op_keys text[], op_values bytea[], op_expected bigint[], op_expiries bigint[],
    guard_txs integer[], guard_keys text[], guard_revisions bigint[],
    OUT base_revision bigint, OUT refused integer[], OUT was bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    dropping boolean;
    written  bigint;
BEGIN
    -- First of all: each statement after this one sees all that was committed before, and nobody else writes.
    SELECT c.head, c.drops > 0 INTO base_revision, dropping FROM clock c FOR UPDATE;
    IF EXISTS (SELECT FROM writers w WHERE w.writer = by_writer AND w.batch >= number) THEN
        RAISE EXCEPTION 'batch % of writer % has been given up', number, by_writer USING ERRCODE = 'CL001';
    END IF;

    SELECT array_agg(
        CASE
            WHEN s.live AND (NOT dropping OR s.revision > dropped_at(s.key)) THEN s.revision
            ELSE -coalesce(s.revision, 0)
        END ORDER BY k.n)
    INTO was
    FROM unnest(op_keys) WITH ORDINALITY k (key, n) LEFT JOIN state s ON s.key = k.key;

    SELECT array_agg(ARRAY[f.tx, f.why, f.which] ORDER BY f.tx) INTO refused
    FROM (
        SELECT DISTINCT ON (c.tx) c.tx, c.why, c.which
        FROM (
            SELECT o.tx, 1 AS stage, o.n::integer AS which,
                CASE
                    WHEN o.expected = 0 AND o.was > 0 THEN 1
                    WHEN o.value IS NULL AND o.was <= 0 THEN 2
                    WHEN o.expected <> greatest(o.was, 0) THEN 2
                END AS why
            FROM unnest(op_txs, op_values, op_expected, was) WITH ORDINALITY o (tx, value, expected, was, n)
            UNION ALL
            SELECT g.tx, 0, g.n::integer, 3
            FROM unnest(guard_txs, guard_keys, guard_revisions) WITH ORDINALITY g (tx, key, revision, n)
            LEFT JOIN state s
                ON s.key = g.key AND s.live AND (NOT dropping OR s.revision > dropped_at(s.key))
            WHERE coalesce(s.revision, 0) <> g.revision
        ) c
        WHERE c.why IS NOT NULL
        ORDER BY c.tx, c.stage, c.which
    ) f;

    WITH op AS MATERIALIZED (
        SELECT base_revision + row_number() OVER (ORDER BY o.n) AS revision, o.key, o.was, o.value, o.expiry
        FROM unnest(op_txs, op_keys, was, op_values, op_expiries) WITH ORDINALITY o (tx, key, was, value, expiry, n)
        WHERE refused IS NULL OR o.tx <> ALL (refused[:][1:1])
    ), logged AS (
        INSERT INTO log (revision, previous, key, value) SELECT op.revision, op.was, op.key, op.value FROM op
    )
    INSERT INTO state AS s (key, revision, live, expires_at)
    SELECT op.key, op.revision, op.value IS NOT NULL, CASE WHEN op.value IS NOT NULL THEN op.expiry END FROM op
    ON CONFLICT (key) DO UPDATE
        SET revision = excluded.revision, live = excluded.live, expires_at = excluded.expires_at;
    GET DIAGNOSTICS written = ROW_COUNT;

    IF written > 0 THEN
        UPDATE clock SET head = base_revision + written;
        INSERT INTO writers AS w (writer, batch, base, refusals) VALUES (by_writer, number, base_revision, refused)
        ON CONFLICT (writer) DO UPDATE
            SET batch = excluded.batch, base = excluded.base, refusals = excluded.refusals, at = excluded.at;
    END IF;
END
$$;

-- After a lost reply: whether the batch happened. If not, it never will, even where it is still on its way.
CREATE FUNCTION settle_batch(
    by_writer text, number bigint, OUT happened boolean, OUT base_revision bigint, OUT refused integer[]
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM clock c FOR UPDATE;
    SELECT w.base, w.refusals INTO base_revision, refused FROM writers w WHERE w.writer = by_writer AND w.batch = number;
    happened := base_revision IS NOT NULL;
    IF NOT happened THEN
        INSERT INTO writers AS w (writer, batch) VALUES (by_writer, number)
        ON CONFLICT (writer) DO UPDATE
            SET batch = excluded.batch, base = NULL, refusals = NULL, at = excluded.at WHERE w.batch < excluded.batch;
    END IF;
END
$$;

-- Drops all that is under the prefix, which ends before `high`. The revision that it took, NULL where nothing was there.
CREATE FUNCTION drop_range(low text, high text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    base  bigint;
    floor bigint;
BEGIN
    SELECT c.head INTO base FROM clock c FOR UPDATE;
    floor := dropped_at(low);
    IF NOT EXISTS (
        SELECT FROM state s
        WHERE s.key > low AND s.key < high AND s.live AND s.revision > floor AND s.revision > dropped_at(s.key)
    ) THEN
        RETURN NULL;
    END IF;
    INSERT INTO log (revision, previous, key, value) VALUES (base + 1, 0, low, NULL);
    INSERT INTO drops (prefix, revision) VALUES (low, base + 1);
    UPDATE clock SET head = base + 1, drops = drops + 1;
    RETURN base + 1;
END
$$;

-- The store, found in epoch `now_in`, has gone back behind what a replica has seen of epoch `seen`: takes up beyond
-- `beyond`, in an epoch that never was, with no history, so that no revision ever means two things. Does nothing where
-- another replica was first.
CREATE FUNCTION raise_epoch(now_in bigint, seen bigint, beyond bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE clock SET epoch = greatest(epoch, seen) + 1, head = greatest(head, beyond), horizon = greatest(head, beyond)
    WHERE epoch = now_in;
END
$$;

-- Raises the horizon where it is lower; whether there is anything to compact.
CREATE FUNCTION raise_horizon(wanted bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE clock SET horizon = least(wanted, head) WHERE horizon < least(wanted, head);
    RETURN (SELECT p.swept < c.horizon FROM clock c, compaction p);
END
$$;

-- Forgets a bounded part of what is below the horizon; how many rows went, NULL where there is no more.
CREATE FUNCTION compact_some(step integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    upto    bigint;
    start   bigint;
    edge    bigint;
    dropped record;
    gone    integer;
    more    integer := 0;
BEGIN
    SELECT c.horizon INTO upto FROM clock c FOR UPDATE;
    SELECT p.swept INTO start FROM compaction p;
    IF start >= upto THEN
        RETURN NULL;
    END IF;

    SELECT CASE WHEN count(*) = step THEN max(r.revision) + 1 ELSE upto END INTO edge
    FROM (
        SELECT l.revision FROM log l WHERE l.revision >= start AND l.revision < upto ORDER BY l.revision LIMIT step
    ) r;
    SELECT l.revision, l.key INTO dropped FROM log l
    WHERE l.revision >= start AND l.revision < edge AND l.value IS NULL AND right(l.key, 1) = '/'
    ORDER BY l.revision LIMIT 1;
    IF dropped.revision IS NOT NULL THEN
        edge := dropped.revision;
    END IF;

    DELETE FROM state s USING log l
    WHERE l.revision >= start AND l.revision < edge AND l.value IS NULL AND s.key = l.key AND s.revision = l.revision;
    DELETE FROM log d USING (
        SELECT abs(l.previous) AS revision FROM log l WHERE l.revision >= start AND l.revision < edge AND l.previous <> 0
        UNION
        SELECT l.revision FROM log l WHERE l.revision >= start AND l.revision < edge AND l.value IS NULL
    ) x
    WHERE d.revision = x.revision;
    GET DIAGNOSTICS gone = ROW_COUNT;

    IF dropped.revision IS NOT NULL THEN
        WITH hidden AS MATERIALIZED (
            SELECT s.key, s.revision FROM state s
            WHERE s.key > dropped.key AND s.key < left(dropped.key, -1) || '0' AND s.revision < dropped.revision
            LIMIT step
        ), unlogged AS (
            DELETE FROM log l USING hidden h WHERE l.revision = h.revision
        )
        DELETE FROM state s USING hidden h WHERE s.key = h.key;
        GET DIAGNOSTICS more = ROW_COUNT;
        IF more < step THEN
            DELETE FROM drops d WHERE d.prefix = dropped.key AND d.revision = dropped.revision;
            UPDATE clock SET drops = (SELECT count(*) FROM drops);
            DELETE FROM log l WHERE l.revision = dropped.revision;
            edge := dropped.revision + 1;
        END IF;
    END IF;
    UPDATE compaction SET swept = edge;
    RETURN gone + more;
END
$$;
