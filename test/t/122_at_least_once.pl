# A relay to a real RabbitMQ delivers each committed event, and the events of a stream in order but for those that
# come again, whatever fails: the broker is killed or short of memory, the worker is terminated, the server crashes,
# the network hangs, breaks and half-closes.  A promoted standby goes on, and the old primary, which still runs or
# comes back, sends nothing more.  An independent consumer reads everything.
#
# EVENTSRC_TORTURE=n makes it n times as long.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcRabbit;
use EventsrcTest;
use IPC::Run ();
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $torture = $ENV{EVENTSRC_TORTURE} || 1;
my $rabbit = new_rabbit();
my $proxy = new_proxy($rabbit->address);

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

# check_queue compares what came with what is committed in a server.
sub check_queue
{
	my ($node, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for_relay($node, 'orders', q{lag_events = 0 AND state = 'running'});
	my %expected = map { $_ => 1 } split /\n/, $node->safe_psql('postgres',
		q{SELECT aggregate_id || ' ' || version || ' ' || event_id || ' ' || global_position FROM es.events});
	my (%seen, %last, @unknown, @order);
	my $again = 0;
	foreach my $message ($rabbit->messages('orders', brief => 1))
	{
		my ($key, $version) = @$message;
		my $line = join ' ', @$message[ 0 .. 3 ];
		if ($seen{$line}++)
		{
			$again++;
			next;
		}
		push @unknown, $line if !$expected{$line};
		push @order, "$key: $version after " . ($last{$key} // 0) if $version != ($last{$key} // 0) + 1;
		$last{$key} = $version;
	}
	my @missing = grep { !$seen{$_} } sort keys %expected;
	cmp_ok(scalar keys %expected, '>', 500, sprintf('%s: %d events are committed', $what, scalar keys %expected));
	is_deeply([ @missing[ 0 .. ($#missing > 4 ? 4 : $#missing) ] ], [], "$what: none is missing");
	is_deeply(\@unknown, [], "$what: nothing came that is not committed");
	is_deeply(\@order, [], "$what: the order of each stream is kept, but for what came again");
	note("$what: $again messages came again");
	return;
}

# list_queues returns the names of all queues.
sub list_queues
{
	return join ' ', sort grep { $_ ne 'name' } split /\s+/, $rabbit->ctl('list_queues', 'name');
}

my $port = $proxy->port;
my $primary = new_node('primary0', standbys => 1, conf => "log_statement = none\nsynchronous_commit = local\n");
create_extension($primary);
$primary->safe_psql('postgres', <<"END");
SELECT es_create_store();
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc
	OPTIONS (type 'rabbitmq', host '127.0.0.1', port '$port', declare 'queues', queues 'orders', heartbeat '2', connect_timeout '3');
SELECT es_create_relay('orders', 'rabbit', 'orders');
END

# --- what can happen to one server and its broker, while events stream ---

my %mishaps = (
	'the broker is killed' => sub {
		$rabbit->kill9;
		$rabbit->start;
	},
	'the broker is short of memory' => sub {
		$rabbit->ctl('set_vm_memory_high_watermark', '0');
		usleep(500_000);
		$rabbit->ctl('set_vm_memory_high_watermark', 'absolute', '1GB');
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
		$proxy->tell('drop');
		usleep(4_000_000);
		$proxy->tell('cut');
	},
	'connections break' => sub {
		for (1 .. 3)
		{
			$proxy->tell('cut');
			usleep(200_000);
		}
	},
	'connections are half closed' => sub { $proxy->tell('half') },
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
		$primary->safe_psql('postgres', q{SELECT es_resume_relay('orders')});
		wait_for_relay($primary, 'orders', q{lag_events = 0 AND state = 'running'});
		note($mishap);
	}
	check_queue($primary, "round $round");
}
is(list_queues(), 'orders', 'as long as there is one timeline, no queue marks one as over');

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

# the old primary leaves off by itself; only then it commits what nobody else has
my $fenced = q{state = 'stopped' AND last_error LIKE 'another server sends in place of this one%'};
wait_for_relay($primary, 'orders', $fenced);
note($primary->safe_psql('postgres', 'SELECT last_error FROM es_relays'));
$primary->safe_psql('postgres', $_)
  foreach 'ALTER SYSTEM SET synchronous_commit = local', q{ALTER SYSTEM SET synchronous_standby_names = ''},
  'SELECT pg_reload_conf()', q{SELECT es_append('Order', 'ghost', 'Placed')};
wait_for_relay($primary, 'orders', 'lag_events > 0');
end_load($load);
check_queue($standby, 'after the promotion');

# the old primary comes back, and is asked to go on
$primary->stop('immediate');
$primary->start;
wait_for_relay($primary, 'orders', $fenced);
my $time = $primary->safe_psql('postgres', q{SELECT last_error_at FROM es_relays});
$primary->safe_psql('postgres', q{SELECT es_resume_relay('orders')});
wait_for_relay($primary, 'orders', "$fenced AND last_error_at > '$time'");
$load = start_load($standby);
end_load($load);
check_queue($standby, 'after the old primary came back');

# the promoted server goes on over crashes, too
$standby->stop('immediate');
$standby->start;
$load = start_load($standby);
end_load($load);
check_queue($standby, 'after a crash of the promoted server');

# who decides for the old primary removes the mark
my @marks = grep { $_ ne 'orders' } split / /, list_queues();
is(scalar @marks, 1, 'a queue marks a timeline as over');
like($marks[0], qr/^eventsrc\.over\..*\.1$/, 'the first');
$standby->stop;
$rabbit->ctl('delete_queue', $marks[0]);
$primary->safe_psql('postgres', q{SELECT es_resume_relay('orders')});
wait_for_relay($primary, 'orders', q{state = 'running' AND lag_events = 0});
is(scalar(grep { $_->[0] eq 'ghost' } $rabbit->messages('orders', brief => 1)), 1, 'without it the old primary sends again');
unlike(PostgreSQL::Test::Utils::slurp_file($_->logfile), qr/PANIC|terminated by signal|TRAP/, 'no process crashed')
  foreach $primary, $standby;

# --- a user who may only publish to an exchange: the relay works, the log says what is missing ---

$rabbit->bind('narrow', 'narrow', '#');
$rabbit->ctl('add_user', 'narrow', 'hush-hush');
$rabbit->ctl('set_permissions', 'narrow', '^$', '^narrow$', '^$');
$primary->safe_psql('postgres', <<"END");
SELECT es_drop_relay('orders');
CREATE SERVER narrow FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host '127.0.0.1', port '$port', exchange 'narrow');
CREATE USER MAPPING FOR CURRENT_USER SERVER narrow OPTIONS ("user" 'narrow', password 'hush-hush');
SELECT es_create_relay('orders', 'narrow');
END
wait_for_relay($primary, 'orders', q{state = 'running' AND lag_events = 0 AND sent > 500});
like(PostgreSQL::Test::Utils::slurp_file($primary->logfile),
	qr/relay "orders" at position \d+ is not protected from another server that took over: ACCESS_REFUSED/,
	'the log says that it is not fenced');

$primary->stop;
done_testing();
