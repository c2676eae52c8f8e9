# What a relay sends: envelopes, headers, templates, functions, dead letters; and relays that are altered,
# moved and replayed.  Against a real Apache Kafka.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use JSON::PP ();
use Test::More;

my $kafka = new_kafka();
my $node = new_node('content');
create_extension($node);
my $address = $kafka->address;
my $trace = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

# query returns what a query does.
sub query { return $node->safe_psql('postgres', $_[0]); }

# wait_until_sent waits until a relay has nothing more to send.
sub wait_until_sent { return wait_for_relay($node, $_[0], q{state = 'running' AND lag_events = 0}); }

# headers_of returns the names of a message's headers, in order of name.
sub headers_of { return join ' ', sort keys %{ $_[0]{headers} }; }

query(<<"END");
SELECT es_create_store();
CREATE SERVER kafka FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', "bootstrap.servers" '$address');
SET eventsrc.user_id = 'user/7';
SET eventsrc.correlation_id = 'corr';
SET eventsrc.traceparent = '$trace';
SELECT es_append('Document', 'doc/1', 'Uploaded', '{"name": "a", "secret": 1}', metadata => '{"ip": "::1"}',
                 event_id => 'evt-1', occurred_at => '2024-06-20 10:30:00+00', schema_version => 3);
RESET ALL;
SELECT es_append('Document', E'doc\\u0001"2', 'Renamed', '{"name": "b"}', event_id => 'evt-2');
SELECT es_append('Order', '1', 'Placed', '{"n": 1}');
SELECT es_append('Order', '2', 'Placed', '{"n": 2}');
SELECT es_append('Order', '1', 'Shipped', '{"n": 3}');
SELECT es_close_stream('Order', '1');
END

# --- envelopes ---

query(<<'END');
SELECT es_create_relay('structured', 'kafka', 'structured', options => '{"envelope": "cloudevents", "aggregate_types": ["Document"]}');
SELECT es_create_relay('binary', 'kafka', 'binary', options =>
    '{"envelope": "cloudevents_binary", "aggregate_types": ["Document"], "source": "https://shop.example/{store}/{aggregate_id}"}');
SELECT es_create_relay('raw', 'kafka', 'raw.{aggregate_type}.{user_id}.{schema_version}', options =>
    '{"envelope": "raw", "aggregate_types": ["Document"], "key": "{store}/{aggregate_id}", "headers": {"tenant": "t-{store}", "who": "{user_id}"}}');
