# The relay against a real Apache Kafka: what arrives, and that it goes on after all that can fail.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcRelay;
use EventsrcTest;
use Test::More;
use Time::HiRes qw(time);

my $kafka = new_kafka();
my $node = new_node('relay');
create_extension($node);

# check_topic checks that a topic has exactly the events of a store's orders, each stream's in order;
# duplicates => 1 allows that messages come again, in order from the first that is repeated on.
sub check_topic
{
	my ($topic, $what, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	check_came($node, $kafka, $topic, $what, store => $option{store}, $option{duplicates} ? (again => 'in order') : ());
	return;
}

# seconds tells how long something takes.
sub seconds
{
	my ($do) = @_;
	my $begin = time;
	$do->();
	return time - $begin;
}

my $address = $kafka->address;
$node->safe_psql('postgres', <<"END");
SELECT es_create_store();
SELECT es_create_store('Trans lation');
CREATE SERVER kafka FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', "bootstrap.servers" '$address');
END

# --- what arrives ---

$node->safe_psql('postgres', <<'END');
SET eventsrc.user_id = 'user_789';
SET eventsrc.correlation_id = 'corr-1';
SET eventsrc.causation_id = 'cause-1';
SET eventsrc.traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
SELECT es_append('Document', 'doc "1"', 'Uploaded', '{"name": "Ünï\u0001\"", "pages": [1, 2.50, null]}',
                 metadata => '{"ip": "::1"}', event_id => 'evt_123', occurred_at => '2024-06-20 12:30:00+02',
                 schema_version => 3);
BEGIN;
SELECT es_append('Document', 'doc "1"', 'RolledBack');
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT es_append('Document', 'doc "1"', 'RolledBackToSavepoint');
ROLLBACK TO s;
SELECT es_append('Document', 'doc "1"', 'Renamed');
COMMIT;
RESET ALL;
SELECT es_append('Größe/1', 'a', 'Measured', store => 'Trans lation');
SELECT es_create_relay('documents', 'kafka');
SELECT es_create_relay('translation', 'kafka', store => 'Trans lation');
SELECT es_create_relay('by type', 'kafka', 'types.{event_type}', NULL);
END
my @messages = $kafka->wait_for_messages('es.Document', 2);
is(scalar @messages, 2, 'events that were rolled back do not arrive');
is($messages[0]{key}, 'doc "1"', 'the key is the aggregate id');
my $recorded = $node->safe_psql('postgres',
	q{SELECT to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || ' ' || floor(extract(epoch FROM recorded_at) * 1000)
	  FROM es.events WHERE event_id = 'evt_123'});
my ($timestamp, $milliseconds) = split / /, $recorded;
my $data = $node->safe_psql('postgres', q{SELECT data FROM es.events WHERE event_id = 'evt_123'});
utf8::decode($data);
is( $messages[0]{payload},
	'{"eventId":"evt_123","eventType":"Uploaded","aggregateId":"doc \"1\"","aggregateType":"Document",'
	  . qq("timestamp":"$timestamp","userId":"user_789","data":$data,"version":1}),
	'the value is the envelope');
is_deeply(
	$messages[0]{value},
	{
		eventId => 'evt_123', eventType => 'Uploaded', aggregateId => 'doc "1"', aggregateType => 'Document',
		timestamp => $timestamp, userId => 'user_789', version => 1,
		data => { name => "\x{dc}n\x{ef}\x01\"", pages => [ 1, 2.5, undef ] }
	},
	'the envelope is JSON with these members');
