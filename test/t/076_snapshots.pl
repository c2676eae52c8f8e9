# Snapshots are only a cache: random reducers, policies and streams; at every version the answer with snapshots is that
# without, while reducers, what they call, initial states, upcasters and policies change and snapshots are taken,
# dropped and verified at random.  Then several sessions do so at once, and a command's progress ends with its session.
# EVENTSRC_SEED repeats a run.
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

my $node = new_node('snapshots');
create_extension($node);
$node->safe_psql('postgres', <<'SQL');
SELECT es_create_store();
CREATE TYPE tallied AS (n int, sum numeric, last text);
CREATE FUNCTION factor() RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT 1.5';
CREATE FUNCTION tally(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN state || jsonb_build_object('n', coalesce((state ->> 'n')::int, 0) + 1, 'sum', coalesce((state ->> 'sum')::numeric, 0)
        + coalesce((event.data ->> 'a')::numeric, 1) * factor(), 'chain', md5(coalesce(state ->> 'chain', '') || event.data || event.event_type));
END $$;
CREATE FUNCTION tally_sql(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql IMMUTABLE
    RETURN jsonb_build_object('sum', coalesce((state ->> 'sum')::numeric, 0) + factor(), 'seen', coalesce(state -> 'seen', '[]') || to_jsonb(event.version));
CREATE FUNCTION tally_typed(state tallied, event es_event) RETURNS tallied LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    state.n := coalesce(state.n, 0) + 1;
    state.sum := coalesce(state.sum, 0) + factor();
    state.last := event.event_type;
    RETURN state;
END $$;
CREATE FUNCTION up(event es_event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT event.data || jsonb_build_object('a', coalesce((event.data ->> 'a')::numeric, 0) + 1) $$;
-- at every version of every stream: with snapshots what it is without them
CREATE FUNCTION differences() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(format('%s %s %s: %s, not %s', e.aggregate_type, e.aggregate_id, e.version, s.state, f.state), E'\n')
    FROM es.events e,
         es_explain_state(e.aggregate_type, e.aggregate_id, e.version) s,
         LATERAL (SELECT es_fold(o ORDER BY o.version) AS state FROM es.events o
                  WHERE (o.aggregate_type, o.aggregate_id) = (e.aggregate_type, e.aggregate_id) AND o.version <= e.version) f
    WHERE s.state::text IS DISTINCT FROM f.state::text OR s.version <> e.version
       OR s.events_replayed <> e.version - coalesce(s.snapshot_version, 0)
$$;
SQL

my @types = qw(Order Payment Inventory Document);
my @reducers = (undef, 'es_merge_patch(jsonb,es_event)', 'tally(jsonb,es_event)', 'tally_sql(jsonb,es_event)', 'tally_typed(tallied,es_event)');
my %used;

sub choose { return $_[int(rand(@_))]; }

# one random step, as SQL
sub random_step
{
	my $type = choose(@types);
	my $id = int(rand(3));
	my $kind = rand();
	if ($kind < 0.55)
	{
		my $count = 1 + int(rand(12));
		return "SELECT es_append('$type', '$id', (ARRAY['Placed','Changed'])[1 + i % 2], CASE WHEN i % 5 = 4 THEN '[1]' ELSE "
		  . "jsonb_build_object('a', i * @{[int(rand(9))]}, 'k' || i % 3, CASE WHEN i % 4 = 0 THEN NULL ELSE i END) END) FROM generate_series(1, $count) i";
	}
	if ($kind < 0.70)
	{
		my $reducer = choose(@reducers);
		my $initial = choose('{}', '{"n": 5}');
		my $every = choose(0, 1, 2, 3, 7, 100);
		my $keep = choose('NULL', 1, 2, 10);
		$used{$reducer // 'merge'} = 1;
		return sprintf("SELECT es_create_aggregate('$type', %s, '$initial', $every, $keep)", defined $reducer ? "'$reducer'" : 'NULL');
	}
	return "SELECT es_snapshot('$type')" if $kind < 0.78;
	return "SELECT es_snapshot('$type', '$id')" if $kind < 0.82;
	return 'DELETE FROM es.snapshots WHERE random() < 0.3' if $kind < 0.85;
	return "SELECT count(*) FROM es_verify_snapshots()" if $kind < 0.88;
	return sprintf(q{CREATE OR REPLACE FUNCTION factor() RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT %d.5'}, int(rand(5))) if $kind < 0.92;
	return "SELECT es_create_upcaster('Placed', 1, 'up(es_event)')" if $kind < 0.94;
	return "SELECT es_drop_upcaster('Placed', 1) FROM es.upcasters" if $kind < 0.96;
	return sprintf(q{CREATE OR REPLACE FUNCTION up(event es_event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT CASE jsonb_typeof(event.data) WHEN 'object' THEN event.data || '{"up": %d}' ELSE event.data END $$}, int(rand(5))) if $kind < 0.98;
	return "SELECT es_undo('$type', '$id', es_stream_version('$type', '$id') / 2) WHERE es_stream_version('$type', '$id') > 1";
}

# one after the other
my ($served, $steps) = (0, 0);
foreach my $round (1 .. 8 * $torture)
{
	my @done;
	for (1 .. 12)
	{
		my $step = random_step();
		push @done, $step;
		my ($rc, $out, $err) = $node->psql('postgres', $step);
		ok($rc == 0 || $err =~ /cannot cast|invalid input|not an object/, "round $round: a step fails for no reason of snapshots") or diag("$step\n$err") if $rc != 0;
		$steps++;
	}
	is($node->safe_psql('postgres', 'SELECT differences()'), '', "round $round: the same with snapshots as without") or diag(join(";\n", @done));
	$served += $node->safe_psql('postgres', 'SELECT count(*) FROM es.events e, es_explain_state(aggregate_type, aggregate_id, e.version) s WHERE snapshot_version IS NOT NULL');
}
cmp_ok($served, '>', 0, "snapshots served ($served times after $steps steps)");
is($node->safe_psql('postgres', q{SELECT string_agg(problem, ',') FROM es_verify_snapshots() WHERE problem <> 'outdated' AND problem NOT LIKE 'reducer%'}), '',
	'verifying finds outdated ones at most');
is($node->safe_psql('postgres', 'SELECT count(*) FROM es_verify_snapshots()'), '0', 'and leaves only right ones');

# a wrong one does not survive, whatever is wrong
$node->safe_psql('postgres', q{DELETE FROM es.upcasters;
	SELECT es_create_aggregate('Wrong', snapshot_every => 10, keep_snapshots => NULL);
	SELECT es_append('Wrong', '1', 'Placed', jsonb_build_object('a', i)) FROM generate_series(1, 50) i});
foreach my $harm ("state = '{}'", 'version = version + 3', "recorded_at = recorded_at - interval '1 hour'")
{
	$node->safe_psql('postgres', "UPDATE es.snapshots SET $harm WHERE aggregate_type = 'Wrong' AND version = 30");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM es_verify_snapshots('Wrong')}), '1', "found: $harm");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM es.snapshots WHERE aggregate_type = 'Wrong'}), '4', 'and dropped');
	is($node->safe_psql('postgres', q{SELECT es_state('Wrong', '1', 35), es_state('Wrong', '1', as_of => (SELECT recorded_at FROM es.events WHERE aggregate_type = 'Wrong' AND version = 30))}),
		'{"a": 35}|{"a": 30}', 'and the state is right');
	$node->safe_psql('postgres', q{INSERT INTO es.snapshots SELECT aggregate_type, aggregate_id, 30, e.recorded_at, jsonb_build_object('a', 30), s.reducer
		FROM es.events e JOIN es.snapshots s USING (aggregate_type, aggregate_id) WHERE e.aggregate_type = 'Wrong' AND e.version = 30 AND s.version = 10});
}

# several sessions at once: appends by trigger, on demand, verified, pruned, at both levels of isolation
$node->safe_psql('postgres', q{SELECT es_create_aggregate('Busy', 'tally(jsonb,es_event)', snapshot_every => 2, keep_snapshots => 2)});
my @sessions = map { new_session($node) } 1 .. 4;
my $turns = 15 * $torture;
$sessions[0]->start("DO \$\$ BEGIN FOR i IN 1 .. 20 * $turns LOOP PERFORM es_append('Busy', (i % 2)::text, 'Placed', jsonb_build_object('a', i)); COMMIT; END LOOP; END \$\$");
$sessions[1]->start("DO \$\$ BEGIN FOR i IN 1 .. 20 * $turns LOOP COMMIT; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; PERFORM es_append('Busy', '2', 'Placed', jsonb_build_object('a', i)); COMMIT; END LOOP; END \$\$");
$sessions[2]->start("DO \$\$ BEGIN FOR i IN 1 .. 4 * $turns LOOP PERFORM es_snapshot('Busy'); COMMIT; END LOOP; END \$\$");
$sessions[3]->start("DO \$\$ BEGIN FOR i IN 1 .. 4 * $turns LOOP IF (SELECT count(*) FROM es_verify_snapshots('Busy')) > 0 THEN RAISE 'wrong'; END IF; COMMIT; END LOOP; END \$\$");
foreach my $session (@sessions)
{
	$session->result;
	is($session->last_error // '', '', 'a session did its part beside the others');
}
is($node->safe_psql('postgres', 'SELECT differences()'), '', 'all is the same with snapshots as without');
is($node->safe_psql('postgres', q{SELECT * FROM es_verify_snapshots('Busy')}), '', 'and none is wrong');
$_->quit foreach @sessions;

# registered by one session, known to others at once, prepared statements included
my ($one, $other) = (new_session($node), new_session($node));
$other->query(q{PREPARE a AS SELECT es_append('Seen', '1', 'Placed', '{"a": 2}')});
$other->query(q{PREPARE s AS SELECT es_state('Seen', '1')});
$other->query('EXECUTE a') for 1 .. 7;
is($other->query('EXECUTE s'), '{"a": 2}', 'merged');
$one->query(q{SELECT es_create_aggregate('Seen', 'tally_sql(jsonb,es_event)', snapshot_every => 3)});
like($other->query('EXECUTE s'), qr/seen/, 'the new reducer is used by others at once');
$other->query('EXECUTE a') for 1 .. 2;
is($one->query(q{SELECT array_agg(version) FROM es.snapshots WHERE aggregate_type = 'Seen'}), '{9}', 'and the new trigger');
$one->query(q{SELECT es_create_aggregate('Seen', 'tally_sql(jsonb,es_event)', snapshot_every => 0)});
$other->query('EXECUTE a') for 1 .. 9;
is($one->query(q{SELECT array_agg(version) FROM es.snapshots WHERE aggregate_type = 'Seen'}), '{9}', 'and that there is none any more');

# progress: of a command that fails, is cancelled, or whose session ends
$one->query('SELECT pg_advisory_lock(4711)');
$one->query(q{CREATE FUNCTION slow(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN state; END $$;
	SELECT es_create_aggregate('Slow', 'slow(jsonb,es_event)'), es_append('Slow', '1', 'Placed')});
foreach my $end ('pg_cancel_backend', 'pg_terminate_backend')
{
	my $worker = new_session($node);
	my $pid = $worker->pid;
	$worker->start(q{SELECT es_snapshot('Slow')});
	wait_until($node, "SELECT count(*) = 1 FROM es_progress WHERE pid = $pid AND command = 'es_snapshot' AND total = 1", 'the command is seen');
	$one->query("SELECT $end($pid)");
	wait_until($node, "SELECT count(*) = 0 FROM es_progress WHERE pid = $pid", "it is not seen after $end()");
	eval { $worker->result };
	eval { $worker->quit };
}
is($one->query(q{SELECT count(*) FROM es_progress}), '0', 'nothing runs');
# events of a subtransaction that failed do not count
$one->query(q{DO $$ BEGIN PERFORM eventsrc.progress_begin('x', 'es', 1); BEGIN PERFORM eventsrc.progress_begin('y', 'es', 1); RAISE 'no'; EXCEPTION WHEN OTHERS THEN NULL; END;
	IF EXISTS (SELECT FROM es_progress) THEN RAISE 'still there'; END IF; END $$});
is($one->last_error // '', '', 'a failed subtransaction clears what began in it');
$_->quit foreach $one, $other;

$node->stop;
done_testing();
