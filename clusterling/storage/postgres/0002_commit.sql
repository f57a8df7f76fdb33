-- A batch of transactions, each of which happens or is refused as a whole. Op i belongs to transaction op_txs[i].
-- `base_revision`: the revision before the batch; the ops that happened have the revisions after it, in their order.
-- `refused`: rows of (transaction, why, which), why 1 KeyExists, 2 RevisionConflict, 3 GuardFailed.
-- `was`: of each op's key the row before, as in log.previous.
--
-- `seen` is how far the writer has come. What others wrote between there and the batch comes with the reply (`keys`,
-- `previous` and `contents`, in the order of their revisions), so that who writes need not ask; NULL where that is more
-- than `others_bytes`, or many. A store that is not as far as its writer saw it was put back: it takes no write until it
-- has a new epoch.
--
-- `channel`: to be notified of the batch; NULL for nobody.
CREATE FUNCTION commit_batch(
    by_writer text, number bigint, seen bigint, others_bytes bigint, channel text,
    op_txs integer[], op_keys text[], op_values bytea[], op_expected bigint[], op_expiries bigint[],
    guard_txs integer[], guard_keys text[], guard_revisions bigint[],
    OUT in_epoch bigint, OUT base_revision bigint, OUT refused integer[], OUT was bigint[],
    OUT keys text[], OUT previous bigint[], OUT contents bytea[]
) LANGUAGE plpgsql AS $$
DECLARE
    dropping boolean;
    given_up boolean;
    written  bigint;
BEGIN
    -- First of all: each statement after this one sees all that was committed before, and nobody else writes.
    SELECT c.epoch, c.head, c.drops > 0 INTO in_epoch, base_revision, dropping FROM clock c FOR UPDATE;
    IF base_revision < seen THEN
        RAISE EXCEPTION 'the store is at %, its writer has seen %', base_revision, seen USING ERRCODE = 'CL002';
    END IF;

    SELECT
        array_agg(
            CASE
                WHEN s.live AND (NOT dropping OR s.revision > dropped_at(s.key)) THEN s.revision
                ELSE -coalesce(s.revision, 0)
            END ORDER BY k.n
        ),
        EXISTS (SELECT FROM writers w WHERE w.writer = by_writer AND w.batch >= number)
    INTO was, given_up
    FROM unnest(op_keys) WITH ORDINALITY k (key, n) LEFT JOIN state s ON s.key = k.key;
    IF given_up THEN
        RAISE EXCEPTION 'batch % of writer % has been given up', number, by_writer USING ERRCODE = 'CL001';
    END IF;

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

    IF base_revision = seen THEN
        keys := '{}'; previous := '{}'; contents := '{}';
    ELSIF base_revision - seen <= 1000 THEN
        SELECT array_agg(o.key), array_agg(o.previous), array_agg(o.value) INTO keys, previous, contents
        FROM (
            SELECT l.key, l.previous, l.value FROM log l
            WHERE l.revision > seen AND l.revision <= base_revision AND others_bytes >= (
                SELECT coalesce(sum(octet_length(b.value)), 0) FROM log b WHERE b.revision > seen AND b.revision <= base_revision
            )
            ORDER BY l.revision
        ) o;
    END IF;

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
        IF channel IS NOT NULL THEN
            PERFORM pg_notify(channel, (base_revision + written)::text);
        END IF;
    END IF;
END
$$;

-- As replicas of the version before call it.
CREATE OR REPLACE FUNCTION put_batch(
    by_writer text, number bigint,
    op_txs integer[], op_keys text[], op_values bytea[], op_expected bigint[], op_expiries bigint[],
    guard_txs integer[], guard_keys text[], guard_revisions bigint[],
    OUT base_revision bigint, OUT refused integer[], OUT was bigint[]
) LANGUAGE sql AS $$
    SELECT b.base_revision, b.refused, b.was
    FROM commit_batch(
        by_writer, number, 0, 0, NULL, op_txs, op_keys, op_values, op_expected, op_expiries,
        guard_txs, guard_keys, guard_revisions
    ) b
$$;