is($messages[0]{ts}, $milliseconds, q{the message's time is that of recording});
my $position = $node->safe_psql('postgres', q{SELECT global_position FROM es.events WHERE event_id = 'evt_123'});
is_deeply(
	$messages[0]{headers},
	{
		'event-id' => 'evt_123', 'event-type' => 'Uploaded', 'schema-version' => '3',
		'aggregate-type' => 'Document', version => '1', position => $position, store => 'es',
		'correlation-id' => 'corr-1', 'causation-id' => 'cause-1',
		traceparent => '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
		metadata => '{"ip": "::1"}', 'occurred-at' => '2024-06-20T10:30:00.000000Z'
	},
	'the headers hold the rest');
@messages = $kafka->wait_for_messages('Trans_lation.Gr__e_1', 1);
is(scalar @messages, 1, 'what Kafka does not allow in a name becomes an underscore');
ok(!exists $messages[0]{headers}{'correlation-id'}, 'what is null has no header');
is($messages[0]{headers}{store}, 'Trans lation', 'the header names the store');
append_events($node, 1, type => 'New');
@messages = $kafka->wait_for_messages('types.Happened', 1);
is(scalar @messages, 1, 'a relay from now on sends what comes then');
is(scalar $kafka->messages('types.Uploaded'), 0, 'and nothing that was there before');
$node->safe_psql('postgres', q{SELECT es_drop_relay('by type')});
wait_for_relay($node, 'documents', q{state = 'running' AND lag_events = 0 AND lag_seconds = 0 AND position = safe_position AND sent = 3});
is(relay_column($node, 'documents', 'broker'), $address, 'es_relays names the broker');
wait_until($node, <<'END', 'its worker waits under a name of its own');
SELECT count(*) = 1 FROM pg_stat_activity a JOIN es_relays r USING (pid)
WHERE relay = 'documents'
  AND wait_event = CASE WHEN current_setting('server_version_num')::int >= 170000 THEN 'EventsrcRelayIdle' ELSE 'Extension' END
END

# --- many events of several streams and stores ---

append_events($node, 500);
append_events($node, 200, store => 'Trans lation', aggregates => 3);
wait_for_relay($node, 'documents', 'lag_events = 0 AND sent = 503');
wait_for_relay($node, 'translation', 'lag_events = 0 AND sent = 201');
check_topic('es.Order', 'a store');
check_topic('Trans_lation.Order', 'another store', store => 'Trans lation');

# --- the broker stops and starts again ---

append_events($node, 100);
$kafka->stop;
append_events($node, 300);
wait_for_relay($node, 'documents', q{state = 'retrying' AND lag_events > 0 AND lag_seconds > 0 AND last_error IS NOT NULL AND last_error_at > now() - interval '1 hour'});
note(relay_column($node, 'documents', 'last_error'));
append_events($node, 10);
pass('appending goes on without the broker');
$kafka->start;
wait_for_relay($node, 'documents', q{lag_events = 0 AND state = 'running'});
check_topic('es.Order', 'after a stop of the broker');

# --- idle, the broker stops and starts again ---

$kafka->stop;
wait_for_relay($node, 'documents', q{state = 'retrying'});
$kafka->start;
wait_for_relay($node, 'documents', q{state = 'running'});

# --- the broker is killed while events stream ---

my $writer = new_session($node);
my $writing = q{SELECT format('SELECT es_append(%L, %L, %L);', 'Order', n % 5, 'Streamed') FROM generate_series(1, 2000) n \gexec};
$writer->start($writing);
wait_until($node, q{SELECT count(*) > 500 FROM es.events WHERE event_type = 'Streamed'}, 'events stream');
$kafka->kill9;
wait_for_relay($node, 'documents', q{state = 'retrying'});
$kafka->start;
$writer->result;
wait_for_relay($node, 'documents', q{lag_events = 0 AND state = 'running'});
check_topic('es.Order', 'after a crash of the broker', duplicates => 1);

# --- the worker is terminated while events stream ---

my $pid = relay_column($node, 'documents', 'pid');
$writer->start($writing);
wait_until($node, q{SELECT count(*) > 2500 FROM es.events WHERE event_type = 'Streamed'}, 'events stream');
is($node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)"), 't', 'the worker is terminated');
$writer->result;
wait_for_relay($node, 'documents', "lag_events = 0 AND state = 'running' AND pid <> $pid");
check_topic('es.Order', 'after the end of the worker', duplicates => 1);

# --- the server crashes ---

append_events($node, 300);
$node->stop('immediate');
$node->start;
append_events($node, 100);
wait_for_relay($node, 'documents', q{lag_events = 0 AND state = 'running'});
check_topic('es.Order', 'after a crash of the server', duplicates => 1);
$writer->quit;

# --- pause and resume ---

$node->safe_psql('postgres', q{SELECT es_pause_relay('documents')});
wait_for_relay($node, 'documents', q{state = 'paused' AND pid IS NULL});
my $before = $kafka->messages('es.Order');
append_events($node, 50);
wait_for_relay($node, 'documents', 'lag_events = 50');
is(scalar $kafka->messages('es.Order'), $before, 'a paused relay sends nothing');
$node->safe_psql('postgres', q{SELECT es_resume_relay('documents')});
wait_for_relay($node, 'documents', q{lag_events = 0 AND state = 'running'});
is(scalar $kafka->wait_for_messages('es.Order', $before + 50), $before + 50, 'resumed, it sends what came meanwhile, once');

# --- the server of the relay is gone and comes back; options change ---

$node->safe_psql('postgres', 'ALTER SERVER kafka RENAME TO elsewhere');
append_events($node, 5);
wait_for_relay($node, 'documents', q{state = 'stopped' AND last_error LIKE 'server "kafka" is gone%' AND lag_events = 5});
$node->safe_psql('postgres', q{ALTER SERVER elsewhere RENAME TO kafka;
	ALTER SERVER kafka OPTIONS (ADD "client.id" 'renamed'); SELECT es_resume_relay('documents'), es_resume_relay('translation')});
wait_for_relay($node, 'documents', q{lag_events = 0 AND state = 'running'});
check_topic('es.Order', 'after the return of the server', duplicates => 1);

# --- an owner who may see only some of the events ---

$node->safe_psql('postgres', <<'END');
CREATE ROLE clerk;
GRANT USAGE ON FOREIGN SERVER kafka TO clerk;
GRANT USAGE ON SCHEMA "Trans lation" TO clerk;
GRANT SELECT ON "Trans lation".events TO clerk;
ALTER TABLE "Trans lation".events ENABLE ROW LEVEL SECURITY;
CREATE POLICY two ON "Trans lation".events FOR SELECT TO clerk USING (aggregate_id IN ('1', '2'));
CREATE USER MAPPING FOR clerk SERVER kafka OPTIONS ("client.id" 'clerk');
SET ROLE clerk;
SELECT es_create_relay('clerk', 'kafka', 'clerk.{aggregate_type}', store => 'Trans lation');
END
wait_for_relay($node, 'clerk', q{lag_events = 0 AND state = 'running' AND position = safe_position});
my $visible = $node->safe_psql('postgres', q{SELECT count(*) FROM "Trans lation".events WHERE aggregate_type = 'Order' AND aggregate_id IN ('1', '2')});
my %keys = map { $_->{key} => 1 } $kafka->wait_for_messages('clerk.Order', $visible);
is_deeply([ sort keys %keys ], [ '1', '2' ], 'row security holds for a relay');
is(scalar $kafka->messages('clerk.Gr__e_1'), 0, 'for every event');
my $seen = $kafka->messages('clerk.Order');
$node->safe_psql('postgres', 'REVOKE USAGE ON FOREIGN SERVER kafka FROM clerk');
append_events($node, 2, store => 'Trans lation', aggregates => 3);
wait_for_relay($node, 'clerk', q{state = 'stopped' AND last_error LIKE '%lacks USAGE%' AND lag_events = 2 AND retries > 0});
is(scalar $kafka->messages('clerk.Order'), $seen, 'what is appended after a privilege is revoked is not sent');
$node->safe_psql('postgres', q{GRANT USAGE ON FOREIGN SERVER kafka TO clerk; SELECT es_resume_relay('clerk')});
wait_for_relay($node, 'clerk', q{state = 'running' AND lag_events = 0});
is(scalar $kafka->wait_for_messages('clerk.Order', $seen + 2), $seen + 2, 'until it is granted again');
$node->safe_psql('postgres', q{REVOKE SELECT ON "Trans lation".events FROM clerk; SELECT es_resume_relay('clerk')});
append_events($node, 2, store => 'Trans lation');
wait_for_relay($node, 'clerk', q{state = 'stopped' AND last_error LIKE '%may not read%'});
$node->safe_psql('postgres', q{SELECT es_drop_relay('clerk')});

# --- events that are too large ---

$node->safe_psql('postgres', q{SELECT es_create_store('bulk'), es_create_relay('large', 'kafka', 'large', store => 'bulk')});
append_events($node, 1, store => 'bulk', aggregates => 1);
append_events($node, 1, store => 'bulk', aggregates => 1, each => q{jsonb_build_object('x', repeat('x', 1500000))});
append_events($node, 3, store => 'bulk', aggregates => 1);
wait_for_relay($node, 'large', q{state = 'stopped' AND lag_events = 4 AND last_error LIKE 'event at position %too large%'});
is(scalar $kafka->wait_for_messages('large', 1), 1, 'nothing overtakes an event that the client refuses');
$node->safe_psql('postgres', q{ALTER SERVER kafka OPTIONS (ADD "message.max.bytes" '4000000', ADD "compression.codec" 'gzip');
	SELECT es_resume_relay('large')});
wait_for_relay($node, 'large', q{state = 'running' AND lag_events = 0});
is(join(' ', map { $_->{headers}{version} } $kafka->wait_for_messages('large', 5)), '1 2 3 4 5', 'with another option it goes through');
append_events($node, 1, store => 'bulk', aggregates => 1,
	each => q{jsonb_build_object('x', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 90000) i))});
