-- How much is kept in each collection, the first three parts of a key. The file itself keeps it: also for versions that
-- know nothing of it. Values of a single byte are no objects.
CREATE TABLE usage (
    collection TEXT    NOT NULL PRIMARY KEY,
    objects    INTEGER NOT NULL,
    bytes      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER usage_of_writes AFTER INSERT ON log WHEN NEW.value IS NOT NULL OR substr(NEW.key, -1) <> '/' BEGIN
    INSERT INTO usage
    SELECT substr(NEW.key, 1, k.cut + instr(substr(NEW.key, k.cut + 1), '/')),
        (k.after > 1) - (k.before > 1), iif(k.after > 1, k.after, 0) - iif(k.before > 1, k.before, 0)
    FROM (
        SELECT instr(NEW.key, '/') + instr(substr(NEW.key, instr(NEW.key, '/') + 1), '/') AS cut,
            coalesce(length(NEW.value), 0) AS after,
            iif(NEW.previous > 0, (SELECT length(l.value) FROM log l WHERE l.revision = NEW.previous), 0) AS before
    ) k
    WHERE true
    ON CONFLICT (collection) DO UPDATE SET objects = objects + excluded.objects, bytes = bytes + excluded.bytes;
END;

-- Of a drop, which is noted in `drops` after it is logged: whole collections, or a part of one, which is counted.
CREATE TRIGGER usage_of_drops AFTER INSERT ON log WHEN NEW.value IS NULL AND substr(NEW.key, -1) = '/' BEGIN
    UPDATE usage SET (objects, bytes) = (
        SELECT usage.objects - count(*), usage.bytes - coalesce(sum(length(l.value)), 0)
        FROM state s JOIN log l ON l.revision = s.revision
        WHERE s.key > NEW.key AND s.key < substr(NEW.key, 1, length(NEW.key) - 1) || '0' AND s.live
            AND length(l.value) > 1 AND NOT EXISTS (
                SELECT 1 FROM drops d
                WHERE d.revision > s.revision AND substr(s.key, 1, length(d.prefix)) = d.prefix
            )
    )
    WHERE length(NEW.key) - length(replace(NEW.key, '/', '')) > 3 AND collection = (
        SELECT substr(NEW.key, 1, k.cut + instr(substr(NEW.key, k.cut + 1), '/'))
        FROM (
            SELECT instr(NEW.key, '/') + instr(substr(NEW.key, instr(NEW.key, '/') + 1), '/') AS cut
        ) k
    );
    DELETE FROM usage
    WHERE length(NEW.key) - length(replace(NEW.key, '/', '')) <= 3
        AND collection >= NEW.key AND collection < substr(NEW.key, 1, length(NEW.key) - 1) || '0';
END;
