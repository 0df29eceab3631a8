-- needs: 1
--
-- Everything of one installation is in one schema, which is the search path here and of every connection.

-- What there is one of. life names this set of data in cursors; system is the server it was made on. Buckets up to
-- purged are gone, whether or not their rows still are. The turns say which part of each log is written to now.
CREATE TABLE meta (
    one            smallint    PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    life           text        NOT NULL,
    system         bigint      NOT NULL,
    purged         integer     NOT NULL DEFAULT 0,
    changes_turn   integer     NOT NULL DEFAULT 0,
    changes_turned timestamptz NOT NULL DEFAULT now(),
    events_turn    integer     NOT NULL DEFAULT 0,
    events_turned  timestamptz NOT NULL DEFAULT now()
);

-- An unlogged table is emptied when the server recovers from a crash, and where a standby takes over. So who finds its
-- id unchanged knows that transaction ids have not gone back since.
CREATE UNLOGGED TABLE boot (
    one smallint PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    id  text NOT NULL
);

-- The records, a partition for each day in which their own buckets fall, and one for those that have none. No index
-- holds what changes, so that changes are heap-only. Texts are bytes: they may be anything. What is sealed does not
-- become smaller.
CREATE TABLE records (
    created   bigint   NOT NULL,
    absolute  bigint   NOT NULL,
    marked    bigint   NOT NULL,
    version   bigint   NOT NULL,
    last_seen bigint   NOT NULL,
    seen_at   bigint   NOT NULL,
    tenant    bigint   NOT NULL,
    seen_gen  bigint   NOT NULL,
    bucket    integer  NOT NULL,
    kind      smallint NOT NULL,
    id        bytea    NOT NULL,
    subject   bytea    NOT NULL,
    client    bytea    NOT NULL,
    reason    bytea    NOT NULL,
    payload   bytea    NOT NULL,
    PRIMARY KEY (id, bucket)
) PARTITION BY RANGE (bucket);
ALTER TABLE records ALTER COLUMN payload SET STORAGE EXTERNAL;

-- Roots are listed by these two, and a root's id has 17 bytes. That each says so in a word of its own is how a statement names
-- the one it goes by: the planner has no idea of how many rows are roots, and would take now this one, now that.
CREATE INDEX records_subject ON records (tenant, subject, bucket, id) WHERE octet_length(id) = 17;
CREATE INDEX records_tenant ON records (tenant, id) WHERE length(id) = 17;

-- The change log: the root of every Apply that changed a record that was there. Nodes read what has become visible since
-- their last look, by transaction ids. node and n say whose Apply it was.
CREATE TABLE changes (
    xid  xid8        NOT NULL DEFAULT pg_current_xact_id(),
    at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    node bigint      NOT NULL,
    n    bigint      NOT NULL,
    turn integer     NOT NULL,
    root bytea       NOT NULL
) PARTITION BY LIST ((turn % 4));
CREATE INDEX changes_xid ON changes (xid);

-- The events, in the order of transaction ids, and n within a transaction.
CREATE TABLE events (
    xid     xid8        NOT NULL DEFAULT pg_current_xact_id(),
    made    timestamptz NOT NULL DEFAULT clock_timestamp(),
    at      bigint      NOT NULL,
    tenant  bigint      NOT NULL,
    n       integer     NOT NULL,
    turn    integer     NOT NULL,
    type    bytea       NOT NULL,
    id      bytea       NOT NULL,
    subject bytea       NOT NULL,
    reason  bytea       NOT NULL,
    detail  bytea       NOT NULL
) PARTITION BY LIST ((turn % 8));
CREATE INDEX events_order ON events (xid, n);

-- Both logs are rings: a part is emptied as a whole before it is written to again. Its rows never change.
DO $$
BEGIN
    FOR i IN 0..3 LOOP
        EXECUTE format('CREATE TABLE changes_%s PARTITION OF changes FOR VALUES IN (%s) WITH (autovacuum_enabled = off)', i, i);
    END LOOP;
    FOR i IN 0..7 LOOP
        EXECUTE format('CREATE TABLE events_%s PARTITION OF events FOR VALUES IN (%s)', i, i);
    END LOOP;
END $$;

