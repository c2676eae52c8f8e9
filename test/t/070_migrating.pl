# docs/migrating.md is true: its SQL moves event stores of the shapes that message-db, Emmett, Marten and KurrentDB
# have, each in a database of its own, and everything arrives.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $text = slurp_file("$FindBin::RealBin/../../docs/migrating.md");
my %sql;
while ($text =~ /^## ([^\n]*)\n(.*?)(?=^## |\z)/msg)
{
	my ($title, $section) = ($1, $2);
	$sql{ $title =~ s/\W.*//r } = join "\n", $section =~ /^```sql\n(.*?)^```$/msg if $section =~ /^```sql/m;
}
is_deeply([ sort keys %sql ], [qw(Emmett KurrentDB Marten message)], 'there is SQL for each source');

# the sources' tables, as their own installers make them, with events of 700 streams that come in turns
my %source = (
	message => q{
CREATE SCHEMA message_store;
CREATE TABLE message_store.messages (
  global_position bigserial NOT NULL,
  position bigint NOT NULL,
  time TIMESTAMP WITHOUT TIME ZONE DEFAULT (now() AT TIME ZONE 'utc') NOT NULL,
  stream_name text NOT NULL,
  type text NOT NULL,
  data jsonb,
  metadata jsonb,
  id UUID NOT NULL DEFAULT gen_random_uuid()
);
ALTER TABLE message_store.messages ADD PRIMARY KEY (global_position) NOT DEFERRABLE INITIALLY IMMEDIATE;
CREATE UNIQUE INDEX messages_id ON message_store.messages (id);
CREATE UNIQUE INDEX messages_stream ON message_store.messages (stream_name, position);
INSERT INTO message_store.messages (position, time, stream_name, type, data, metadata)
  SELECT n, at AT TIME ZONE 'UTC', 'order-' || stream, type, data,
         jsonb_build_object('correlationStreamName', 'checkout-' || stream, 'causationMessageGlobalPosition', nullif(g - 1, 0))
  FROM made ORDER BY g;
CREATE VIEW expected AS
  SELECT m.global_position AS place, 'order' AS aggregate_type, made.stream AS aggregate_id, m.id::text AS event_id,
         'checkout-' || made.stream AS correlation_id, c.id::text AS causation_id
  FROM message_store.messages m JOIN made ON made.g = m.global_position
  LEFT JOIN message_store.messages c ON c.global_position = m.global_position - 1;
},
	Emmett => q{
CREATE TABLE emt_streams(
    stream_id         TEXT                      NOT NULL,
    stream_position   BIGINT                    NOT NULL,
    partition         TEXT                      NOT NULL DEFAULT 'emt:default',
    stream_type       TEXT                      NOT NULL,
    stream_metadata   JSONB                     NOT NULL,
    is_archived       BOOLEAN                   NOT NULL DEFAULT FALSE,
    PRIMARY KEY (stream_id, partition, is_archived)
) PARTITION BY LIST (partition);
CREATE SEQUENCE emt_global_message_position;
CREATE TABLE emt_messages(
    stream_position        BIGINT                    NOT NULL,
    global_position        BIGINT                    DEFAULT nextval('emt_global_message_position'),
    transaction_id         XID8                      NOT NULL,
    created                TIMESTAMPTZ               NOT NULL DEFAULT now(),
    is_archived            BOOLEAN                   NOT NULL DEFAULT FALSE,
    message_kind           VARCHAR(1)                NOT NULL DEFAULT 'E',
    stream_id              TEXT                      NOT NULL,
    partition              TEXT                      NOT NULL DEFAULT 'emt:default',
    message_schema_version TEXT                      NOT NULL,
    message_id             TEXT                      NOT NULL,
    message_type           TEXT                      NOT NULL,
    message_data           JSONB                     NOT NULL,
    message_metadata       JSONB                     NOT NULL,
    PRIMARY KEY (stream_id, stream_position, partition, is_archived)
) PARTITION BY LIST (partition);
CREATE TABLE emt_streams_all PARTITION OF emt_streams DEFAULT;
CREATE TABLE emt_messages_all PARTITION OF emt_messages DEFAULT;
INSERT INTO emt_streams SELECT stream, max(n) + 1, 'emt:default', 'order', '{}' FROM made GROUP BY stream;
INSERT INTO emt_messages (stream_position, transaction_id, created, stream_id, message_schema_version, message_id, message_type, message_data, message_metadata)
  SELECT n + 1, pg_current_xact_id(), at, stream, '1', 'm' || g, type, data,
         jsonb_build_object('correlationId', 'c' || stream, 'causationId', 'm' || (g - 1))
  FROM made ORDER BY g;
INSERT INTO emt_messages (stream_position, transaction_id, message_kind, stream_id, message_schema_version, message_id, message_type, message_data, message_metadata)
  VALUES (999, pg_current_xact_id(), 'C', '1', '1', 'command', 'PlaceOrder', '{}', '{}');
CREATE VIEW expected AS
  SELECT g AS place, 'order' AS aggregate_type, stream AS aggregate_id, 'm' || g AS event_id,
         'c' || stream AS correlation_id, 'm' || (g - 1) AS causation_id FROM made;
},
	Marten => q{
CREATE TABLE mt_streams (
    id                  uuid                        NOT NULL PRIMARY KEY,
    type                varchar                     NULL,
    version             bigint                      NULL,
    timestamp           timestamp with time zone    NOT NULL DEFAULT (now()),
    snapshot            jsonb                       NULL,
    snapshot_version    integer                     NULL,
    created             timestamp with time zone    NOT NULL DEFAULT (now()),
    tenant_id           varchar                     NULL DEFAULT '*DEFAULT*',
    is_archived         bool                        NULL DEFAULT FALSE
);
CREATE TABLE mt_events (
    seq_id              bigint                      NOT NULL PRIMARY KEY,
    id                  uuid                        NOT NULL,
    stream_id           uuid                        NULL REFERENCES mt_streams (id) ON DELETE CASCADE,
    version             bigint                      NOT NULL,
    data                jsonb                       NOT NULL,
    type                varchar(500)                NOT NULL,
    timestamp           timestamp with time zone    NOT NULL DEFAULT '(now())',
    tenant_id           varchar                     NULL DEFAULT '*DEFAULT*',
    mt_dotnet_type      varchar                     NULL,
    correlation_id      varchar                     NULL,
    causation_id        varchar                     NULL,
    headers             jsonb                       NULL,
    is_archived         bool                        NULL DEFAULT FALSE,
    UNIQUE (stream_id, version)
);
INSERT INTO mt_streams (id, type, version)
  SELECT md5(stream)::uuid, CASE WHEN stream <> '1' THEN 'order' END, max(n) + 1 FROM made GROUP BY stream;
INSERT INTO mt_events (seq_id, id, stream_id, version, data, type, timestamp, mt_dotnet_type, correlation_id, causation_id, headers)
  SELECT g, md5('e' || g)::uuid, md5(stream)::uuid, n + 1, data, type, at, 'Shop.' || type, 'c' || stream, 'x' || g, '{"user-name": "alice"}'
  FROM made;
CREATE VIEW expected AS
  SELECT g AS place, CASE WHEN stream <> '1' THEN 'order' ELSE 'stream' END AS aggregate_type, (md5(stream)::uuid)::text AS aggregate_id,
         (md5('e' || g)::uuid)::text AS event_id, 'c' || stream AS correlation_id, 'x' || g AS causation_id FROM made;
},
	KurrentDB => q{
\pset format unaligned
\pset tuples_only on
\o events.jsonl
SELECT jsonb_build_object('streamId', '$projections-x', 'id', 's', 'revision', 0, 'type', '$y', 'created', now(), 'data', 1);
SELECT jsonb_build_object('streamId', 'order-' || stream, 'id', 'k' || g, 'revision', n, 'type', type, 'created', at, 'data', data,
                          'metadata', jsonb_build_object('$correlationId', 'c' || stream, '$causationId', 'k' || (g - 1)))
FROM made ORDER BY g;
\o
CREATE VIEW expected AS
  SELECT g AS place, 'order' AS aggregate_type, stream AS aggregate_id, 'k' || g AS event_id,
         'c' || stream AS correlation_id, 'k' || (g - 1) AS causation_id FROM made;
});

my $node = new_node('migrating');
my $directory = $PostgreSQL::Test::Utils::tmp_check;

# psql runs a script in a database, from the folder of the test's files
sub psql
{
	my ($database, $script) = @_;
	my $file = "$directory/$database.sql";
	unlink $file;
	append_to_file($file, "\\cd $directory\n\\set ON_ERROR_STOP on\n$script");
	my ($out, $err);
	my $ok = IPC::Run::run([ 'psql', '-X', '-q', '-A', '-t', '-d', $node->connstr($database), '-f', $file ],
		'<', \undef, '>', \$out, '2>', \$err);
	diag($err) unless $ok;
	chomp $out;
	return $ok ? $out : 'failed';
}

foreach my $name (sort keys %sql)
{
	my $database = lc $name;
	create_extension($node, $database);

	# 14 months, and in every stream one time that runs backwards
	is(psql($database, q{
SELECT es_create_store();
CREATE TABLE made AS
  SELECT g, (g % 700)::text AS stream, (g - 1) / 700 AS n, 'OrderChanged' AS type,
         jsonb_build_object('g', g, 'text', E'line\nfeed "quoted" \\ \u00e4') AS data,
         timestamptz '2019-11-05 12:00:00.123456+00' + g * interval '2 hours'
           - CASE WHEN (g - 1) / 700 = 3 THEN interval '70 days' ELSE interval '0' END AS at
  FROM generate_series(1, 5000) g;
} . $source{$name}), '', "$name: there is a source");

	is(psql($database, $sql{$name}), '5000|0', "$name: one statement moves it");
	is(psql($database, q{SELECT count(*), count(DISTINCT (aggregate_type, aggregate_id)) FROM es.events}), '5000|700', "$name: all events are there");
	is(psql($database, q{
SELECT count(*) FROM (SELECT row_number() OVER (ORDER BY global_position) AS place, * FROM es_read_all(0, 10000)) e
JOIN made ON made.g = e.place JOIN expected x ON x.place = e.place
WHERE e.version = made.n + 1 AND e.event_type = made.type AND e.data = made.data AND e.occurred_at = made.at
  AND (e.aggregate_type, e.aggregate_id, e.event_id, e.correlation_id) = (x.aggregate_type, x.aggregate_id, x.event_id, x.correlation_id)
  AND e.causation_id IS NOT DISTINCT FROM x.causation_id
  AND e.recorded_at = (SELECT max(at) FROM made m WHERE m.stream = made.stream AND m.n <= made.n)}),
		'5000', "$name: in their order, with versions, ids, times, causes and correlations");
	is(psql($database, q{SELECT count(*) FILTER (WHERE version <> place), count(DISTINCT tableoid) > 10
FROM (SELECT version, tableoid, row_number() OVER (PARTITION BY aggregate_type, aggregate_id ORDER BY global_position) AS place FROM es.events) v}),
		'0|t', "$name: versions are dense, over many months");
	is(psql($database, q{SELECT count(*) FROM (SELECT DISTINCT aggregate_type, aggregate_id FROM es.events) s,
LATERAL (SELECT count(*) AS n FROM es_read_stream(s.aggregate_type, s.aggregate_id)) r
WHERE r.n <> es_stream_version(s.aggregate_type, s.aggregate_id)}), '0', "$name: every stream reads whole");

	is(psql($database, $sql{$name}), '0|5000', "$name: a repetition changes nothing");
	is(psql($database, q{SELECT version FROM es.events ORDER BY global_position DESC LIMIT 1;
SELECT es_state(aggregate_type, aggregate_id)->>'g' FROM es.events WHERE data->>'g' = '5000'}), "8\n5000", "$name: there is state");
}

$node->stop;
done_testing();
