# A relay with several lanes to a real Kafka: each committed event exactly once and each stream's in order, while workers
# are terminated, the broker is killed, the server crashes, and the number of lanes changes; then a standby takes over.
#
# EVENTSRC_TORTURE=n changes the number n times as often.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcRelay;
use EventsrcTest;
use Test::More;
use Time::HiRes qw(usleep);

my $torture = $ENV{EVENTSRC_TORTURE} || 1;
my $kafka = new_kafka(partitions => 3);
my $address = $kafka->address;
my $primary = new_node('primary', standbys => 1, conf => "log_statement = none\nsynchronous_commit = local\nmax_worker_processes = 40\n");
create_extension($primary);
$primary->safe_psql('postgres', <<"END");
SELECT es_create_store();
CREATE SERVER kafka FOREIGN DATA WRAPPER eventsrc
	OPTIONS (type 'kafka', "bootstrap.servers" '$address', "socket.timeout.ms" '3000', "reconnect.backoff.max.ms" '500');
SELECT es_create_relay('orders', 'kafka', options => '{"lanes": 3}');
END

my @load = (streams => 30, rate => 300, transactions => 300);

# set_lanes asks for another number of lanes.
sub set_lanes
{
	my ($count) = @_;
	$primary->safe_psql('postgres', qq(SELECT es_alter_relay('orders', options => '{"lanes": $count}')));
	return;
}

