# A streaming standby serves the reads of a store; appends are refused there; after promotion they go on.
# A reader that follows on the standby, and across its promotion, sees every event once and in order.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use EventsrcLoad;
use PostgreSQL::Test::Utils;
use Test::More;

my $torture = $ENV{EVENTSRC_TORTURE} || 1;
my $primary = new_node('primary', standbys => 1, conf => "log_statement = none\nmax_standby_streaming_delay = -1\nmax_connections = 40\n");
create_extension($primary);
make_stores($primary);
$primary->safe_psql('postgres', q{SELECT es_create_aggregate('Order')});
$primary->safe_psql('postgres', q{SELECT es_append('Order', '1', 'Placed', '{"total": 1}')});

my $standby = add_standby($primary);

# --- a small history, in full

my $newest = $primary->safe_psql('postgres', <<'SQL');
SELECT es_append('Order', '1', 'Paid', '{"paid": true}', expected_version => 1);
SELECT es_append('Shelf', '1', 'Filled', store => 'Second "store"');
SELECT global_position FROM es_append_events('Order', '2', '{Placed,Sent}', '{"{}","{\"sent\": 1}"}');
SQL
($newest) = $newest =~ /(\d+)\s*\z/;
wait_until($standby, "SELECT es_safe_position() >= $newest", 'what the primary appended is safe on the standby');
foreach my $query (
	q{SELECT * FROM es_read_stream('Order', '1')},
	q{SELECT * FROM es_read_stream('Order', '1', 2, 1, true)},
	q{SELECT * FROM es_read_all()},
	q{SELECT * FROM es_read_all(store => 'Second "store"')},
	q{SELECT * FROM es_read_all(1, 2, ARRAY['Order'], ARRAY['Paid', 'Sent'])},
	q{SELECT es_stream_version('Order', '2'), es_stream_version('Order', 'none') IS NULL},
	q{SELECT es_state('Order', '1'), es_state('Order', '2', version => 1)},
	q{SELECT events_replayed FROM es_explain_state('Order', '1')},
	q{SELECT * FROM es_states('Order')},
	q{SELECT * FROM es_history('Order', '1')},
	q{SELECT * FROM es_replay('Order', '1')},
	q{SELECT es_diff('Order', '1', 1)},
	q{SELECT es_fold(e ORDER BY version) FROM es_read_stream('Order', '1') e},
	q{SELECT count(*) FROM es_dry_run('Order', 'es_merge_patch(jsonb,es_event)'), es_timeline('none'), es_causes('none'), es_effects('none')},
	q{SELECT es_position_at('infinity') > 0, count(*) FROM es_between('Order')})
{
	my $answer = $standby->safe_psql('postgres', $query);
	is($answer, $primary->safe_psql('postgres', $query), "the standby answers as the primary: $query");
	isnt($answer, '', 'and with something');
}
is(sqlstate_of($standby, q{SELECT * FROM es_read_all(0, 1, store => 'none')}), 'VE002', 'an unknown store is refused there too');