SELECT es_create_relay('outbox', 'kafka', 'outbox.event.{aggregate_type}', options => '{"envelope": "debezium", "event_types": ["Uploaded"]}');
SELECT es_create_relay('closing', 'kafka', 'closing', options => '{"tombstones": true, "aggregate_types": ["Order"]}');
END
my $time = query(q{SELECT to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') FROM es.events WHERE event_id = 'evt-1'});
my @got = $kafka->wait_for_messages('structured', 2);
is_deeply($got[0]{headers}, { 'content-type' => 'application/cloudevents+json; charset=UTF-8' }, 'structured: the content type');
is_deeply(
	$got[0]{value},
	{
		specversion => '1.0', id => 'evt-1', source => '/es/Document', type => 'Uploaded', subject => 'doc/1', time => $time,
		datacontenttype => 'application/json', data => { name => 'a', secret => 1 }, aggregatetype => 'Document',
		streamversion => '1', position => '1', schemaversion => 3, userid => 'user/7', correlationid => 'corr',
		traceparent => $trace, occurredat => '2024-06-20T10:30:00.000000Z', metadata => '{"ip": "::1"}'
	},
	'structured: the attributes and the data');
is($got[1]{value}{subject}, "doc\x{fffd}\"2", 'structured: no control characters in attributes');
foreach my $event (map { $_->{value} } @got)
{
	is_deeply([ grep { !/^[a-z0-9]{1,20}$/ } keys %$event ], [], 'structured: names are lower case letters and digits');
	is_deeply([ grep { !defined $event->{$_} || $event->{$_} eq '' } qw(id source specversion type) ], [],
		'structured: what is required is there');
	is_deeply([ grep { $_ ne 'data' && (ref $event->{$_} || !defined $event->{$_}) } keys %$event ], [],
		'structured: no attribute is null or an object');
}

@got = $kafka->wait_for_messages('binary', 2);
is_deeply($got[0]{value}, { name => 'a', secret => 1 }, 'binary: the value is the data');
is_deeply(
	$got[0]{headers},
	{
		'content-type' => 'application/json', ce_specversion => '1.0', ce_id => 'evt-1',
		ce_source => 'https://shop.example/es/doc%2F1', ce_type => 'Uploaded', ce_subject => 'doc/1', ce_time => $time,
		ce_aggregatetype => 'Document', ce_streamversion => '1', ce_position => '1', ce_schemaversion => '3',
		ce_userid => 'user/7', ce_correlationid => 'corr', ce_traceparent => $trace,
		ce_occurredat => '2024-06-20T10:30:00.000000Z', ce_metadata => '{"ip": "::1"}'
	},
	'binary: the attributes are headers');
is($got[1]{headers}{ce_source}, 'https://shop.example/es/doc%01%222', 'binary: the source is a URI');

@got = $kafka->wait_for_messages('raw.Document.user_7.3', 1);
is_deeply($got[0]{value}, { name => 'a', secret => 1 }, 'raw: the value is the data');
is($got[0]{key}, 'es/doc/1', 'the key is that of the template');
is($got[0]{headers}{tenant}, 't-es', 'a header from a template');
is($got[0]{headers}{who}, 'user/7', 'and one with a value of the event');
is($got[0]{headers}{'event-id'}, 'evt-1', 'raw: the other headers are there');

@got = $kafka->wait_for_messages('outbox.event.Document', 1);
is_deeply($got[0]{value}, { name => 'a', secret => 1 }, 'debezium: the value is the payload');
is($got[0]{key}, 'doc/1', 'debezium: the key is the aggregate id');
is_deeply($got[0]{headers}, { id => 'evt-1', eventType => 'Uploaded', aggregateType => 'Document', traceparent => $trace },
	'debezium: the headers of its event router');

@got = $kafka->wait_for_messages('closing', 4);
is($got[3]{headers}{'event-type'}, 'StreamClosed', 'tombstone: the last event');
is($got[3]{key}, '1', 'tombstone: it has the key of the stream');
ok(!defined $got[3]{payload} || $got[3]{payload} eq '', 'tombstone: it has no value');
is($got[2]{value}{data}{n}, 3, 'tombstone: the events before it have theirs');
is(scalar(grep { $_->{headers}{'aggregate-type'} ne 'Order' } @got), 0, 'only the aggregate types that were asked for');
query("SELECT es_drop_relay(relay) FROM es_relays");

# --- values as text ---

query(<<'END');
SELECT es_append('Text', n::text, 'Written', data, occurred_at => at) FROM (
    SELECT row_number() OVER () AS n, data::jsonb AS data, timestamptz '2000-01-01 00:00:00+00' + at AS at FROM (
        VALUES ('{}', interval '0'), ('[]', '1 us'), ('true', '999999 us'), ('"text"', '1 s'), ('-1.500', '1000001 us'),
            ('[true, false, null, 0, -0.00, 12345678901234567890.123, 1e40, 1e-9]', '-1 us'), ('{"": ""}', '-1000001 us'),
            ('[[], {}, [[1, [2, "3"]], {"a": {"b": {"c": [{}]}}}]]', '-1 s'), ('{"b": 1, "a": {"d": 2}, "c": [3]}', '-1999 years'),
            ('{"n": 1}', '7999 years 364 days 23:59:59.999999'), ('{"n": 2}', '10000 years')
        UNION ALL
        SELECT jsonb_build_object('k' || n, repeat('x', n) || E'\u00e9"' || repeat('y', n) || E'\\\u20ac/\u007f' || repeat(E'\U0001f600', n % 3))::text,
                n * interval '0.3 s'
            FROM generate_series(0, 24) n
        UNION ALL
        SELECT jsonb_build_object(chr(n) || 'name', repeat('z', n) || chr(n) || repeat(chr(n), 9))::text, n * interval '1 day'
            FROM generate_series(1, 39) n
        UNION ALL
        SELECT jsonb_object_agg('key ' || n, CASE n % 4 WHEN 0 THEN to_jsonb(n) WHEN 1 THEN to_jsonb(repeat('v', n))
                    WHEN 2 THEN jsonb_build_array(n, n / 7.0) ELSE jsonb_build_object('n', n, 't', 'u') END)::text, interval '1 hour'
            FROM generate_series(1, 200) n
        ) texts (data, at)) numbered;
SELECT es_create_relay('text', 'kafka', 'text', options => '{"envelope": "raw", "aggregate_types": ["Text"]}');
END
wait_until_sent('text');
my @texts = $kafka->wait_for_messages('text', query("SELECT count(*) FROM es.events WHERE aggregate_type = 'Text'"));
utf8::encode($_->{payload}) foreach @texts;
is(join("\n", map { $_->{payload} } @texts), query("SELECT data FROM es.events WHERE aggregate_type = 'Text' ORDER BY global_position"),
	'data goes out as the text that jsonb has');
is(join("\n", map { $_->{headers}{'occurred-at'} } @texts),
	query(q{SELECT to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') FROM es.events WHERE aggregate_type = 'Text' ORDER BY global_position}),
	'and times to the microsecond');
query("SELECT es_drop_relay('text')");

# --- upcasting, filter, transform ---

query(<<'END');
CREATE FUNCTION up(event es_event) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$ SELECT event.data || '{"up": true}' $$;
CREATE FUNCTION odd(event es_event) RETURNS boolean LANGUAGE sql AS $$ SELECT (event.data->>'n')::int % 2 = 1 $$;
CREATE FUNCTION slim(event es_event) RETURNS jsonb LANGUAGE plpgsql AS
    $$ BEGIN RETURN CASE WHEN event.event_type <> 'Shipped' THEN jsonb_build_object('id', event.aggregate_id, 'up', event.data->'up') END; END $$;
SELECT es_create_upcaster('Placed', 1, 'up(es_event)');
SELECT es_create_relay('now', 'kafka', 'now', options => '{"event_types": ["Placed"]}');
SELECT es_create_relay('then', 'kafka', 'then', options => '{"event_types": ["Placed"], "upcast": false}');
SELECT es_create_relay('slim', 'kafka', 'slim', options => '{"event_types": ["Placed", "Shipped"], "filter": "odd", "transform": "slim", "envelope": "raw"}');
END
@got = $kafka->wait_for_messages('now', 2);
is_deeply($got[0]{value}{data}, { n => 1, up => JSON::PP::true }, 'events are upcasted');
@got = $kafka->wait_for_messages('then', 2);
is_deeply($got[0]{value}{data}, { n => 1 }, 'or not, if so asked');
wait_until_sent('slim');
@got = $kafka->wait_for_messages('slim', 1);
is_deeply([ map { $_->{value} } @got ], [ { id => '1', up => JSON::PP::true } ],
	'the filter chooses, the transformation changes the data, and passes over events by NULL');
query("SELECT es_drop_relay(relay) FROM es_relays");

# --- events for which the user's function fails ---

query(<<'END');
CREATE FUNCTION strict_slim(event es_event) RETURNS jsonb LANGUAGE plpgsql AS
    $$ BEGIN IF event.data ? 'bad' THEN RAISE EXCEPTION 'bad event'; END IF; RETURN event.data; END $$;
SELECT es_append('Payment', '1', 'Paid', '{"n": 1}');
SELECT es_append('Payment', '1', 'Paid', '{"n": 2, "bad": true}', event_id => 'bad-1');
SELECT es_append('Payment', '1', 'Paid', '{"n": 3}');
SELECT es_create_relay('stops', 'kafka', 'stops', options => '{"aggregate_types": ["Payment"], "transform": "strict_slim", "envelope": "raw"}');
SELECT es_create_relay('goes on', 'kafka', 'goes.on', options =>
    '{"aggregate_types": ["Payment"], "transform": "strict_slim", "envelope": "raw", "on_error": "dead_letter", "dead_letter_topic": "dead.{aggregate_type}"}');
END
my $bad = query("SELECT global_position FROM es.events WHERE event_id = 'bad-1'");
wait_for_relay($node, 'stops', qq{state = 'stopped' AND last_error LIKE '%$bad%bad event%'});
is_deeply([ map { $_->{value}{n} } $kafka->wait_for_messages('stops', 1) ], [1], 'a relay stops before an event for which its function fails');
wait_for_log($node, qr/CONTEXT:.*\n?.*relay "stops", position $bad, event "bad-1", transform public\.strict_slim/, 'the log says which');
query("CREATE OR REPLACE FUNCTION strict_slim(event es_event) RETURNS jsonb LANGUAGE sql AS 'SELECT event.data'; SELECT es_resume_relay('stops')");
wait_until_sent('stops');
is_deeply([ map { $_->{value}{n} } $kafka->wait_for_messages('stops', 3) ], [ 1, 2, 3 ], 'it goes on when the function is mended');
wait_until_sent('goes on');
is_deeply([ map { $_->{value}{n} } $kafka->wait_for_messages('goes.on', 2) ], [ 1, 3 ], 'with dead letters it goes on at once');
is(query("SELECT relay, position, event_id, reason FROM es_dead_letters"), "goes on|$bad|bad-1|bad event", 'and the event is listed');
@got = $kafka->wait_for_messages('dead.Payment', 1);
is_deeply([ @{ $got[0]{value} }{qw(eventId position reason)} ], [ 'bad-1', $bad, 'bad event' ], 'a notice is in the topic of dead letters');

# a new attempt: a relay for this one event, which is gone after it
query("SELECT es_retry_dead_letter('goes on', $bad)");
wait_until($node, "SELECT count(*) = 0 FROM es_dead_letters", 'the dead letter is gone');
is(query("SELECT count(*) FROM es_relays WHERE relay LIKE '%retry%'"), '0', 'and so is the relay that sent it');
is_deeply([ map { $_->{value}{n} } $kafka->wait_for_messages('goes.on', 3) ], [ 1, 3, 2 ], 'it arrives when it is tried again');

# --- events that the broker refuses ---

query(<<'END');
SELECT es_create_relay('large', 'kafka', 'large', NULL, options => '{"on_error": "dead_letter", "dead_letter_topic": "large.dead"}');
SELECT es_append('Blob', '1', 'Stored', '{"n": 1}');
SELECT es_append('Blob', '1', 'Stored', jsonb_build_object('n', 2, 'x', repeat('x', 3000000)), event_id => 'large-1');
SELECT es_append('Blob', '1', 'Stored', '{"n": 3}');
END
wait_until_sent('large');
is_deeply([ map { $_->{value}{data}{n} } $kafka->wait_for_messages('large', 2) ], [ 1, 3 ], 'an event that is too large does not hold the others up');
is(query("SELECT event_id FROM es_dead_letters"), 'large-1', 'it is a dead letter');
query("SELECT es_discard_dead_letter('large', position) FROM es_dead_letters");
query("SELECT es_drop_relay(relay) FROM es_relays");

# --- altered while it runs ---

query("SELECT es_create_relay('altered', 'kafka', 'altered.1', NULL)");
my $count = 0;
foreach my $topic (1 .. 4)
{
	query("SELECT es_alter_relay('altered', 'altered.$topic', " . ($topic % 2 ? q('{"envelope": null}') : q('{"envelope": "raw"}')) . ')');
	query("SELECT count(*) FROM (SELECT es_append('Altered', 'a', 'Happened', jsonb_build_object('n', n)) FROM generate_series($count + 1, $count + 200) n) s");
	$count += 200;
}
wait_until_sent('altered');
my @numbers;
my $patience = time + $EventsrcTest::PATIENCE;
do
{
	@numbers = map {
		my $topic = $_;
		map { $topic % 2 ? $_->{value}{data}{n} : $_->{value}{n} } $kafka->messages("altered.$topic")
	} 1 .. 4;
} while (@numbers < 800 && time < $patience);
is_deeply(\@numbers, [ 1 .. 800 ], 'each event goes out once, as the relay was told when it was appended');

# --- moved ---

my $middle = query("SELECT global_position FROM es.events WHERE aggregate_type = 'Altered' AND version = 700");
query("SELECT es_alter_relay('altered', 'sought'); SELECT es_seek_relay('altered', $middle)");
@got = $kafka->wait_for_messages('sought', 100);
is_deeply([ map { $_->{value}{n} } @got ], [ 701 .. 800 ], 'after a seek it goes on behind the position');
wait_until_sent('altered');
query("SELECT es_alter_relay('altered', 'sought.2'); SELECT es_seek_relay('altered', at => (SELECT recorded_at FROM es.events WHERE aggregate_type = 'Altered' AND version = 601))");
wait_until_sent('altered');
@got = $kafka->wait_for_messages('sought.2', 200);
is($got[-1]{value}{n}, 800, 'after a seek to a time it sends what was recorded from then on');
ok($got[0]{value}{n} <= 601, 'and all of it');
my $end = query("SELECT es_safe_position()");
query("SELECT es_alter_relay('altered', 'sought.3'); SELECT es_seek_relay('altered', $end); SELECT es_append('Altered', 'a', 'Happened', '{\"n\": 801}')");
@got = $kafka->wait_for_messages('sought.3', 1);
is_deeply([ map { $_->{value}{n} } @got ], [801], 'a seek forward passes over events');
$node->restart;
query(q{SELECT es_append('Altered', 'a', 'Happened', '{"n": 802}')});
@got = $kafka->wait_for_messages('sought.3', 2);
is_deeply([ map { $_->{value}{n} } @got ], [ 801, 802 ], 'which a restart does not undo');

# --- a range, to another topic ---

my $from = query("SELECT global_position FROM es.events WHERE aggregate_type = 'Altered' AND version = 100");
my $to = query("SELECT global_position FROM es.events WHERE aggregate_type = 'Altered' AND version = 250");
is(query("SELECT es_replay_relay('altered', 'side', $from, $to)"), 'altered replay 1', 'a replay has a name');
wait_for_relay($node, 'altered replay 1', qq{state = 'finished' AND position = $to AND lag_events = 0});
is_deeply([ map { $_->{value}{n} } $kafka->wait_for_messages('side', 150) ], [ 101 .. 250 ], 'a replay sends the range and ends');
wait_for_relay($node, 'altered replay 1', 'pid IS NULL');

done_testing();