# check_kafka compares what consumers see of a topic with what is committed; further options go to check_came().
sub check_kafka
{
	my ($node, $what, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	check_came($node, $kafka, delete $option{topic} // 'es.Order', $what, least => 200, %option);
	return;
}

# ends_of returns where a topic's partitions end now.
sub ends_of
{
	my ($topic) = @_;
	my %end;
	$end{ $_->{partition} } = $_->{offset} + 1 foreach $kafka->brief($topic);
	return \%end;
}

# --- three lanes share the streams ---

end_load(start_load($primary, @load));
wait_for_relay($primary, 'orders', "$SENT AND lanes = 3");
check_kafka($primary, 'three lanes');
is($primary->safe_psql('postgres', q{SELECT count(*), count(DISTINCT pid), count(*) FILTER (WHERE sent > 0) FROM es_relay_lanes}),
	'3|3|3', 'each has a worker that has sent something');
is($primary->safe_psql('postgres', q{SELECT sent = (SELECT sum(sent) FROM es_relay_lanes), sent = (SELECT count(*) FROM es.events) FROM es_relays}),
	't|t', 'the relay shows the sum');
my $progress = $primary->safe_psql('postgres',
	q{SELECT format('eventsrc.progress.%s.%s.%s', system_identifier, database, id) FROM eventsrc.relays});
cmp_ok(scalar $kafka->messages($_), '>', 0, "the progress of a lane is in $_") foreach $progress, "$progress.1", "$progress.2";

# --- workers are terminated and the number of lanes changes while events stream ---

foreach my $count (map { (4, 2, 1, 3) } 1 .. $torture)
{
	my $load = start_load($primary, @load);
	usleep(200_000 + int rand 400_000);
	terminate_relays($primary) if rand() < 0.5;
	set_lanes($count);
	usleep(int rand 300_000);
	terminate_relays($primary);
	end_load($load);
	wait_for_relay($primary, 'orders', "$SENT AND lanes = $count");
	is($primary->safe_psql('postgres', 'SELECT count(*) FROM es_relay_lanes'), $count, "$count lanes");
}
check_kafka($primary, 'after changes of their number');

# --- a change is taken back, or asked for anew, before it is done ---

my $load = start_load($primary, @load);
foreach my $count (2, 3, 4, 3, 2)
{
	set_lanes($count);
	usleep(int rand 150_000);
}
end_load($load);
wait_for_relay($primary, 'orders', "$SENT AND lanes = 2");
check_kafka($primary, 'after changes of mind');

# --- the server crashes, the broker is killed, in the middle of a change ---

$load = start_load($primary, @load);
usleep(300_000);
set_lanes(3);
usleep(int rand 400_000);
$primary->stop('immediate');
end_load($load);
$primary->start;
wait_for_relay($primary, 'orders', "$SENT AND lanes = 3");
check_kafka($primary, 'after a crash of the server');

$load = start_load($primary, @load);
usleep(300_000);
$kafka->kill9;
set_lanes(4);
$kafka->start;
end_load($load);
wait_for_relay($primary, 'orders', "$SENT AND lanes = 4");
check_kafka($primary, 'after a crash of the broker');

# --- a paused relay changes when it is resumed ---

$primary->safe_psql('postgres', q{SELECT es_pause_relay('orders')});
wait_for_relay($primary, 'orders', q{state = 'paused' AND pid IS NULL});
set_lanes(2);
end_load(start_load($primary, @load));
is($primary->safe_psql('postgres', q{SELECT lanes FROM es_relays}), '4', 'a paused relay keeps its lanes');
$primary->safe_psql('postgres', q{SELECT es_resume_relay('orders')});
wait_for_relay($primary, 'orders', "$SENT AND lanes = 2");
check_kafka($primary, 'after a pause');

# --- a replay with two lanes ends by itself; a seek applies to all lanes, during a change, too ---

my ($middle, $last) = split /\|/, $primary->safe_psql('postgres', 'SELECT max(global_position) / 2, max(global_position) FROM es.events');
$primary->safe_psql('postgres', q{SELECT es_replay_relay('orders', 'again', 0, NULL, 'again')});
wait_for_relay($primary, 'again', q{state = 'finished' AND lanes = 2});
check_kafka($primary, 'replayed', topic => 'again');
$primary->safe_psql('postgres', q{SELECT es_alter_relay('again', options => '{"lanes": 1}')});
wait_for_relay($primary, 'again', q{state = 'finished' AND lanes = 1});
check_kafka($primary, 'replayed, and the lanes changed', topic => 'again');
$primary->safe_psql('postgres', q{SELECT es_drop_relay('again')});

my $end = ends_of('es.Order');
$primary->safe_psql('postgres', qq(SELECT es_seek_relay('orders', $middle)));
wait_for_relay($primary, 'orders', "$SENT AND position >= $last");
check_kafka($primary, 'after a seek', from => $middle, skip => $end);
$end = ends_of('es.Order');
$primary->safe_psql('postgres', qq(SELECT es_alter_relay('orders', options => '{"lanes": 3}'); SELECT es_seek_relay('orders', $middle)));
wait_for_relay($primary, 'orders', "$SENT AND position >= $last AND lanes = 3");
check_kafka($primary, 'after a seek during a change', from => $middle, skip => $end);

# --- an event that the broker refuses for good ---

$primary->safe_psql('postgres', q{SELECT es_create_store('bulk'); SELECT es_create_relay('bulk', 'kafka', 'bulk', store => 'bulk',
	options => '{"lanes": 3, "on_error": "dead_letter"}')});
$primary->safe_psql('postgres', q{SELECT count(es_append('Order', (n % 9)::text, 'Placed', store => 'bulk',
	data => jsonb_build_object('x', repeat('x', CASE n WHEN 20 THEN 1500000 ELSE 1 END)))) FROM generate_series(1, 40) n});
wait_for_relay($primary, 'bulk', $SENT);
is($primary->safe_psql('postgres', q{SELECT count(*) FROM es_dead_letters WHERE relay = 'bulk'}), '1', 'it is a dead letter of the relay');
is(scalar $kafka->wait_for_messages('bulk', 39), 39, 'all others have arrived');
$primary->safe_psql('postgres', q{ALTER SERVER kafka OPTIONS (ADD "message.max.bytes" '4000000', ADD "compression.codec" 'gzip');
	SELECT es_retry_dead_letter('bulk', position) FROM es_dead_letters});
wait_until($primary, q{SELECT count(*) FROM es_dead_letters}, 'it is sent once more', '0');
is(scalar $kafka->wait_for_messages('bulk', 40), 40, 'and arrives once');
$primary->safe_psql('postgres', q{SELECT es_drop_relay('bulk')});

# --- at least once, to the same broker ---

$primary->safe_psql('postgres', q{SELECT es_create_relay('least', 'kafka', 'least', options => '{"lanes": 2, "delivery": "at_least_once"}')});
wait_for_relay($primary, 'least', 'lag_events = 0');
$load = start_load($primary, @load);
foreach my $count (3, 1, 2)
{
	$primary->safe_psql('postgres', qq(SELECT es_alter_relay('least', options => '{"lanes": $count}')));
	wait_for_relay($primary, 'least', "lanes = $count");
}
end_load($load);
wait_for_relay($primary, 'least', $SENT);
check_kafka($primary, 'at least once, when nothing fails', topic => 'least');
$primary->safe_psql('postgres', q{SELECT es_drop_relay('least')});
wait_for_relay($primary, 'orders', $SENT);

# --- a standby takes over, with the old primary still running ---

my $standby = add_synchronous_standby($primary);
$last = $primary->safe_psql('postgres', 'SELECT max(global_position) FROM es.events');
$end = ends_of('es.Order');
take_over($standby, $primary, condition => "$SENT AND lanes = 3");
end_load(start_load($standby, @load));
release_commits($primary);
$primary->safe_psql('postgres', q{SELECT count(es_append('Order', n::text, 'Placed')) FROM generate_series(31, 60) n});
wait_until($primary, q{SELECT count(*) FROM es_relay_lanes WHERE state = 'stopped'}, 'all lanes of the old primary stop', '3');
note($primary->safe_psql('postgres', 'SELECT lane, last_error FROM es_relay_lanes'));
wait_for_relay($standby, 'orders', $SENT);
check_kafka($standby, 'after the promotion', from => $last, skip => $end);

# --- a record of a later epoch of the first lane stops all ---

$standby->safe_psql('postgres', q{SELECT es_pause_relay('orders')});
wait_for_relay($standby, 'orders', 'pid IS NULL');
my @records = $kafka->messages($progress);
my %headers = (%{ $records[-1]{headers} }, epoch => $records[-1]{headers}{epoch} + 1);
$kafka->produce($progress, [ $records[-1]{key}, '{}', \%headers ]);
$standby->safe_psql('postgres', q{SELECT es_resume_relay('orders')});
wait_until($standby, q{SELECT count(*) FROM es_relay_lanes WHERE state = 'stopped'}, 'a server that does not know of a change does not send', '3');
$end = ends_of('es.Order');
my $position = $standby->safe_psql('postgres', 'SELECT max(global_position) FROM es.events');
$standby->safe_psql('postgres', "SELECT es_seek_relay('orders', $position)");
end_load(start_load($standby, @load));
wait_for_relay($standby, 'orders', $SENT);
check_kafka($standby, 'after a seek', from => $position, skip => $end);

check_no_crash($primary, $standby);
$primary->stop('immediate');
$standby->stop;
done_testing();
