# A relay with several lanes to a real Kafka: each committed event exactly once and each stream's in order, while workers
# are terminated, the broker is killed, the server crashes, and the number of lanes changes; then a standby takes over.
#
# EVENTSRC_TORTURE=n changes the number n times as often.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $torture = $ENV{EVENTSRC_TORTURE} || 1;
my $kafka = do
{
	local $ENV{KAFKA_PROPERTIES} = "${PostgreSQL::Test::Utils::tmp_check}/kafka.properties";
	PostgreSQL::Test::Utils::append_to_file($ENV{KAFKA_PROPERTIES}, "num.partitions=3\n");
	new_kafka();
};
my $address = $kafka->address;
my $primary = new_node('primary', standbys => 1, conf => "log_statement = none\nsynchronous_commit = local\nmax_worker_processes = 40\n");
create_extension($primary);
$primary->safe_psql('postgres', <<"END");
SELECT es_create_store();
CREATE SERVER kafka FOREIGN DATA WRAPPER eventsrc
	OPTIONS (type 'kafka', "bootstrap.servers" '$address', "socket.timeout.ms" '3000', "reconnect.backoff.max.ms" '500');
SELECT es_create_relay('orders', 'kafka', options => '{"lanes": 3}');
END

# start_load starts sessions that append to 30 streams, a tenth of it rolled back; they end by themselves.
my $script = "${PostgreSQL::Test::Utils::tmp_check}/lanes.sql";
PostgreSQL::Test::Utils::append_to_file($script, <<'END');
\set stream random(1, 30)
\set fate random(1, 10)
BEGIN;
SELECT es_append('Order', (:stream)::text, 'Placed', '{"n": 1}');
\if :fate = 1
ROLLBACK;
\else
COMMIT;
\endif
END
sub start_load
{
	my ($node) = @_;
	return IPC::Run::start(
		[
			'pgbench', '-n', '-c', '2', '-j', '1', '-R', '300', '-t', '300', '-f', $script,
			'-h', $node->host, '-p', $node->port, 'postgres'
		],
		'<', \undef, '>', '/dev/null', '2>', '/dev/null');
}

# end_load waits for its end.
sub end_load
{
	my ($load) = @_;
	eval { $load->finish; 1 } or $load->kill_kill;
	return;
}

# set_lanes asks for another number of lanes.
sub set_lanes
{
	my ($count) = @_;
	$primary->safe_psql('postgres', qq(SELECT es_alter_relay('orders', options => '{"lanes": $count}')));
	return;
}

# terminate_workers terminates all workers of relays.
sub terminate_workers
{
	$primary->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'eventsrc relay'});
	return;
}

# read_topic returns what consumers see of a topic, as [partition, offset, key, version, event id, position]; it need not
# read the messages' JSON, as $kafka->messages() does, which takes its time.
sub read_topic
{
	my ($topic) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run(
		[
			'timeout', $EventsrcTest::PATIENCE, 'kcat', '-C', '-q', '-e', '-b', $address, '-t', $topic, '-o', 'beginning',
			'-X', 'isolation.level=read_committed', '-f', '%p|%o|%k|%h\n'
		],
		'<', \undef, '>', \$out, '2>', \$err)
	  or die "kcat: $err";
	my @messages;
	foreach my $line (split /\n/, $out)
	{
		my ($partition, $offset, $key, $headers) = split /\|/, $line;
		my %header = map { split /=/ } split /,/, $headers;
		push @messages, [ $partition, $offset, $key, @header{ 'version', 'event-id', 'position' } ];
	}
	return sort { $a->[0] <=> $b->[0] || $a->[1] <=> $b->[1] } @messages;
}

