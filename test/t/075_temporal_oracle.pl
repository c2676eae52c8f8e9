# The temporal functions against a model: random histories over many streams, with events of the same moment, clocks
# that were set back, business times in any order, snapshots, events in several months' partitions, undo; every
# function at random versions and times.  The model is SQL that shares no code with the extension: plain aggregates
# over the rows of the table events.  EVENTSRC_SEED repeats a run.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{EVENTSRC_SEED} || int(rand(1_000_000));
my $torture = $ENV{EVENTSRC_TORTURE} || 1;
diag("EVENTSRC_SEED=$seed");
srand($seed);

my $node = new_node('oracle');
create_extension($node);
$node->safe_psql('postgres', <<'SQL');
SELECT es_create_store();
SELECT eventsrc.add_partitions('es.events', date_trunc('month', now()) - interval '3 months', 6);

-- the model: a state is what jsonb_each() and the last value of each key give, or what was restored and that
CREATE FUNCTION model_merge(state jsonb, event_type text, data jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN event_type = 'StateRestored' THEN data -> 'state'
                WHEN jsonb_typeof(data) = 'object' THEN state || data ELSE state END $$;
CREATE FUNCTION model_count(state jsonb, event_type text, data jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN event_type = 'StateRestored' THEN data -> 'state'
                ELSE jsonb_build_object('n', (state ->> 'n')::int + 1, 'types', (state ->> 'types') || left(event_type, 1)) END $$;
CREATE AGGREGATE model_merge(text, jsonb) (sfunc = model_merge, stype = jsonb, initcond = '{}');
CREATE AGGREGATE model_count(text, jsonb) (sfunc = model_count, stype = jsonb, initcond = '{"n": 0, "types": ""}');

-- the reducer, and a typed one
CREATE FUNCTION counting(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN jsonb_build_object('n', (state ->> 'n')::int + 1, 'types', (state ->> 'types') || left(event.event_type, 1));
END
$$;
CREATE TYPE counted AS (n int, types text);
CREATE FUNCTION counting(state counted, event es_event) RETURNS counted LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    state.n := state.n + 1;
    state.types := state.types || left(event.event_type, 1);
    RETURN state;
END
$$;
SELECT es_create_aggregate('Merged', snapshot_every => 7);
SELECT es_create_aggregate('Counted', 'counting(jsonb,es_event)', '{"n": 0, "types": ""}', snapshot_every => 5);
SELECT es_create_aggregate('Typed', 'counting(counted,es_event)', '{"n": 0, "types": ""}', snapshot_every => 0);

-- states of all aggregates of a type at a moment, by the model
CREATE FUNCTION model_states(type text, upto_version bigint, at timestamptz, occurred boolean)
RETURNS TABLE (aggregate_id text, version bigint, state jsonb) LANGUAGE sql STABLE AS $$
    SELECT e.aggregate_id, max(e.version),
           CASE WHEN type = 'Merged' THEN model_merge(e.event_type, e.data ORDER BY CASE WHEN occurred THEN coalesce(e.occurred_at, e.recorded_at) END, e.version)
                ELSE model_count(e.event_type, e.data ORDER BY CASE WHEN occurred THEN coalesce(e.occurred_at, e.recorded_at) END, e.version) END
    FROM es.events e
    WHERE e.aggregate_type = type AND e.version <= upto_version
      AND CASE WHEN occurred THEN coalesce(e.occurred_at, e.recorded_at) ELSE e.recorded_at END <= at
    GROUP BY e.aggregate_id $$;
SQL

# --- the histories

# Events of the past are written as a restore would: in replica role the trigger takes what it is given.
my $months = $node->safe_psql('postgres', q{SELECT string_agg(lower, ' ') FROM (
	SELECT to_char(date_trunc('month', now()) - make_interval(months => m), 'YYYY-MM-DD') AS lower FROM generate_series(1, 3) m) x});
my @months = sort split / /, $months;
my @types = qw(Merged Counted Typed);
my $rounds = 60 * $torture;
my @sql = ("SELECT setseed(" . ($seed % 1000) / 1000 . ");");
foreach my $round (1 .. $rounds)
{
	my $type = $types[ rand @types ];
	my $id = 'a' . int(rand 9);
	my $count = 1 + int(rand 12);
	my $happened = rand() < 0.5 ? 'NULL::timestamptz' : "'2024-01-01'::timestamptz + floor(random() * 20) * interval '1 hour'";
	# all events of one statement of es_append_events() have one moment; others have their own
	push @sql, rand() < 0.5
	  ? "SELECT es_append_events('$type', '$id', array_agg((ARRAY['Added', 'Moved', 'Gone'])[1 + n % 3]),"
	  . " array_agg(jsonb_build_object('k' || floor(random() * 6), n, 'r', $round)), occurred_at => array_agg($happened)) FROM generate_series(1, $count) n;"
	  : "SELECT es_append('$type', '$id', (ARRAY['Added', 'Moved', 'Gone'])[1 + n % 3], CASE WHEN random() < 0.1 THEN '[1]' ELSE"
	  . " jsonb_build_object('k' || floor(random() * 6), n, 'r', $round) END, occurred_at => $happened) FROM generate_series(1, $count) n;";
	push @sql, "SELECT es_undo('$type', '$id', floor(random() * es_stream_version('$type', '$id'))::bigint, 'round $round');"
	  if rand() < 0.15;
}
$node->safe_psql('postgres', join("\n", @sql));

# the same streams, moved into past months: whole streams are copied with times that do not run backwards within one
my $spread = join ', ', map { "'$_'::timestamptz" } @months;
my ($ok, $out, $err) = $node->psql('postgres', qq{
	CREATE TABLE past AS SELECT aggregate_type, 'p' || aggregate_id AS aggregate_id, version, event_type, data, occurred_at,
		max((ARRAY[$spread])[least(1 + (version / 9), 3)] + (version / 3) * interval '1 minute')
			OVER (PARTITION BY aggregate_type, aggregate_id ORDER BY version) AS recorded_at
	FROM es.events;
	SELECT setseed(0.5)});
is($ok, 0, 'a past is made') or diag($err);
my $columns = $node->safe_psql('postgres', q{SELECT string_agg(attname, ',') FROM pg_attribute WHERE attrelid = 'es.events'::regclass AND attnum > 0});
($ok, $out, $err) = $node->psql('postgres', q{
	SET session_replication_role = replica;
	INSERT INTO es.events (global_position, aggregate_type, aggregate_id, version, event_id, event_type, schema_version, data, user_id, recorded_at, occurred_at, transaction)
	SELECT es_safe_position() + row_number() OVER (ORDER BY recorded_at, aggregate_type, aggregate_id, version), aggregate_type, aggregate_id, version,
		gen_random_uuid()::text, event_type, 1, data, 'past', recorded_at, occurred_at, pg_current_xact_id()
	FROM past ORDER BY recorded_at, version});
my $past = $ok == 0;
diag("past months cannot be written: $err") unless $past;
my $where = $node->safe_psql('postgres', 'SELECT count(DISTINCT tableoid) FROM es.events');
cmp_ok($where, '>', 2, 'events lie in several partitions') if $past;
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM es.events'), '>', 200, 'there are histories');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM es.events WHERE event_type = 'StateRestored'}), '>', 0, 'some were undone');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM es.snapshots'), '>', 0, 'there are snapshots');

# --- the comparisons

# differ counts the rows of two queries that are not the same
sub agrees
{
	my ($what, $one, $other) = @_;
	my $differ = $node->safe_psql('postgres', "SELECT count(*) FROM ((($one) EXCEPT ALL ($other)) UNION ALL (($other) EXCEPT ALL ($one))) d");
	is($differ, '0', $what) or diag($node->safe_psql('postgres', "($one) EXCEPT ALL ($other) LIMIT 3") . "\n--\n" . $node->safe_psql('postgres', "($other) EXCEPT ALL ($one) LIMIT 3"));
	return;
}

foreach my $type (@types)
{
	agrees("$type: es_state() of every stream at every version",
		qq{SELECT aggregate_id, version, es_state('$type', aggregate_id, version) AS state FROM es.events WHERE aggregate_type = '$type'},
		qq{SELECT e.aggregate_id, e.version, m.state FROM (SELECT DISTINCT version FROM es.events WHERE aggregate_type = '$type') v,
			LATERAL model_states('$type', v.version, 'infinity', false) m, es.events e
			WHERE e.aggregate_type = '$type' AND e.aggregate_id = m.aggregate_id AND e.version = v.version});
	agrees("$type: es_states() now", qq{SELECT * FROM es_states('$type')}, qq{SELECT * FROM model_states('$type', 1000000, 'infinity', false)});
	agrees("$type: es_states() by business time", qq{SELECT * FROM es_states('$type', occurred => true)},
		qq{SELECT * FROM model_states('$type', 1000000, 'infinity', true)});
	agrees("$type: es_fold()", qq{SELECT aggregate_id, es_fold(e ORDER BY version) FROM es.events e WHERE aggregate_type = '$type' GROUP BY 1},
		qq{SELECT aggregate_id, state FROM model_states('$type', 1000000, 'infinity', false)});
	agrees("$type: es_fold() over windows", qq{SELECT aggregate_id, version, es_fold(e) OVER (PARTITION BY aggregate_id ORDER BY version) FROM es.events e WHERE aggregate_type = '$type'},
		qq{SELECT aggregate_id, version, es_state('$type', aggregate_id, version) FROM es.events WHERE aggregate_type = '$type'});
	agrees("$type: es_history()", qq{SELECT a.id, h.version, h.state FROM (SELECT DISTINCT aggregate_id FROM es.events WHERE aggregate_type = '$type') a (id), es_history('$type', a.id) h},
		qq{SELECT aggregate_id, version, es_state('$type', aggregate_id, version) FROM es.events WHERE aggregate_type = '$type'});
	agrees("$type: es_replay()", qq{SELECT a.id, h.version, h.state_after, h.error FROM (SELECT DISTINCT aggregate_id FROM es.events WHERE aggregate_type = '$type') a (id), es_replay('$type', a.id) h},
		qq{SELECT aggregate_id, version, es_state('$type', aggregate_id, version), NULL FROM es.events WHERE aggregate_type = '$type'});
	agrees("$type: es_history() from the middle on",
		qq{SELECT a.id, h.version, h.state, h.changes FROM (SELECT DISTINCT aggregate_id FROM es.events WHERE aggregate_type = '$type') a (id), es_history('$type', a.id, 6, 15) h},
		qq{SELECT a.id, h.version, h.state, h.changes FROM (SELECT DISTINCT aggregate_id FROM es.events WHERE aggregate_type = '$type') a (id), es_history('$type', a.id) h WHERE h.version BETWEEN 6 AND 15});

	# moments: of events, just before and after them, and in between
	my @moments = split /\n/, $node->safe_psql('postgres', qq{SELECT setseed($seed % 100 / 100.0); SELECT t FROM (
		SELECT recorded_at + o * interval '1 microsecond' AS t FROM es.events, unnest('{-1,0,1}'::int[]) o
		UNION SELECT occurred_at + o * interval '1 microsecond' FROM es.events, unnest('{-1,0,1}'::int[]) o WHERE occurred_at IS NOT NULL) x
		WHERE t IS NOT NULL ORDER BY random() LIMIT 12 * $torture});
	foreach my $moment (grep { $_ ne '' } @moments)
	{
		foreach my $occurred ('false', 'true')
		{
			my $version = 1 + int(rand 30);
			agrees("$type: es_states() as of $moment, occurred $occurred", qq{SELECT * FROM es_states('$type', '$moment', $occurred)},
				qq{SELECT * FROM model_states('$type', 1000000, '$moment', $occurred)});
			agrees("$type: es_state() as of $moment, occurred $occurred",
				qq{SELECT id, es_state('$type', id, as_of => '$moment', occurred => $occurred) FROM (SELECT DISTINCT aggregate_id FROM es.events WHERE aggregate_type = '$type') a (id)},
				qq{SELECT a.id, m.state FROM (SELECT DISTINCT aggregate_id FROM es.events WHERE aggregate_type = '$type') a (id)
					LEFT JOIN model_states('$type', 1000000, '$moment', $occurred) m ON m.aggregate_id = a.id});
			agrees("$type: es_state() as of $moment at version $version, occurred $occurred",
				qq{SELECT id, es_state('$type', id, $version, '$moment', $occurred) FROM (SELECT aggregate_id FROM es.events WHERE aggregate_type = '$type' AND version = $version) a (id)},
				qq{SELECT a.id, m.state FROM (SELECT aggregate_id FROM es.events WHERE aggregate_type = '$type' AND version = $version) a (id)
					LEFT JOIN model_states('$type', $version, '$moment', $occurred) m ON m.aggregate_id = a.id});
		}
	}
}

# positions and times: nothing recorded after the moment lies at or below the position
is($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT recorded_at AS t, es_position_at(recorded_at) AS p
	FROM es.events WHERE user_id <> 'past' ORDER BY global_position DESC LIMIT 40) x
	WHERE EXISTS (SELECT FROM es.events WHERE recorded_at > t AND global_position <= p)}), '0', 'es_position_at() skips nothing');
