# The relay against a real RabbitMQ: what arrives, and that it goes on after all that can fail.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcRabbit;
use EventsrcRelay;
use EventsrcTest;
use Test::More;

my $rabbit = new_rabbit(conf => "max_message_size = 1000000\n");
my $proxy = new_proxy($rabbit->address);
my $node = new_node('relay');
create_extension($node);

# check_queue checks that a queue got every event of a store's orders, each stream's in order but for
# redeliveries, and nothing else.
sub check_queue
{
	my ($queue, $what, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	check_came($node, $rabbit, $queue, $what, again => 'any', %option);
	return;
}

my ($port, $proxied) = ($rabbit->port, $proxy->port);
$node->safe_psql('postgres', <<"END");
SELECT es_create_store();
CREATE SERVER mq FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host '127.0.0.1', port '$port',
    exchange 'events', declare 'queues', queues 'orders=es.Order, all=es.*');
CREATE SERVER classic FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host '127.0.0.1', port '$port',
    exchange 'to classic', declare 'queues', queues 'classic=#', queue_type 'classic', "window" '50');
CREATE SERVER stream FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host '127.0.0.1', port '$port',
    declare 'queues', queues 'stream', queue_type 'stream');
CREATE SERVER proxied FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'nowhere.invalid, localhost', port '$proxied',
    exchange 'proxied', declare 'queues', queues 'proxied', heartbeat '1', connect_timeout '2');
END

# --- what arrives ---

$node->safe_psql('postgres', <<'END');
SET eventsrc.user_id = 'user_789';
SET eventsrc.correlation_id = 'corr-1';
SET eventsrc.causation_id = 'cause-1';
SELECT es_append('Document', 'doc "1"', 'Uploaded', '{"name": "Ünï\u0001\""}',
                 metadata => '{"ip": "::1"}', event_id => 'evt_123', schema_version => 3);
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
SELECT es_append('Größe/1', 'a', 'Measured');
SELECT es_create_relay('documents', 'mq');
SELECT es_create_relay('classic', 'classic', '{aggregate_type}/{event_type}.{aggregate_type}', NULL);
SELECT es_create_relay('stream', 'stream', 'stream');
SELECT es_create_relay('proxied', 'proxied');
END
wait_for_relay($node, 'documents', q{state = 'running' AND lag_events = 0 AND lag_seconds = 0 AND position = safe_position AND sent = 3});
is(relay_column($node, 'documents', 'broker'), "127.0.0.1:$port", 'es_relays names the broker');
my @messages = $rabbit->messages('all');
is(scalar @messages, 3, 'events that were rolled back do not arrive');
my ($seconds, $timestamp, $data, $position) = split /\|/, $node->safe_psql('postgres', <<'END');
SELECT floor(extract(epoch FROM recorded_at)), to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
       data, global_position FROM es.events WHERE event_id = 'evt_123'
END
utf8::decode($data);
is_deeply(
	{ map { $_ => $messages[0]{$_} } grep { $_ ne 'payload' } keys %{ $messages[0] } },
	{
		exchange => 'events', routing_key => 'es.Document', message_id => 'evt_123', type => 'Uploaded',
		timestamp => $seconds, app_id => 'eventsrc', correlation_id => 'corr-1', content_type => 'application/json',
		delivery_mode => 2,
		headers => {
			'event-type' => 'Uploaded', 'schema-version' => '3', 'aggregate-type' => 'Document',
			version => '1', position => $position, store => 'es', key => 'doc "1"',
			'causation-id' => 'cause-1', metadata => '{"ip": "::1"}'
		}
	},
	'the properties and headers of a message');
is( $messages[0]{payload},
	'{"eventId":"evt_123","eventType":"Uploaded","aggregateId":"doc \"1\"","aggregateType":"Document",'
	  . qq("timestamp":"$timestamp","userId":"user_789","data":$data,"version":1}),
	'the value is the envelope');
is($messages[2]{routing_key}, "es.Gr\x{f6}\x{df}e/1", 'a routing key may have any characters');
is(scalar $rabbit->messages('orders'), 0, 'a binding chooses');
wait_for_relay($node, 'stream', 'lag_events = 0 AND sent = 3');
is(join(' ', map { $_->{type} } $rabbit->messages('stream', stream => 1)), 'Uploaded Renamed Measured',
	'a stream queue, by the default exchange');