# check_kafka compares what consumers see of a topic with what is committed, and checks that each stream's events are in
# order.  from => position: only what comes after it; skip => {partition => offset}: only messages from there on.
sub check_kafka
{
	my ($node, $what, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $from = $option{from} // 0;
	my $skip = $option{skip} // {};
	my %expected = map { $_ => 1 } split /\n/, $node->safe_psql('postgres',
		"SELECT aggregate_id || ' ' || version || ' ' || event_id || ' ' || global_position FROM es.events WHERE global_position > $from");
	my (%seen, %last, @twice, @unknown, @order);
	foreach my $message (read_topic($option{topic} // 'es.Order'))
	{
		my ($partition, $offset, $key, $version, $event_id, $position) = @$message;
		next if $offset < ($skip->{$partition} // 0);
		my $line = "$key $version $event_id $position";
		push @twice, $line if $seen{$line}++;
		push @unknown, $line if !$expected{$line};
		push @order, "$key: $version after $last{$key}" if defined $last{$key} && $version != $last{$key} + 1;
		$last{$key} = $version;
	}
	my @missing = grep { !$seen{$_} } sort keys %expected;
	cmp_ok(scalar keys %expected, '>', 200, sprintf('%s: %d events are committed', $what, scalar keys %expected));
	is_deeply([ @missing[ 0 .. ($#missing > 4 ? 4 : $#missing) ] ], [], "$what: none is missing");
	is_deeply(\@twice, [], "$what: none came twice");
	is_deeply(\@unknown, [], "$what: nothing came that is not committed");
	is_deeply(\@order, [], "$what: the order of each stream is kept");
	return;
}

# ends_of returns where a topic's partitions end now.
sub ends_of
{
	my ($topic) = @_;
	my %end;
	$end{ $_->[0] } = $_->[1] + 1 foreach read_topic($topic);
	return \%end;
}

my $done = q{lag_events = 0 AND state = 'running'};

# --- three lanes share the streams ---

end_load(start_load($primary));
wait_for_relay($primary, 'orders', "$done AND lanes = 3");
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
	my $load = start_load($primary);
	usleep(200_000 + int rand 400_000);
	terminate_workers() if rand() < 0.5;
	set_lanes($count);
	usleep(int rand 300_000);
	terminate_workers();
	end_load($load);
	wait_for_relay($primary, 'orders', "$done AND lanes = $count");
	is($primary->safe_psql('postgres', 'SELECT count(*) FROM es_relay_lanes'), $count, "$count lanes");
}
check_kafka($primary, 'after changes of their number');

# --- a change is taken back, or asked for anew, before it is done ---

my $load = start_load($primary);
foreach my $count (2, 3, 4, 3, 2)
{
	set_lanes($count);
	usleep(int rand 150_000);
}
end_load($load);
wait_for_relay($primary, 'orders', "$done AND lanes = 2");
check_kafka($primary, 'after changes of mind');

# --- the server crashes, the broker is killed, in the middle of a change ---

$load = start_load($primary);
usleep(300_000);
set_lanes(3);
usleep(int rand 400_000);
$primary->stop('immediate');
end_load($load);
$primary->start;
wait_for_relay($primary, 'orders', "$done AND lanes = 3");
check_kafka($primary, 'after a crash of the server');

$load = start_load($primary);
usleep(300_000);
$kafka->kill9;
set_lanes(4);
$kafka->start;
end_load($load);
wait_for_relay($primary, 'orders', "$done AND lanes = 4");
check_kafka($primary, 'after a crash of the broker');

# --- a paused relay changes when it is resumed ---

$primary->safe_psql('postgres', q{SELECT es_pause_relay('orders')});
wait_for_relay($primary, 'orders', q{state = 'paused' AND pid IS NULL});
set_lanes(2);
end_load(start_load($primary));
is($primary->safe_psql('postgres', q{SELECT lanes FROM es_relays}), '4', 'a paused relay keeps its lanes');
$primary->safe_psql('postgres', q{SELECT es_resume_relay('orders')});
wait_for_relay($primary, 'orders', "$done AND lanes = 2");
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
wait_for_relay($primary, 'orders', "$done AND position >= $last");
check_kafka($primary, 'after a seek', from => $middle, skip => $end);
$end = ends_of('es.Order');
$primary->safe_psql('postgres', qq(SELECT es_alter_relay('orders', options => '{"lanes": 3}'); SELECT es_seek_relay('orders', $middle)));
wait_for_relay($primary, 'orders', "$done AND position >= $last AND lanes = 3");
check_kafka($primary, 'after a seek during a change', from => $middle, skip => $end);

# --- an event that the broker refuses for good ---

$primary->safe_psql('postgres', q{SELECT es_create_store('bulk'); SELECT es_create_relay('bulk', 'kafka', 'bulk', store => 'bulk',
	options => '{"lanes": 3, "on_error": "dead_letter"}')});
$primary->safe_psql('postgres', q{SELECT count(es_append('Order', (n % 9)::text, 'Placed', store => 'bulk',
	data => jsonb_build_object('x', repeat('x', CASE n WHEN 20 THEN 1500000 ELSE 1 END)))) FROM generate_series(1, 40) n});
wait_for_relay($primary, 'bulk', $done);
is($primary->safe_psql('postgres', q{SELECT count(*) FROM es_dead_letters WHERE relay = 'bulk'}), '1', 'it is a dead letter of the relay');
is(scalar(my @all = read_topic('bulk')), 39, 'all others have arrived');
$primary->safe_psql('postgres', q{ALTER SERVER kafka OPTIONS (ADD "message.max.bytes" '4000000', ADD "compression.codec" 'gzip');
	SELECT es_retry_dead_letter('bulk', position) FROM es_dead_letters});
wait_until($primary, q{SELECT count(*) FROM es_dead_letters}, 'it is sent once more', '0');
is(scalar(@all = read_topic('bulk')), 40, 'and arrives once');
$primary->safe_psql('postgres', q{SELECT es_drop_relay('bulk')});

# --- at least once, to the same broker ---

$primary->safe_psql('postgres', q{SELECT es_create_relay('least', 'kafka', 'least', options => '{"lanes": 2, "delivery": "at_least_once"}')});
wait_for_relay($primary, 'least', 'lag_events = 0');
$load = start_load($primary);
foreach my $count (3, 1, 2)
{
	$primary->safe_psql('postgres', qq(SELECT es_alter_relay('least', options => '{"lanes": $count}')));
	wait_for_relay($primary, 'least', "lanes = $count");
}
end_load($load);
wait_for_relay($primary, 'least', $done);
check_kafka($primary, 'at least once, when nothing fails', topic => 'least');
$primary->safe_psql('postgres', q{SELECT es_drop_relay('least')});
wait_for_relay($primary, 'orders', $done);

# --- a standby takes over, with the old primary still running ---

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->append_conf('postgresql.conf', "primary_conninfo = '@{[ $primary->connstr ]} application_name=standby'");
$standby->start;
$primary->safe_psql('postgres', $_)
  foreach q{ALTER SYSTEM SET synchronous_standby_names = 'standby'}, 'ALTER SYSTEM SET synchronous_commit = on', 'SELECT pg_reload_conf()';
wait_until($primary, q{SELECT sync_state FROM pg_stat_replication}, 'there is a synchronous standby', 'sync');
wait_until($primary, 'SHOW synchronous_commit', 'and commits wait for it', 'on');
$last = $primary->safe_psql('postgres', 'SELECT max(global_position) FROM es.events');
$end = ends_of('es.Order');
$load = start_load($primary);
usleep(500_000);
$standby->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = ''});
$standby->promote;
ok($standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()'), 'the standby is promoted');
wait_for_relay($standby, 'orders', "$done AND lanes = 3");
$load->kill_kill;
end_load(start_load($standby));
$primary->safe_psql('postgres', $_)
  foreach 'ALTER SYSTEM SET synchronous_commit = local', q{ALTER SYSTEM SET synchronous_standby_names = ''},
  'SELECT pg_reload_conf()', q{SELECT count(es_append('Order', n::text, 'Placed')) FROM generate_series(31, 60) n};
wait_until($primary, q{SELECT count(*) FROM es_relay_lanes WHERE state = 'stopped'}, 'all lanes of the old primary stop', '3');
note($primary->safe_psql('postgres', 'SELECT lane, last_error FROM es_relay_lanes'));
wait_for_relay($standby, 'orders', $done);
check_kafka($standby, 'after the promotion', from => $last, skip => $end);

# --- a record of a later epoch of the first lane stops all ---

$standby->safe_psql('postgres', q{SELECT es_pause_relay('orders')});
wait_for_relay($standby, 'orders', 'pid IS NULL');
my @records = $kafka->messages($progress);
my %headers = (%{ $records[-1]{headers} }, epoch => $records[-1]{headers}{epoch} + 1);
my ($in, $err) = ("$records[-1]{key}\t{}\n", '');
IPC::Run::run([ 'kcat', '-P', '-b', $address, '-t', $progress, '-K', "\t", map { ('-H', "$_=$headers{$_}") } sort keys %headers ],
	'<', \$in, '>', '/dev/null', '2>', \$err)
  or die "kcat: $err";
$standby->safe_psql('postgres', q{SELECT es_resume_relay('orders')});
wait_until($standby, q{SELECT count(*) FROM es_relay_lanes WHERE state = 'stopped'}, 'a server that does not know of a change does not send', '3');
$end = ends_of('es.Order');
my $position = $standby->safe_psql('postgres', 'SELECT max(global_position) FROM es.events');
$standby->safe_psql('postgres', "SELECT es_seek_relay('orders', $position)");
end_load(start_load($standby));
wait_for_relay($standby, 'orders', $done);
check_kafka($standby, 'after a seek', from => $position, skip => $end);

unlike(PostgreSQL::Test::Utils::slurp_file($_->logfile), qr/PANIC|terminated by signal|TRAP/, 'no process crashed')
  foreach $primary, $standby;
$primary->stop('immediate');
$standby->stop;
done_testing();
