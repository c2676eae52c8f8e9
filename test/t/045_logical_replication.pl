# A store's events are published, and a store of the same name on another server subscribes to them: by
# partitions or by the table, at the same positions and versions.  The subscriber writes its own streams.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $publisher = new_node('publisher', conf => "max_wal_senders = 10\nmax_replication_slots = 10\n");
my $subscriber = new_node('subscriber', conf => "max_logical_replication_workers = 6\nwal_retrieve_retry_interval = 500\n");
my $columns = 'global_position, aggregate_type, aggregate_id, version, event_id, event_type, schema_version, data, metadata, user_id, recorded_at, occurred_at, transaction';

# in_step waits until the subscriber has all that the publisher has.
sub in_step
{
	my ($store) = @_;
	my $last = $publisher->safe_psql('postgres', qq{SELECT max(global_position) FROM "$store".events});
	wait_until($subscriber, qq{SELECT count(*) = 1 FROM "$store".events WHERE global_position = $last}, "event $last of store $store has arrived");
	return;
}

# events_of lists a store's events with all that was recorded of them.
sub events_of
{
	my ($node, $store) = @_;
	return $node->safe_psql('postgres', qq{SELECT $columns FROM "$store".events ORDER BY aggregate_id, version});
}

# --- one store is published partition by partition, the other by its table

foreach my $node ($publisher, $subscriber)
{
	create_extension($node);
	$node->safe_psql('postgres', q{SELECT es_create_store(), es_create_store('Second "store"')});
}
$publisher->safe_psql('postgres', <<'SQL');
SELECT es_append('Document', '1', 'Written', '{"pages": 1}', metadata => '{"by": "a"}');
SELECT es_append('Document', 's', 'Written', store => 'Second "store"');
CREATE PUBLICATION parts FOR TABLE es.events;
CREATE PUBLICATION whole FOR TABLE "Second ""store""".events WITH (publish_via_partition_root = true);
SQL
my $connection = $publisher->connstr('postgres');
foreach my $publication ('parts', 'whole')
{
	$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION $publication CONNECTION \$\$$connection\$\$ PUBLICATION $publication");
}
in_step('es');
in_step('Second ""store""');
pass('what was there at the start was copied');
$publisher->safe_psql('postgres', <<'SQL');
SELECT es_append('Document', '1', 'Translated', '{"language": "de"}', expected_version => 1);
SELECT * FROM es_append_events('Document', '2', '{Written,Published}', '{"{}","{\"x\": 1}"}', expected_version => 0);
SELECT es_import($$SELECT 'Document' AS aggregate_type, 'i' || i AS aggregate_id, 'Written' AS event_type FROM generate_series(1, 20) i$$);
SELECT es_append('Document', 's', 'Translated', expected_version => 1, store => 'Second "store"');
SELECT es_close_stream('Document', '2');
SQL
$publisher->safe_psql('postgres', q{INSERT INTO es.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Document', '3', 'Written', '{}')});
in_step('es');
in_step('Second ""store""');
foreach my $store ('es', 'Second ""store""')
{
	is(events_of($subscriber, $store), events_of($publisher, $store), "store $store: the same events at the same positions and versions");
}

# --- the subscriber knows the streams

is($subscriber->safe_psql('postgres', q{SELECT aggregate_id, closed FROM es.streams WHERE aggregate_id ~ '^\d$' ORDER BY 1}), "1|f\n2|f\n3|f",
	'it has its own rows of streams; that one is closed is not among what is published');
foreach my $query (
	q{SELECT version, event_type, data FROM es_read_stream('Document', '1')},
	q{SELECT version FROM es_read_stream('Document', '2', backward => true, max_count => 1)},
	q{SELECT es_stream_version('Document', '1'), es_stream_version('Document', 'i20')},
	q{SELECT es_state('Document', '1')},
	q{SELECT version FROM es_read_stream('Document', 's', store => 'Second "store"')},
	q{SELECT count(*), count(DISTINCT global_position) FROM es_read_all()})
{
	is($subscriber->safe_psql('postgres', $query), $publisher->safe_psql('postgres', $query), "both answer alike: $query");
}

# --- the subscriber may append to other stores

is(sqlstate_of($subscriber, q{SELECT es_append('Document', '1', 'Written', expected_version => 0)}), 'VE001', 'it knows the versions of streams that came');
my $last = $publisher->safe_psql('postgres', q{SELECT max(global_position) FROM es.events});
$subscriber->safe_psql('postgres', q{SELECT es_create_store('own')});
is($subscriber->safe_psql('postgres', qq{SELECT version, global_position > $last FROM es_append('Order', '1', 'Placed', store => 'own')}),
	'1|t', 'an append to another store is beyond the positions that came');
$publisher->safe_psql('postgres', q{SELECT es_append('Document', '3', 'Translated', expected_version => 1)});
in_step('es');
is($subscriber->safe_psql('postgres', q{SELECT es_stream_version('Document', '3')}), '2', 'and replication goes on');

# --- an append to the subscribed store takes a position that the publisher gives out too

my $own = $subscriber->safe_psql('postgres', q{SELECT global_position FROM es_append('Order', 'own', 'Placed')});
my $log = -s $subscriber->logfile;
$publisher->safe_psql('postgres', qq{SELECT es_append('Document', '1', 'Published') FROM generate_series((SELECT max(global_position) FROM es.events), $own)});
wait_until($subscriber, q{SELECT apply_error_count > 0 FROM pg_stat_subscription_stats WHERE subname = 'parts'}, 'the subscription is held up');
wait_for_log($subscriber, qr/unique (?:constraint|index) "events_\w*global_position_idx"/, 'the log tells that the position is taken', $log);
is($subscriber->safe_psql('postgres', qq{SELECT aggregate_id FROM es.events WHERE global_position = $own}), 'own', 'and nothing is overwritten');

$subscriber->safe_psql('postgres', "DROP SUBSCRIPTION $_") foreach ('parts', 'whole');
done_testing();