# an envelope without a header of the position: the relay adds one, and knows by it what comes back
$rabbit->bind('cloud', 'cloud', $_) foreach 'Uploaded', 'Renamed';
$node->safe_psql('postgres', <<'END');
SELECT es_create_relay('cloud', 'mq', 'cloud/{event_type}',
                       options => '{"envelope": "cloudevents", "headers": {"tenant": "t", "event-type": "{event_type}"}}');
END
my $measured = $node->safe_psql('postgres', q{SELECT global_position FROM es.events WHERE event_type = 'Measured'});
wait_for_relay($node, 'cloud', qq{state = 'stopped' AND last_error LIKE 'event at position $measured is refused: no queue is bound%"Measured"'});
my ($cloud) = $rabbit->messages('cloud');
is_deeply(
	{ map { $_ => $cloud->{$_} } qw(message_id type content_type headers) },
	{
		message_id => 'evt_123', type => 'Uploaded', content_type => 'application/cloudevents+json; charset=UTF-8',
		headers => { tenant => 't', 'event-type' => 'Uploaded', position => $position, key => 'doc "1"' }
	},
	'a CloudEvent, with headers of the options');
$node->safe_psql('postgres', q{SELECT es_drop_relay('cloud')});

wait_for_relay($node, 'proxied', q{lag_events = 0 AND state = 'running' AND retries = 0});
pass('a host that cannot be found is passed over');

# --- many events of several streams ---

append_events($node, 500);
wait_for_relay($node, 'documents', 'lag_events = 0 AND sent = 503');
check_queue('orders', 'a quorum queue');
wait_for_relay($node, 'stream', 'lag_events = 0');
check_queue('stream', 'a stream queue', stream => 1);

# --- an exchange that is not there is declared if the relay may, else it says what to do ---

wait_for_relay($node, 'classic', q{state IN ('retrying', 'stopped') AND last_error LIKE '%no queue is bound to exchange "Order" for routing key "Happened.Order"%'});
$rabbit->bind('by type', 'Order', 'Happened.*');
$node->safe_psql('postgres', q{SELECT es_resume_relay('classic')});
wait_for_relay($node, 'classic', q{state = 'running' AND lag_events = 0});
check_queue('by type', 'an exchange of its own, declared when it was needed, and a classic queue');
$node->safe_psql('postgres', <<'END');
SELECT es_drop_relay('classic');
ALTER SERVER classic OPTIONS (SET declare 'none', DROP queues);
SELECT es_create_relay('classic', 'classic', 'missing/{event_type}', NULL);
END
append_events($node, 1);
wait_for_relay($node, 'classic', q{state = 'retrying' AND last_error LIKE '%404 NOT_FOUND - no exchange ''missing''%declare%' AND lag_events = 1});
$rabbit->bind('missing', 'missing', '#');
$node->safe_psql('postgres', q{SELECT es_resume_relay('classic')});
wait_for_relay($node, 'classic', q{state = 'running' AND lag_events = 0});
is(scalar $rabbit->messages('missing'), 1, 'once the exchange is there, it goes on');
$node->safe_psql('postgres', q{SELECT es_drop_relay('classic'), es_drop_relay('stream')});

# --- events that no queue takes, or that are too large: nothing overtakes them ---