-- apply1 is Apply. It returns 0 if all was done; or what was in the way, and nothing was done: 100 + i, operation i met
-- another version; 200 + i, the record to mark is not there; 300 + i, operation i makes a record in a bucket that is
-- purged. Where something had been written by then, the same number is raised as AL001.
--
-- Functions here are never changed: another behaviour is another function, with the next number, so that the programs of
-- two releases can work on one schema.
CREATE FUNCTION apply1(
    _lock bigint, _root bytea, _node bigint, _number bigint, _changes boolean,
    _ops smallint[], _ids bytea[], _buckets integer[], _expects bigint[], _ats bigint[], _reasons bytea[],
    _tenants bigint[], _subjects bytea[],
    _kinds smallint[], _clients bytea[], _created bigint[], _absolute bigint[],
    _last_seen bigint[], _seen_gen bigint[], _seen_at bigint[], _payloads bytea[],
    _types bytea[], _details bytea[]
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    m     meta%ROWTYPE;
    wrote boolean := false;
    fault integer := 0;
BEGIN
    -- Before anything gets a transaction id: the order of a root's changes is that of their ids, and each sees those
    -- before it, because every statement here has a snapshot of its own.
    PERFORM pg_advisory_xact_lock(_lock);
    SELECT * INTO STRICT m FROM meta WHERE one = 1;
    FOR i IN 1 .. cardinality(_ops) LOOP
        IF _ops[i] = 1 AND _expects[i] = 0 THEN
            IF _buckets[i] <= m.purged THEN
                fault := 300 + i - 1;
            ELSE
                INSERT INTO records (created, absolute, marked, version, last_seen, seen_at, tenant, seen_gen, bucket, kind,
                    id, subject, client, reason, payload)
                VALUES (_created[i], _absolute[i], 0, 1, _last_seen[i], _seen_at[i], _tenants[i], _seen_gen[i], _buckets[i],
                    _kinds[i], _ids[i], _subjects[i], _clients[i], '', _payloads[i])
                ON CONFLICT (id, bucket) DO NOTHING;
                IF NOT FOUND THEN
                    fault := 100 + i - 1;
                END IF;
            END IF;
        ELSIF _ops[i] = 1 THEN
            UPDATE records r SET
                created = _created[i], absolute = _absolute[i], marked = 0, version = _expects[i] + 1,
                last_seen = greatest(r.last_seen, _last_seen[i]),
                seen_at = CASE WHEN r.seen_gen >= _seen_gen[i] THEN r.seen_at ELSE _seen_at[i] END,
                seen_gen = greatest(r.seen_gen, _seen_gen[i]),
                tenant = _tenants[i], kind = _kinds[i], subject = _subjects[i], client = _clients[i], reason = '',
                payload = _payloads[i]
            WHERE r.id = _ids[i] AND r.bucket = _buckets[i] AND r.bucket > m.purged AND r.version = _expects[i];
            IF NOT FOUND THEN
                fault := 100 + i - 1;
            END IF;
        ELSIF _ops[i] = 2 THEN
            UPDATE records r SET marked = _ats[i], reason = _reasons[i], version = r.version + 1
            WHERE r.id = _ids[i] AND r.bucket = _buckets[i] AND r.bucket > m.purged AND r.marked = 0;
            IF NOT FOUND THEN
                PERFORM FROM records r WHERE r.id = _ids[i] AND r.bucket = _buckets[i] AND r.bucket > m.purged;
                IF NOT FOUND THEN
                    fault := 200 + i - 1;
                END IF;
            END IF;
        END IF;
        IF fault <> 0 AND wrote THEN
            RAISE EXCEPTION USING ERRCODE = 'AL001', MESSAGE = fault::text;
        ELSIF fault <> 0 THEN
            RETURN fault;
        END IF;
        wrote := wrote OR _ops[i] <> 3;
    END LOOP;
    FOR i IN 1 .. cardinality(_ops) LOOP
        IF _ops[i] = 3 THEN
            INSERT INTO events (at, tenant, n, turn, type, id, subject, reason, detail)
            VALUES (_ats[i], _tenants[i], i, m.events_turn, _types[i], _ids[i], _subjects[i], _reasons[i], _details[i]);
        END IF;
    END LOOP;
    IF _changes THEN
        INSERT INTO changes (node, n, turn, root) VALUES (_node, _number, m.changes_turn, _root);
    END IF;
    RETURN 0;
END $$;

-- touch1 is Touch, for records each of which is named once. It passes by what somebody else has locked, and does not wait
-- for the disk: a touch may be lost.
CREATE FUNCTION touch1(_ids bytea[], _buckets integer[], _ats bigint[], _gens bigint[], _gen_ats bigint[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    gone integer;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    SELECT purged INTO STRICT gone FROM meta WHERE one = 1;
    WITH t AS (
        SELECT * FROM unnest(_ids, _buckets, _ats, _gens, _gen_ats) AS t (id, bucket, at, gen, gen_at)
    ), free AS MATERIALIZED (
        SELECT r.id, r.bucket, t.at, t.gen, t.gen_at FROM records r JOIN t ON r.id = t.id AND r.bucket = t.bucket
        WHERE r.bucket = ANY (_buckets) AND r.id = ANY (_ids) AND r.bucket > gone AND r.marked = 0
            AND (r.last_seen < t.at OR r.seen_gen < t.gen)
        ORDER BY r.id
        FOR UPDATE OF r SKIP LOCKED
    )
    UPDATE records r SET
        last_seen = greatest(r.last_seen, f.at),
        seen_at = CASE WHEN f.gen > r.seen_gen THEN f.gen_at ELSE r.seen_at END,
        seen_gen = greatest(r.seen_gen, f.gen)
    FROM free f
    WHERE r.id = f.id AND r.bucket = f.bucket AND r.bucket = ANY (_buckets) AND r.id = ANY (_ids) AND r.marked = 0;
END $$;

-- hint1 tells whoever listens that there is something to read. It is no part of a change's transaction, which it would
-- make wait for those of others, and does not wait for the disk.
CREATE FUNCTION hint1(_channel text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM pg_notify(_channel, '');
END $$;
