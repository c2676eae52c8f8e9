# A relay to a real Kafka delivers each committed event exactly once and in order, whatever fails: the broker is
# killed, the worker is terminated, the server crashes, the network hangs, breaks and half-closes, a standby is
# promoted while the old primary still runs.  kcat reads what is committed, as any consumer would.
#
# EVENTSRC_TORTURE=n makes it n times as long.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcRelay;
use EventsrcTest;
use IPC::Run ();
use Test::More;

my $torture = $ENV{EVENTSRC_TORTURE} || 1;
my $proxy = new_proxy();
my $port = $proxy->port;
my $kafka = new_kafka(partitions => 3, proxy => $port);
$proxy->tell('to ' . $kafka->behind);

# check_kafka waits until a server's relay has sent all and compares what consumers see with what is committed there.
sub check_kafka
{
	my ($node, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for_relay($node, 'orders', $SENT);
	check_came($node, $kafka, 'es.Order', $what, least => 500, partitions => 1);
	return;
}

my $primary = new_node('primary0', standbys => 1, conf => "log_statement = none\nsynchronous_commit = local\n");
create_extension($primary);
$primary->safe_psql('postgres', <<"END");
SELECT es_create_store();
CREATE SERVER kafka FOREIGN DATA WRAPPER eventsrc
	OPTIONS (type 'kafka', "bootstrap.servers" '127.0.0.1:$port', "socket.timeout.ms" '3000', "reconnect.backoff.max.ms" '500');
SELECT es_create_relay('orders', 'kafka');
END

# --- what can happen to one server and its broker, while events stream ---

my %mishaps = common_mishaps($primary, $kafka, $proxy);
wait_for_relay($primary, 'orders', q{state = 'running' AND pid IS NOT NULL});
foreach my $round (1 .. $torture)
{
	suffer($primary, \%mishaps);
	check_kafka($primary, "round $round");
}
cmp_ok($primary->safe_psql('postgres', q{SELECT count(*) FROM es.events WHERE event_type = 'RolledBack'}),
	'==', 0, 'rolled back events are not there');

# --- a standby takes over ---

my $standby = add_synchronous_standby($primary);
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eventsrc relay'}),
	'0', 'on a standby no relay runs');

take_over($standby, $primary);
end_load(start_load($standby));

# what the old primary commits from now on nobody else has
release_commits($primary);
$primary->safe_psql('postgres', q{SELECT es_append('Order', 'ghost', 'Placed')});
my $fenced = q{state = 'stopped' AND last_error LIKE 'another server sends in place of this one%'};
wait_for_relay($primary, 'orders', $fenced);
note(relay_column($primary, 'orders', 'last_error'));
check_kafka($standby, 'after the promotion');

# the old primary comes back
$primary->stop('immediate');
$primary->start;
wait_for_relay($primary, 'orders', $fenced);
end_load(start_load($standby));
check_kafka($standby, 'after the old primary came back');
check_no_crash($primary, $standby);
$primary->stop('immediate');

# --- a record that is not of this store's past stops the relay ---

end_load(start_load($standby));
check_kafka($standby, 'before a record is forged');
my $position = $standby->safe_psql('postgres', 'SELECT max(global_position) FROM es.events');
$standby->safe_psql('postgres', q{SELECT es_pause_relay('orders')});
wait_for_relay($standby, 'orders', q{pid IS NULL});
my $topic = $standby->safe_psql('postgres',
	q{SELECT format('eventsrc.progress.%s.%s.%s', system_identifier, database, id) FROM eventsrc.relays});
# the record's transaction is committed with the last events', and shown with them, shortly after
my @records;
my $end = time + $EventsrcTest::PATIENCE;
do { @records = $kafka->messages($topic) } until $records[-1]{headers}{position} == $position || time > $end;
is($records[-1]{headers}{position}, $position, 'the last record of the progress names the last event');
my $forge = sub {
	my (%change) = @_;
	$kafka->produce($topic, [ $records[-1]{key}, '{}', { %{ $records[-1]{headers} }, %change } ]);
	$standby->safe_psql('postgres', q{SELECT es_resume_relay('orders')});
};
$forge->('event-id' => 'of another history');
wait_for_relay($standby, 'orders', q{state = 'stopped' AND last_error LIKE 'at position%of another history%'});
$standby->safe_psql('postgres', q{SELECT es_pause_relay('orders')});
wait_for_relay($standby, 'orders', q{pid IS NULL});
$forge->(position => $position + 1_000_000, 'event-position' => $position + 1_000_000);
wait_for_relay($standby, 'orders', q{state = 'stopped' AND last_error LIKE 'the broker has events up to position%'});
$standby->safe_psql('postgres', "SELECT es_seek_relay('orders', $position)");
$standby->safe_psql('postgres', q{SELECT es_append('Order', '1', 'Placed')});
check_kafka($standby, 'after a seek');

# --- a transaction that does not end hides the last records: nothing is sent again ---

my $before = $kafka->messages($topic, isolation => 'read_uncommitted');
# kcat reads its input in blocks and commits at the end of it
my $line = "open\t" . '.' x 4000 . "\n";
my ($in, $out, $err) = ($line x 3, '', '');
my $transaction = IPC::Run::start(
	[
		'kcat', '-P', '-b', $kafka->address, '-t', $topic, '-K', "\t",
		'-X', 'transactional.id=not of a relay', '-X', 'transaction.timeout.ms=600000'
	],
	'<', \$in, '>', \$out, '2>', \$err);
$transaction->pump while length $in;
my @uncommitted = $kafka->wait_for_messages($topic, $before + 1, isolation => 'read_uncommitted');
ok((grep { $_->{key} eq 'open' } @uncommitted) > 0, 'a transaction is open in the topic of the progress');
$standby->safe_psql('postgres', q{SELECT count(es_append('Order', n::text, 'Placed')) FROM generate_series(1, 20) n});
wait_for_relay($standby, 'orders', $SENT);
terminate_relays($standby);
wait_for_relay($standby, 'orders',
	q{state = 'retrying' AND last_error LIKE 'topic "eventsrc.progress%has a transaction that Kafka has neither committed nor aborted%'});
$transaction->finish;
check_kafka($standby, 'after an open transaction');

$standby->stop;
done_testing();