$rabbit->bind('choosy', 'choosy', 'Placed');
$rabbit->bind('choosy', 'choosy', 'Paid');
$node->safe_psql('postgres', <<"END");
SELECT es_create_store('bulk');
CREATE SERVER choosy FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host '127.0.0.1', port '$port', exchange 'choosy');
BEGIN;
SELECT es_append('Order', '1', 'Placed', store => 'bulk');
SELECT es_append('Order', '2', 'Placed', store => 'bulk');
SELECT es_append('Order', '1', 'Shipped', store => 'bulk');
SELECT es_append('Order', '1', 'Paid', store => 'bulk');
SELECT es_append('Order', '2', 'Paid', store => 'bulk');
COMMIT;
SELECT es_create_relay('choosy', 'choosy', '{event_type}', store => 'bulk');
END
wait_for_relay($node, 'choosy', q{last_error LIKE '%no queue is bound to exchange "choosy" for routing key "Shipped"%' AND lag_events = 3});
is(join(' ', map { $_->{type} } $rabbit->messages('choosy')), 'Placed Placed', 'nothing overtakes an event that no queue takes');
$rabbit->bind('choosy', 'choosy', 'Shipped');
$node->safe_psql('postgres', q{SELECT es_resume_relay('choosy')});
wait_for_relay($node, 'choosy', q{state = 'running' AND lag_events = 0});
check_queue('choosy', 'with another binding', store => 'bulk');
$node->safe_psql('postgres', <<'END');
SELECT es_append('Order', '1', 'Paid', jsonb_build_object('x', repeat('x', 600000)), store => 'bulk');
SELECT es_append('Order', '1', 'Paid', jsonb_build_object('x', repeat('x', 1200000)), store => 'bulk');
SELECT es_append('Order', '1', 'Shipped', store => 'bulk');
END
wait_for_relay($node, 'choosy', q{last_error LIKE '%message size%larger than configured max size%' AND lag_events = 2});
note(relay_column($node, 'choosy', 'last_error'));
my @large = $rabbit->messages('choosy');
ok(index($large[-1]{payload}, '"' . ('x' x 600000) . '"') > 0, 'a large event arrives, nothing overtakes one that is too large');
$node->safe_psql('postgres', q{SELECT es_drop_relay('choosy')});
$node->safe_psql('postgres', <<'END');
SELECT es_append('Order', '3', 'Paid', metadata => jsonb_build_object('x', repeat('x', 200000)), store => 'bulk');
SELECT es_create_relay('choosy', 'choosy', '{event_type}', es_safe_position() - 1, store => 'bulk');
END
wait_for_relay($node, 'choosy', q{last_error LIKE '%its metadata and key do not fit%' AND lag_events = 1});
$node->safe_psql('postgres', q{SELECT es_drop_relay('choosy')});

# --- who may not ---

$node->safe_psql('postgres', <<"END");
CREATE SERVER denied FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', port '$port');
CREATE USER MAPPING FOR PUBLIC SERVER denied OPTIONS ("user" 'guest', password 'hush-hush');
SELECT es_create_relay('denied', 'denied');
END
wait_for_relay($node, 'denied', q{state = 'retrying' AND last_error LIKE '%403 ACCESS_REFUSED%'});
note(relay_column($node, 'denied', 'last_error'));
$node->safe_psql('postgres', <<'END');
ALTER USER MAPPING FOR PUBLIC SERVER denied OPTIONS (DROP "user", DROP password);
ALTER SERVER denied OPTIONS (ADD vhost 'elsewhere');
SELECT es_resume_relay('denied');
END
wait_for_relay($node, 'denied', q{state = 'retrying' AND last_error LIKE '%vhost elsewhere not found%'});
$node->safe_psql('postgres', q{ALTER SERVER denied OPTIONS (SET host 'nowhere.invalid'); SELECT es_resume_relay('denied')});
wait_for_relay($node, 'denied', q{state = 'retrying' AND last_error LIKE 'could not find host "nowhere.invalid"%'});
$node->safe_psql('postgres', q{SELECT es_drop_relay('denied')});

# --- the network ---

append_events($node, 100);
wait_for_relay($node, 'proxied', q{lag_events = 0 AND state = 'running'});
foreach my $trouble ('cut', 'half', 'drop')
{
	my ($retries, $sent) = map { relay_column($node, 'proxied', $_) } 'retries', 'sent';
	my $writer = new_session($node);
	$writer->start(q{SELECT format('SELECT es_append(%L, %L, %L);', 'Order', n % 5, 'Streamed') FROM generate_series(1, 600) n \gexec});
	wait_for_relay($node, 'proxied', "sent > $sent + 100");
	$proxy->tell($trouble);
	wait_for_relay($node, 'proxied', "retries > $retries AND last_error IS NOT NULL");
	note("$trouble: " . relay_column($node, 'proxied', 'last_error'));
	$proxy->tell('pass');
	$writer->result;
	$writer->quit;
	$node->safe_psql('postgres', q{SELECT es_resume_relay('proxied')});
	wait_for_relay($node, 'proxied', q{lag_events = 0 AND state = 'running'});
}
$proxy->tell('delay 300');
append_events($node, 20);
wait_for_relay($node, 'proxied', 'lag_events = 0');
$proxy->tell('pass');
check_queue('proxied', 'after trouble in the network');

# --- the broker stops, idle and with events to come ---

