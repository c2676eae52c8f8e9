# A relay to a real Kafka delivers each committed event exactly once and in order, whatever fails: the broker is
# killed, the worker is terminated, the server crashes, the network hangs, breaks and half-closes, a standby is
# promoted while the old primary still runs.  kcat reads what is committed, as any consumer would.
#
# EVENTSRC_TORTURE=n makes it n times as long.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use IPC::Run ();
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $torture = $ENV{EVENTSRC_TORTURE} || 1;
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $kafka = do
{
	local $ENV{KAFKA_PROXY} = $port;
	local $ENV{KAFKA_PROPERTIES} = "${PostgreSQL::Test::Utils::tmp_check}/kafka.properties";
	PostgreSQL::Test::Utils::append_to_file($ENV{KAFKA_PROPERTIES}, "num.partitions=3\n");
	new_kafka();
};

# start_proxy starts the proxy before Kafka's second door.
sub start_proxy
{
	chomp(my $behind = PostgreSQL::Test::Utils::slurp_file("$kafka->{folder}/behind"));
	my %proxy = (in => '', out => '', err => '');
	$proxy{run} = IPC::Run::start([ '/usr/bin/python3', "$FindBin::RealBin/tcp_proxy.py", "127.0.0.1:$behind", $port ],
		'<', \$proxy{in}, '>', \$proxy{out}, '2>', \$proxy{err});
	$proxy{run}->pump until $proxy{out} =~ /\n/;
	return \%proxy;
}

# order_proxy tells the proxy what to do.
sub order_proxy
{
	my ($proxy, $what) = @_;
	$proxy->{out} = '';
	$proxy->{in} .= "$what\n";
	$proxy->{run}->pump until $proxy->{out} =~ /ok\n/;
	return;
}

# start_load starts sessions that append, a tenth of it rolled back; they end by themselves, or with the server.
my $script = "${PostgreSQL::Test::Utils::tmp_check}/load.sql";
PostgreSQL::Test::Utils::append_to_file($script, <<'END');
\set stream random(1, 20)
\set fate random(1, 10)
BEGIN;
SELECT es_append('Order', (:stream)::text, 'Placed', '{"n": 1}');
\if :fate = 1
SELECT es_append('Order', (:stream)::text, 'RolledBack');
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
			'pgbench', '-n', '-c', '2', '-j', '1', '-R', '400', '-t', '700', '-f', $script,
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

