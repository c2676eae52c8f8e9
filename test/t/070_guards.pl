# What lets a store be broken is logged; DROP EXTENSION says what would be lost; dumps restore in spite of the guards.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');
create_extension($node);
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE boss SUPERUSER;
CREATE ROLE keeper;
CREATE ROLE stranger;
GRANT CREATE ON DATABASE postgres TO keeper;
SET ROLE keeper;
SELECT es_create_store();
RESET ROLE;
SELECT es_append('Document', n::text, 'Written') FROM generate_series(1, 10) n;
ANALYZE es.events;
SQL
my $month = $node->safe_psql('postgres', q{SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')});

# logged runs statements and returns what the log has on the setting since
sub logged
{
	my ($statements) = @_;
	my $offset = -s $node->logfile;
	is(sqlstate_of($node, $statements), '00000', "done: $statements");
	my $log = slurp_file($node->logfile, $offset);
	return [ $log =~ /LOG:  (eventsrc\.allow_unsafe_ddl lets .*)$/mg ];
}

# --- every use of the setting is logged, once a command and table, and nothing else

is_deeply(logged('SET eventsrc.allow_unsafe_ddl = on; CREATE TABLE other (a int); ALTER TABLE other ALTER a TYPE text; DROP TABLE other; ALTER TABLE es.events ADD own int'),
	[], 'commands that break nothing are not logged');
my $by_boss = 'eventsrc.allow_unsafe_ddl lets role "boss" (session user "' . $node->safe_psql('postgres', 'SELECT session_user') . '") run';
is_deeply(logged('SET eventsrc.allow_unsafe_ddl = on; SET ROLE boss; ALTER TABLE es.streams RENAME TO brooks'),
	["$by_boss ALTER TABLE on store \"es\""], 'a use is, with role, command and store');
like(slurp_file($node->logfile), qr/DETAIL:  It is to rename table es\.streams\./, 'and object');
is_deeply(logged('SET eventsrc.allow_unsafe_ddl = on; SET ROLE boss; ALTER TABLE es.brooks RENAME TO streams'),
	[], 'what mends a store needs no log');
is_deeply(logged('SET eventsrc.allow_unsafe_ddl = on; SET ROLE boss; DO $$ BEGIN DROP TABLE es.snapshots; RAISE EXCEPTION USING ERRCODE = $e$RB000$e$; EXCEPTION WHEN SQLSTATE $e$RB000$e$ THEN NULL; END $$'),
	["$by_boss DROP TABLE on store \"es\""], 'one in a function is, even if it is rolled back');

# --- DETACH CONCURRENTLY, which is two transactions

my $detach = "ALTER TABLE es.events DETACH PARTITION es.events_$month CONCURRENTLY";
is(sqlstate_of($node, "SET ROLE keeper; $detach"), 'VE016', 'the owner may not');
is(sqlstate_of($node, $detach), 'VE016', 'nor a superuser by accident');
is(sqlstate_of($node, "SET ROLE stranger; $detach"), '42501', 'and a stranger has no right to');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_inherits WHERE inhdetachpending}), '0', 'it is not left half done');
is_deeply([ map { /run (.*)$/ } @{ logged("SET eventsrc.allow_unsafe_ddl = on; SET ROLE boss; $detach") } ]->[0], 'ALTER TABLE on store "es"', 'on purpose it is done, and logged');
is($node->safe_psql('postgres', 'SELECT count(*) FROM es_read_all()'), '0', 'the events are gone from the store');
my ($from, $to) = split /\|/, $node->safe_psql('postgres', q{SELECT date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', (date_trunc('month', now() AT TIME ZONE 'UTC') + '1 month') AT TIME ZONE 'UTC'});
is(sqlstate_of($node, "SET ROLE keeper; ALTER TABLE es.events ATTACH PARTITION es.events_$month FOR VALUES FROM ('$from') TO ('$to')"), '00000',
	'the owner may attach it again');
is($node->safe_psql('postgres', 'SELECT count(*) FROM es_read_all()'), '10', 'and they are back');
is(sqlstate_of($node, q{SELECT es_append('Document', '1', 'Translated', expected_version => 1)}), '00000', 'streams go on');

# --- the right to set it can be granted

is(sqlstate_of($node, 'SET ROLE keeper; SET eventsrc.allow_unsafe_ddl = on'), '42501', 'an owner cannot set it');
$node->safe_psql('postgres', 'GRANT SET ON PARAMETER eventsrc.allow_unsafe_ddl TO keeper');
is(sqlstate_of($node, 'SET ROLE keeper; SET eventsrc.allow_unsafe_ddl = on; ALTER TABLE es.snapshots RENAME TO pictures; ALTER TABLE es.pictures RENAME TO snapshots'),
	'00000', 'unless a superuser lets it');

# --- restores

my $folder = PostgreSQL::Test::Utils::tempdir('dump');
$node->command_ok([ 'pg_dump', '-Fc', '--clean', '-n', 'es', '-f', "$folder/es.dump", $node->connstr('postgres') ], 'pg_dump');
$node->command_fails_like([ 'pg_restore', '--single-transaction', '--exit-on-error', '--clean', '-d', $node->connstr('postgres'), "$folder/es.dump" ],
	qr/would break store "es"/, 'pg_restore --clean does not replace a store by itself');
{
	local $ENV{PGOPTIONS} = '-c eventsrc.allow_unsafe_ddl=on';
	$node->command_ok([ 'pg_restore', '--single-transaction', '--exit-on-error', '--clean', '-d', $node->connstr('postgres'), "$folder/es.dump" ],
		'on purpose it does');
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM es_read_all(0, NULL)'), '11', 'all is there');
$node->safe_psql('postgres', q{SET ROLE keeper; SELECT es_drop_store('es', 'es')});
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('postgres'), "$folder/es.dump" ], 'nor is the setting needed after es_drop_store()');
is(sqlstate_of($node, q{SELECT es_append('Document', '1', 'Published', expected_version => 2)}), '00000', 'appends go on');

# --- DROP EXTENSION

$node->safe_psql('postgres', 'ANALYZE es.events; CREATE TABLE ledger (a int) USING append_only; CREATE VIEW v AS SELECT * FROM es.events');
my ($status, $out, $err) = $node->psql('postgres', 'DROP EXTENSION eventsrc');
like($err, qr/cannot drop extension eventsrc because stores or append_only tables exist/, 'DROP EXTENSION is refused');
like($err, qr/lost: store "es" \(\d+ kB, events: about 12\), table public\.ledger \(0 bytes\)\./, 'and says what would be lost');
like($err, qr/HINT: .*es_drop_store.*CASCADE/, 'and what to do');
is(sqlstate_of($node, 'SET ROLE keeper; DROP EXTENSION eventsrc CASCADE'), '42501', 'a store\'s owner may not');
is(sqlstate_of($node, 'DROP SCHEMA public CASCADE'), 'VE016', 'no other CASCADE takes the stores along');
is(sqlstate_of($node, 'DROP OWNED BY keeper CASCADE'), 'VE016', 'nor DROP OWNED');
($status, $out, $err) = $node->psql('postgres', 'DROP EXTENSION eventsrc CASCADE');
is($status, 0, 'with CASCADE it is done');
like($err, qr/WARNING:  the extension eventsrc is dropped with all stores.*store "es" \(\d+ kB, events: about 12\)/s, 'and says what is lost');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_namespace WHERE nspname IN ('es', 'eventsrc')}), '0', 'nothing is left of it');
$node->safe_psql('postgres', q{CREATE EXTENSION eventsrc; SELECT es_create_store(); SELECT es_append('Document', '1', 'Written', expected_version => 0)});
$node->safe_psql('template1', 'DROP DATABASE postgres WITH (FORCE)');
pass('a database with a store can be dropped');
$node->stop;
done_testing();
