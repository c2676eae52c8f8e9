# Appends and reads in sessions of every sort: parallel queries, time limits, exception blocks, asynchronous
# commits that a crash takes back, several databases side by side.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use EventsrcLoad;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', conf => "log_statement = none\nautovacuum = off\nwal_writer_delay = 10s\nmax_connections = 60\n");
create_extension($node);
make_stores($node);
my $readers = new_readers($node, stores => ['es'], count => 2);

# everyone_sees checks that readers have got to the end, and what the last events are.
sub everyone_sees
{
	my ($what, @types) = @_;
	read_to_end($readers);
	check_readers($readers, $what);
	is($node->safe_psql('postgres', 'SELECT string_agg(event_type, \' \' ORDER BY global_position) FROM (SELECT * FROM es.events ORDER BY global_position DESC LIMIT ' . @types . ') e'),
		"@types", "$what: the last events");
	return;
}

# --- parallel queries

$node->safe_psql('postgres', <<'SQL');
SELECT count(*) FROM (SELECT es_append('Order', (i % 50)::text, 'Placed') FROM generate_series(1, 3000) i) x;
ANALYZE es.events;
-- functions whose author promises too much
CREATE FUNCTION appends() RETURNS bigint LANGUAGE plpgsql PARALLEL SAFE AS $$ BEGIN RETURN (SELECT version FROM es_append('Order', '1', 'Parallel')); END $$;
CREATE FUNCTION inserts() RETURNS bigint LANGUAGE plpgsql PARALLEL SAFE AS $$ BEGIN INSERT INTO es.events (aggregate_type, aggregate_id, event_type) VALUES ('Order', '1', 'Parallel'); RETURN 1; END $$;
CREATE FUNCTION reads_all() RETURNS bigint LANGUAGE plpgsql PARALLEL SAFE AS $$ BEGIN RETURN (SELECT count(*) FROM es_read_all(0, NULL)); END $$;
CREATE FUNCTION reads_stream() RETURNS bigint LANGUAGE plpgsql PARALLEL SAFE AS $$ BEGIN RETURN (SELECT count(*) FROM es_read_stream('Order', '1')); END $$;
SQL
my $parallel = <<'SQL';
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2;
SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query') \gset
SQL
my $session = new_session($node);
$session->query($parallel);
like($session->query('EXPLAIN (COSTS off) SELECT count(*) FROM es.events WHERE version > 0'), qr/Parallel Seq Scan/, 'scans of events are parallel');
is($session->query('SELECT count(*) FROM es.events'), 3000, 'and find all');
is($session->query('SELECT count(*), sum(global_position) FROM es_read_all(0, NULL)'),
	$session->query('SELECT count(*), sum(global_position) FROM es.events'), 'es_read_all() gives the same');
is($session->query('SELECT count(*) FROM es.events JOIN es_read_all(0, NULL) USING (global_position)'), 3000, 'and joins with such a scan');
is($session->query(q{SELECT es_append('Order', '1', 'One')}), '(61,3001)', 'an append in such a session');
is($session->query(q{SELECT count(*) FROM es.events e, LATERAL es_append('Order', '2', 'Each', occurred_at => e.recorded_at) WHERE e.aggregate_id = '3'}), 60,
	'an append for every row of a scan of the same table');
is($session->query('SELECT reads_stream(), es_safe_position()'), '61|3061', 'a stream can be read in a parallel worker');
is($session->last_error, '', 'no error so far');
foreach my $function ('appends()', 'inserts()', 'reads_all()')
{
	foreach my $query ("SELECT $function", "SELECT count(*) FROM es.events WHERE $function > 0")
	{
		is($session->query($query), '', "refused in parallel: $query");
		like($session->last_error, qr/ERROR:\s+25000: cannot execute .* during a parallel operation/, 'with a clear error');
	}
}
everyone_sees('after parallel queries', ('Each') x 3);

# --- limits of time

my $other = new_session($node);
$other->query(q{BEGIN; SELECT es_append('Order', 'held', 'Held')});
$session = new_session($node);
foreach my $limit ('lock_timeout', 'statement_timeout')
{
	$session->query("SET $limit = '20ms'; SELECT es_append('Order', 'held', 'Late')");
	like($session->last_error, $limit eq 'lock_timeout' ? qr/55P03/ : qr/57014/, "$limit while a stream is locked");
	$session->query("RESET $limit");
}
# in a transaction that goes on
is($session->query(<<'SQL'), '(1,3063)', 'lock_timeout within a savepoint, and on it goes');
BEGIN;
SET LOCAL lock_timeout = '20ms';
SAVEPOINT s;
SELECT es_append('Order', 'held', 'Late');
ROLLBACK TO s;
SELECT es_append('Order', 'timeouts', 'After');
COMMIT;
SQL
$other->query('COMMIT');
everyone_sees('after lock_timeout', 'Held', 'After');
$session->query(q{SET statement_timeout = '100ms'; SELECT count(es_append('Order', 'endless', 'Never')) FROM generate_series(1, 100000000)});
like($session->last_error, qr/57014/, 'statement_timeout amid appends');
$session->query(q{RESET statement_timeout; SELECT es_append('Order', 'timeouts', 'AfterAll')});
is($session->last_error, '', 'the session goes on');
everyone_sees('after statement_timeout', 'After', 'AfterAll');

# --- exception blocks

$session->query(<<'SQL');
DO $$
DECLARE
	v bigint;