append_events($node, 3, store => 'bulk', aggregates => 1);
wait_for_relay($node, 'large', q{state = 'stopped' AND lag_events = 4 AND last_error LIKE 'event at position %too large%'});
note(relay_column($node, 'large', 'last_error'));
is(scalar $kafka->messages('large'), 5, 'nothing overtakes an event that the broker refuses');
is($node->safe_psql('postgres', 'SELECT 1'), '1', 'the cluster is healthy');
$node->safe_psql('postgres', q{SELECT es_drop_relay('large')});

# --- a copy of the database does not send ---

my $dump = "${PostgreSQL::Test::Utils::tmp_check}/relays.sql";
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'the database is dumped');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('copy') ],
	'and restored beside it');
is( $node->safe_psql('copy', q{SELECT state, last_error LIKE '%copy%es_resume_relay()%', pid IS NULL FROM es_relays WHERE relay = 'documents'}),
	'stopped|t|t', 'there the relay is stopped and says so');
wait_for_relay($node, 'documents', q{lag_events = 0 AND position = safe_position AND sent > 0});
check_topic('es.Order', 'before there is a copy', duplicates => 1);
$before = $kafka->messages('es.Order');
$node->safe_psql('copy', q{SELECT es_append('Order', 'copied', 'Placed')});
$node->safe_psql('copy', q{SELECT es_resume_relay('documents')});
wait_until($node, q{SELECT lag_events = 0 AND state = 'running' FROM es_relays WHERE relay = 'documents'},
	'it sends from there once it is told to', 't', 'copy');