# check_kafka compares what consumers see with what is committed in a server.
sub check_kafka
{
	my ($node, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for_relay($node, 'orders', q{lag_events = 0 AND state = 'running'});
	my %expected = map { $_ => 1 } split /\n/, $node->safe_psql('postgres',
		q{SELECT aggregate_id || ' ' || version || ' ' || event_id || ' ' || global_position FROM es.events});
	my (%seen, %last_position, %last_version, @twice, @unknown, @order);
	foreach my $message ($kafka->messages('es.Order'))
	{
		my ($partition, $key, $headers) = ($message->{partition}, $message->{key}, $message->{headers});
		my $line = join ' ', $key, $headers->{version}, $headers->{'event-id'}, $headers->{position};
		push @twice, $line if $seen{$line}++;
		push @unknown, $line if !$expected{$line};
		push @order, "partition $partition: $headers->{position} after $last_position{$partition}"
		  if $headers->{position} <= ($last_position{$partition} // 0);
		push @order, "$key: $headers->{version} after $last_version{$key}"
		  if $headers->{version} != ($last_version{$key} // 0) + 1;
		($last_position{$partition}, $last_version{$key}) = ($headers->{position}, $headers->{version});
	}
	my @missing = grep { !$seen{$_} } sort keys %expected;
	cmp_ok(scalar keys %expected, '>', 500, sprintf('%s: %d events are committed', $what, scalar keys %expected));
	is_deeply([ @missing[ 0 .. ($#missing > 4 ? 4 : $#missing) ] ], [], "$what: none is missing");
	is_deeply(\@twice, [], "$what: none came twice");
	is_deeply(\@unknown, [], "$what: nothing came that is not committed");
	is_deeply(\@order, [], "$what: the order is kept, in each partition and stream");
	return;
}

my $proxy = start_proxy();
my $primary = new_node('primary0', standbys => 1, conf => "log_statement = none\nsynchronous_commit = local\n");
create_extension($primary);
$primary->safe_psql('postgres', <<"END");
SELECT es_create_store();
CREATE SERVER kafka FOREIGN DATA WRAPPER eventsrc
	OPTIONS (type 'kafka', "bootstrap.servers" '127.0.0.1:$port', "socket.timeout.ms" '3000', "reconnect.backoff.max.ms" '500');
SELECT es_create_relay('orders', 'kafka');
END

# --- what can happen to one server and its broker, while events stream ---

my %mishaps = (
	'the broker is killed' => sub {
		$kafka->kill9;
		$kafka->start;
	},
	'the worker is terminated' => sub {
		$primary->safe_psql('postgres',
			q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'eventsrc relay'});
	},
	'the server crashes' => sub {
		$primary->stop('immediate');
		$primary->start;
	},
	'the network hangs' => sub {
		order_proxy($proxy, 'drop');
		usleep(4_000_000);
		order_proxy($proxy, 'cut');
	},
	'connections break' => sub {
		for (1 .. 3)
		{
			order_proxy($proxy, 'cut');
			usleep(200_000);
		}
	},
	'connections are half closed' => sub { order_proxy($proxy, 'half') },
);
wait_for_relay($primary, 'orders', q{state = 'running' AND pid IS NOT NULL});
foreach my $round (1 .. $torture)
{
	foreach my $mishap (shuffle(sort keys %mishaps))
	{
		my $load = start_load($primary);
		usleep(500_000 + int rand 1_000_000);
		$mishaps{$mishap}->();
		end_load($load);
		wait_for_relay($primary, 'orders', q{lag_events = 0 AND state = 'running'});
		note($mishap);
	}
	check_kafka($primary, "round $round");
}
cmp_ok($primary->safe_psql('postgres', q{SELECT count(*) FROM es.events WHERE event_type = 'RolledBack'}),
	'==', 0, 'rolled back events are not there');

# --- a standby takes over ---

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->append_conf('postgresql.conf', "primary_conninfo = '@{[ $primary->connstr ]} application_name=standby'");
$standby->start;
$primary->safe_psql('postgres', $_)
  foreach q{ALTER SYSTEM SET synchronous_standby_names = 'standby'}, 'ALTER SYSTEM SET synchronous_commit = on',
  'SELECT pg_reload_conf()';
wait_until($primary, q{SELECT sync_state FROM pg_stat_replication}, 'there is a synchronous standby', 'sync');
wait_until($primary, 'SHOW synchronous_commit', 'and commits wait for it', 'on');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eventsrc relay'}),
	'0', 'on a standby no relay runs');

my $load = start_load($primary);
usleep(1_000_000);
# the old primary goes on running; what it could not replicate is not acknowledged
$standby->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = ''});
$standby->promote;
ok($standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()'), 'the standby is promoted');
wait_for_relay($standby, 'orders', q{state = 'running' AND lag_events = 0});
$load->kill_kill;
$load = start_load($standby);
end_load($load);

# commits that wait for the lost standby hold the old primary's safe position back: let them go
$primary->safe_psql('postgres', $_)
  foreach 'ALTER SYSTEM SET synchronous_commit = local', q{ALTER SYSTEM SET synchronous_standby_names = ''},
  'SELECT pg_reload_conf()', q{SELECT es_append('Order', 'ghost', 'Placed')};
wait_for_relay($primary, 'orders', q{state = 'stopped' AND last_error LIKE 'another server sends in place of this one%'});
note($primary->safe_psql('postgres', 'SELECT last_error FROM es_relays'));
check_kafka($standby, 'after the promotion');

# the old primary comes back
$primary->stop('immediate');
$primary->start;
wait_for_relay($primary, 'orders', q{state = 'stopped' AND last_error LIKE 'another server sends in place of this one%'});
$load = start_load($standby);
end_load($load);
check_kafka($standby, 'after the old primary came back');
unlike(PostgreSQL::Test::Utils::slurp_file($_->logfile), qr/PANIC|terminated by signal|TRAP/, 'no process crashed')
  foreach $primary, $standby;
$primary->stop('immediate');

# --- a record that is not of this store's past stops the relay ---

$load = start_load($standby);
end_load($load);
wait_for_relay($standby, 'orders', q{lag_events = 0 AND state = 'running'});
my $position = $standby->safe_psql('postgres', 'SELECT max(global_position) FROM es.events');
$standby->safe_psql('postgres', q{SELECT es_pause_relay('orders')});
wait_for_relay($standby, 'orders', q{pid IS NULL});
my $topic = $standby->safe_psql('postgres',
	q{SELECT format('eventsrc.progress.%s.%s.%s', system_identifier, database, id) FROM eventsrc.relays});
my @records = $kafka->messages($topic);
is($records[-1]{headers}{position}, $position, 'the last record of the progress names the last event');
my $key = $records[-1]{key};
my $forge = sub {
	my (%change) = @_;
	my %headers = (%{ $records[-1]{headers} }, %change);
	my ($in, $err) = ("$key\t{}\n", '');
	IPC::Run::run([ 'kcat', '-P', '-b', $kafka->address, '-t', $topic, '-K', "\t", map { ('-H', "$_=$headers{$_}") } sort keys %headers ],
		'<', \$in, '>', '/dev/null', '2>', \$err)
	  or die "kcat: $err";
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

$standby->stop;
$proxy->{run}->kill_kill;
done_testing();