BEGIN
	PERFORM es_append('Order', 'blocks', 'First', expected_version => 0);
	FOR i IN 1 .. 600 LOOP
		BEGIN
			PERFORM es_append('Order', 'blocks', 'Undone');
			PERFORM es_append('Payment', i::text, 'Undone');
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
	END LOOP;
	BEGIN
		PERFORM es_append('Order', 'blocks', 'Conflict', expected_version => 7);
	EXCEPTION WHEN SQLSTATE 'VE001' THEN
		PERFORM es_append('Order', 'blocks', 'Second', expected_version => 1);
	END;
	BEGIN
		INSERT INTO es.events (aggregate_type, aggregate_id, event_type, version) VALUES ('Order', 'blocks', 'Conflict', 2);
	EXCEPTION WHEN SQLSTATE 'VE001' THEN
		PERFORM es_append('Order', 'blocks', 'Third', expected_version => 2);
	END;
END
$$;
SQL
is($session->last_error, '', 'exception blocks undo appends');
everyone_sees('after exception blocks', 'First', 'Second', 'Third');
check_streams($node, 'after exception blocks');

# --- asynchronous commits
#
# A crash takes back commits that others saw already, and their positions are given out again.  Whoever must not
# see such events lets the server flush its log between reading and believing.

my $flusher = new_session($node);
my %believed;
my ($last, $lost) = (0, 0);
for (my $round = 1; $round <= 3 || (!$lost && $round <= 10); $round++)
{
	$node->safe_psql('postgres', 'ALTER DATABASE postgres SET synchronous_commit = off');
	my $clients = start_clients($node, name => "async$round");
	my $goal = 400;
	my $end = time + $EventsrcTest::PATIENCE;
	my $read = 0;
	while (lines_in(@{ $clients->{files} }) < $goal && time < $end)
	{
		select(undef, undef, undef, 0.01);
		# once, amid the work: then the log lags behind again
		next if $read++ || lines_in(@{ $clients->{files} }) < $goal / 2;
		my $page = $flusher->query("SELECT global_position, event_id FROM es_read_all($last, NULL)");
		$flusher->query(q{SET synchronous_commit = on; SELECT pg_logical_emit_message(true, 'flush', '')});
		foreach my $line (split /\n/, $page)
		{
			my ($position, $id) = split /\|/, $line;
			$believed{$position} = $id;
			$last = $position;
		}
	}
	$node->stop('immediate');
	$node->start;
	my @acknowledged = end_clients($clients);
	my %there = map { split /\|/ } split /\n/, $node->safe_psql('postgres', 'SELECT global_position, event_id FROM es.events');
	my %ids = map { $_ => 1 } values %there;
	$lost += grep { $_->[0] eq 'es' && !$ids{ $_->[5] } } @acknowledged;
	my @gone = grep { ($there{$_} // '') ne $believed{$_} } keys %believed;
	is(scalar @gone, 0, "round $round: what was read and flushed is there, at its position, among @{[ scalar keys %believed ]} events");
	$flusher = new_session($node);
	$flusher->query('SET synchronous_commit = on');
	foreach my $i (1 .. 20)
	{
		my $position = $flusher->query(q{SELECT global_position FROM es_append('Order', 'after', 'After')});
		ok(!exists $believed{$position} && $position > $last, "round $round: new positions lie above") if $i == 1 || $position <= $last;
	}
	my @truth = events_of($node, 'es');
	my @rest = split /\n/, $flusher->query("SELECT global_position, event_id FROM es_read_all($last, NULL)");
	foreach (@rest) { my ($position, $id) = split /\|/; $believed{$position} = $id; $last = $position; }
	ok(join(' ', sort { $a <=> $b } keys %believed) eq "@truth", "round $round: a reader of what is flushed saw every event");
	check_streams($node, "after a crash with asynchronous commits, round $round");
}
cmp_ok($lost, '>', 0, "commits that were acknowledged asynchronously were indeed lost: $lost");

# --- several databases

my @databases = ('Orders', 'payments', 'stock');
my (%writers, %readers, %undecided);
foreach my $database (@databases)
{
	create_extension($node, $database);
	make_stores($node, $database);
	$readers{$database} = new_readers($node, database => $database, count => 2);
}
# one that has not decided holds back its own database only
$undecided{stock} = new_session($node, database => 'stock');
$undecided{stock}->query(q{BEGIN; SELECT es_append('Order', 'undecided', 'Undecided')});
$writers{$_} = start_writers($node, clients => 3, transactions => 60, database => $_) foreach @databases;
while (grep { writing($_) } values %writers)
{
	last if grep { read_pages($_) < 0 } values %readers;
}
finish_writers($writers{$_}) foreach @databases;
foreach my $database (@databases)
{
	is($node->safe_psql($database, 'SELECT count(*) FROM es_read_all()'), 0, 'the undecided transaction holds back its own database') if $database eq 'stock';
	$undecided{stock}->query('COMMIT') if $database eq 'stock';
	read_to_end($readers{$database});
	check_readers($readers{$database}, "in $database");
	check_streams($node, "in $database", $database);
	my $n = () = events_of($node, 'es', $database);
	cmp_ok($n, '>', 100, "$database has events");
	cmp_ok($node->safe_psql($database, 'SELECT max(global_position) FROM es.events'), '<', 3000, 'and positions of its own');
	quit_readers($readers{$database});
}
$node->stop;
done_testing();
