-- How much is kept in each collection, the first three parts of a key. A trigger keeps it, so that it is right whoever
-- writes: replicas of an older version, and copies. Values of a single byte are no objects. Whoever writes has locked
-- the clock, so the totals are those of all that was committed before.
CREATE TABLE usage (
    collection text   COLLATE "C" PRIMARY KEY,
    objects    bigint NOT NULL,
    bytes      bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

CREATE FUNCTION collection_of(key text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        -- A third of what the pattern costs, for all keys but the store's own.
        WHEN key LIKE '%/%/%/%'
            THEN split_part(key, '/', 1) || '/' || split_part(key, '/', 2) || '/' || split_part(key, '/', 3) || '/'
        ELSE substring(key FROM '^(?:[^/]*/){0,3}')
    END
$$;

-- What the totals must be.
CREATE FUNCTION count_usage() RETURNS TABLE (collection text, objects bigint, bytes bigint) LANGUAGE sql STABLE AS $$
    SELECT collection_of(s.key) COLLATE "C", count(*), sum(octet_length(l.value))::bigint
    FROM state s JOIN log l ON l.revision = s.revision
    WHERE s.live AND octet_length(l.value) > 1
        AND (NOT EXISTS (SELECT FROM drops) OR s.revision > dropped_at(s.key))
    GROUP BY 1
$$;

CREATE FUNCTION keep_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage AS u (collection, objects, bytes)
    SELECT collection_of(d.key), sum((d.after > 1)::integer - (d.before > 1)::integer),
        sum(CASE WHEN d.after > 1 THEN d.after ELSE 0 END - CASE WHEN d.before > 1 THEN d.before ELSE 0 END)
    FROM (
        SELECT a.key, coalesce(octet_length(a.value), 0) AS after,
            CASE WHEN a.previous > 0 THEN (SELECT octet_length(l.value) FROM log l WHERE l.revision = a.previous) ELSE 0 END
            AS before
        FROM added a
        WHERE a.value IS NOT NULL OR right(a.key, 1) <> '/'
    ) d
    GROUP BY 1
    ON CONFLICT (collection) DO UPDATE SET objects = u.objects + excluded.objects, bytes = u.bytes + excluded.bytes;
    RETURN NULL;
END
$$;

-- From here on nobody writes until all of this is in place.
SELECT FROM clock FOR UPDATE;
SET LOCAL enable_seqscan = on;
SET LOCAL enable_hashjoin = on;
SET LOCAL enable_mergejoin = on;
INSERT INTO usage SELECT * FROM count_usage();
SET LOCAL enable_seqscan = off;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;

CREATE TRIGGER kept_usage AFTER INSERT ON log REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION keep_usage();

-- Drops all that is under the prefix, which ends before `high`. The revision that it took, NULL where nothing was there.
CREATE OR REPLACE FUNCTION drop_range(low text, high text) RETURNS bigint LANGUAGE plpgsql AS $$
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
    IF collection_of(low) = low THEN
        DELETE FROM usage u WHERE u.collection >= low AND u.collection < high;
    ELSE
        UPDATE usage u SET objects = u.objects - g.objects, bytes = u.bytes - g.bytes
        FROM (
            SELECT count(*) AS objects, coalesce(sum(octet_length(l.value)), 0)::bigint AS bytes
            FROM state s JOIN log l ON l.revision = s.revision
            WHERE s.key > low AND s.key < high AND s.live AND octet_length(l.value) > 1
                AND s.revision > floor AND s.revision > dropped_at(s.key)
        ) g
        WHERE u.collection = collection_of(low);
    END IF;
    INSERT INTO log (revision, previous, key, value) VALUES (base + 1, 0, low, NULL);
    INSERT INTO drops (prefix, revision) VALUES (low, base + 1);
    UPDATE clock SET head = base + 1, drops = drops + 1;
    RETURN base + 1;
END
$$;

-- A batch of transactions, each of which happens or is refused as a whole. Op i belongs to transaction op_txs[i].
-- `base_revision`: the revision before the batch; the ops that happened have the revisions after it, in their order.
-- `refused`: rows of (transaction, why, which), why 1 KeyExists, 2 RevisionConflict, 3 GuardFailed, 4 LimitReached.
-- `was`: of each op's key the row before, as in log.previous.
--
-- `seen` is how far the writer has come. What others wrote between there and the batch comes with the reply (`keys`,
-- `previous` and `contents`, in the order of their revisions), so that who writes need not ask; NULL where that is more
-- than `others_bytes`, or many. A store that is not as far as its writer saw it was put back: it takes no write until it
-- has a new epoch.
--
-- Limit i is that of transaction limit_txs[i]: it may leave no more than limit_mosts[i] of what range limit_ranges[i]
-- counts, unless it adds nothing there. Range i is what is under low_keys[i]: objects, which what begins with ~ there
-- are not, or bytes where in_bytes[i]. `over` has
-- rows of (which limit, how much there was, how much was to be added) for those refused.
--
-- `channel`: to be notified of the batch; NULL for nobody.
CREATE FUNCTION commit_limited(
    by_writer text, number bigint, seen bigint, others_bytes bigint, channel text,
    op_txs integer[], op_keys text[], op_values bytea[], op_expected bigint[], op_expiries bigint[],
    guard_txs integer[], guard_keys text[], guard_revisions bigint[],
    limit_txs integer[], limit_ranges integer[], limit_mosts bigint[], low_keys text[], in_bytes boolean[],
    OUT in_epoch bigint, OUT base_revision bigint, OUT refused integer[], OUT was bigint[],
    OUT keys text[], OUT previous bigint[], OUT contents bytea[], OUT over bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    dropping boolean;
    given_up boolean;
    written  bigint;
    used     bigint[];
    step     record;
    failed   integer;
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

    IF cardinality(limit_txs) > 0 THEN
        SELECT array_agg(
            (
                SELECT coalesce(sum(CASE WHEN r.counts_bytes THEN u.bytes ELSE u.objects END), 0)
                FROM usage u
                WHERE u.collection >= r.low
                    AND u.collection < CASE WHEN r.counts_bytes THEN left(r.low, -1) || '0' ELSE r.low || '~' END
            ) ORDER BY r.n)
        INTO used
        FROM unnest(low_keys, in_bytes) WITH ORDINALITY r (low, counts_bytes, n);

        -- Of every transaction that is left, with limits or without, what it adds to each range; one after the other, as those
        -- that are refused add nothing.
        FOR step IN
            WITH op AS MATERIALIZED (
                SELECT o.tx, o.key, coalesce(octet_length(o.value), 0) AS after, CASE
                    WHEN o.was > 0 THEN (SELECT octet_length(l.value) FROM log l WHERE l.revision = o.was) ELSE 0
                END AS before
                FROM unnest(op_txs, op_keys, op_values, was) o (tx, key, value, was)
                WHERE refused IS NULL OR o.tx <> ALL (refused[:][1:1])
            )
            SELECT d.tx, array_agg(d.n) AS ranges, array_agg(d.wanted) AS wanted, array_agg(l.most) AS mosts,
                array_agg(l.n) AS limits
            FROM (
                SELECT op.tx, r.n::integer AS n, sum(
                    CASE
                        WHEN r.counts_bytes THEN
                            CASE WHEN op.after > 1 THEN op.after ELSE 0 END
                            - CASE WHEN op.before > 1 THEN op.before ELSE 0 END
                        ELSE (op.after > 1)::integer - (op.before > 1)::integer
                    END) AS wanted
                FROM op JOIN unnest(low_keys, in_bytes) WITH ORDINALITY r (low, counts_bytes, n)
                    ON starts_with(op.key, r.low) AND (r.counts_bytes OR NOT starts_with(op.key, r.low || '~'))
                GROUP BY op.tx, r.n
            ) d
            LEFT JOIN unnest(limit_txs, limit_ranges, limit_mosts) WITH ORDINALITY l (tx, range, most, n)
                ON l.tx = d.tx AND l.range = d.n
            GROUP BY d.tx ORDER BY d.tx
        LOOP
            failed := NULL;
            FOR i IN 1 .. cardinality(step.ranges) LOOP
                IF step.wanted[i] > 0 AND used[step.ranges[i]] + step.wanted[i] > step.mosts[i]
                    AND (failed IS NULL OR step.limits[i] < step.limits[failed])
                THEN
                    failed := i;
                END IF;
            END LOOP;
            IF failed IS NULL THEN
                FOR i IN 1 .. cardinality(step.ranges) LOOP
                    used[step.ranges[i]] := used[step.ranges[i]] + step.wanted[i];
                END LOOP;
            ELSE
                refused := refused || ARRAY[ARRAY[step.tx, 4, step.limits[failed]::integer]];
                over := over || ARRAY[ARRAY[step.limits[failed], used[step.ranges[failed]], step.wanted[failed]]];
            END IF;
        END LOOP;
    END IF;

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
CREATE OR REPLACE FUNCTION commit_batch(
    by_writer text, number bigint, seen bigint, others_bytes bigint, channel text,
    op_txs integer[], op_keys text[], op_values bytea[], op_expected bigint[], op_expiries bigint[],
    guard_txs integer[], guard_keys text[], guard_revisions bigint[],
    OUT in_epoch bigint, OUT base_revision bigint, OUT refused integer[], OUT was bigint[],
    OUT keys text[], OUT previous bigint[], OUT contents bytea[]
) LANGUAGE sql AS $$
    SELECT b.in_epoch, b.base_revision, b.refused, b.was, b.keys, b.previous, b.contents
    FROM commit_limited(
        by_writer, number, seen, others_bytes, channel, op_txs, op_keys, op_values, op_expected, op_expiries,
        guard_txs, guard_keys, guard_revisions, '{}', '{}', '{}', '{}', '{}'
    ) b
$$;