agrees('es_between()', q{SELECT global_position FROM es_between('Merged', now() - interval '70 days', now() - interval '20 days')},
	q{SELECT global_position FROM es.events WHERE aggregate_type = 'Merged' AND recorded_at >= now() - interval '70 days' AND recorded_at < now() - interval '20 days'});

# --- a long stream without snapshots can be stopped, and 50 MB of state be folded

$node->safe_psql('postgres', q{
	SELECT es_create_aggregate('Long', 'counting(jsonb,es_event)', '{"n": 0, "types": ""}', snapshot_every => 0);
	INSERT INTO es.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Long', '1', 'Added', '{}' FROM generate_series(1, 20000)});
foreach my $query (q{es_state('Long', '1')}, q{es_history('Long', '1')}, q{es_replay('Long', '1')}, q{es_states('Long')})
{
	# nothing folds 20,000 events in so short a time
	is(sqlstate_of($node, "SET statement_timeout = '5ms'; SELECT $query"), '57014', "$query can be stopped");
}
# the memory that a fold takes does not grow with the stream: an upcaster looks at it now and then
my $length = 1000 + 18_000 * $torture;
$node->safe_psql('postgres', qq{
	CREATE FUNCTION remembering(event es_event) RETURNS jsonb LANGUAGE plpgsql AS \$\$
	BEGIN
		IF event.version % 9000 = 1000 THEN
			RETURN event.data || jsonb_build_object('m' || event.version, (SELECT sum(used_bytes) FROM pg_backend_memory_contexts));
		END IF;
		RETURN event.data;
	END
	\$\$;
	SELECT es_create_upcaster('Remembered', 1, 'remembering(es_event)');
	CREATE FUNCTION merging(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RETURN state || event.data; END';
	CREATE FUNCTION rewriting(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RETURN (state - ''k'') || event.data; END';
	SELECT es_create_aggregate('Bound' || r, CASE WHEN r <> '' THEN r::regprocedure END, snapshot_every => 0)
	FROM unnest('{"","es_merge_patch(jsonb,es_event)","merging(jsonb,es_event)","rewriting(jsonb,es_event)"}'::text[]) r;
	INSERT INTO es.events (aggregate_type, aggregate_id, event_type, data)
	SELECT aggregate_type, '1', 'Remembered', jsonb_build_object('k', v, 'x', repeat('x', v % 300))
	FROM es.aggregates, generate_series(1, $length) v WHERE aggregate_type ~ '^Bound'});
foreach my $inline ('on', 'off')
{
	is($node->safe_psql('postgres', qq{SET eventsrc.inline_reducers = $inline;
		SELECT aggregate_type FROM es.aggregates, LATERAL es_state(aggregate_type, '1') s
		WHERE aggregate_type ~ '^Bound' AND abs((s ->> 'm$length')::bigint - (s ->> 'm10000')::bigint) < 100000 ORDER BY aggregate_type COLLATE "C"}),
		join("\n", 'Bound', map { "Bound$_(jsonb,es_event)" } qw(es_merge_patch merging rewriting)), "the memory of folds is bounded, inline_reducers $inline");
}

is($node->safe_psql('postgres', q{
	SELECT count(es_append('Big', '1', 'Changed', jsonb_build_object('k' || n, repeat('x', 12500000)))) FROM generate_series(1, 4) n;
	SELECT length(es_state('Big', '1')::text) > 50000000}), "4\nt", 'a state of 50 MB');

$node->stop;
done_testing();
