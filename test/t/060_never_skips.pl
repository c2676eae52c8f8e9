# The promise of the safe position: who follows global_position sees every committed event exactly once and
# in order, and no transaction that appended nothing holds it back.
#
# Writers think between append and commit, roll back and use savepoints, in two stores.  The time they think
# is load; nothing here waits for a time.  EVENTSRC_TORTURE=n makes it n times as long.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use EventsrcLoad;
use PostgreSQL::Test::Utils;
use Test::More;

my $torture = $ENV{EVENTSRC_TORTURE} || 1;
my $node = new_node('main', conf => "log_statement = none\n");
create_extension($node);
create_extension($node, 'neighbour');
make_stores($node);
make_stores($node, 'neighbour');

$node->safe_psql('postgres', <<'SQL');
-- what readers saw, in the order in which they saw it
CREATE TABLE seen (n bigserial, reader text, position bigint, version bigint, stream text);
CREATE TABLE goal (store name, position bigint);

-- follows a store until it has reached the goal, once there is one; a transaction for so many pages
CREATE PROCEDURE follow(reader text, store name, pages int, most int)
LANGUAGE plpgsql AS $$
DECLARE
	last bigint := 0;
	page bigint;
BEGIN
	LOOP
		COMMIT;
		EXIT WHEN last >= (SELECT position FROM goal g WHERE g.store = follow.store);
		FOR i IN 1 .. pages LOOP
			WITH page AS (
				INSERT INTO seen (reader, position, version, stream)
				SELECT follow.reader, e.global_position, e.version, e.aggregate_type || e.aggregate_id
				FROM es_read_all(last, 1 + floor(random() * most)::bigint, store => follow.store) e
				RETURNING position)
			SELECT max(page.position) INTO page FROM page;
			last := coalesce(page, last);
		END LOOP;
	END LOOP;
END
$$;
-- a reader whom row security makes go through the executor
CREATE ROLE secured LOGIN;
GRANT USAGE ON SCHEMA es TO secured;
GRANT SELECT ON es.events TO secured;
GRANT INSERT, SELECT ON seen, goal TO secured;
GRANT USAGE ON seen_n_seq TO secured;
ALTER TABLE es.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_of_it ON es.events FOR SELECT TO secured USING (true);
SQL

# Transactions that append nothing here: with an old transaction id, in this database and in another; and one
# that has appended, in the other database.
my $idle = new_session($node);
$idle->query('BEGIN; SELECT pg_current_xact_id()');
my $idle_there = new_session($node, database => 'neighbour');
$idle_there->query('BEGIN; SELECT pg_current_xact_id()');
my $appender_there = new_session($node, database => 'neighbour');
$appender_there->query("BEGIN; SELECT es_append('Order', '1', 'Placed')");
my $snapshot_holder = new_session($node);
$snapshot_holder->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM es.events');

my %readers;
my $start_reader = sub {
	my ($name, $store, $isolation, $pages, $most, %option) = @_;
	$readers{$name} = { store => $store, session => new_session($node, %option) };
	$readers{$name}{session}->start(
		"SET default_transaction_isolation = '$isolation';\nCALL follow('$name', '$store', $pages, $most)");
};
$start_reader->('eager', $STORES[0], 'READ COMMITTED', 1, 10);
$start_reader->('many pages', $STORES[0], 'READ COMMITTED', 5, 3);
$start_reader->('large pages', $STORES[1], 'READ COMMITTED', 1, 1000);
$start_reader->('repeatable', $STORES[0], 'REPEATABLE READ', 1, 20);
$start_reader->('repeatable, many pages', $STORES[0], 'REPEATABLE READ', 4, 5);
$start_reader->('secured', $STORES[0], 'READ COMMITTED', 1, 30, user => 'secured');
$start_reader->('secured, repeatable', $STORES[0], 'REPEATABLE READ', 2, 30, user => 'secured');

# writers in the other database have positions of their own
my $writers_there = start_writers($node, clients => 2, transactions => 100, database => 'neighbour');
my $writers = start_writers($node, clients => 8, transactions => 250 * $torture);

