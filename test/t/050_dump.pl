# pg_dump and pg_restore: a store is ordinary tables, so it goes along, whole databases and single stores,
# and appends go on where they ended.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use EventsrcLoad;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');
my $folder = PostgreSQL::Test::Utils::tempdir('dump');
create_extension($node, 'original');
make_stores($node, 'original');

# --- what there is to dump

$node->safe_psql('original', <<'SQL');
CREATE ROLE writer;
CREATE ROLE reader;
CREATE FUNCTION public.count_them(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
	$$ SELECT pg_catalog.jsonb_build_object('count', coalesce((state ->> 'count')::int, 0) + 1) $$;
SELECT es_create_aggregate('Order', snapshot_every => 10);
SELECT es_create_aggregate('Shelf', 'public.count_them(jsonb, es_event)', snapshot_every => 5, store => 'Second "store"');
GRANT USAGE ON SCHEMA es, "Second ""store""" TO writer, reader;
GRANT INSERT ON es.events, "Second ""store""".events TO writer;
GRANT SELECT ON es.events, "Second ""store""".events TO reader;
ALTER TABLE es.events ADD CONSTRAINT small CHECK (pg_column_size(data) < 10000);
BEGIN;
SELECT es_set_context('anna', 'c1', 'c0');
SELECT es_append('Order', '1', 'Changed', jsonb_build_object('n', i, 'k' || i % 7, repeat('x', i)), metadata => '{"a": "\u00e4"}', occurred_at => '2020-01-01')
	FROM generate_series(1, 57) i;
COMMIT;
SELECT es_append('Order', 'it''s "two"', 'Placed', jsonb_build_object('big', repeat('y', 5000))) FROM generate_series(1, 1);
SELECT es_append('Shelf', '1', 'Filled', '{}', store => 'Second "store"') FROM generate_series(1, 23);
BEGIN;
SELECT es_append('Order', '1', 'Never') FROM generate_series(1, 10);
ROLLBACK;
CREATE FUNCTION public.with_currency(event es_event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
	$$ SELECT event.data || '{"currency": "EUR"}' $$;
SELECT es_create_event_type('Paid', 2, '{"required": ["sum", "currency"]}', description => 'a payment');
SELECT es_create_upcaster('Paid', 1, 'public.with_currency(es_event)');
SELECT es_append('Payment', '1', 'Paid', '{"sum": 1}', schema_version => 1);
SELECT es_set_strict(false, 'Second "store"');
SELECT es_append('Order', '3', 'Placed');
SELECT es_close_stream('Order', '3', 'done');
CREATE SERVER broker FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', "bootstrap.servers" 'localhost:1');
BEGIN;
SELECT es_create_relay('orders', 'broker', '{aggregate_type}', 3, 9, '{"envelope": "cloudevents", "headers": {"a": "{store}"}, "on_error": "dead_letter", "lanes": 2}');
SELECT es_pause_relay('orders');
INSERT INTO eventsrc.relay_dead_letters (relay, position, event_id, reason) SELECT id, 5, 'e5', 'too large' FROM eventsrc.relays;
COMMIT;
SQL

# queries that must give the same in the copy; %s is a store's schema
my @facts = (
	'SELECT * FROM es.events ORDER BY 1',
	'SELECT * FROM "Second ""store""".events ORDER BY 1',
	q{SELECT * FROM es_read_all(0, NULL)},
	q{SELECT * FROM es_read_all(0, NULL, store => 'Second "store"')},
	q{SELECT * FROM es_read_stream('Order', '1', 5, 10)},
	q{SELECT es_state('Order', '1'), es_state('Order', '1', 33)},
	q{SELECT es_state('Shelf', '1', store => 'Second "store"')},
	q{SELECT snapshot_version, events_replayed FROM es_explain_state('Order', '1')},
	q{SELECT snapshot_version, events_replayed FROM es_explain_state('Shelf', '1', store => 'Second "store"')},
	'SELECT aggregate_type, aggregate_id, version, state FROM es.snapshots ORDER BY 1, 2, 3',
	'SELECT * FROM es.aggregates ORDER BY 1',
	'SELECT * FROM es.event_types ORDER BY 1, 2',
	'SELECT * FROM es.upcasters ORDER BY 1, 2',
	'SELECT * FROM "Second ""store""".settings ORDER BY 1',
	q{SELECT schema_version, data FROM es_read_stream('Payment', '1')},
	'SELECT * FROM "Second ""store""".streams ORDER BY 1, 2',
	'SELECT store FROM eventsrc.stores ORDER BY 1',
	q{SELECT name, store, server, topic, delivery, epoch, position, to_position, options, paused, lanes FROM eventsrc.relays},
	'SELECT lane, position, epoch FROM eventsrc.relay_lanes',
	'SELECT * FROM es_dead_letters',
	q{SELECT c.relname, a.amname, c.relkind, c.relpersistence FROM pg_class c JOIN eventsrc.stores s ON c.relnamespace = quote_ident(s.store)::regnamespace
		LEFT JOIN pg_am a ON a.oid = c.relam ORDER BY s.store, 1},
	q{SELECT t.tgrelid::regclass, CASE WHEN t.tgparentid = 0 THEN t.tgname END, t.tgenabled, pg_get_triggerdef(t.oid) FROM pg_trigger t
		JOIN pg_proc p ON p.oid = t.tgfoid AND p.pronamespace = 'eventsrc'::regnamespace
		ORDER BY t.tgrelid::regclass::text, 4},
	q{SELECT c.oid::regclass, c.relacl FROM pg_class c WHERE relname IN ('events', 'streams') ORDER BY c.oid::regclass::text},
	q{SELECT nspname, nspacl FROM pg_namespace WHERE nspname IN ('es', 'Second "store"') ORDER BY 1},
	q{SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c' AND conrelid = 'es.events'::regclass});

# run_tool runs a program of PostgreSQL's on the node and fails the test if it fails.
sub run_tool
{
	my ($what, @command) = @_;
	$node->command_ok([ @command ], $what);
	return;
}

# facts_of asks all that must be the same.
sub facts_of { my ($database, @ask) = @_; return map { $node->safe_psql($database, $_) } @ask; }

# check_copy compares a database with the original and goes on appending in it.
sub check_copy
{
	my ($database, $how) = @_;
	my @expected = facts_of('original', @facts);
	my @got = facts_of($database, @facts);
	foreach my $i (0 .. $#facts)
	{
		isnt($expected[$i], '', "there is something to compare: $facts[$i]") if $how eq 'custom';
		is($got[$i], $expected[$i], "$how: the same as before: $facts[$i]");
	}
	is($node->safe_psql($database, q{SELECT count(*) FROM pg_trigger WHERE tgfoid = 'eventsrc.append_trigger()'::regprocedure AND tgenabled <> 'A'}),
		'0', "$how: the trigger of events fires always, on partitions too");
	go_on($database, $how, $_) foreach @STORES;
	check_streams($node, "after restoring ($how)", $database);
	check_indexes($node, "after restoring ($how)", $database);
	is(sqlstate_of($node, q{SELECT es_append('Order', '1', 'Late', expected_version => 3)}, $database), 'VE001', "$how: conflicts are refused");
	is(sqlstate_of($node, q{SELECT es_append('Order', '3', 'Late')}, $database), 'VE015', "$how: a closed stream stays closed");
	is(sqlstate_of($node, q{UPDATE es.events SET version = 1}, $database), 'VE006', "$how: events stay append-only");
	is(sqlstate_of($node, q{SET ROLE writer; SELECT es_append('Order', '9', 'By writer')}, $database), '00000', "$how: the writer may append");
	is(sqlstate_of($node, q{SET ROLE writer; SELECT es_read_stream('Order', '9')}, $database), '42501', "$how: but not read");
	is(sqlstate_of($node, q{SET ROLE reader; SELECT es_read_stream('Order', '9')}, $database), '00000', "$how: the reader may read");
	is(sqlstate_of($node, q{SET ROLE reader; SELECT es_append('Order', '9', 'By reader')}, $database), '42501', "$how: but not append");
	my $state = $node->safe_psql($database, q{SELECT es_append('Order', '1', 'Changed', '{"n": 59}') FROM generate_series(1, 3);
		SELECT es_state('Order', '1') ->> 'n', snapshot_version FROM es_explain_state('Order', '1')});
	like($state, qr/^59\|60$/m, "$how: states and snapshots go on");
	is($node->safe_psql($database, q{SELECT es_append('Shelf', '1', 'Filled', store => 'Second "store"'); SELECT es_state('Shelf', '1', store => 'Second "store"')}) =~ /"count": 25/,
		1, "$how: so do users' reducers");
	return;
}

# go_on appends to a store and checks that versions and positions follow, and that all can be read.
sub go_on
{
	my ($database, $how, $store) = @_;
	(my $schema = $store) =~ s/"/""/g;
	my $type = $store eq 'es' ? 'Order' : 'Shelf';
	my ($version, $position) = split /\|/,
	  $node->safe_psql($database, qq{SELECT (SELECT max(version) FROM "$schema".events WHERE aggregate_type = '$type' AND aggregate_id = '1'),
		(SELECT max(global_position) FROM "$schema".events)});
	my ($new_version, $new_position) = split /\|/,
	  $node->safe_psql($database, "SELECT * FROM es_append('$type', '1', 'After', store => '$store')");
	is($new_version, $version + 1, "$how: $store: the next version follows");
	cmp_ok($new_position, '>', $position, "$how: $store: the next position follows");
	is($node->safe_psql($database, "SELECT count(*), min(global_position), max(global_position) FROM es_read_all(0, NULL, store => '$store')"),
		$node->safe_psql($database, qq{SELECT count(*), min(global_position), max(global_position) FROM "$schema".events}),
		"$how: $store: es_read_all() has the old and the new");
	is($node->safe_psql($database, "SELECT global_position FROM es_read_all($position, NULL, store => '$store')"), $new_position,
		"$how: $store: who goes on from the last old position gets the new one");
	return;
}

# --- whole databases

run_tool('pg_dump, custom format', 'pg_dump', '-Fc', '-f', "$folder/all.dump", $node->connstr('original'));
run_tool('pg_dump, plain', 'pg_dump', '-f', "$folder/all.sql", $node->connstr('original'));
run_tool('pg_dump, directory', 'pg_dump', '-Fd', '-j', '2', '-f', "$folder/all.dir", $node->connstr('original'));
run_tool('pg_dump, through the partitioned table', 'pg_dump', '-Fd', '-j', '2', '--load-via-partition-root', '-f', "$folder/root.dir", $node->connstr('original'));

$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(custom plain directory root);
run_tool('pg_restore', 'pg_restore', '--exit-on-error', '-d', $node->connstr('custom'), "$folder/all.dump");
is($node->safe_psql('custom', q{SET default_transaction_read_only = on; SELECT count(*) > 0 FROM es_read_all()}), 't',
	'what was restored can be read before anybody appends, in a read-only transaction too');
check_copy('custom', 'custom');
run_tool('psql', 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('plain'), '-f', "$folder/all.sql");
check_copy('plain', 'plain');
run_tool('pg_restore in parallel', 'pg_restore', '--exit-on-error', '-j', '2', '-d', $node->connstr('directory'), "$folder/all.dir");
# first a look, without an append
is($node->safe_psql('directory', q{SELECT count(*) FROM es_read_all(0, NULL)}), '61', 'directory: all can be read at once');
check_copy('directory', 'directory');
# not in parallel: PostgreSQL may set up triggers and indexes of such a dump before all data is in
run_tool('pg_restore through the partitioned table', 'pg_restore', '--exit-on-error', '-d', $node->connstr('root'), "$folder/root.dir");
check_copy('root', 'root');

# positions that were given out and rolled back, or whose store is gone, are not given out again
$node->safe_psql('original', <<'SQL');
SELECT es_create_store('gone');
SELECT es_append('Order', '1', 'Placed', store => 'gone') FROM generate_series(1, 6000);
SELECT es_drop_store('gone', 'gone');
SQL
my $passed = $node->safe_psql('original', 'SELECT es_safe_position()');
run_tool('pg_dump after a store was dropped', 'pg_dump', '-Fc', '-f', "$folder/gone.dump", $node->connstr('original'));
$node->safe_psql('postgres', 'CREATE DATABASE gone');
run_tool('pg_restore of that', 'pg_restore', '--exit-on-error', '-d', $node->connstr('gone'), "$folder/gone.dump");
cmp_ok($node->safe_psql('gone', q{SELECT global_position FROM es_append('Order', '1', 'After')}), '>', $passed,
	'a reader that had passed the positions of a store that is gone misses nothing');

# --- one store, into a database that is in use

run_tool('pg_dump of one store', 'pg_dump', '-Fc', '-n', '"Second ""store"""', '-f', "$folder/one.dump", $node->connstr('original'));
create_extension($node, 'other');
$node->safe_psql('other', q{CREATE FUNCTION public.count_them(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
	$$ SELECT pg_catalog.jsonb_build_object('count', coalesce((state ->> 'count')::int, 0) + 1) $$;
	SELECT es_create_store(); SELECT es_append('Order', '1', 'Own')});
my $old = new_session($node, database => 'other');
is($old->query('SELECT count(*) FROM es_read_all()'), '1', 'the other database is in use');
is($old->query(q{SELECT * FROM es_read_all(store => 'Second "store"')}), '', 'the store is not there yet');
like($old->last_error, qr/VE002/, 'as the error says');
run_tool('pg_restore of one store', 'pg_restore', '--exit-on-error', '-d', $node->connstr('other'), "$folder/one.dump");
is($old->query(q{SELECT count(*) FROM es_read_all(store => 'Second "store"')}), '23', 'a session that was there before reads it');
is($node->safe_psql('other', q{SELECT count(*) FROM es_read_all(store => 'Second "store"')}), '23', 'a new one too');
is($node->safe_psql('other', q{SELECT es_state('Shelf', '1', store => 'Second "store"')}), '{"count": 23}', 'states are there');
my $highest = $node->safe_psql('other', 'SELECT max(global_position) FROM "Second ""store""".events');
cmp_ok($old->query(q{SELECT global_position FROM es_append('Order', '1', 'Own')}), '>', $highest,
	'an append to the other store, by an old session, follows the restored positions');
go_on('other', 'one store', $STORES[1]);
go_on('other', 'one store, then the old one', $STORES[0]);
check_streams($node, 'after restoring one store', 'other');
$old->quit;

# --- data only

run_tool('pg_dump of data only', 'pg_dump', '-Fc', '--data-only', '-n', 'es', '-f', "$folder/data.dump", $node->connstr('original'));
run_tool('the same without "streams"', 'pg_dump', '-Fc', '--data-only', '-n', 'es', '-T', 'es.streams', '-f', "$folder/events.dump", $node->connstr('original'));
create_extension($node, 'data');
make_stores($node, 'data');
$node->safe_psql('data', q{CREATE FUNCTION public.with_currency(event es_event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
	$$ SELECT event.data || '{"currency": "EUR"}' $$});
$old = new_session($node, database => 'data');
is($old->query('SELECT count(*) FROM es_read_all()'), '0', 'the store is empty');
$node->command_fails_like(
	[ 'pg_restore', '--single-transaction', '--exit-on-error', '-d', $node->connstr('data'), "$folder/data.dump" ],
	qr/recorded_at is the store's to set/, 'data alone does not go in as ordinary appends: the record would be falsified');
is($node->safe_psql('data', 'SELECT count(*) FROM es.events'), '0', 'and nothing is left behind');
{
	local $ENV{PGOPTIONS} = '-c session_replication_role=replica';
	run_tool('but as a replica it does, where the trigger writes "streams"', 'pg_restore', '--exit-on-error', '-d', $node->connstr('data'), "$folder/events.dump");
}
is($node->safe_psql('data', 'SELECT * FROM es.events ORDER BY 1'), $node->safe_psql('original', 'SELECT * FROM es.events ORDER BY 1'),
	'with the same events');
is($old->query('SELECT count(*) FROM es_read_all(0, NULL)'), '61', 'which an old session reads');
go_on('data', 'data only', 'es');
is($node->safe_psql('data', q{SELECT count(*) FROM es.snapshots}), $node->safe_psql('original', 'SELECT count(*) FROM es.snapshots'), 'snapshots too');
check_streams($node, 'after restoring data only', 'data');
check_indexes($node, 'after restoring data only', 'data');
$old->quit;

create_extension($node, 'forced');
make_stores($node, 'forced');
$node->safe_psql('forced', q{CREATE FUNCTION public.with_currency(event es_event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
	$$ SELECT event.data || '{"currency": "EUR"}' $$});
$old = new_session($node, database => 'forced');
is($old->query('SELECT count(*) FROM es_read_all()'), '0', 'an empty store');
my @disabling = ('pg_restore', '--exit-on-error', '--single-transaction', '--data-only', '--disable-triggers', '-d', $node->connstr('forced'), "$folder/data.dump");
$node->command_fails_like([@disabling], qr/would break store "es"/, 'a restore does not disable the triggers by itself');
is($old->query('SELECT count(*) FROM es_read_all()'), '0', 'and leaves nothing behind');
{
	local $ENV{PGOPTIONS} = '-c eventsrc.allow_unsafe_ddl=on';
	run_tool('with the triggers disabled, by a superuser who may, it does too', @disabling);
}
is($old->query('SELECT count(*) FROM es_read_all(0, NULL)'), '61', 'an old session reads what came in behind its back');
cmp_ok($old->query(q{SELECT global_position FROM es_append('Order', '1', 'After')}), '>',
	$node->safe_psql('original', 'SELECT max(global_position) FROM es.events'), 'and appends above it');
$old->quit;
check_streams($node, 'after restoring with the triggers disabled', 'forced');
# pg_restore enables the triggers of the tables that it filled in the ordinary way; they were to fire always
$node->safe_psql('forced', 'ALTER TABLE es.events ENABLE ALWAYS TRIGGER eventsrc_append');
is($node->safe_psql('forced', q{SELECT count(*) FROM pg_trigger WHERE tgfoid = 'eventsrc.append_trigger()'::regprocedure AND tgenabled <> 'A'}),
	'0', 'one command has the trigger fire always again, on partitions too');
$node->stop;

done_testing();