my @copied = grep { $_->{key} eq 'copied' } $kafka->wait_for_messages('es.Order', $before + 1);
is(scalar @copied, 1, 'what came since');
is(scalar $kafka->messages('es.Order'), $before + 1, 'and nothing that was sent before the dump');
$node->safe_psql('postgres', 'DROP DATABASE copy');

# --- the broker hangs ---

my $process = $kafka->process;
kill 'STOP', $process;
append_events($node, 20);
wait_for_relay($node, 'documents', q{state = 'retrying' AND lag_events > 0});
note(relay_column($node, 'documents', 'last_error'));
my $hung = seconds(sub {
	$node->safe_psql('postgres', q{SELECT es_pause_relay('documents')});
	wait_for_relay($node, 'documents', 'pid IS NULL');
});
cmp_ok($hung, '<', 5, 'a relay leaves a broker that hangs');
note(sprintf 'pause: %.2f s', $hung);
kill 'CONT', $process;
$node->safe_psql('postgres', q{SELECT es_resume_relay('documents')});
wait_for_relay($node, 'documents', q{lag_events = 0 AND state = 'running'});

# --- dropping things while the broker is dead ---

create_extension($node, 'other');
$node->safe_psql('other', <<"END");
SELECT es_create_store();
CREATE SERVER kafka FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', "bootstrap.servers" '$address');
SELECT es_create_relay('r', 'kafka', 'other');
SELECT es_append('Order', '1', 'Placed');
END
wait_until($node, q{SELECT state = 'running' AND lag_events = 0 FROM es_relays}, 'a relay in another database', 't', 'other');
$kafka->kill9;
append_events($node, 100);
$node->safe_psql('other', q{SELECT es_append('Order', '1', 'Changed')});
wait_for_relay($node, 'documents', q{state = 'retrying' AND lag_events > 0});
wait_until($node, q{SELECT state = 'retrying' AND lag_events > 0 FROM es_relays}, 'its broker is missed', 't', 'other');

my $running = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eventsrc relay' AND datname = };
$pid = relay_column($node, 'documents', 'pid');
my $time = seconds(sub {
	$node->safe_psql('postgres', q{SELECT es_drop_relay('documents')});
	wait_until($node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid", 'the worker of a dropped relay ends');
});
cmp_ok($time, '<', 5, 'soon');
note(sprintf 'DROP RELAY: %.2f s', $time);
$time = seconds(sub { $node->safe_psql('postgres', 'DROP DATABASE other') });
cmp_ok($time, '<', 5, 'DROP DATABASE does not wait for a dead broker');
note(sprintf 'DROP DATABASE: %.2f s', $time);
$time = seconds(sub { $node->safe_psql('postgres', 'DROP EXTENSION eventsrc CASCADE') });
cmp_ok($time, '<', 5, 'DROP EXTENSION does not wait for a dead broker');
note(sprintf 'DROP EXTENSION: %.2f s', $time);
wait_until($node, "$running 'postgres'", 'no relay runs', '0');
$time = seconds(sub { $node->stop('fast') });
cmp_ok($time, '<', 10, 'the server stops');

check_no_crash($node);

done_testing();