# One reader is a client of its own, the plain way; it also looks at the safe position.
my $client = new_session($node);
my ($last, $complete, $late) = (0, 0, 0);
my @client_saw;
my $read_page = sub {
	my $size = 1 + int(rand(40));
	my ($at, @rows) = split /\n/,
	  $client->query("SELECT es_safe_position(); SELECT global_position FROM es_read_all($last, $size)");
	$late++ if @rows && $rows[0] <= $complete;
	push @client_saw, @rows;
	$last = $rows[-1] if @rows;
	# a page that is not full holds all that there is up to the safe position
	$complete = $at if @rows < $size && $at > $complete;
	return scalar @rows;
};
while (writing($writers))
{
	$read_page->();
}
finish_writers($writers);
finish_writers($writers_there);

# the idle transactions are still there
my @truth = map { [ events_of($node, $_) ] } @STORES;
my $newest = (sort { $b <=> $a } map { $_->[-1] } @truth)[0];
is($idle->query('SELECT count(*) FROM pg_stat_activity WHERE xact_start IS NOT NULL AND backend_xid IS NOT NULL AND state = \'idle in transaction\' AND pid <> pg_backend_pid()') >= 2,
	1, 'idle transactions with transaction ids are still open');
cmp_ok($node->safe_psql('postgres', 'SELECT es_safe_position()'), '>=', $newest,
	'the safe position has reached the last event while idle transactions are open');
is($node->safe_psql('postgres', "SELECT count(*) FROM es_read_all($truth[0][-2])"), '1',
	'the last event can be read');

$node->safe_psql('postgres', "INSERT INTO goal VALUES ('$STORES[$_]', $truth[$_][-1])") foreach 0, 1;
while ($last < $truth[0][-1] && $read_page->()) { }
$client->quit;

cmp_ok(scalar @{ $truth[0] }, '>', 1000, "there were enough events: @{[ scalar @{$truth[0]} ]} and @{[ scalar @{$truth[1]} ]}");
ok("@client_saw" eq "@{ $truth[0] }", 'the client saw every event once and in order');
is($late, 0, 'nothing came at or below a safe position that was passed');
foreach my $name (sort keys %readers)
{
	my $reader = $readers{$name};
	my $truth = $truth[ $reader->{store} eq $STORES[0] ? 0 : 1 ];
	$reader->{session}->result;
	is($reader->{session}->last_error, '', "$name: no error");
	my @saw = split /\n/, $node->safe_psql('postgres', "SELECT position FROM seen WHERE reader = '$name' ORDER BY n");
	my %saw = map { $_ => 1 } @saw;
	my @skipped = grep { !$saw{$_} } @$truth;
	is(scalar @skipped, 0, "$name: nothing skipped") or diag("skipped: @skipped[0 .. ($#skipped > 20 ? 20 : $#skipped)]");
	ok("@saw" eq "@$truth", "$name: every event once and in order");
	$reader->{session}->quit;
}
check_streams($node, 'after all that');

# transactions over very many streams: they neither fill the lock table nor wait for each other in a circle,
# if their streams differ
my $script = PostgreSQL::Test::Utils::tempdir('many') . '/many.sql';
append_to_file($script, <<'SQL');
\set r random(1, 1000000000000)
SELECT count(*) FROM (SELECT es_append('Many', :r || '.' || i, 'Placed') FROM generate_series(1, 2000) i) x;
SQL
$node->command_like(
	[ 'pgbench', '-n', '-c', 4, '-t', 2, '-f', $script, '-h', $node->host, '-p', $node->port, 'postgres' ],
	qr{actually processed: 8/8}, 'transactions over 2,000 streams each, four at a time');
is($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT es_append('Most', i::text, 'Placed') FROM generate_series(1, 30000) i) x}),
	'30000', 'one over 30,000 streams');

$snapshot_holder->quit;
$idle->quit;
$idle_there->quit;
$appender_there->quit;
$node->stop;

done_testing();