$rabbit->stop;
wait_for_relay($node, 'documents', q{state = 'retrying'});
append_events($node, 100);
wait_for_relay($node, 'documents', q{lag_events >= 100 AND lag_seconds > 0 AND last_error LIKE 'could not connect%'});
$rabbit->start;
$node->safe_psql('postgres', q{SELECT es_resume_relay('documents'), es_resume_relay('proxied')});
wait_for_relay($node, 'documents', q{lag_events = 0 AND state = 'running'});

# --- the broker, the worker and the server end while events stream ---

my $writer = new_session($node);
my $writing = q{SELECT format('SELECT es_append(%L, %L, %L);', 'Order', n % 5, 'Streamed') FROM generate_series(1, 1500) n \gexec};
my $sent = relay_column($node, 'documents', 'sent');
$writer->start($writing);
wait_for_relay($node, 'documents', "sent > $sent + 300");
$rabbit->kill9;
wait_for_relay($node, 'documents', q{state = 'retrying'});
$rabbit->start;
$node->safe_psql('postgres', q{SELECT es_resume_relay('documents'), es_resume_relay('proxied')});
$writer->result;
wait_for_relay($node, 'documents', q{lag_events = 0 AND state = 'running'});

my $pid = relay_column($node, 'documents', 'pid');
$writer->start($writing);
$sent = relay_column($node, 'documents', 'sent');
wait_for_relay($node, 'documents', "sent > $sent + 100");
is($node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)"), 't', 'the worker is terminated');
$writer->result;
wait_for_relay($node, 'documents', "lag_events = 0 AND state = 'running' AND pid <> $pid");
$writer->quit;

append_events($node, 200);
$node->stop('immediate');
$node->start;
append_events($node, 50);
wait_for_relay($node, 'documents', q{lag_events = 0 AND state = 'running'});
check_queue('orders', 'after crashes of the broker and the server and the end of the worker');

# --- the broker runs out of disk ---

$rabbit->ctl('set_disk_free_limit', '900GB');
append_events($node, 50);
wait_for_relay($node, 'documents', q{state = 'retrying' AND last_error LIKE 'blocked: %' AND lag_events = 50});
note(relay_column($node, 'documents', 'last_error'));
append_events($node, 1000, aggregates => 50, each => q{jsonb_build_object('x', repeat('x', 6000))});
$pid = relay_column($node, 'documents', 'pid');
$node->safe_psql('postgres', q{SELECT es_pause_relay('documents')});
wait_for_relay($node, 'documents', q{state = 'paused' AND pid IS NULL});
$node->safe_psql('postgres', q{SELECT es_resume_relay('documents')});
wait_for_relay($node, 'documents', q{state = 'retrying' AND lag_events = 1050 AND pid IS NOT NULL});
$rabbit->ctl('set_disk_free_limit', '64MB');
wait_for_relay($node, 'documents', q{lag_events = 0 AND state = 'running'});
check_queue('orders', 'after the disk was full');

# --- the broker hangs; things are dropped meanwhile ---

create_extension($node, 'other');
$node->safe_psql('other', <<"END");
SELECT es_create_store();
CREATE SERVER mq FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host '127.0.0.1', port '$port', declare 'queues', queues 'other');
SELECT es_create_relay('r', 'mq', 'other');
SELECT es_append('Order', '1', 'Placed');
END
wait_until($node, q{SELECT state = 'running' AND lag_events = 0 FROM es_relays}, 'a relay in another database', 't', 'other');
my $process = $rabbit->process;
kill 'STOP', $process;
append_events($node, 20);
wait_for_relay($node, 'documents', q{state = 'retrying' AND lag_events > 0 AND last_error LIKE '%confirmed nothing%'});
my $begin = time;
$node->safe_psql('postgres', q{SELECT es_drop_relay('documents')});
wait_until($node, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'eventsrc relay' AND datname = 'postgres'},
	'the worker of a dropped relay ends');
cmp_ok(time - $begin, '<=', 5, 'soon');
$begin = time;
$node->safe_psql('postgres', 'DROP DATABASE other');
cmp_ok(time - $begin, '<=', 5, 'DROP DATABASE does not wait for a broker that hangs');
$begin = time;
$node->safe_psql('postgres', 'DROP EXTENSION eventsrc CASCADE');
cmp_ok(time - $begin, '<=', 5, 'DROP EXTENSION neither');
$begin = time;
$node->stop('fast');
cmp_ok(time - $begin, '<=', 10, 'nor does the server when it stops');
kill 'CONT', $process;

check_no_password($node, 'hush-hush');
check_no_crash($node);

done_testing();