foreach my $command (
	q{SELECT es_append('Order', '1', 'Placed')},
	q{SELECT es_append_events('Order', '1', '{Placed}', '{"{}"}')},
	q{INSERT INTO es.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', '1', 'Placed', '{}')},
	q{SELECT es_create_aggregate('Shelf')},
	q{SELECT es_undo('Order', '1', 1)},
	q{SELECT es_create_store('more')})
{
	is(sqlstate_of($standby, $command), '25006', "refused on a standby: $command");
}
my (undef, undef, $error) = $standby->psql('postgres', q{SELECT es_append('Order', '1', 'Placed')});
like($error, qr/DETAIL:.*\nHINT:.*primary/, 'with a hint where to go');

# --- readers on the standby while writers think and roll back

my %saw = map { $_ => { last => 0, positions => [] } } @STORES;
my $ahead = 0;
my $session = new_session($standby);
$session->query(q{PREPARE page (bigint, bigint, name) AS SELECT global_position FROM es_read_all($1, $2, store => $3)});

# read_page reads the next page of a store on the standby and returns how many events it had.
sub read_page
{
	my ($store) = @_;
	my $reader = $saw{$store};
	my $size = 1 + int(rand(30));
	my @rows = split /\n/, $session->query("EXECUTE page($reader->{last}, $size, '$store')");
	is($session->last_error, '', 'a reader on the standby meets no error') if $session->last_error;
	push @{ $reader->{positions} }, @rows;
	$reader->{last} = $rows[-1] if @rows;
	return scalar @rows;
}

# an idle transaction on the primary has an old transaction id
my $idle = new_session($primary);
$idle->query('BEGIN; SELECT pg_current_xact_id()');
my $writers = start_writers($primary, transactions => 120 * $torture);
while (writing($writers))
{
	read_page($_) foreach @STORES;
	my $there = $session->query('SELECT es_safe_position()');
	$ahead++ if $there > $primary->safe_psql('postgres', 'SELECT last_value FROM eventsrc.position');
}
finish_writers($writers);
my $published = $primary->safe_psql('postgres', 'SELECT es_safe_position()');
wait_until($standby, "SELECT es_safe_position() >= $published", 'the standby has all, an idle transaction notwithstanding');
$idle->quit;
cmp_ok($standby->safe_psql('postgres', 'SELECT es_safe_position()'), '<=', $primary->safe_psql('postgres', 'SELECT es_safe_position()'),
	'the standby is not ahead of the primary');
is($ahead, 0, 'nor was it ever');
foreach my $store (@STORES)
{
	while (read_page($store)) { }
	my @truth = events_of($primary, $store);
	cmp_ok(scalar @truth, '>', 100, "$store has events");
	ok("@{ $saw{$store}{positions} }" eq "@truth", "$store: the reader on the standby saw every event once and in order");
}
check_streams($standby, 'on the standby');

# a transaction at REPEATABLE READ on the standby goes on from page to page
$session->query('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $count = $session->query('SELECT count(*) FROM es.events');
$primary->safe_psql('postgres', q{SELECT es_append('Order', '1', 'Later') FROM generate_series(1, 5)});
wait_until($standby, q{SELECT es_stream_version('Order', '1') = 7}, 'more has arrived on the standby');
$newest = $primary->safe_psql('postgres', 'SELECT max(global_position) FROM es.events');
wait_until($standby, "SELECT es_safe_position() >= $newest", 'and is safe');
is($session->query('SELECT count(*) FROM es_read_all(0, NULL)'), $count, 'its snapshot does not see it, in es_read_all() either');
$session->query('COMMIT');
is($session->query('SELECT count(*) FROM es_read_all(0, NULL)'), $count + 5, 'the next transaction does');

# --- the primary is lost under load, the standby takes over

$writers = start_writers($primary, transactions => 100000);
my $goal = @{ $saw{es}{positions} } + 500;
while (writing($writers) && @{ $saw{es}{positions} } < $goal)
{
	read_page($_) foreach @STORES;
}
$primary->stop('immediate');
finish_writers($writers, may_fail => 1);
read_page($_) foreach @STORES;
promote_standby($standby);

my ($highest) = $standby->safe_psql('postgres',
	'SELECT max(global_position) FROM (SELECT global_position FROM es.events UNION ALL SELECT global_position FROM "Second ""store""".events) e');
my $version = $standby->safe_psql('postgres', q{SELECT es_stream_version('Order', '1')});
my $state = $standby->safe_psql('postgres', q{SELECT es_state('Order', '1')});
# by a session that was there before
my ($next, $position) = split /\|/, $session->query(q{SELECT * FROM es_append('Order', '1', 'Promoted', '{"promoted": true}')});
is($session->last_error, '', 'a session that was on the standby appends on the new primary');
is($next, $version + 1, 'the next version follows');
cmp_ok($position, '>', $highest, 'the next position is above all old ones');
is($standby->safe_psql('postgres', q{SELECT es_state('Order', '1') ->> 'promoted'}), 'true', 'states go on too');

$writers = start_writers($standby, transactions => 40 * $torture);
while (writing($writers))
{
	read_page($_) foreach @STORES;
}
finish_writers($writers);
foreach my $store (@STORES)
{
	while (read_page($store)) { }
	my @truth = events_of($standby, $store);
	ok("@{ $saw{$store}{positions} }" eq "@truth",
		"$store: across the promotion too the reader saw every event once and in order");
}
check_streams($standby, 'after promotion');
check_indexes($standby, 'after promotion');
$session->quit;
$standby->stop;

done_testing();
