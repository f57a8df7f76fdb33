-- Every write is one row of the log and stays until it is neither current nor history. `previous` is the revision of
-- the key's row before, so that a key's past is a chain; it is negative where that row no longer counted as a
-- value (a deletion, or something dropped), and 0 where there is none. A value of NULL is a deletion, or, where
-- the key ends in a slash, a drop of all that is under it.
CREATE TABLE log (
    revision INTEGER PRIMARY KEY,
    key      TEXT    NOT NULL,
    previous INTEGER NOT NULL,
    value    BLOB
) STRICT;

-- Where each key's newest row is. Deleted keys stay (live = 0) while history may be asked for them.
-- Values are only in the log: rows here are small, so a batch of writes touches few of these pages.
CREATE TABLE state (
    key        TEXT    NOT NULL PRIMARY KEY,
    revision   INTEGER NOT NULL,
    live       INTEGER NOT NULL,
    expires_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX state_expires_at ON state (expires_at) WHERE expires_at IS NOT NULL;

-- Drops whose rows have not been swept yet.
CREATE TABLE drops (
    prefix   TEXT    NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (prefix, revision)
) STRICT, WITHOUT ROWID;

-- format; id and epoch of the store; owner: which opening of the file may write; horizon: history below is gone;
-- swept: how far compaction has come.
CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value ANY  NOT NULL
) STRICT, WITHOUT ROWID;
